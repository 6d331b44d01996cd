//! What the store kept, after a restart.

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::Txid;
use opening_core::Role;
use opening_signer::ChannelSetup;
use tokio::time::timeout;

use super::{Node, Openings, lock};
use crate::driver::signer::Signer;
use crate::failure::Failure;
use crate::negotiation::ready::ChannelFailure;
use crate::negotiation::{BroadcastPermit, Opened};
use crate::store::{StoreError, Stored};

/// A channel that was there before the restart, and what the node has to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Restored {
    /// This node funds it, and the funding transaction has not been seen in a block: it is to be
    /// broadcast, again if it was before.  Then as [`AwaitDepth`](Self::AwaitDepth); if it was a
    /// zero-conf channel, our `channel_ready` may be out.
    MayBroadcast {
        /// The channel; it holds the transaction, if the wallet showed it.
        opened: Arc<Opened>,
        /// Leave to broadcast.
        permit: BroadcastPermit,
    },
    /// The chain is to be watched for its funding transaction, and shown to
    /// [`Openings::confirmed`].
    AwaitDepth(Arc<Opened>),
    /// Our `channel_ready` was made, the peer's is awaited, which repeats it when it is back.  The
    /// chain is to be watched as before.
    AwaitChannelReady(Arc<Opened>),
    /// It had failed.
    Failed {
        /// The channel.
        opened: Arc<Opened>,
        /// Why, and what is to be done.
        failure: ChannelFailure,
    },
    /// One of a batch that was not saved whole: its transaction was never signed, and must never
    /// be.  The channel is forgotten.
    NeverBroadcast(Arc<Opened>),
    /// An entry that cannot be read.  The others are not affected.
    Damaged {
        /// Its name.
        key: String,
        /// What is wrong with it.
        error: StoreError,
    },
}

impl Restored {
    /// The channel, where its entry can be read.
    pub fn opened(&self) -> Option<&Arc<Opened>> {
        match self {
            Self::MayBroadcast { opened, .. }
            | Self::AwaitDepth(opened)
            | Self::AwaitChannelReady(opened)
            | Self::Failed { opened, .. }
            | Self::NeverBroadcast(opened) => Some(opened),
            Self::Damaged { .. } => None,
        }
    }
}

impl Openings {
    /// The openings of `node`, with every channel that its store keeps.
    pub async fn load(node: Node) -> Result<(Arc<Self>, Vec<Restored>), StoreError> {
        let openings = Arc::new(Self::empty(node));
        let deadline = openings.node.deadlines.store;
        let loading = timeout(deadline, openings.node.store.load_all()).await;
        let entries = loading.map_err(|_| StoreError::Silent(deadline))??;
        let (mut restored, mut channels) = (Vec::new(), Vec::new());
        for entry in entries {
            let channel_id = entry.channel_id();
            // Whatever is wrong with the entry: the outpoint belongs to a channel.
            openings.taken(channel_id);
            match entry.stored {
                Ok(stored) => channels.push(stored),
                Err(error) => {
                    lock(&openings.channels).damaged.extend(channel_id);
                    restored.push(Restored::Damaged { key: entry.key, error });
                }
            }
        }
        let whole: HashSet<Txid> = channels
            .iter()
            .filter(|stored| stored.progress.is_batch_saved)
            .map(|stored| stored.opened.parameters.funding_outpoint.txid)
            .collect();
        for stored in channels {
            restored.push(openings.restore(stored, &whole).await);
        }
        Ok((openings, restored))
    }

    /// The signer of an opened channel.  It is told each time what the channel is made of: a signer
    /// elsewhere may have been restarted without us, and forgotten it; or it has another secret by
    /// now, which it notices by the keys, and its points would be another channel's.
    pub(crate) async fn signer_set_up(&self, opened: &Opened) -> Result<Signer, Failure> {
        let signer =
            Signer::open(&*self.node.hsm, opened.reference, self.node.deadlines.signer).await?;
        let setup = ChannelSetup {
            parameters: opened.parameters.clone(),
            chain_hash: self.chain_hash(),
            local_shutdown_script: opened.local_shutdown_script.clone(),
            remote_shutdown_script: opened.remote_shutdown_script.clone(),
        };
        signer.setup(&setup).await?;
        Ok(signer)
    }

    async fn restore(self: &Arc<Self>, stored: Stored, whole: &HashSet<Txid>) -> Restored {
        let Stored { opened, progress } = stored;
        let opened = Arc::new(opened);
        let id = opened.channel_id;
        let txid = opened.parameters.funding_outpoint.txid;
        self.taken_short_channel_ids(progress.earlier_aliases.iter().copied());
        self.taken_short_channel_ids(progress.local.and_then(|local| local.alias));
        if !opened.batch.is_empty() && !whole.contains(&txid) {
            self.condemn(txid);
            if let Err(error) = self.node.store.remove(&id).await {
                // The next restart comes to the same end.
                log::error!("{id}: of a batch that is not whole: {error}");
            }
            self.forget_at_signer(opened.reference);
            return Restored::NeverBroadcast(opened);
        }
        self.take_in(opened.clone(), progress.clone());
        if !opened.batch.is_empty() && !progress.is_batch_saved {
            self.with(&id, |channel| channel.wait.batch_saved());
            if let Err(error) = self.write(id).await {
                log::error!("{id}: its batch is saved, but not marked so yet: {error}");
                self.note(id);
            }
        }
        let is_funder = opened.role() == Role::Funder;
        if let Some(failure) = progress.failed {
            Restored::Failed { opened, failure }
        } else if is_funder && !progress.was_confirmed {
            self.with(&id, |channel| channel.is_permitted_again = true);
            let permit = BroadcastPermit::again(&opened);
            Restored::MayBroadcast { opened, permit }
        } else if progress.local.is_some() {
            Restored::AwaitChannelReady(opened)
        } else {
            Restored::AwaitDepth(opened)
        }
    }
}

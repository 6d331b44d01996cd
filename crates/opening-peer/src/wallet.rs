//! A wallet that funds channels: what it is asked, and one opening with it from offer to broadcast.
//!
//! ```text
//! fund                        session                     wallet
//!  | -------- open --------->  |
//!  | <------ accepted -------  |
//!  | ------------------------ build ----------------------> |  coins reserved, nothing signed
//!  | ------ complete ------->  |
//!  | <- opened, permit ------  |                               the channel is saved
//!  | ------------------ sign_and_broadcast ---------------> |  again after a restart
//! ```
//!
//! A node whose wallet is a person with a PSBT calls the handles of [`crate::session`] itself.

use core::slice;
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::Transaction;
use opening_core::FundingOutput;

use crate::event::Failed;
use crate::failure::Stage;
use crate::funding::{FundingError, FundingTransaction};
use crate::negotiation::funder::Ask;
use crate::negotiation::{BroadcastPermit, Opened};
use crate::session::{CompleteError, PendingFunding, Session};

/// A wallet that pays for channels.
///
/// It needs no memory of its own for openings.  What was built and whose channel was not saved is
/// free after a restart.  What belongs to a saved channel is in the channel's record: the node
/// calls [`sign_and_broadcast`](Self::sign_and_broadcast) for it, before it builds anything else.
///
/// A call may be dropped while it is awaited.
#[async_trait]
pub trait Funding: Send + Sync + 'static {
    /// Builds one transaction that pays all of these outputs, each by an output of its own, and
    /// reserves what it spends: nothing else is to be built with the same coins.
    ///
    /// The transaction leaves this process unsigned or not at all, and its txid is final: native
    /// segwit inputs only.  At which feerate it pays is the wallet's choice.
    ///
    /// When the call is dropped, nobody will ask for [`release`](Self::release).
    async fn build(&self, outputs: &[FundingOutput]) -> Result<FundingTransaction, WalletError>;

    /// Signs what was built and broadcasts it.
    ///
    /// Called with the permit for `built`, which can be checked with
    /// [`FundingTransaction::is_permitted_by`]: the channel is saved, and the peer waits for this
    /// transaction and no other one.  A failure changes nothing about that, so the call may be
    /// repeated until it succeeds, also when the one before was dropped or did its part and could
    /// not say so.  A transaction that the network has already is a success.
    ///
    /// The process may have died since the permit was given.  Then `built` comes from the record
    /// (see [`FundingTransaction::of`]): a PSBT that shows none of the outputs it spends, which
    /// are the wallet's own, or an outpoint where nothing else was shown.
    async fn sign_and_broadcast(
        &self,
        permit: &BroadcastPermit,
        built: &FundingTransaction,
    ) -> Result<Transaction, WalletError>;

    /// No channel came of it, and none will: what was reserved is free again.  It was never
    /// signed, so nobody else can broadcast it.
    async fn release(&self, built: &FundingTransaction) -> Result<(), WalletError>;
}

/// An error of the wallet's own.
pub type WalletSource = Box<dyn std::error::Error + Send + Sync>;

/// Why the wallet did not do its part.  The peer reads none of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// What it has and has not reserved does not pay for it.
    #[error("the wallet has too few coins")]
    InsufficientFunds,
    /// It could not build the transaction for another reason.
    #[error("the wallet could not build the transaction")]
    Build(#[source] WalletSource),
    /// The permit is for another transaction: a bug on the node's side.
    #[error("the permit is not for this transaction")]
    NotPermitted,
    /// It could not sign every input.
    #[error("the wallet could not sign the transaction")]
    Sign(#[source] WalletSource),
    /// Signed, and the network did not take it, as far as the wallet knows.
    #[error("the wallet could not broadcast the transaction")]
    Broadcast(#[source] WalletSource),
    /// It could not free what it had reserved.
    #[error("the wallet could not release the transaction's inputs")]
    Release(#[source] WalletSource),
}

impl WalletError {
    /// A stable name for programs, kebab-case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InsufficientFunds => "wallet-insufficient-funds",
            Self::Build(_) => "wallet-build",
            Self::NotPermitted => "wallet-not-permitted",
            Self::Sign(_) => "wallet-sign",
            Self::Broadcast(_) => "wallet-broadcast",
            Self::Release(_) => "wallet-release",
        }
    }
}

/// Why [`fund`] did not end with a funding transaction on its way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FundError {
    /// The opening ended without a channel.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The wallet built nothing.  The opening is cancelled.
    #[error("there is no funding transaction")]
    Build(#[source] WalletError),
    /// What the wallet built does not fund the channel.  The opening is cancelled.
    #[error("the wallet's transaction does not fund the channel")]
    Unfit(#[source] FundingError),
    /// The channel is saved, and its funding transaction has not left.
    #[error("channel {} is saved and not funded yet", .0.opened.channel_id)]
    NotBroadcast(#[source] Box<NotBroadcast>),
}

impl FundError {
    /// A stable name for programs, kebab-case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Failed(failed) => failed.failure.code(),
            Self::Build(error) => error.code(),
            Self::Unfit(error) => error.code(),
            Self::NotBroadcast(not) => not.error.code(),
        }
    }
}

/// A saved channel whose funding transaction has not left, and all that it takes to call
/// [`Funding::sign_and_broadcast`] again.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotBroadcast {
    /// The channel.
    pub opened: Arc<Opened>,
    /// The leave to broadcast.
    pub permit: BroadcastPermit,
    /// What the wallet built.
    pub built: FundingTransaction,
    /// Why it has not left.
    #[source]
    pub error: WalletError,
}

/// Opens a channel and funds it; returns when the funding transaction is broadcast.
///
/// Dropping this before the permit cancels the opening, and nobody releases what the wallet has
/// reserved: the channel may just be on its way into the store.
pub async fn fund(
    session: &Session,
    ask: Ask,
    funding: &dyn Funding,
) -> Result<(Arc<Opened>, Transaction), FundError> {
    let mut pending = session.open(ask).await?.accepted().await?;
    let built = build(&mut pending, funding).await?;

    let (opened, permit) = match complete(pending, built.clone()).await {
        Ok(opened) => opened,
        Err(error) => {
            if error.ends_without_record() {
                release(funding, &built).await;
            }
            return Err(error);
        }
    };
    match funding.sign_and_broadcast(&permit, &built).await {
        Ok(transaction) => Ok((opened, transaction)),
        Err(error) => {
            let not_broadcast = NotBroadcast { opened, permit, built, error };
            Err(FundError::NotBroadcast(Box::new(not_broadcast)))
        }
    }
}

/// The wallet's transaction, unless the opening ends before it is there.
async fn build(
    pending: &mut PendingFunding,
    funding: &dyn Funding,
) -> Result<FundingTransaction, FundError> {
    let output = pending.needed().output.clone();
    tokio::select! {
        built = funding.build(slice::from_ref(&output)) => built.map_err(FundError::Build),
        failed = pending.ended() => Err(failed.into()),
    }
}

/// From the transaction to the permit.
async fn complete(
    pending: PendingFunding,
    built: FundingTransaction,
) -> Result<(Arc<Opened>, BroadcastPermit), FundError> {
    let mut signing = pending.complete(built).await.map_err(|(error, _)| match error {
        CompleteError::Funding(error) => FundError::Unfit(error),
        CompleteError::Failed(failed) => FundError::Failed(failed),
    })?;
    Ok(signing.opened().await?)
}

impl FundError {
    /// Whether no record of the channel can be there.
    fn ends_without_record(&self) -> bool {
        match self {
            Self::Build(_) | Self::Unfit(_) => true,
            // Of a session that is gone without a word nobody knows what it did: its stage is Keys.
            Self::Failed(failed) => failed.stage != Stage::Keys,
            Self::NotBroadcast(_) => false,
        }
    }
}

async fn release(funding: &dyn Funding, built: &FundingTransaction) {
    if let Err(error) = funding.release(built).await {
        log::warn!("funding transaction {} is not released: {error}", built.txid());
    }
}

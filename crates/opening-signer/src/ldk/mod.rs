//! Signers of the LDK world as an [`Hsm`](crate::Hsm), and a channel in the types of LDK.
//!
//! [`LdkHsm`] takes any `SignerProvider`: `KeysManager`, or what an LDK node has in its place.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> opening_signer::HsmResult<()> {
//! use std::sync::Arc;
//!
//! use bitcoin::secp256k1::PublicKey;
//! use lightning::sign::KeysManager;
//! use opening_signer::ldk::LdkHsm;
//! use opening_signer::{ChannelRef, Hsm};
//!
//! let keys = Arc::new(KeysManager::new(&[7; 32], 1_700_000_000, 0, true));
//! let hsm = LdkHsm::new(keys);
//! # let peer = bitcoin::secp256k1::SecretKey::from_slice(&[8; 32]).expect("a key");
//! # let peer = PublicKey::from_secret_key(&bitcoin::secp256k1::Secp256k1::new(), &peer);
//! let channel = hsm.channel(ChannelRef { peer, dbid: 1 }).await?;
//! channel.pubkeys().await?;
//! # Ok(())
//! # }
//! ```

mod hsm;
mod types;

pub use hsm::{LdkHsm, channel_keys_id};
pub use types::{channel_public_keys, channel_transaction_parameters, commitment_transaction};

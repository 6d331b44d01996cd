//! What the example programs share.

pub mod chain;
pub mod control;
pub mod custom_signer;
pub mod demo;
pub mod hsmd;
pub mod ldk_node;
pub mod ldk_peer_manager;
pub mod lock;
pub mod logging;
pub mod our_node;
pub mod secret_file;
pub mod signers;
pub mod wallet;

//! Signers in other processes and on other machines, and serving one to them.

mod codec;
mod frame;

//! The signer boundary of Lightning channel establishment.

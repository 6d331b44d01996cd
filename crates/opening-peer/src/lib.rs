//! The message flow of Lightning channel establishment.

//! Signers of the LDK world.

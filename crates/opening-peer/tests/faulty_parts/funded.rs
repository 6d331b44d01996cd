//! Openings with a wallet that goes wrong.

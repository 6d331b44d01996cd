//! The two ends of a channel, as this node sees them.

/// Whose: ours or the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This node.
    Local,
    /// The peer.
    Remote,
}

impl Side {
    /// The other end.
    pub const fn other(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
        }
    }
}

/// The part a node plays in the message flow of channel establishment v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sends `open_channel`, pays the funding transaction and the commitment fee.
    Funder,
    /// Answers with `accept_channel`.
    Fundee,
}

impl Role {
    /// Which side opens, when this node plays `self`.
    pub const fn opener(self) -> Side {
        match self {
            Self::Funder => Side::Local,
            Self::Fundee => Side::Remote,
        }
    }

    /// The role's name as the BOLT writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Funder => "funder",
            Self::Fundee => "fundee",
        }
    }
}

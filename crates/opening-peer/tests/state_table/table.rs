//! The table.

use Message::*;
use Outcome::*;

/// Where the node stands when the message comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Nothing is pending: the fundee's begin.
    Nothing,
    /// Funder: `open_channel` is out.
    AcceptChannel,
    /// Funder: the wallet is at work.
    Funding,
    /// Funder: the signer is at work.
    Signature,
    /// Funder: `funding_created` is out.
    FundingSigned,
    /// Funder: `funding_signed` is here, the signer is at work.
    Validation,
    /// Fundee: the policy is at work.
    Decision,
    /// Fundee: `accept_channel` is out.
    FundingCreated,
    /// Fundee: the signer is at work.
    Commitments,
    /// The store is at work.
    Save,
    /// The channel is saved and waits for depth.
    Depth,
    /// Both `channel_ready` have passed.
    Ready,
}

/// What the peer sends, about the opening of the column where it is about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Open,
    Accept,
    Created,
    Signed,
    ChannelReady,
    Shutdown,
    Reestablish,
    UpdateAddHtlc,
    Error,
    ErrorForAll,
    Warning,
    Init,
    Ping,
    Pong,
    UnknownOdd,
    UnknownEven,
    Gossip,
    Custom,
    InvalidKey,
    Truncated,
}

impl Message {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Open => "`open_channel`",
            Accept => "`accept_channel`",
            Created => "`funding_created`",
            Signed => "`funding_signed`",
            ChannelReady => "`channel_ready`",
            Shutdown => "`shutdown`",
            Reestablish => "`channel_reestablish`",
            UpdateAddHtlc => "`update_add_htlc`, and what else an open channel has",
            Error => "`error` for it",
            ErrorForAll => "`error` for all channels",
            Warning => "`warning` for it",
            Init => "a second `init`",
            Ping => "`ping`",
            Pong => "`pong`",
            UnknownOdd => "unknown odd type",
            UnknownEven => "unknown even type",
            Gossip => "gossip",
            Custom => "custom type that the node knows",
            InvalidKey => "`channel_ready` with an invalid key",
            Truncated => "truncated `shutdown`",
        }
    }
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is what the state waits for.
    Next,
    /// The opening ends, and the peer is told by `error`.
    Fails,
    /// The opening ends as the peer wants it.
    Ended,
    /// Every opening ends as the peer wants it, and the node gets the message for its channels.
    AllEnded,
    /// An opening of the peer's begins, with the same temporary id in the other direction, or
    /// after the id is free again.
    Begins,
    /// `error` for the id of the message, which names nothing.
    Refused,
    /// `warning` for the id of the message: what it names lives on.
    Warned,
    /// Nothing happens.
    Ignored,
    /// The node is told of it by an event.
    Reported,
    /// The node gets the message as it came.
    Handed,
    /// It waits until the channel is saved.
    Kept,
    /// Like `Handed`, and once more when the channel is saved.
    HandedKept,
    /// Like `Handed`, and the channel fails.
    FailsChannel,
    /// Our `channel_ready` goes out again.
    SaidAgain,
    /// `pong`.
    Answered,
    /// The connection is closed, and with it ends what is not being saved.
    Closed,
    /// Like `Fails`, then the connection is closed.
    FailsClosed,
    /// Like `Refused`, then the connection is closed.
    RefusedClosed,
    /// Like `Warned`, then the connection is closed.
    WarnedClosed,
}

impl Outcome {
    pub(crate) const ALL: [Self; 19] = [
        Next,
        Fails,
        Ended,
        AllEnded,
        Begins,
        Refused,
        Warned,
        Ignored,
        Reported,
        Handed,
        Kept,
        HandedKept,
        FailsChannel,
        SaidAgain,
        Answered,
        Closed,
        FailsClosed,
        RefusedClosed,
        WarnedClosed,
    ];

    /// As it stands in a cell, and what that means.
    pub(crate) fn text(self) -> (&'static str, &'static str) {
        match self {
            Next => ("next", "It is what the stage waits for, and is judged."),
            Fails => (
                "**error**",
                "The opening ends; `error` goes out for it (B1-ERR-S-02, B1-ERR-S-03).",
            ),
            Ended => ("ended", "The opening ends; nothing goes out."),
            AllEnded => (
                "all ended",
                "Every opening that is not being saved ends; nothing goes out; the rest of the node gets the message for the channels that exist.",
            ),
            Begins => (
                "begins",
                "An opening of the peer's begins. The one of the column, if it is pending, is another one and goes on (B2-CID-B-03).",
            ),
            Refused => ("error", "`error` for the id in the message; no opening has it."),
            Warned => (
                "warning",
                "`warning` for the id in the message; the channel that is saved, or about to be, lives on.",
            ),
            Ignored => ("–", "Nothing happens."),
            Reported => ("reported", "The node is told by an event; nothing else happens."),
            Handed => ("node", "The rest of the node gets the message as it came."),
            Kept => (
                "kept",
                "It waits for the save, and then has the result that it has for an opened channel. An `error` is reported at once, too.",
            ),
            HandedKept => (
                "node, kept",
                "The rest of the node gets it, for the channels that exist, and once more when this one does.",
            ),
            FailsChannel => (
                "channel fails",
                "The opened channel fails, as the node is told by an event with what it has to do; the rest of the node gets the message.",
            ),
            SaidAgain => ("again", "Our `channel_ready` goes out again (B2-RE-R-02)."),
            Answered => ("pong", "`pong`, if the `ping` asks for less than 65532 bytes."),
            Closed => ("closed", "The connection is closed. What is not being saved ends with it."),
            FailsClosed => (
                "**error**, closed",
                "The opening ends; `error` goes out for it; then the connection is closed.",
            ),
            RefusedClosed => (
                "error, closed",
                "`error` for the id in the message; then the connection is closed.",
            ),
            WarnedClosed => (
                "warning, closed",
                "`warning` for the id in the message; then the connection is closed.",
            ),
        }
    }
}

pub(crate) type Table<const COLUMNS: usize> =
    ([State; COLUMNS], [(Message, [Outcome; COLUMNS]); 20]);

#[rustfmt::skip]
pub(crate) const FUNDER: Table<8> = (
    [State::AcceptChannel, State::Funding, State::Signature, State::FundingSigned, State::Validation, State::Save, State::Depth, State::Ready],
    [
        (Open,          [Begins,      Begins,      Begins,      Begins,      Begins,      Begins,       Begins,       Begins]),
        (Accept,        [Next,        Fails,       Fails,       Fails,       Fails,       Warned,       Refused,      Refused]),
        (Created,       [Fails,       Fails,       Fails,       Fails,       Fails,       Warned,       Refused,      Refused]),
        (Signed,        [Fails,       Fails,       Fails,       Next,        Fails,       Warned,       Handed,       Handed]),
        (ChannelReady,  [Fails,       Fails,       Fails,       Fails,       Kept,        Kept,         Next,         Handed]),
        (Shutdown,      [Fails,       Fails,       Fails,       Fails,       Kept,        Kept,         Handed,       Handed]),
        (Reestablish,   [Fails,       Fails,       Fails,       Fails,       Fails,       Warned,       Ignored,      SaidAgain]),
        (UpdateAddHtlc, [Fails,       Fails,       Fails,       Fails,       Fails,       Warned,       Handed,       Handed]),
        (Error,         [Ended,       Ended,       Ended,       Ended,       Ended,       Kept,         FailsChannel, FailsChannel]),
        (ErrorForAll,   [AllEnded,    AllEnded,    AllEnded,    AllEnded,    AllEnded,    HandedKept,   FailsChannel, FailsChannel]),
        (Warning,       [Reported,    Reported,    Reported,    Reported,    Reported,    Reported,     Handed,       Handed]),
        (Init,          [Ignored,     Ignored,     Ignored,     Ignored,     Ignored,     Ignored,      Ignored,      Ignored]),
        (Ping,          [Answered,    Answered,    Answered,    Answered,    Answered,    Answered,     Answered,     Answered]),
        (Pong,          [Ignored,     Ignored,     Ignored,     Ignored,     Ignored,     Ignored,      Ignored,      Ignored]),
        (UnknownOdd,    [Ignored,     Ignored,     Ignored,     Ignored,     Ignored,     Ignored,      Ignored,      Ignored]),
        (UnknownEven,   [Closed,      Closed,      Closed,      Closed,      Closed,      Closed,       Closed,       Closed]),
        (Gossip,        [Handed,      Handed,      Handed,      Handed,      Handed,      Handed,       Handed,       Handed]),
        (Custom,        [Handed,      Handed,      Handed,      Handed,      Handed,      Handed,       Handed,       Handed]),
        (InvalidKey,    [Fails,       Fails,       Fails,       Fails,       Fails,       Warned,       Warned,       Warned]),
        (Truncated,     [FailsClosed, FailsClosed, FailsClosed, FailsClosed, FailsClosed, WarnedClosed, WarnedClosed, WarnedClosed]),
    ],
);

#[rustfmt::skip]
pub(crate) const FUNDEE: Table<7> = (
    [State::Nothing, State::Decision, State::FundingCreated, State::Commitments, State::Save, State::Depth, State::Ready],
    [
        (Open,          [Next,          Fails,       Fails,       Fails,       Warned,       Begins,       Begins]),
        (Accept,        [Refused,       Fails,       Fails,       Fails,       Warned,       Refused,      Refused]),
        (Created,       [Refused,       Fails,       Next,        Fails,       Warned,       Refused,      Refused]),
        (Signed,        [Refused,       Fails,       Fails,       Fails,       Warned,       Handed,       Handed]),
        (ChannelReady,  [Refused,       Fails,       Fails,       Fails,       Warned,       Next,         Handed]),
        (Shutdown,      [Refused,       Fails,       Fails,       Kept,        Kept,         Handed,       Handed]),
        (Reestablish,   [Refused,       Fails,       Fails,       Fails,       Warned,       Ignored,      SaidAgain]),
        (UpdateAddHtlc, [Refused,       Fails,       Fails,       Fails,       Warned,       Handed,       Handed]),
        (Error,         [Ignored,       Ended,       Ended,       Ended,       Kept,         FailsChannel, FailsChannel]),
        (ErrorForAll,   [Handed,        AllEnded,    AllEnded,    AllEnded,    HandedKept,   FailsChannel, FailsChannel]),
        (Warning,       [Reported,      Reported,    Reported,    Reported,    Reported,     Handed,       Handed]),
        (Init,          [Ignored,       Ignored,     Ignored,     Ignored,     Ignored,      Ignored,      Ignored]),
        (Ping,          [Answered,      Answered,    Answered,    Answered,    Answered,     Answered,     Answered]),
        (Pong,          [Ignored,       Ignored,     Ignored,     Ignored,     Ignored,      Ignored,      Ignored]),
        (UnknownOdd,    [Ignored,       Ignored,     Ignored,     Ignored,     Ignored,      Ignored,      Ignored]),
        (UnknownEven,   [Closed,        Closed,      Closed,      Closed,      Closed,       Closed,       Closed]),
        (Gossip,        [Handed,        Handed,      Handed,      Handed,      Handed,       Handed,       Handed]),
        (Custom,        [Handed,        Handed,      Handed,      Handed,      Handed,       Handed,       Handed]),
        (InvalidKey,    [Refused,       Fails,       Fails,       Fails,       Warned,       Warned,       Warned]),
        (Truncated,     [RefusedClosed, FailsClosed, FailsClosed, FailsClosed, WarnedClosed, WarnedClosed, WarnedClosed]),
    ],
);

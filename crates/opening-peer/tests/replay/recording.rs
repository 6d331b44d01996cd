//! The recordings, and how one is read.

/// Descriptors of openingd.
pub(crate) const LIGHTNINGD: u8 = 0;
pub(crate) const PEER: u8 = 3;
pub(crate) const HSMD: u8 = 4;

/// The log lines among the status messages.
const STATUS_LOG: u16 = 65520;

/// One open, seen by the openingd of each side.
pub(crate) struct Pair {
    pub(crate) name: &'static str,
    pub(crate) funder: &'static str,
    pub(crate) fundee: &'static str,
    /// The number of the channel, where the secrets of the nodes are known.
    pub(crate) dbid: Option<u64>,
}

macro_rules! pair {
    ($name:literal, $funder:literal, $fundee:literal, $dbid:expr) => {
        Pair {
            name: $name,
            funder: include_str!(concat!("../recordings/openingd-v26.06.6/", $funder, ".msgs")),
            fundee: include_str!(concat!("../recordings/openingd-v26.06.6/", $fundee, ".msgs")),
            dbid: $dbid,
        }
    };
}

/// 1,000,000 sat, anchors, nothing pushed.
pub(crate) const PLAIN: Pair = pair!("plain", "funder", "fundee", None);

/// Without anchors.
pub(crate) const STATIC_REMOTEKEY: Pair =
    pair!("static-remotekey", "static-remotekey-funder", "static-remotekey-fundee", Some(2));

/// 200,000 sat pushed.
pub(crate) const PUSH: Pair = pair!("push", "push-funder", "push-fundee", Some(3));

/// With an upfront shutdown script of the funder's.
pub(crate) const CLOSE_TO: Pair = pair!("close-to", "close-to-funder", "close-to-fundee", Some(4));

/// Too small for the fundee.
pub(crate) const REFUSED_CAPACITY: Pair =
    pair!("refused-capacity", "refused-capacity-funder", "refused-capacity-fundee", Some(8));

/// Those that end with a channel.
pub(crate) const OPENED: [Pair; 4] = [PLAIN, STATIC_REMOTEKEY, PUSH, CLOSE_TO];

/// Who wrote a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Read,
    Written,
}

#[derive(Debug)]
struct Frame {
    descriptor: u8,
    direction: Direction,
    type_number: u16,
    /// From the type number on.
    bytes: Vec<u8>,
}

/// All that one openingd read and wrote.
pub(crate) struct Recording {
    frames: Vec<Frame>,
}

impl Recording {
    pub(crate) fn parse(text: &str) -> Self {
        let frames = text.lines().filter(|line| !line.contains("SCM_RIGHTS"));
        Self { frames: frames.map(Frame::parse).collect() }
    }

    /// The only message of this type that openingd wrote there.
    pub(crate) fn written(&self, descriptor: u8, type_number: u16) -> &[u8] {
        self.only(descriptor, Direction::Written, type_number)
    }

    /// The only message of this type that openingd read there.
    pub(crate) fn read(&self, descriptor: u8, type_number: u16) -> &[u8] {
        self.only(descriptor, Direction::Read, type_number)
    }

    /// What it told its log.
    pub(crate) fn log(&self) -> String {
        let lines = self.frames.iter().filter(|frame| frame.type_number == STATUS_LOG);
        lines.map(|frame| String::from_utf8_lossy(&frame.bytes) + "\n").collect()
    }

    fn only(&self, descriptor: u8, direction: Direction, type_number: u16) -> &[u8] {
        let mut found = self.frames.iter().filter(|frame| {
            (frame.descriptor, frame.direction, frame.type_number)
                == (descriptor, direction, type_number)
        });
        match (found.next(), found.next()) {
            (Some(frame), None) => &frame.bytes,
            (first, _) => {
                let number = if first.is_none() { "no" } else { "more than one" };
                panic!("{number} message {type_number} {direction:?} on fd{descriptor}");
            }
        }
    }
}

impl Frame {
    fn parse(line: &str) -> Self {
        let [descriptor, direction, "type", type_number, "len", length, hex] =
            line.split(' ').collect::<Vec<_>>()[..]
        else {
            panic!("not a frame: {line}");
        };
        let frame = Self {
            descriptor: descriptor.strip_prefix("fd").unwrap().parse().unwrap(),
            direction: match direction {
                "<" => Direction::Read,
                ">" => Direction::Written,
                _ => panic!("no direction: {line}"),
            },
            type_number: type_number.parse().unwrap(),
            bytes: hex::decode(hex).unwrap(),
        };
        assert_eq!(frame.bytes.len(), length.parse::<usize>().unwrap(), "{line}");
        assert_eq!(frame.bytes[..2], frame.type_number.to_be_bytes(), "{line}");
        frame
    }
}

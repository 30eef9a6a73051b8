//! What rules use besides fields and verdicts: rates, logs, and elements that packets add.
//!
//! Their state (tokens left, packets counted, elements added) is the kernel's and no part of a value.

use std::fmt;
use std::time::Duration;

use super::{Data, Field};

/// A rate (nft(8), LIMIT STATEMENT): the rule goes on while it is not exceeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub rate: u64,
    /// Of what.
    pub unit: RateUnit,
    /// In which time.
    pub per: Per,
    /// How many more at once, packets or bytes; 5 packets or no bytes where nobody says.
    pub burst: u32,
    /// `over`: the rule goes on while it *is* exceeded.
    pub over: bool,
}

/// What a [`Limit`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateUnit {
    /// Packets.
    Packets,
    /// Bytes, headers of layer 3 and above included.
    Bytes,
}

/// The time of a [`Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
    /// 86,400 s.
    Day,
    /// 604,800 s.
    Week,
}

impl Per {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Second,
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Week,
    ];

    /// In seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 604_800,
        }
    }
}

impl Limit {
    /// So many packets in this time, and a burst of 5.
    #[must_use]
    pub const fn packets(rate: u64, per: Per) -> Self {
        Self {
            rate,
            unit: RateUnit::Packets,
            per,
            burst: Self::PACKET_BURST,
            over: false,
        }
    }

    pub(super) const PACKET_BURST: u32 = 5;
}

/// `log …`: tell about the packet, and go on (nft(8), LOG STATEMENT).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The nfnetlink_log group that is told; without one, the kernel's log.
    pub group: Option<u16>,
    /// What each message begins with; at most 127 bytes.
    pub prefix: Option<String>,
    /// How many bytes of the packet are passed on; 0 for all. Only with a group.
    pub snaplen: u32,
    /// How many packets the kernel collects before it tells; 0 for its own choice. Only with a group.
    pub queue_threshold: u16,
}

/// What makes the elements of a set the kernel's: rules add them, and time takes them away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// How many there can be; beyond, an `update` ends its rule.
    pub size: u32,
    /// `flags timeout`, and how long an element stays where the rule says nothing, in whole
    /// seconds: the kernel rounds to its own ticks.
    pub timeout: Option<Duration>,
}

/// `update @SET { … }`: add an element made of the packet, or let the one that is there stay longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The set or map, one with [`Dynamic`].
    pub set: String,
    /// What the key is made of.
    pub key: Vec<Field>,
    /// How long it stays, in whole seconds; without, as long as the set says.
    pub timeout: Option<Duration>,
    /// What it maps to.
    pub data: NewData,
}

/// The data of an element that an [`Update`] adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewData {
    /// Of a set.
    None,
    /// The same for all.
    Fixed(Data),
    /// What the packet has in these fields.
    Fields(Vec<Field>),
}

/// A time as `nft` prints it: `3h`, `1m30s`, `1s500ms`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(self.0.subsec_millis()), "ms"),
        ];
        for (number, unit) in parts.iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        match self.0.as_millis() {
            0 => f.write_str("0s"),
            _ => Ok(()),
        }
    }
}

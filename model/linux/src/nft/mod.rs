//! nf_tables as plain data: tables of chains, rules, sets and maps.
//!
//! The same value is executed into the kernel (by the kernel edge, over netlink), printed as `nft`
//! prints it ([`render`]), compared with what the kernel holds ([`diff()`]) and evaluated for a packet
//! ([`evaluate()`]). Names are nft(8)'s.
//!
//! ```text
//!   Table ip parfait
//!    ├─ Set  services   ip daddr . meta l4proto . th dport : verdict
//!    └─ Chain prerouting (type nat hook prerouting priority dstnat)
//!        └─ Rule  ip daddr . meta l4proto . th dport vmap @services
//! ```
//!
//! IPv4 and IPv6 are one code path: [`Field::Saddr`] is `ip saddr` in a table of family `ip` and
//! `ip6 saddr` in one of `ip6`.
//!
//! [`Value`]s have one canonical form each ([`canonical`]): what the kernel holds is read back in it.
//!
//! Deliberately absent: what Parfait does not program itself (flowtables, quotas, queues, …).
//! Where another program's ruleset has it, it is kept as [`Statement::Opaque`], and a packet that
//! could be decided by it is answered with "unknown", never with a guess.

mod build;
mod canonical;
pub mod compare;
pub mod diff;
pub mod evaluate;
mod extra;
mod phases;
pub mod render;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use parfait_packet::Origin;

pub use build::join;
pub use canonical::canonical;
pub use compare::compare;
pub use diff::{NftStep, diff};
pub use evaluate::{AddressType, Branch, Context, End, Trace, evaluate};
pub use extra::{Dynamic, Limit, Log, NewData, Per, RateUnit, Update};
pub use phases::phases;

/// Tables by family and name: what one network namespace holds.
pub type Tables = BTreeMap<(Family, String), Table>;

/// The family of a table (nft(8), ADDRESS FAMILIES).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 packets.
    Ip,
    /// IPv6 packets.
    Ip6,
    /// Both.
    Inet,
}

/// One table. Parfait owns `ip parfait` and `ip6 parfait` and touches no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// Sets, maps and verdict maps, by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains, by name.
    pub chains: BTreeMap<String, Chain>,
    /// Counters that rules share, by name. What they have counted is not part of the value.
    pub counters: BTreeSet<String>,
    /// Limits that rules share, by name.
    pub limits: BTreeMap<String, Limit>,
}

/// A set; a map, if its elements carry data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The concatenated fields that a look-up builds its key from.
    pub key: Vec<Field>,
    /// What an element maps to.
    pub data: DataType,
    /// Whether keys are ranges or prefixes (`flags interval`).
    pub interval: bool,
    /// `flags dynamic`: rules add elements. Those are the kernel's: `diff` leaves them alone.
    pub dynamic: Option<Dynamic>,
    /// The elements, by key.
    pub elements: BTreeMap<Key, Element>,
}

/// What the elements of a [`Set`] carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataType {
    /// Nothing: a set.
    None,
    /// A verdict: a verdict map.
    Verdict,
    /// An address and a port: the target of a `dnat` (`: ip daddr . th dport`).
    Target,
    /// An address: the source that a `snat` gives (`: ip saddr`).
    Address,
    /// A priority of the packet (`: meta priority`).
    Priority,
}

/// An element's key: one [`Value`] for each field of the set.
pub type Key = Vec<Value>;

/// One element of a [`Set`].
#[derive(Clone, Debug)]
pub struct Element {
    /// What it maps to.
    pub data: Data,
    /// What it exists for; written to the kernel as the element's comment.
    pub origin: Option<Origin>,
}

/// The data of one [`Element`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Of a set.
    None,
    /// Of a verdict map.
    Verdict(Verdict),
    /// Of a map to `dnat` targets.
    Target(IpAddr, u16),
    /// Of a map to `snat` sources.
    Address(IpAddr),
    /// Of a map to priorities.
    Priority(u32),
}

/// What a rule can look at (nft(8), PAYLOAD, META, CT and NUMGEN EXPRESSIONS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `ip saddr` or `ip6 saddr`, by the table's family.
    Saddr,
    /// `ip daddr` or `ip6 daddr`.
    Daddr,
    /// `meta l4proto`.
    L4Proto,
    /// `th sport`.
    Sport,
    /// `th dport`.
    Dport,
    /// `meta iifname`.
    Iifname,
    /// `meta oifname`.
    Oifname,
    /// `meta mark`: the packet's.
    Mark,
    /// `ct mark`: the connection's.
    CtMark,
    /// `meta priority`: the packet's, which queueing disciplines read as `MAJOR:MINOR`.
    Priority,
    /// `numgen random mod N`.
    NumgenRandom(u32),
    /// `icmp type`; echo requests are 8. Must come behind `meta l4proto icmp`.
    IcmpType,
    /// `icmpv6 type`; echo requests are 128. Must come behind `meta l4proto ipv6-icmp`.
    Icmpv6Type,
    /// `ct original ip daddr` or `ct original ip6 daddr`, by the table's family: where the
    /// connection's first packet went before it was translated.
    CtOriginalDaddr,
    /// `ct original proto-dst`: the port that it went to. `nft` reads it only behind a match of
    /// `meta l4proto`, and not in a concatenation.
    CtOriginalDport,
    /// `ct state`, a bit mask: invalid 1, established 2, related 4, new 8, untracked 64.
    CtState,
    /// `ct status`, a bit mask of linux/netfilter/nf_conntrack_common.h: snat 16, dnat 32.
    CtStatus,
    /// `fib daddr type`: unicast 1, local 2, broadcast 3, multicast 5.
    FibDaddrType,
    /// `fib saddr type`.
    FibSaddrType,
    /// `ct direction`: original 0, reply 1.
    CtDirection,
    /// `meta nfproto`: ipv4 2, ipv6 10. Only needed in tables of family `inet`, where it must come
    /// before an address is looked at.
    NfProto,
}

/// One value of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// An address.
    Address(IpAddr),
    /// All addresses of a prefix (needs `flags interval` in a set).
    Prefix(ipnet::IpNet),
    /// A protocol number.
    Protocol(u8),
    /// A port.
    Port(u16),
    /// The ports from the first to the last (needs `flags interval` in a set).
    Ports(u16, u16),
    /// An interface name; a trailing `*` matches any ending.
    Ifname(String),
    /// Any other number: a mark, a priority, a `numgen` result, a `fib` type, a mask of `ct` bits.
    Number(u32),
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel calls it; `None` for a chain that only rules jump to.
    pub hook: Option<BaseChain>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where and how the kernel calls a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// `filter`, `nat` or `route`.
    pub kind: ChainType,
    /// The hook.
    pub hook: Hook,
    /// Lower is earlier: dstnat −100, filter 0, srcnat 100.
    pub priority: i32,
    /// What happens to a packet no rule decides on.
    pub policy: Policy,
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    /// Filters packets.
    Filter,
    /// Sets up NAT; sees only the first packet of a connection.
    Nat,
    /// Reroutes packets when headers change.
    Route,
}

/// Netfilter's hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// All incoming packets, before routing.
    Prerouting,
    /// Packets to this node.
    Input,
    /// Packets through this node.
    Forward,
    /// Packets of this node.
    Output,
    /// All outgoing packets, after routing.
    Postrouting,
}

/// A base chain's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Let it pass on.
    Accept,
    /// Drop it.
    Drop,
}

/// One rule: its statements are run from left to right until one does not match.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Matches and actions, in order.
    pub statements: Vec<Statement>,
    /// What it exists for; written to the kernel as the rule's comment.
    pub origin: Option<Origin>,
}

/// One statement of a rule (nft(8), STATEMENTS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Go on if the fields are (or with `negated`, are not) what the operand says.
    Match {
        /// The fields; more than one makes a concatenation.
        fields: Vec<Field>,
        /// `!=`.
        negated: bool,
        /// What they are compared with.
        operand: Operand,
    },
    /// `FIELDS vmap @MAP`: do what the element says; go on if there is none.
    Vmap {
        /// The fields of the key.
        fields: Vec<Field>,
        /// The verdict map.
        map: String,
    },
    /// `dnat to FIELDS map @MAP`: rewrite the destination to the element's target; go on to the next
    /// rule if there is none.
    DnatMap {
        /// The fields of the key.
        fields: Vec<Field>,
        /// The map.
        map: String,
    },
    /// `dnat to ADDRESS:PORT`.
    Dnat(IpAddr, u16),
    /// `dnat to ADDRESS`: the port stays.
    DnatAddress(IpAddr),
    /// `redirect` or `redirect to :PORT`: to this node itself.
    Redirect(Option<u16>),
    /// `snat to ADDRESS`: rewrite the source address; the port is kept if it is free there.
    Snat {
        /// The new source.
        address: IpAddr,
        /// `fully-random`: choose the source port at random.
        fully_random: bool,
    },
    /// `snat to FIELDS map @MAP`: rewrite the source address to the element's; go on to the next rule
    /// if there is none.
    SnatMap {
        /// The fields of the key.
        fields: Vec<Field>,
        /// The map.
        map: String,
        /// `fully-random`: choose the source port at random.
        fully_random: bool,
    },
    /// `meta mark set …` or `ct mark set …`: write a mark, and go on.
    SetMark(Mark, NewMark),
    /// `meta priority set …`: write the packet's priority, and go on.
    SetPriority(NewPriority),
    /// `masquerade fully-random` (or without): rewrite the source to the outgoing interface's address.
    Masquerade {
        /// Choose the source port at random.
        fully_random: bool,
    },
    /// `notrack`: the packet is of no connection, so that nothing translates it. It counts only before connections
    /// are tracked: in prerouting and output, at priorities below −200.
    Notrack,
    /// `reject with …`: refuse, and tell the sender.
    Reject(RejectWith),
    /// `counter`: count packets and bytes. The counts are not part of the value.
    Counter,
    /// `counter name NAME`: count in one of the table's counters.
    NamedCounter(String),
    /// `limit rate …`: go on while the rate is not exceeded.
    Limit(Limit),
    /// `limit name NAME`: the same, with one of the table's limits.
    NamedLimit(String),
    /// `log …`: tell about the packet, and go on.
    Log(Log),
    /// `update @SET { … }`: add an element, and go on.
    Update(Update),
    /// A verdict.
    Verdict(Verdict),
    /// Something that Parfait does not program and does not evaluate, named by its expression.
    Opaque(String),
}

/// What a [`Statement::Match`] compares with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// One value for each field.
    Values(Vec<Value>),
    /// `{ a, b, … }`: an anonymous set.
    Anonymous(Vec<Vec<Value>>),
    /// `@NAME`: a named set.
    Set(String),
    /// Any of these bits is set (`ct state new,invalid`, `ct status dnat`).
    Bits(u32),
}

/// A mark that a rule can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `meta mark`: the packet's, forgotten when it leaves the node.
    Packet,
    /// `ct mark`: the connection's, seen by all its packets on this node.
    Connection,
}

/// What a [`Statement::SetMark`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewMark {
    /// A number.
    Number(u32),
    /// Another mark, or the same, changed: `(mark & and) ^ xor`.
    From {
        /// The mark that is read.
        mark: Mark,
        /// The bits that are kept; all of them for a copy.
        and: u32,
        /// The bits that are turned after that.
        xor: u32,
    },
}

/// What a [`Statement::SetPriority`] writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPriority {
    /// A number; 0 is `none`.
    Number(u32),
    /// `FIELDS map @MAP`: what the element says; without one, go on with the next rule.
    Map {
        /// The fields of the key.
        fields: Vec<Field>,
        /// The map.
        map: String,
    },
}

/// How a `reject` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectWith {
    /// A TCP reset; only for TCP.
    TcpReset,
    /// ICMP (or ICMPv6) port unreachable.
    PortUnreachable,
    /// ICMP communication administratively prohibited.
    AdminProhibited,
    /// ICMP net unreachable; in ICMPv6 no route.
    NoRoute,
    /// ICMP host unreachable; in ICMPv6 address unreachable.
    HostUnreachable,
    /// Destination unreachable with another code of ICMP or, by the table's family, ICMPv6.
    Code(u8),
}

/// A verdict (nft(8), VERDICT STATEMENTS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// End this base chain; later ones of the hook still run.
    Accept,
    /// Lose the packet.
    Drop,
    /// Go on with the next rule.
    Continue,
    /// Go back to the calling chain.
    Return,
    /// Run another chain, then come back.
    Jump(String),
    /// Run another chain and do not come back.
    Goto(String),
}

/// Equality is about what the kernel does: the origin is a comment.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.statements == other.statements
    }
}

impl Eq for Rule {}

/// Equality is about what the kernel does: the origin is a comment.
impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl Eq for Element {}

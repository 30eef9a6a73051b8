//! What a ruleset does to a packet at one hook: [`evaluate`].
//!
//! ```text
//!   hook ─▶ base chain ─▶ base chain ─▶ …      by priority, over all tables that see the family
//!             │ accept: on to the next one
//!             │ drop, reject: the end
//!             └ nat: only for the first packet of a connection; the first chain that
//!               sets NAT up is the last one of them that runs (nf_nat_inet_fn)
//! ```
//!
//! `numgen random` splits the packet's way into [`Branch`]es with exact probabilities; ways that
//! come out the same are one branch. Where a rule has a statement that is not modelled, both ways
//! on are tried, and if they differ the branch ends in [`End::Unknown`], never in a guess.
//!
//! All nat chains of a hook run at −100 (prerouting, output) or 100 (postrouting, input) of the
//! hook's order, whatever their own priorities, which only order them among themselves
//! (`nf_nat_register_fn`). Of base chains with the same priority the kernel calls the newest first
//! (`nf_hook_entries_grow`). Age is not part of the value, so every order is tried, and if two of
//! them differ the end is unknown.
//!
//! After `masquerade` the source is one that the kernel chooses, and after `snat` its port: later rules
//! that look at it are not modelled. Of `ct status` only the bits of [`ct_status`] are, so test bits rather than equality.
//!
//! Elements that packets add ([`super::Dynamic`]) are looked up among those that were observed; what
//! was not found is noted in [`Branch::missed`]. An `update` of an element that was observed leaves what it maps to.
//!
//! Deliberately absent: the ports of ICMP (`th` fields never match it), counting, and everything
//! that happens between the hooks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use parfait_packet::{Origin, Packet};

use super::{Family, Hook, RejectWith, Tables};

mod lookup;
mod ties;
mod translate;
mod walk;
mod way;
mod weigh;

/// The bits of `ct state`.
pub mod ct_state {
    /// Not tracked because it makes no sense.
    pub const INVALID: u32 = 1;
    /// Of a connection seen in both directions.
    pub const ESTABLISHED: u32 = 2;
    /// New, but of a known connection, such as an ICMP error.
    pub const RELATED: u32 = 4;
    /// The first packet of a connection.
    pub const NEW: u32 = 8;
    /// Not tracked on purpose.
    pub const UNTRACKED: u32 = 64;
}

/// The bits of `ct status` that NAT sets.
pub mod ct_status {
    /// The source is rewritten.
    pub const SNAT: u32 = 16;
    /// The destination is rewritten.
    pub const DNAT: u32 = 32;
}

/// What routing makes of an address (`fib … type`): linux/rtnetlink.h's RTN_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AddressType {
    /// There is no route.
    Unspec = 0,
    /// Somewhere else.
    Unicast = 1,
    /// This node's own.
    Local = 2,
    /// A broadcast address.
    Broadcast = 3,
    /// An anycast address.
    Anycast = 4,
    /// A multicast address.
    Multicast = 5,
    /// A blackhole route.
    Blackhole = 6,
    /// An unreachable route.
    Unreachable = 7,
    /// A prohibit route.
    Prohibit = 8,
}

/// A packet at a hook, and what else rules can look at.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The packet.
    pub packet: Packet,
    /// The interface it came in on; `None` for the node's own packets.
    pub iifname: Option<&'a str>,
    /// The interface it will leave by, where that is decided already.
    pub oifname: Option<&'a str>,
    /// What routing makes of an address here.
    pub address_type: &'a dyn Fn(IpAddr) -> AddressType,
    /// `ct state`, one of [`ct_state`].
    pub ct_state: u32,
    /// `ct status`, of [`ct_status`].
    pub ct_status: u32,
    /// Whether it goes against the direction of the connection's first packet.
    pub reply: bool,
    /// Whether the connection's translation is decided, so that nat chains are not asked: by a packet before, even if
    /// nobody has answered that yet (`nf_nat_initialized`).
    pub nat_is_set_up: bool,
    /// `meta mark`.
    pub mark: u32,
    /// `ct mark`, if it is known; 0 for a connection's first packet.
    pub ct_mark: Option<u32>,
    /// The connection's first packet as it came to this node (`ct original …`), if that is known.
    pub original: Option<Packet>,
    /// The address that `redirect` gives a packet that comes in, the first of its interface, if that
    /// is known.
    pub redirected: Option<IpAddr>,
}

impl<'a> Context<'a> {
    /// The first packet of a connection, nothing else being known.
    #[must_use]
    pub fn new(packet: Packet, address_type: &'a dyn Fn(IpAddr) -> AddressType) -> Self {
        Self {
            packet,
            iifname: None,
            oifname: None,
            address_type,
            ct_state: ct_state::NEW,
            ct_status: 0,
            reply: false,
            nat_is_set_up: false,
            mark: 0,
            ct_mark: Some(0),
            original: None,
            redirected: None,
        }
    }
}

/// One possible way through the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its probability: numerator and denominator, in lowest terms.
    pub weight: (u64, u64),
    /// The packet as it leaves the hook.
    pub packet: Packet,
    /// `ct status` as it leaves the hook.
    pub ct_status: u32,
    /// `meta mark` as it leaves the hook.
    pub mark: u32,
    /// `ct mark` as it leaves the hook, if it is known.
    pub ct_mark: Option<u32>,
    /// It is of no connection on purpose: `ct state untracked` from here on.
    pub untracked: bool,
    /// Its source will be rewritten to the outgoing interface's address.
    pub masquerade: bool,
    /// Its source has been rewritten. The address is `packet`'s; the port is the same if it is free
    /// at that address and not to be random, and otherwise one that the kernel chooses.
    pub snat: bool,
    /// Sets and maps with `flags dynamic` in which there was nothing for this packet: with an element
    /// that an earlier packet may have added, it would go another way.
    pub missed: BTreeSet<String>,
    /// How it ends.
    pub end: End,
    /// The rules that decided this, in order.
    pub steps: Vec<Trace>,
}

/// How a packet's way through a hook ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It goes on.
    Accepted,
    /// It is lost.
    Dropped,
    /// It is refused, and the sender is told.
    Rejected(RejectWith),
    /// A statement that is not modelled decides; its expression.
    Unknown(String),
}

/// A rule that decided something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The table's family.
    pub family: Family,
    /// The table's name.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule as `nft` prints it, or `policy drop`.
    pub rule: String,
    /// The element of the rule's map or set, as `nft` prints it.
    pub element: Option<String>,
    /// The objects that rule and element exist for.
    pub origins: Vec<Origin>,
}

/// Everything that can happen to the packet at this hook; the weights add up to one.
#[must_use]
pub fn evaluate(tables: &Tables, hook: Hook, context: &Context<'_>) -> Vec<Branch> {
    let mut walk = walk::Walk::new(tables, hook, context);
    let ways = walk.run();
    walk.in_other_orders(ways)
}

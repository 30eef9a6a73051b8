//! What statements make of the packet and its connection: other addresses, marks, or no connection at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use parfait_packet::Packet;

use super::super::{Field, Hook, Mark, NewMark, NewPriority, Statement, Table};
use super::walk::{Next, Walk, is_one_of};
use super::way::Way;
use super::{ct_state, ct_status};

/// From here on the hook's packets are of a connection, or of none for good (NF_IP_PRI_CONNTRACK).
const CONNTRACK: i32 = -200;

/// Expressions that need connections.
const TRACKING: [&str; 8] = [
    "connlimit",
    "ct",
    "match",
    "masq",
    "nat",
    "redir",
    "synproxy",
    "target",
];

impl<'a> Walk<'a> {
    /// To this node itself: where it comes from, and otherwise the interface's first address.
    pub(super) fn redirect(&self, way: &mut Way<'a>, port: Option<u16>) -> Next {
        let family = self.context.packet.family();
        let address = match (self.hook, family) {
            (Hook::Output, parfait_packet::Family::Ipv4) => Some(Ipv4Addr::LOCALHOST.into()),
            (Hook::Output, parfait_packet::Family::Ipv6) => Some(Ipv6Addr::LOCALHOST.into()),
            _ => self.context.redirected,
        };
        match address {
            Some(address) => self.dnat(way, address, port),
            None => Next::Unmodelled("redir".to_owned()),
        }
    }

    pub(super) fn dnat(&self, way: &mut Way<'a>, address: IpAddr, port: Option<u16>) -> Next {
        way.trace();
        let packet: &mut Packet = &mut way.branch.packet;
        let before = *packet;
        packet.destination = address;
        if let Some(port) = port.filter(|_| packet.protocol.has_ports()) {
            packet.destination_port = port;
        }
        if *packet != before {
            way.branch.ct_status |= ct_status::DNAT;
        }
        self.nat_is_set_up(way)
    }

    pub(super) fn snat(&self, way: &mut Way<'a>, address: IpAddr, fully_random: bool) -> Next {
        way.trace();
        let moved = way.branch.packet.source != address;
        way.branch.packet.source = address;
        way.branch.snat = true;
        if moved || fully_random {
            way.branch.ct_status |= ct_status::SNAT;
        }
        self.nat_is_set_up(way)
    }

    /// Without a connection there is no mark to write (which does nothing), and none to read (which
    /// ends the rule).
    pub(super) fn set_mark(&self, way: &mut Way<'a>, mark: Mark, to: NewMark) -> Next {
        let untracked = ct_state::UNTRACKED | ct_state::INVALID;
        let tracked = self.ct_state(way) & untracked == 0;
        let branch = &mut way.branch;
        let new = match to {
            NewMark::Number(number) => number,
            NewMark::From { mark, and, xor } => {
                let now = match mark {
                    Mark::Packet => branch.mark,
                    Mark::Connection if tracked => match branch.ct_mark {
                        Some(now) => now,
                        None => return Next::Unmodelled("ct mark set".to_owned()),
                    },
                    Mark::Connection => {
                        if let Some(frame) = way.frames.last_mut() {
                            frame.next_rule();
                        }
                        return Next::On;
                    }
                };
                (now & and) ^ xor
            }
        };
        match mark {
            Mark::Packet => branch.mark = new,
            Mark::Connection if tracked => branch.ct_mark = Some(new),
            Mark::Connection => {}
        }
        Next::On
    }

    pub(super) fn masquerade(&self, way: &mut Way<'a>) -> Next {
        way.trace();
        way.branch.masquerade = true;
        self.nat_is_set_up(way)
    }

    /// `ct state` as this way's packet has it here.
    pub(super) fn ct_state(&self, way: &Way<'a>) -> u32 {
        match way.branch.untracked {
            true => ct_state::UNTRACKED,
            // `nft_ct_get_eval` knows no better word for it.
            false if self.is_before_tracking(way) => ct_state::INVALID,
            false => self.context.ct_state,
        }
    }

    /// What is tracked already stays so (`nft_notrack_eval`).
    pub(super) fn notrack(&self, way: &mut Way<'a>) -> Next {
        if self.is_before_tracking(way) {
            way.trace();
            way.branch.untracked = true;
        }
        Next::On
    }

    /// Nobody has asked conntrack for the packet's connection yet. What comes by the loopback was asked for when it
    /// was sent.
    pub(super) fn is_before_tracking(&self, way: &Way<'a>) -> bool {
        let first = match self.hook {
            Hook::Prerouting => self.context.iifname != Some("lo"),
            Hook::Output => true,
            Hook::Input | Hook::Forward | Hook::Postrouting => false,
        };
        let entry = self.chains.get(way.entry);
        first && entry.is_some_and(|entry| entry.base.priority < CONNTRACK)
    }

    pub(super) fn nat_is_set_up(&self, way: &mut Way<'a>) -> Next {
        way.nat_done = true;
        self.accept(way)
    }
}

/// Whether a rule of this table makes the kernel track connections: without one in any table, nat
/// chains see no packet, and not even their policy counts (`nf_nat_inet_fn` wants a connection).
pub(super) fn tracks(table: &Table) -> bool {
    let field = |field: &Field| {
        matches!(
            field,
            Field::CtState
                | Field::CtStatus
                | Field::CtDirection
                | Field::CtMark
                | Field::CtOriginalDaddr
                | Field::CtOriginalDport
        )
    };
    let mut statements = table
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.statements);
    statements.any(|statement| match statement {
        Statement::Match { fields, .. }
        | Statement::Vmap { fields, .. }
        | Statement::SetPriority(NewPriority::Map { fields, .. }) => fields.iter().any(field),
        Statement::Dnat(..)
        | Statement::DnatAddress(_)
        | Statement::Redirect(_)
        | Statement::DnatMap { .. }
        | Statement::Snat { .. }
        | Statement::SnatMap { .. }
        | Statement::SetMark(Mark::Connection, _)
        | Statement::SetMark(
            _,
            NewMark::From {
                mark: Mark::Connection,
                ..
            },
        )
        | Statement::Masquerade { .. } => true,
        Statement::Opaque(expression) => is_one_of(&TRACKING, expression),
        Statement::Update(update) => update.key.iter().any(field),
        Statement::Notrack
        | Statement::Reject(_)
        | Statement::Counter
        | Statement::NamedCounter(_)
        | Statement::Limit(_)
        | Statement::NamedLimit(_)
        | Statement::Log(_)
        | Statement::Verdict(_)
        | Statement::SetPriority(NewPriority::Number(_))
        | Statement::SetMark(..) => false,
    })
}

//! What other programs' rules do to pods' packets: [`foreign`].
//!
//! ```text
//!   probe ─▶ prerouting ─▶ forward ─▶ postrouting     another table's drop beats our accept
//! ```
//!
//! Representative packets are evaluated in every table but Parfait's, at the hooks that they would
//! pass, as the first packet of a connection and as an answer. Who chooses the packets knows the node's
//! plan; here only rules are known. Families besides ip, ip6 and inet are not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{
    AddressType, Branch, Context, End, Family, Hook, Tables, Trace, evaluate, render,
};
use parfait_packet::{Difference, Fault, Finding, Origin, Packet};

use crate::programs::Program;

/// The numbers of the rules in each chain, in their order, as `nft -a` prints them.
pub type Handles = BTreeMap<(Family, String, String), Vec<u64>>;

/// A packet that must pass this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The packet.
    pub packet: Packet,
    /// The interface it comes in by; `None` for the node's own.
    pub iif: Option<String>,
    /// The interface it leaves by; `None` if it is for the node itself.
    pub oif: Option<String>,
    /// Whether Parfait's own rules make it one of no connection.
    pub untracked: bool,
    /// What it is, in words: `pod default/a to pod default/b`.
    pub what: String,
    /// For whom it must pass.
    pub origin: Origin,
}

/// The rules of other programs that stop some of these packets, or may.
#[must_use]
pub fn foreign(
    tables: &Tables,
    handles: &Handles,
    probes: &[Probe],
    address_type: &dyn Fn(IpAddr) -> AddressType,
) -> Vec<Finding> {
    let mut others = tables.clone();
    others.retain(|(_, name), _| name != "parfait");
    let mut stopped: BTreeMap<(Fault, String, String), Vec<&Probe>> = BTreeMap::new();
    for probe in probes {
        for reply in [false, true] {
            for (fault, trace) in stops(&others, probe, reply, address_type) {
                let rule = shown(&trace, &others, handles);
                let whose = whose(&trace, &others);
                let probes = stopped.entry((fault, rule, whose)).or_default();
                if !probes.contains(&probe) {
                    probes.push(probe);
                }
            }
        }
    }
    let finding =
        |((fault, item, whose), stopped): ((Fault, String, String), Vec<&Probe>)| Finding {
            fault,
            difference: Difference::Extra,
            item,
            found: affected(fault, &stopped, probes.len()) + &whose,
            origin: stopped.first().map(|probe| probe.origin.clone()),
        };
    stopped.into_iter().map(finding).collect()
}

fn affected(fault: Fault, stopped: &[&Probe], of: usize) -> String {
    let verb = match fault {
        Fault::ForeignDrop => "stops",
        _ => "may stop",
    };
    let first = stopped.first().map(|probe| (probe.packet, &probe.what));
    let first = first.map(|(packet, what)| format!("{packet}, {what}"));
    let more = format!("{} of {of} packets tried", stopped.len());
    format!("{verb} {}; {more}", first.unwrap_or_default())
}

/// The rules at which this packet ends, or may end.
fn stops(
    tables: &Tables,
    probe: &Probe,
    reply: bool,
    address_type: &dyn Fn(IpAddr) -> AddressType,
) -> Vec<(Fault, Trace)> {
    let hooks: &[Hook] = match (&probe.iif, &probe.oif) {
        (Some(_), Some(_)) => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
        (Some(_), None) => &[Hook::Prerouting, Hook::Input],
        _ => &[Hook::Output, Hook::Postrouting],
    };
    let mut found = Vec::new();
    // What the rules of one hook write, those of the next can read.
    let mut marks = BTreeSet::from([(0, (!reply).then_some(0), probe.untracked)]);
    for hook in hooks {
        let mut context = Context::new(probe.packet, address_type);
        let decided = !matches!(hook, Hook::Prerouting | Hook::Input);
        context.oifname = probe.oif.as_deref().filter(|_| decided);
        context.iifname = probe.iif.as_deref();
        context.reply = reply;
        if reply {
            context.ct_state = ct_state::ESTABLISHED;
        }
        context.original = (!reply).then_some(probe.packet);
        let mut after = BTreeSet::new();
        for (mark, ct_mark, untracked) in marks {
            let mut context = context;
            (context.mark, context.ct_mark) = (mark, ct_mark);
            if untracked {
                context.ct_state = ct_state::UNTRACKED;
            }
            for branch in evaluate(tables, *hook, &context) {
                after.insert((branch.mark, branch.ct_mark, branch.untracked));
                found.extend(stop(branch));
            }
        }
        marks = after;
    }
    found
}

fn stop(branch: Branch) -> Option<(Fault, Trace)> {
    let fault = match branch.end {
        End::Accepted => return None,
        End::Dropped | End::Rejected(_) => Fault::ForeignDrop,
        End::Unknown(_) => Fault::ForeignUnknown,
    };
    Some((fault, branch.steps.into_iter().next_back()?))
}

/// `; it is firewalld's: firewall-cmd …`, or nothing if nobody knows.
fn whose(trace: &Trace, tables: &Tables) -> String {
    let table = tables.get(&(trace.family, trace.table.clone()));
    let programs = table.map(|table| Program::of(table, &trace.chain));
    let remedies = programs.unwrap_or_default().into_iter();
    let remedies: Vec<_> = remedies
        .map(|program| format!("{}'s: {}", program.name(), program.remedy()))
        .collect();
    match remedies.as_slice() {
        [] => String::new(),
        all => format!("; it is {}", all.join("; or ")),
    }
}

/// `table inet firewalld chain forward handle 7: ip saddr 10.244.0.0/16 drop`
fn shown(trace: &Trace, tables: &Tables, handles: &Handles) -> String {
    let Trace {
        family,
        table,
        chain,
        rule,
        ..
    } = trace;
    let place = (*family, table.clone(), chain.clone());
    let rules = tables
        .get(&(*family, table.clone()))
        .and_then(|table| table.chains.get(chain))
        .map(|chain| chain.rules.as_slice());
    let index = rules.and_then(|rules| {
        let mut rules = rules.iter();
        rules.position(|candidate| render::rule(*family, candidate) == *rule)
    });
    let handle = index.and_then(|index| handles.get(&place)?.get(index));
    let handle = handle.map_or_else(String::new, |handle| format!(" handle {handle}"));
    format!("table {family} {table} chain {chain}{handle}: {rule}")
}

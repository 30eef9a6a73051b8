//! Which policy or rule says no more than another, by their text alone.

use ipnet::IpNet;
use parfait_cluster::{
    Direction, LabelSelector, NetworkPolicy, ObjectName, Peer, PolicyPort, PolicyRule, PortMatch,
    Snapshot,
};
use parfait_packet::Origin;

/// A rule for the same pods that allows all that this one does. Of two that allow the same it is the first.
pub(super) fn shadow(
    snapshot: &Snapshot,
    policy: &NetworkPolicy,
    direction: Direction,
    index: usize,
) -> Option<Origin> {
    let rule = policy.rules(direction)?.get(index)?;
    neighbours(snapshot, policy).find_map(|other| {
        if !selector(&other.pods, &policy.pods) {
            return None;
        }
        let rules = other.rules(direction)?.iter().enumerate();
        let mut rules = rules.filter(|(nth, _)| (&other.name, *nth) != (&policy.name, index));
        let (nth, _) = rules.find(|(nth, there)| {
            let same = selector(&policy.pods, &other.pods) && covers(rule, there);
            let first = (&other.name, *nth) < (&policy.name, index);
            covers(there, rule) && (first || !same)
        })?;
        Some(other.rule_origin(direction, nth))
    })
}

/// A policy without which nothing would be otherwise, and what makes this so. Of two that say the same it is the
/// first by name that counts.
pub(super) fn redundant(snapshot: &Snapshot, policy: &NetworkPolicy) -> Option<String> {
    let mut others = neighbours(snapshot, policy).filter(|other| other.name != policy.name);
    let other = others
        .find(|other| says(other, policy) && (other.name < policy.name || !says(policy, other)))?;
    Some(match says(policy, other) {
        true => format!("it says the same as {}", other.origin()),
        false => format!(
            "{} isolates its pods as well, and allows them all that it does",
            other.origin()
        ),
    })
}

/// Whether a policy isolates the pods of another, and allows them at least as much.
fn says(wide: &NetworkPolicy, narrow: &NetworkPolicy) -> bool {
    selector(&wide.pods, &narrow.pods)
        && Direction::ALL.into_iter().all(|direction| {
            let Some(rules) = narrow.rules(direction) else {
                return true;
            };
            let there = wide.rules(direction);
            there.is_some_and(|there| {
                let said = |rule| there.iter().any(|other| covers(other, rule));
                rules.iter().all(said)
            })
        })
}

/// The policies of its namespace.
fn neighbours<'a>(
    snapshot: &'a Snapshot,
    policy: &NetworkPolicy,
) -> impl Iterator<Item = &'a NetworkPolicy> {
    let namespace = policy.name.namespace.clone();
    // No name of a policy is empty.
    let first = ObjectName::new(&namespace, "");
    let here = snapshot.policies.range(first..);
    let here = here.take_while(move |(name, _)| name.namespace == namespace);
    here.map(|(_, policy)| policy)
}

/// Whether a rule allows, or matches, all that another does.
pub(super) fn covers(wide: &PolicyRule, narrow: &PolicyRule) -> bool {
    every(wide.peers.as_deref(), narrow.peers.as_deref(), peer)
        && every(wide.ports.as_deref(), narrow.ports.as_deref(), port)
}

/// Whether each of a list has one that covers it in another; a missing list is everything, an empty one nothing.
fn every<T>(wide: Option<&[T]>, narrow: Option<&[T]>, covers: fn(&T, &T) -> bool) -> bool {
    let Some(wide) = wide else { return true };
    let all = |narrow: &[T]| {
        let covered = |one| wide.iter().any(|other| covers(other, one));
        !narrow.is_empty() && narrow.iter().all(covered)
    };
    narrow.is_some_and(all)
}

fn peer(wide: &Peer, narrow: &Peer) -> bool {
    match (wide, narrow) {
        (
            Peer::Pods { namespaces, pods },
            Peer::Pods {
                namespaces: fewer,
                pods: those,
            },
        ) => {
            let there = match (namespaces, fewer) {
                (None, None) => true,
                (Some(wide), Some(narrow)) => selector(wide, narrow),
                (Some(wide), None) => *wide == LabelSelector::default(),
                (None, Some(_)) => false,
            };
            there && selector(pods, those)
        }
        (
            Peer::Block { cidr, except },
            Peer::Block {
                cidr: within,
                except: less,
            },
        ) => {
            let away = |net: &IpNet| less.iter().any(|hole| hole.contains(net));
            let apart = |net: &IpNet| !net.contains(within) && !within.contains(net);
            cidr.contains(within) && except.iter().all(|net| away(net) || apart(net))
        }
        (Peer::Nodes(wide), Peer::Nodes(narrow)) => selector(wide, narrow),
        _ => false,
    }
}

fn port(wide: &PolicyPort, narrow: &PolicyPort) -> bool {
    wide.protocol == narrow.protocol
        && match (&wide.port, &narrow.port) {
            (PortMatch::Numbers(0, u16::MAX), PortMatch::Name(_)) => true,
            (PortMatch::Numbers(first, last), PortMatch::Numbers(from, to)) => {
                first <= from && to <= last
            }
            (wide, narrow) => wide == narrow,
        }
}

/// Whether everybody whom a selector fits is one whom another fits: what it asks, that one asks as well.
pub(super) fn selector(wide: &LabelSelector, narrow: &LabelSelector) -> bool {
    let mut labels = wide.match_labels.iter();
    let asked = &narrow.match_labels;
    labels.all(|(key, value)| asked.get(key) == Some(value))
        && wide.match_expressions.iter().all(|one| {
            let said = narrow.match_expressions.contains(one);
            // A label that must have a value decides the expression about it.
            said || (asked.contains_key(&one.key) && one.matches(asked))
        })
}

//! NodeNetworkPolicies: their rules are asked in order, one policy after the other; and who is left outside of all nodes.

use parfait_cluster::{Direction, Key, NodeNetworkPolicy, PolicyRule};
use parfait_packet::{Family, Origin, Packet, Protocol};

use super::{Check, Linter, counted, covers, rules};
use crate::policy::class::Class;
use crate::policy::effective::{blocks, elsewhere};
use crate::policy::plan::Plan;

const SSH: u16 = 22;

pub(super) fn check(linter: &mut Linter<'_>, policy: &NodeNetworkPolicy) {
    let key = Key::NodeNetworkPolicy(policy.name.clone());
    for note in linter.snapshot.notes.get(&key).into_iter().flatten() {
        linter.tell(Check::Mistake, &note.origin, note.message.clone());
    }
    let mut nodes = linter.snapshot.nodes.values();
    if !nodes.any(|node| policy.nodes.matches(&node.labels)) {
        let field = policy.origin().field("spec.nodeSelector");
        linter.tell(Check::SelectsNoNode, &field, "no node fits it".to_owned());
    }
    for (index, rule) in policy.ingress.iter().enumerate() {
        let origin = policy.rule_origin(index);
        let mut before = before(linter, policy, index).into_iter();
        if let Some((earlier, _)) =
            before.find(|(_, earlier)| covers::covers(earlier, &rule.matches))
        {
            let message = format!("it is never asked: {earlier} matches all that it does");
            linter.tell(Check::RuleShadowed, &origin, message);
        }
        // What a node's programs listen to, no object declares.
        rules::check(linter, "", &[], Direction::Ingress, &rule.matches, &origin);
    }
}

/// The rules that are asked before one, wherever it is.
fn before<'a>(
    linter: &Linter<'a>,
    policy: &NodeNetworkPolicy,
    index: usize,
) -> Vec<(Origin, &'a PolicyRule)> {
    let rank = |policy: &NodeNetworkPolicy| (policy.priority, policy.name.clone());
    let all = linter.snapshot.node_policies.values();
    let earlier = all.filter(|other| {
        rank(other) <= rank(policy) && covers::selector(&other.nodes, &policy.nodes)
    });
    let rules = earlier.flat_map(|other| {
        let most = match other.name == policy.name {
            true => index,
            false => other.ingress.len(),
        };
        let rules = other.ingress.iter().take(most).enumerate();
        rules.map(|(nth, rule)| (other.rule_origin(nth), &rule.matches))
    });
    rules.collect()
}

/// What somebody has to reach who is no node, and nobody does any more.
pub(super) fn locked_out(linter: &mut Linter<'_>, plans: &[Plan]) {
    // Most nodes have the same policies.
    let mut classes: Vec<(&Class, Vec<Origin>)> = Vec::new();
    for (node, plan) in linter.snapshot.nodes.values().zip(plans) {
        let Some(host) = &plan.host else { continue };
        match classes.iter_mut().find(|(class, _)| *class == &*host.class) {
            Some((_, nodes)) => nodes.push(node.origin()),
            None => classes.push((&host.class, vec![node.origin()])),
        }
    }
    for (class, nodes) in classes {
        let first = &nodes[0];
        let which = match nodes.len() {
            1 => first.to_string(),
            many => format!("{} as {first}", counted(many, "node")),
        };
        for (port, what) in doors(linter) {
            if let Some(by) = shut(linter, class, port) {
                let message = format!("nobody but nodes of the cluster reaches {what} of {which}");
                linter.tell(Check::NodeLockedOut, &by, message);
            }
        }
    }
}

/// Ports of every node that are for others than nodes.
fn doors(linter: &Linter<'_>) -> Vec<(u16, String)> {
    let ssh = (SSH, format!("ssh ({SSH}/tcp)"));
    let services = linter.snapshot.services.values();
    let asked = services.filter_map(|service| {
        let port = service.outside.health_check_node_port?;
        let origin = service.origin();
        Some((port, format!("the health check of {origin} ({port}/tcp)")))
    });
    [ssh].into_iter().chain(asked).collect()
}

/// The rule that denies a port to those outside, if no pod, no range of addresses that a rule names, and no other
/// address may reach it.
fn shut(linter: &Linter<'_>, class: &Class, port: u16) -> Option<Origin> {
    let outside = blocks(&[class]).into_iter().map(|(_, address)| address);
    let others = Family::ALL.into_iter();
    let others = others.filter_map(|family| elsewhere(&[class], family));
    let pods = linter.by_address.keys().copied();
    let mut by = None;
    for address in outside.chain(others).chain(pods) {
        let packet = Packet::new(address, address, Protocol::Tcp, port)?;
        let decision = class.decide(address, &packet);
        if decision.accepted {
            return None;
        }
        by = decision.rule.cloned();
    }
    by
}

//! What NetworkPolicies did to a packet, in words.

use parfait_cluster::Direction;
use parfait_linux::nft::Trace;
use parfait_packet::{Origin, Packet, Reason};
use parfait_transport::policy::{self, Explanation, Near};

use crate::leg::{Arrival, Leg};
use crate::walk::{Inside, Walker};

/// The direction in which policies have ended it, if they have.
pub(crate) fn decided(steps: &[Trace]) -> Option<Direction> {
    let last = steps.last().filter(|step| step.table == "parfait")?;
    policy::is_class(&last.chain)
}

/// Why policies let it through; `None` if they were not asked.
pub(crate) fn passed(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    packet: &Packet,
    steps: &[Trace],
) -> Option<String> {
    let ours = steps.iter().filter(|step| step.table == "parfait");
    let chains: Vec<&str> = ours.map(|step| step.chain.as_str()).collect();
    let asked = Direction::ALL.map(|direction| {
        let mut asked = chains.iter().filter_map(|chain| policy::is_class(chain));
        let asked = asked.any(|other| other == direction);
        asked.then(|| explain(walker, inside, packet, direction))?
    });
    let [ingress, egress] = asked.map(|explained| explained.as_ref().map(allowed));
    let both: Vec<String> = egress.into_iter().chain(ingress).collect();
    if !both.is_empty() {
        return Some(both.join("; "));
    }
    let own = chains.iter().any(|chain| policy::BASE.contains(chain));
    own.then(|| match walker.answers {
        Some(_) => "an answer: policies judge the first packet of a connection".to_owned(),
        None => "a pod always reaches itself, whatever policies say".to_owned(),
    })
}

fn allowed(explained: &Explanation) -> String {
    let verb = match explained.direction {
        Direction::Ingress => "receive",
        Direction::Egress => "send",
    };
    match &explained.allowed_by {
        Some(rule) => format!("{} may {verb} this by {rule}", explained.pod),
        None => format!("{} may {verb} this", explained.pod),
    }
}

/// Which policies deny it, and which rule came nearest.
pub(crate) fn denied(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    packet: &Packet,
    direction: Direction,
    mut leg: Leg,
) -> Arrival {
    let (reason, verb) = match direction {
        Direction::Ingress => (Reason::IngressDenied, "receive"),
        Direction::Egress => (Reason::EgressDenied, "send"),
    };
    let explained = explain(walker, inside, packet, direction);
    if let (Some(explained), Some(hop)) = (explained, leg.hops.last_mut()) {
        let Explanation {
            pod,
            isolated_by,
            nearest,
            ..
        } = explained;
        let (list, verbs) = match isolated_by.as_slice() {
            [one] => (one.to_string(), "isolates"),
            many => (listed(many), "isolate"),
        };
        hop.what = format!(
            "dropped: {pod} may not {verb} this: {list} {verbs} it for {}, and {}",
            direction.name(),
            missed(&nearest)
        );
        hop.origins = isolated_by;
    }
    leg.lost(reason)
}

fn explain(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    packet: &Packet,
    direction: Direction,
) -> Option<Explanation> {
    let plan = &inside.known.plan.policy;
    policy::explain(plan, walker.world.snapshot, packet, direction)
}

fn listed(policies: &[Origin]) -> String {
    let policies: Vec<_> = policies.iter().map(ToString::to_string).collect();
    policies.join(", ")
}

/// What would have to be otherwise.
fn missed(nearest: &[Near]) -> String {
    let Some(first) = nearest.first() else {
        return "no rule could allow it".to_owned();
    };
    let nearest = nearest.iter().filter(|near| near.steps == first.steps);
    let hints: Vec<_> = nearest
        .map(|near| format!("if {} ({})", near.hint, near.rule))
        .collect();
    format!("no rule allows it; it would pass {}", hints.join(", or "))
}

//! What policies did to a packet, in words.

use parfait_cluster::Direction;
use parfait_linux::conntrack::Tuple;
use parfait_linux::nft::{Hook, Trace};
use parfait_packet::{Origin, Packet, Reason};
use parfait_transport::policy::{self, Explanation, Level, Near, host};

use crate::leg::{Arrival, Leg};
use crate::walk::{Inside, Walker};

/// Whose policies have ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A pod's, in this direction.
    Pod(Direction),
    /// The node's own.
    Node,
}

/// Whose policies have ended it, if they have.
pub(crate) fn decided(steps: &[Trace]) -> Option<Whose> {
    let last = steps.last().filter(|step| step.table == "parfait")?;
    match last.chain.starts_with(host::CLASS) {
        true => Some(Whose::Node),
        false => policy::is_class(&last.chain).map(Whose::Pod),
    }
}

/// Why policies let it through; `None` if they were not asked.
pub(crate) fn passed(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    packet: &Packet,
    at: Hook,
    steps: &[Trace],
) -> Option<String> {
    let ours = steps.iter().filter(|step| step.table == "parfait");
    let chains: Vec<&str> = ours.map(|step| step.chain.as_str()).collect();
    let asked = Direction::ALL.map(|direction| {
        let mut asked = chains.iter().filter_map(|chain| policy::is_class(chain));
        let asked = asked.any(|other| other == direction);
        asked.then(|| explain(walker, inside, packet, direction, at))?
    });
    let [ingress, egress] = asked.map(|explained| explained.as_ref().map(allowed));
    let asked = chains.contains(&host::INPUT) && walker.answers.is_none();
    let node = asked.then(|| accepted(walker, inside, packet)).flatten();
    let all: Vec<String> = egress.into_iter().chain(ingress).chain(node).collect();
    if !all.is_empty() {
        return Some(all.join("; "));
    }
    let own = chains.iter().any(|chain| policy::BASE.contains(chain));
    own.then(|| match walker.answers {
        Some(_) => "an answer: policies judge the first packet of a connection".to_owned(),
        None => "a pod always reaches itself, whatever policies say".to_owned(),
    })
}

/// Why the node takes a packet that its own policies could be about.
fn accepted(walker: &Walker<'_>, inside: &Inside<'_>, packet: &Packet) -> Option<String> {
    let plan = &inside.known.plan.policy;
    let explained = policy::explain_node(plan, walker.world.snapshot, packet);
    explained.as_ref().map(allowed).or_else(|| {
        let why = plan.host.as_ref()?.always(packet)?;
        Some(format!("{why}, whatever the node's policies say"))
    })
}

fn allowed(explained: &Explanation) -> String {
    let verb = match explained.direction {
        Direction::Ingress => "receive",
        Direction::Egress => "send",
    };
    let pod = &explained.pod;
    let passed = passed_on(explained);
    let Some(rule) = &explained.rule else {
        return format!("{pod} may {verb} this: no policy says anything against it{passed}");
    };
    let rule = named(rule, explained);
    let block = explained.block.map_or_else(String::new, |block| {
        format!(" (ipBlock {block} means any address, a pod's too)")
    });
    format!("{pod} may {verb} this by {rule}{block}{passed}")
}

/// Why a pod's policies are not asked between it and its own node, and the pod; `None` if that is not the way.
pub(crate) fn own_node(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    packet: &Packet,
    at: Hook,
) -> Option<(String, Origin)> {
    if walker.answers.is_some() || inside.tracked.is_some() {
        return None;
    }
    let plan = &inside.known.plan.policy;
    let (isolated, what) = match at {
        Hook::Output => {
            let isolated = plan.pods.get(&packet.destination)?;
            isolated.ingress.as_ref()?;
            (
                isolated,
                "is always reached by its own node, whatever policies say",
            )
        }
        Hook::Input if !plan.served.contains_key(&packet.destination) => {
            let isolated = plan.pods.get(&packet.source)?;
            let asked = isolated.egress.as_ref()?.towards_node();
            let what = "always reaches its own node, whatever NetworkPolicies say";
            asked.is_none().then_some((isolated, what))?
        }
        _ => return None,
    };
    Some((format!("{} {what}", isolated.pod), isolated.pod.clone()))
}

/// A rule, with its name if it has one.
fn named(rule: &Origin, explained: &Explanation) -> String {
    match &explained.rule_name {
        Some(name) => format!("{rule} ({name:?})"),
        None => rule.to_string(),
    }
}

fn passed_on(explained: &Explanation) -> String {
    match explained.passed.is_empty() {
        true => String::new(),
        false => format!(", after {} passed it on", listed(&explained.passed)),
    }
}

/// Which policies deny it, and which rule came nearest.
pub(crate) fn denied(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    packet: &Packet,
    whose: Whose,
    at: Hook,
    mut leg: Leg,
) -> Arrival {
    let reason = match whose {
        Whose::Pod(Direction::Ingress) => Reason::IngressDenied,
        Whose::Pod(Direction::Egress) => Reason::EgressDenied,
        Whose::Node => Reason::NodeDenied,
    };
    let explained = explained(walker, inside, packet, whose, at);
    if let (Some(explained), Some(hop)) = (explained, leg.hops.last_mut()) {
        hop.what = format!("dropped: {}", forbidden(whose, &explained));
        hop.origins = objects(explained);
    }
    leg.lost(reason)
}

fn explained(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    packet: &Packet,
    whose: Whose,
    at: Hook,
) -> Option<Explanation> {
    let plan = &inside.known.plan.policy;
    match whose {
        Whose::Pod(direction) => explain(walker, inside, packet, direction, at),
        Whose::Node => policy::explain_node(plan, walker.world.snapshot, packet),
    }
}

/// The rule that denies, or else the policies that isolate.
fn objects(explained: Explanation) -> Vec<Origin> {
    match explained.rule {
        Some(rule) => vec![rule],
        None => explained.isolated_by,
    }
}

/// Whether a packet was dropped because its connection was ended.
pub(crate) fn have_ended(steps: &[Trace]) -> bool {
    let last = steps.last().filter(|step| step.table == "parfait");
    last.is_some_and(|step| step.rule.contains(&format!("@{}", policy::ENDED)))
}

/// The connection is over; and which policies forbid it.
pub(crate) fn ended(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    packet: &Packet,
    at: Hook,
    mut leg: Leg,
) -> Arrival {
    let mut known = inside.known.ended.iter();
    let ended = known.find(|ended| Tuple::of(packet) == Some(ended.direction));
    let left = ended.map_or(0, |ended| ended.expires);
    let mut what = format!(
        "dropped: policies ended this connection, and it stays ended until they allow it, or for {left} s"
    );
    let mut origins = Vec::new();
    let whose = [
        Whose::Pod(Direction::Egress),
        Whose::Pod(Direction::Ingress),
        Whose::Node,
    ];
    for whose in whose {
        let explained = explained(walker, inside, packet, whose, at);
        if let Some(explained) = explained.filter(|explained| !explained.accepted) {
            what.push_str(&format!("; {}", forbidden(whose, &explained)));
            origins.extend(objects(explained));
        }
    }
    if let Some(hop) = leg.hops.last_mut() {
        hop.what = what;
        hop.origins = origins;
    }
    leg.lost(Reason::PolicyEnded)
}

/// Who may not do what, and why.
fn forbidden(whose: Whose, explained: &Explanation) -> String {
    let verb = match whose {
        Whose::Pod(Direction::Egress) => "send",
        Whose::Pod(Direction::Ingress) | Whose::Node => "receive",
    };
    let why = why(explained);
    format!("{} may not {verb} this: {why}", explained.pod)
}

/// What denies it, and what would let it pass.
fn why(explained: &Explanation) -> String {
    let passed = passed_on(explained);
    let nearest = &explained.nearest;
    if let (Some(rule), Some(level)) = (&explained.rule, explained.level) {
        let would = match nearest.is_empty() {
            true => String::new(),
            false => format!("; {}", would_pass(nearest)),
        };
        let tier = match level {
            Level::Node => String::new(),
            level => format!(", in tier {}", level.name()),
        };
        let rule = named(rule, explained);
        return format!("{rule} denies it{tier}{passed}{would}");
    }
    let (list, verbs) = match explained.isolated_by.as_slice() {
        [one] => (one.to_string(), "isolates"),
        many => (listed(many), "isolate"),
    };
    let missed = match nearest.is_empty() {
        true => "no rule could allow it".to_owned(),
        false => format!("no rule allows it; {}", would_pass(nearest)),
    };
    let direction = explained.direction.name();
    format!("{list} {verbs} it for {direction}{passed}, and {missed}")
}

fn explain(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    packet: &Packet,
    direction: Direction,
    at: Hook,
) -> Option<Explanation> {
    let plan = &inside.known.plan.policy;
    policy::explain(plan, walker.world.snapshot, packet, direction, at)
}

fn listed(policies: &[Origin]) -> String {
    let policies: Vec<_> = policies.iter().map(ToString::to_string).collect();
    policies.join(", ")
}

/// What would have to be otherwise.
fn would_pass(nearest: &[Near]) -> String {
    let steps = nearest.first().map(|near| near.steps);
    let nearest = nearest.iter().filter(|near| Some(near.steps) == steps);
    let hints: Vec<_> = nearest
        .map(|near| format!("if {} ({})", near.hint, near.rule))
        .collect();
    format!("it would pass {}", hints.join(", or "))
}

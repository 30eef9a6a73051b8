//! NetworkPolicies. What cannot be read allows nothing: the policy isolates all that it selects, and a selector
//! of which a part cannot be read selects more pods, never fewer.

use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parfait_packet::Origin;

use super::{port, protocol};
use crate::{
    Direction, LabelExpression, LabelOperator, LabelSelector, NetworkPolicy, Note, ObjectName,
    Peer, PolicyPort, PolicyRule, PortMatch,
};

pub(super) fn network_policy(
    policy: &networking::NetworkPolicy,
    notes: &mut Vec<Note>,
) -> Option<NetworkPolicy> {
    let metadata = &policy.metadata;
    let name = ObjectName::new(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref()?,
    );
    let spec = policy.spec.clone().unwrap_or_default();
    let mut parsed = NetworkPolicy {
        name,
        pods: LabelSelector::default(),
        ingress: None,
        egress: None,
    };
    let origin = parsed.origin();
    let field = origin.clone().field("spec.podSelector");
    parsed.pods = selected(
        &spec.pod_selector.clone().unwrap_or_default(),
        &field,
        notes,
    );
    let [ingress, egress] = directions(&spec, &origin, notes);
    let mut reader = Reader {
        policy: &parsed.clone(),
        notes,
    };
    if ingress {
        let rules = spec.ingress.iter().flatten().enumerate();
        let read = rules.map(|(index, rule)| {
            reader.rule(
                Direction::Ingress,
                index,
                rule.from.as_deref(),
                rule.ports.as_deref(),
            )
        });
        parsed.ingress = Some(read.collect());
    }
    if egress {
        let rules = spec.egress.iter().flatten().enumerate();
        let read = rules.map(|(index, rule)| {
            reader.rule(
                Direction::Egress,
                index,
                rule.to.as_deref(),
                rule.ports.as_deref(),
            )
        });
        parsed.egress = Some(read.collect());
    }
    Some(parsed)
}

/// `policyTypes`: ingress and egress. Without it, what the API server's defaults say: ingress, and egress if there are
/// rules for it.
fn directions(
    spec: &networking::NetworkPolicySpec,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> [bool; 2] {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return [
            true,
            spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        ];
    }
    let known = ["Ingress", "Egress"];
    if let Some(other) = types.iter().find(|kind| !known.contains(&kind.as_str())) {
        let origin = origin.clone().field("spec.policyTypes");
        let message =
            format!("{other:?} is none of Ingress, Egress; the policy isolates in both directions");
        notes.push(Note::new(origin, message));
        return [true, true];
    }
    known.map(|kind| types.iter().any(|listed| listed == kind))
}

/// The selector of the pods that are isolated; a part that cannot be read is left out, so that more are.
fn selected(
    selector: &meta::LabelSelector,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> LabelSelector {
    let (parsed, faults) = label_selector(selector);
    for fault in faults {
        let message =
            format!("{fault}; it is left out, and pods are isolated whether they fulfil it or not");
        notes.push(Note::new(origin.clone(), message));
    }
    parsed
}

/// A selector, and what of it could not be read.
pub(super) fn label_selector(selector: &meta::LabelSelector) -> (LabelSelector, Vec<String>) {
    let mut parsed = LabelSelector {
        match_labels: selector.match_labels.clone().unwrap_or_default(),
        match_expressions: Vec::new(),
    };
    let mut faults = Vec::new();
    for asked in selector.match_expressions.iter().flatten() {
        let operator = match asked.operator.as_str() {
            "In" => LabelOperator::In,
            "NotIn" => LabelOperator::NotIn,
            "Exists" => LabelOperator::Exists,
            "DoesNotExist" => LabelOperator::DoesNotExist,
            other => {
                faults.push(format!(
                    "{other:?} is none of In, NotIn, Exists, DoesNotExist"
                ));
                continue;
            }
        };
        let expression = LabelExpression {
            key: asked.key.clone(),
            operator,
            values: asked.values.clone().unwrap_or_default(),
        };
        match expression.fault() {
            Some(fault) => faults.push(fault),
            None => parsed.match_expressions.push(expression),
        }
    }
    (parsed, faults)
}

struct Reader<'a> {
    policy: &'a NetworkPolicy,
    notes: &'a mut Vec<Note>,
}

impl Reader<'_> {
    fn rule(
        &mut self,
        direction: Direction,
        index: usize,
        peers: Option<&[networking::NetworkPolicyPeer]>,
        ports: Option<&[networking::NetworkPolicyPort]>,
    ) -> PolicyRule {
        let name = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let rule = self.policy.rule_origin(direction, index);
        let at = |list: &str, nth: usize| {
            let field = format!("{}.{list}[{nth}]", rule.field);
            rule.clone().field(&field)
        };
        // An empty list means the same as none.
        let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
            let peers = peers.iter().enumerate();
            let read = peers.filter_map(|(nth, peer)| self.peer(peer, at(name, nth)));
            read.collect()
        });
        let ports = ports.filter(|ports| !ports.is_empty()).map(|ports| {
            let ports = ports.iter().enumerate();
            let read = ports.filter_map(|(nth, port)| self.port(port, at("ports", nth)));
            read.collect()
        });
        PolicyRule { peers, ports }
    }

    fn peer(&mut self, peer: &networking::NetworkPolicyPeer, origin: Origin) -> Option<Peer> {
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match (&peer.ip_block, selects) {
            (Some(block), false) => self.block(block, &origin),
            (None, true) => Some(Peer::Pods {
                namespaces: match &peer.namespace_selector {
                    Some(selector) => Some(self.meant(selector, &origin)?),
                    None => None,
                },
                pods: match &peer.pod_selector {
                    Some(selector) => self.meant(selector, &origin)?,
                    None => LabelSelector::default(),
                },
            }),
            (Some(_), true) => {
                self.allows_nothing(&origin, "ipBlock cannot stand beside a selector");
                None
            }
            (None, false) => {
                self.allows_nothing(&origin, "it names neither pods, namespaces nor an ipBlock");
                None
            }
        }
    }

    /// The selector of those who are allowed; if a part cannot be read, nobody is.
    fn meant(&mut self, selector: &meta::LabelSelector, origin: &Origin) -> Option<LabelSelector> {
        let (parsed, faults) = label_selector(selector);
        for fault in &faults {
            self.allows_nothing(origin, fault);
        }
        faults.is_empty().then_some(parsed)
    }

    fn block(&mut self, block: &networking::IPBlock, origin: &Origin) -> Option<Peer> {
        let Ok(cidr) = block.cidr.parse::<ipnet::IpNet>() else {
            self.allows_nothing(origin, &format!("{:?} is not a CIDR", block.cidr));
            return None;
        };
        let cidr = cidr.trunc();
        let mut except = Vec::new();
        for text in block.except.iter().flatten() {
            match text.parse::<ipnet::IpNet>() {
                // What is not to be allowed is not known.
                Err(_) => {
                    self.allows_nothing(origin, &format!("except {text:?} is not a CIDR"));
                    return None;
                }
                Ok(net) if net.contains(&cidr) || cidr.contains(&net) => except.push(net.trunc()),
                Ok(net) => {
                    let message =
                        format!("except {net} lies outside of {cidr}; it changes nothing");
                    self.notes.push(Note::new(origin.clone(), message));
                }
            }
        }
        Some(Peer::Block { cidr, except })
    }

    fn port(
        &mut self,
        asked: &networking::NetworkPolicyPort,
        origin: Origin,
    ) -> Option<PolicyPort> {
        let protocol = protocol(asked.protocol.as_deref(), &origin, self.notes)?;
        let port = match (&asked.port, asked.end_port) {
            (None, None) => PortMatch::Numbers(0, u16::MAX),
            (Some(IntOrString::Int(first)), end) => {
                let first = port(*first, &origin, self.notes)?;
                let last = match end {
                    Some(end) => port(end, &origin, self.notes)?,
                    None => first,
                };
                if last < first {
                    self.allows_nothing(
                        &origin,
                        &format!("endPort {last} is less than port {first}"),
                    );
                    return None;
                }
                PortMatch::Numbers(first, last)
            }
            (Some(IntOrString::String(name)), None) if !name.is_empty() => {
                PortMatch::Name(name.clone())
            }
            _ => {
                self.allows_nothing(&origin, "endPort needs a port with a number");
                return None;
            }
        };
        Some(PolicyPort { protocol, port })
    }

    fn allows_nothing(&mut self, origin: &Origin, fault: &str) {
        let message = format!("{fault}; it allows nothing");
        self.notes.push(Note::new(origin.clone(), message));
    }
}

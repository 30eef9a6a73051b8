//! ClusterNetworkPolicies. The API's documentation says what becomes of a rule with a part that is not understood: it
//! fails closed. "For Accept rules, fail closed means: treat the rule as matching no traffic. For Deny and Pass rules […]:
//! treat the rule as a Deny all rule." So it is done with every mistake, down to a CIDR.
//!
//! Of a policy of which tier, priority or subject cannot be read, only the Deny rules are used, and those that fail
//! closed: for more pods than were meant, never fewer, and behind all others of its tier.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta};
use k8s_openapi::{ClusterResourceScope, Metadata, Resource};
use parfait_packet::{Kind, Origin, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::policy::label_selector;
use crate::{
    ClusterNetworkPolicy, ClusterRule, Direction, LabelSelector, Note, Peer, PolicyAction,
    PolicyPort, PolicyRule, PolicyTier, PortMatch,
};

/// The last of a tier.
const LAST: u16 = 1000;

/// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy, as the API has it: its `spec` is read here, part by part,
/// so that nothing in one keeps others from being read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RawClusterNetworkPolicy {
    /// Its name.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Value,
}

impl Resource for RawClusterNetworkPolicy {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha2";
    const GROUP: &'static str = "policy.networking.k8s.io";
    const KIND: &'static str = "ClusterNetworkPolicy";
    const VERSION: &'static str = "v1alpha2";
    const URL_PATH_SEGMENT: &'static str = "clusternetworkpolicies";
    type Scope = ClusterResourceScope;
}

impl Metadata for RawClusterNetworkPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRule {
    #[serde(default)]
    name: String,
    action: Value,
    from: Option<Vec<Value>>,
    to: Option<Vec<Value>>,
    protocols: Option<Vec<Value>>,
}

/// One of `from` or `to`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum RawPeer {
    Namespaces(RawSelector),
    Pods(RawPods),
    Networks(Vec<String>),
    Nodes(RawSelector),
    DomainNames(Value),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum RawSubject {
    Namespaces(RawSelector),
    Pods(RawPods),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPods {
    #[serde(default)]
    namespace_selector: RawSelector,
    #[serde(default)]
    pod_selector: RawSelector,
}

type RawSelector = meta::LabelSelector;

/// One of `protocols`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum RawProtocol {
    Tcp(RawPorts),
    Udp(RawPorts),
    Sctp(RawPorts),
    DestinationNamedPort(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPorts {
    destination_port: RawPort,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum RawPort {
    Number(i64),
    Range(RawRange),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    start: i64,
    end: i64,
}

pub(super) fn cluster_network_policy(
    raw: &RawClusterNetworkPolicy,
    notes: &mut Vec<Note>,
) -> Option<ClusterNetworkPolicy> {
    let name = raw.metadata.name.clone()?;
    let mut reader = Reader {
        origin: Origin::new(Kind::ClusterNetworkPolicy, "", &name),
        notes,
    };
    let tier = reader.tier(&raw.spec["tier"]);
    let priority = reader.priority(&raw.spec["priority"]);
    let (subject, whole) = reader.subject(&raw.spec["subject"]);
    let trusted = tier.is_some() && priority.is_some() && whole;
    let [ingress, egress] =
        Direction::ALL.map(|direction| reader.rules(direction, &raw.spec, trusted));
    Some(ClusterNetworkPolicy {
        name,
        tier: tier.unwrap_or(PolicyTier::Admin),
        priority: priority.filter(|_| trusted).unwrap_or(LAST),
        namespaces: subject.0,
        pods: subject.1,
        ingress,
        egress,
    })
}

struct Reader<'a> {
    origin: Origin,
    notes: &'a mut Vec<Note>,
}

/// Selectors of namespaces and of pods.
type Subject = (LabelSelector, LabelSelector);

impl Reader<'_> {
    fn note(&mut self, field: &str, message: String) {
        let origin = self.origin.clone().field(field);
        self.notes.push(Note::new(origin, message));
    }

    /// About what all rules depend on.
    fn mistrust(&mut self, field: &str, fault: &str) {
        let message = format!("{fault}; of this policy only rules that deny are used");
        self.note(field, message);
    }

    fn tier(&mut self, value: &Value) -> Option<PolicyTier> {
        let known = [PolicyTier::Admin, PolicyTier::Baseline];
        let found = known.into_iter().find(|tier| *value == *tier.name());
        if found.is_none() {
            let fault = format!("{value} is none of Admin, Baseline, and counts as Admin");
            self.mistrust("spec.tier", &fault);
        }
        found
    }

    fn priority(&mut self, value: &Value) -> Option<u16> {
        let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
        let found = number.filter(|number| *number <= LAST);
        if found.is_none() {
            let fault = format!("{value} is not a number from 0 to {LAST}, and counts as {LAST}");
            self.mistrust("spec.priority", &fault);
        }
        found
    }

    /// The selectors, and whether they are all that was asked for: a part that cannot be read is left out.
    fn subject(&mut self, value: &Value) -> (Subject, bool) {
        let field = "spec.subject";
        let (namespaces, pods) = match RawSubject::deserialize(value) {
            Ok(RawSubject::Namespaces(selector)) => (selector, RawSelector::default()),
            Ok(RawSubject::Pods(both)) => (both.namespace_selector, both.pod_selector),
            Err(_) => {
                let fault =
                    format!("it must have one of namespaces, pods: {value} counts as all pods");
                self.mistrust(field, &fault);
                return (Subject::default(), false);
            }
        };
        let mut whole = true;
        let mut read = |selector: &RawSelector| {
            let (selector, faults) = label_selector(selector);
            for fault in faults {
                whole = false;
                self.mistrust(field, &format!("{fault}; it is left out"));
            }
            selector
        };
        ((read(&namespaces), read(&pods)), whole)
    }

    fn rules(&mut self, direction: Direction, spec: &Value, trusted: bool) -> Vec<ClusterRule> {
        let rules = match &spec[direction.name()] {
            Value::Null => return Vec::new(),
            Value::Array(rules) => rules.clone(),
            // What stands there is a rule that cannot be read.
            other => vec![other.clone()],
        };
        let rules = rules.iter().enumerate();
        let read = rules.map(|(index, rule)| {
            let field = format!("spec.{}[{index}]", direction.name());
            let mut rule = self.rule(direction, rule, &field);
            if !trusted && rule.action != PolicyAction::Deny {
                rule = closed(rule.name, PolicyAction::Accept);
            }
            rule
        });
        read.collect()
    }

    fn rule(&mut self, direction: Direction, value: &Value, field: &str) -> ClusterRule {
        let raw = match RawRule::deserialize(value) {
            Ok(raw) => raw,
            Err(error) => {
                let name = value["name"].as_str().unwrap_or_default();
                let action = action(&value["action"]).unwrap_or(PolicyAction::Deny);
                self.fails(field, action, &error.to_string());
                return closed(name.to_owned(), action);
            }
        };
        let Some(action) = action(&raw.action) else {
            let fault = format!("{} is none of Accept, Deny, Pass", raw.action);
            self.fails(&format!("{field}.action"), PolicyAction::Deny, &fault);
            return closed(raw.name, PolicyAction::Deny);
        };
        match matches(direction, &raw) {
            Ok(matches) => ClusterRule {
                name: raw.name,
                action,
                matches,
            },
            Err((part, fault)) => {
                let field = match part.is_empty() {
                    true => field.to_owned(),
                    false => format!("{field}.{part}"),
                };
                self.fails(&field, action, &fault);
                closed(raw.name, action)
            }
        }
    }

    fn fails(&mut self, field: &str, action: PolicyAction, fault: &str) {
        let what = match action {
            PolicyAction::Accept => "the rule accepts nothing",
            PolicyAction::Deny | PolicyAction::Pass => "the rule denies everything",
        };
        self.note(field, format!("{fault}; {what}"));
    }
}

fn action(value: &Value) -> Option<PolicyAction> {
    match value.as_str()? {
        "Accept" => Some(PolicyAction::Accept),
        "Deny" => Some(PolicyAction::Deny),
        "Pass" => Some(PolicyAction::Pass),
        _ => None,
    }
}

/// A rule that fails closed: one that accepts matches nothing, and any other denies everything.
fn closed(name: String, action: PolicyAction) -> ClusterRule {
    let accepts = action == PolicyAction::Accept;
    ClusterRule {
        name,
        action: match accepts {
            true => PolicyAction::Accept,
            false => PolicyAction::Deny,
        },
        matches: PolicyRule {
            peers: accepts.then(Vec::new),
            ports: None,
        },
    }
}

/// Which part of a rule is wrong, and how.
type Fault = (String, String);

fn matches(direction: Direction, raw: &RawRule) -> Result<PolicyRule, Fault> {
    let [(list, named), (other, strange)] = match direction {
        Direction::Ingress => [("from", &raw.from), ("to", &raw.to)],
        Direction::Egress => [("to", &raw.to), ("from", &raw.from)],
    };
    if strange.is_some() {
        let fault = format!("it has no place in {}", direction.name());
        return Err((other.to_owned(), fault));
    }
    let named = named.as_deref().unwrap_or_default();
    if named.is_empty() {
        return Err((list.to_owned(), "it names nobody".to_owned()));
    }
    let mut peers = Vec::new();
    for (index, value) in named.iter().enumerate() {
        let read = peer(direction, value)
            .map_err(|(part, fault)| (format!("{list}[{index}]{part}"), fault))?;
        peers.extend(read);
    }
    let ports = match &raw.protocols {
        None => None,
        Some(protocols) if protocols.is_empty() => {
            return Err(("protocols".to_owned(), "it names none".to_owned()));
        }
        Some(protocols) => {
            let mut ports = Vec::new();
            for (index, value) in protocols.iter().enumerate() {
                let read =
                    protocol(value).map_err(|fault| (format!("protocols[{index}]"), fault))?;
                ports.extend(read);
            }
            Some(ports)
        }
    };
    let named = |port: &PolicyPort| matches!(port.port, PortMatch::Name(_));
    let nameless = |peer: &Peer| !matches!(peer, Peer::Pods { .. });
    if ports.iter().flatten().any(named) && peers.iter().any(nameless) {
        let fault = "networks and nodes have no named ports".to_owned();
        return Err(("protocols".to_owned(), fault));
    }
    Ok(PolicyRule {
        peers: Some(peers),
        ports,
    })
}

/// What one of `from` or `to` means; the part of it that is wrong begins with a dot.
fn peer(direction: Direction, value: &Value) -> Result<Vec<Peer>, Fault> {
    let raw = RawPeer::deserialize(value).map_err(|_| {
        let known = match direction {
            Direction::Ingress => "namespaces, pods",
            Direction::Egress => "namespaces, pods, networks, nodes",
        };
        (String::new(), format!("{value} is not one of {known}"))
    })?;
    let pods = |namespaces, pods| -> Result<Vec<Peer>, Fault> {
        Ok(vec![Peer::Pods {
            namespaces: Some(meant(namespaces)?),
            pods: meant(pods)?,
        }])
    };
    match (raw, direction) {
        (RawPeer::Namespaces(selector), _) => pods(&selector, &RawSelector::default()),
        (RawPeer::Pods(both), _) => pods(&both.namespace_selector, &both.pod_selector),
        (RawPeer::Nodes(selector), Direction::Egress) => Ok(vec![Peer::Nodes(meant(&selector)?)]),
        (RawPeer::Networks(networks), Direction::Egress) if !networks.is_empty() => {
            let blocks = networks.iter().enumerate().map(|(index, text)| {
                let net: Result<ipnet::IpNet, _> = text.parse();
                let cidr = net.map_err(|_| {
                    let part = format!(".networks[{index}]");
                    (part, format!("{text:?} is not a CIDR"))
                })?;
                let except = Vec::new();
                let cidr = cidr.trunc();
                Ok(Peer::Block { cidr, except })
            });
            blocks.collect()
        }
        (RawPeer::DomainNames(names), Direction::Egress) => {
            let fault = format!("{names}: domain names are not supported yet");
            Err((".domainNames".to_owned(), fault))
        }
        (RawPeer::Networks(_), Direction::Egress) => {
            Err((".networks".to_owned(), "it names none".to_owned()))
        }
        _ => Err((
            String::new(),
            format!("{value} is not one of namespaces, pods"),
        )),
    }
}

fn meant(selector: &RawSelector) -> Result<LabelSelector, Fault> {
    let (selector, mut faults) = label_selector(selector);
    match faults.pop() {
        None => Ok(selector),
        Some(fault) => Err((String::new(), fault)),
    }
}

fn protocol(value: &Value) -> Result<Vec<PolicyPort>, String> {
    let wrong = |_| {
        format!("{value} is not one of tcp, udp, sctp with a destinationPort, destinationNamedPort")
    };
    let (protocol, ports) = match RawProtocol::deserialize(value).map_err(wrong)? {
        RawProtocol::Tcp(ports) => (Protocol::Tcp, ports),
        RawProtocol::Udp(ports) => (Protocol::Udp, ports),
        RawProtocol::Sctp(ports) => (Protocol::Sctp, ports),
        // The name says which protocol.
        RawProtocol::DestinationNamedPort(name) if !name.is_empty() => {
            let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
            let named = all.map(|protocol| PolicyPort {
                protocol,
                port: PortMatch::Name(name.clone()),
            });
            return Ok(named.collect());
        }
        RawProtocol::DestinationNamedPort(_) => return Err("a port has no empty name".to_owned()),
    };
    let number = |number: i64| {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        port.ok_or_else(|| format!("{number} is not a port (1 to 65535)"))
    };
    let (first, last) = match ports.destination_port {
        RawPort::Number(one) => (number(one)?, number(one)?),
        RawPort::Range(RawRange { start, end }) => (number(start)?, number(end)?),
    };
    if last < first {
        return Err(format!("range end {last} is less than start {first}"));
    }
    let port = PortMatch::Numbers(first, last);
    Ok(vec![PolicyPort { protocol, port }])
}

//! ClusterNetworkPolicies, and NodeNetworkPolicies, of which the rules are the same. The API's documentation says what becomes of a rule with a part that is not understood: it
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
    ClusterNetworkPolicy, ClusterRule, Direction, LabelSelector, NodeNetworkPolicy, Note, Peer,
    PolicyAction, PolicyPort, PolicyRule, PolicyTier, PortMatch,
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

/// `parfait.dev/v1alpha1` NodeNetworkPolicy, as the API has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RawNodeNetworkPolicy {
    /// Its name.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Value,
}

macro_rules! resource {
    ($kind:ident, $group:literal, $version:literal, $name:literal, $plural:literal) => {
        impl Resource for $kind {
            const API_VERSION: &'static str = concat!($group, "/", $version);
            const GROUP: &'static str = $group;
            const KIND: &'static str = $name;
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = ClusterResourceScope;
        }

        impl Metadata for $kind {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(
    RawClusterNetworkPolicy,
    "policy.networking.k8s.io",
    "v1alpha2",
    "ClusterNetworkPolicy",
    "clusternetworkpolicies"
);
resource!(
    RawNodeNetworkPolicy,
    "parfait.dev",
    "v1alpha1",
    "NodeNetworkPolicy",
    "nodenetworkpolicies"
);

/// Whose rules they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// What comes in to pods.
    Ingress,
    /// What goes out of pods.
    Egress,
    /// What comes in to nodes: from addresses too, to ports that have no names. There is no tier to pass on to.
    Node,
}

impl Side {
    const fn direction(self) -> &'static str {
        match self {
            Self::Ingress | Self::Node => Direction::Ingress.name(),
            Self::Egress => Direction::Egress.name(),
        }
    }

    const fn peers(self) -> &'static str {
        match self {
            Self::Ingress => "namespaces, pods",
            Self::Egress | Self::Node => "namespaces, pods, networks, nodes",
        }
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
        [Side::Ingress, Side::Egress].map(|side| reader.rules(side, &raw.spec, trusted));
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

pub(super) fn node_network_policy(
    raw: &RawNodeNetworkPolicy,
    notes: &mut Vec<Note>,
) -> Option<NodeNetworkPolicy> {
    let name = raw.metadata.name.clone()?;
    let mut reader = Reader {
        origin: Origin::new(Kind::NodeNetworkPolicy, "", &name),
        notes,
    };
    let priority = reader.priority(&raw.spec["priority"]);
    let (nodes, whole) = reader.nodes(&raw.spec["nodeSelector"]);
    let trusted = priority.is_some() && whole;
    let ingress = reader.rules(Side::Node, &raw.spec, trusted);
    Some(NodeNetworkPolicy {
        name,
        priority: priority.filter(|_| trusted).unwrap_or(LAST),
        nodes,
        ingress,
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
        let [namespaces, pods] = [namespaces, pods].map(|selector| self.selects(field, &selector));
        let whole = namespaces.1 && pods.1;
        ((namespaces.0, pods.0), whole)
    }

    /// The selector of nodes, and whether it is all that was asked for.
    fn nodes(&mut self, value: &Value) -> (LabelSelector, bool) {
        let field = "spec.nodeSelector";
        let read = match value {
            Value::Null => Ok(RawSelector::default()),
            value => RawSelector::deserialize(value),
        };
        match read {
            Ok(selector) => self.selects(field, &selector),
            Err(error) => {
                let fault = format!("{error}, and it counts as all nodes");
                self.mistrust(field, &fault);
                (LabelSelector::default(), false)
            }
        }
    }

    /// A selector without what cannot be read of it, and whether that is nothing.
    fn selects(&mut self, field: &str, selector: &RawSelector) -> (LabelSelector, bool) {
        let (selector, faults) = label_selector(selector);
        for fault in &faults {
            self.mistrust(field, &format!("{fault}; it is left out"));
        }
        (selector, faults.is_empty())
    }

    fn rules(&mut self, side: Side, spec: &Value, trusted: bool) -> Vec<ClusterRule> {
        let rules = match &spec[side.direction()] {
            Value::Null => return Vec::new(),
            Value::Array(rules) => rules.clone(),
            // What stands there is a rule that cannot be read.
            other => vec![other.clone()],
        };
        let rules = rules.iter().enumerate();
        let read = rules.map(|(index, rule)| {
            let field = format!("spec.{}[{index}]", side.direction());
            let mut rule = self.rule(side, rule, &field);
            if !trusted && rule.action != PolicyAction::Deny {
                rule = closed(rule.name, PolicyAction::Accept);
            }
            rule
        });
        read.collect()
    }

    fn rule(&mut self, side: Side, value: &Value, field: &str) -> ClusterRule {
        let raw = match RawRule::deserialize(value) {
            Ok(raw) => raw,
            Err(error) => {
                let name = value["name"].as_str().unwrap_or_default();
                let action = action(side, &value["action"]).unwrap_or(PolicyAction::Deny);
                self.fails(field, action, &error.to_string());
                return closed(name.to_owned(), action);
            }
        };
        let Some(action) = action(side, &raw.action) else {
            let known = match side {
                Side::Node => "neither Accept nor Deny",
                Side::Ingress | Side::Egress => "none of Accept, Deny, Pass",
            };
            let fault = format!("{} is {known}", raw.action);
            self.fails(&format!("{field}.action"), PolicyAction::Deny, &fault);
            return closed(raw.name, PolicyAction::Deny);
        };
        match matches(side, &raw) {
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

fn action(side: Side, value: &Value) -> Option<PolicyAction> {
    match value.as_str()? {
        "Accept" => Some(PolicyAction::Accept),
        "Deny" => Some(PolicyAction::Deny),
        "Pass" if side != Side::Node => Some(PolicyAction::Pass),
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

fn matches(side: Side, raw: &RawRule) -> Result<PolicyRule, Fault> {
    let [(list, named), (other, strange)] = match side {
        Side::Ingress | Side::Node => [("from", &raw.from), ("to", &raw.to)],
        Side::Egress => [("to", &raw.to), ("from", &raw.from)],
    };
    if strange.is_some() {
        let fault = format!("it has no place in {}", side.direction());
        return Err((other.to_owned(), fault));
    }
    let named = named.as_deref().unwrap_or_default();
    if named.is_empty() {
        return Err((list.to_owned(), "it names nobody".to_owned()));
    }
    let mut peers = Vec::new();
    for (index, value) in named.iter().enumerate() {
        let read =
            peer(side, value).map_err(|(part, fault)| (format!("{list}[{index}]{part}"), fault))?;
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
    let nameless = side == Side::Node || peers.iter().any(nameless);
    if nameless && ports.iter().flatten().any(named) {
        let fault = match side {
            Side::Node => "a node has no named ports",
            Side::Ingress | Side::Egress => "networks and nodes have no named ports",
        };
        let fault = fault.to_owned();
        return Err(("protocols".to_owned(), fault));
    }
    Ok(PolicyRule {
        peers: Some(peers),
        ports,
    })
}

/// What one of `from` or `to` means; the part of it that is wrong begins with a dot.
fn peer(side: Side, value: &Value) -> Result<Vec<Peer>, Fault> {
    let raw = RawPeer::deserialize(value).map_err(|_| {
        (
            String::new(),
            format!("{value} is not one of {}", side.peers()),
        )
    })?;
    let pods = |namespaces, pods| -> Result<Vec<Peer>, Fault> {
        Ok(vec![Peer::Pods {
            namespaces: Some(meant(namespaces)?),
            pods: meant(pods)?,
        }])
    };
    let addresses = side != Side::Ingress;
    match raw {
        RawPeer::Namespaces(selector) => pods(&selector, &RawSelector::default()),
        RawPeer::Pods(both) => pods(&both.namespace_selector, &both.pod_selector),
        RawPeer::Nodes(selector) if addresses => Ok(vec![Peer::Nodes(meant(&selector)?)]),
        RawPeer::Networks(networks) if addresses && !networks.is_empty() => {
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
        RawPeer::DomainNames(names) if side == Side::Egress => {
            let fault = format!("{names}: domain names are not supported yet");
            Err((".domainNames".to_owned(), fault))
        }
        RawPeer::Networks(_) if addresses => {
            Err((".networks".to_owned(), "it names none".to_owned()))
        }
        _ => Err((
            String::new(),
            format!("{value} is not one of {}", side.peers()),
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

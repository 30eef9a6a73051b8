//! Isolated until known: what a pod may exchange packets with before its node's agent knows it.
//!
//! ```text
//! table ip parfait {
//!   set known_pods  { type ifname . ipv4_addr; elements = { "pf3f29c1d04a11" . 10.244.1.2 } }
//!   chain isolation { type filter hook forward priority filter - 10;
//!     ct state ! established,related iifname "pf*" iifname != "pf-vxlan" iifname . ip saddr != @known_pods drop
//!     ct state ! established,related oifname "pf*" oifname != "pf-vxlan" oifname . ip daddr != @known_pods drop }
//! }
//! ```
//!
//! The CNI plugin makes a pod's network before any object says so, and the pod's first packet may come
//! before the plugin ends. What is decided about a pod must hold from then on; so its interface and
//! address are looked up in a set that only the agent fills, and without an agent nobody new is in it.
//!
//! - Packets between the pod and its own node are not forwarded, so they never come here: probes of the
//!   kubelet, cluster DNS, pods on the node's network, neighbour discovery and all else that is
//!   link-local (which routers do not forward, RFC 4291 section 2.5.6).
//! - Forwarding sees addresses after destinations are translated and before sources are: a Service's
//!   packet has its endpoint's address, a reply its pod's, and a pod that reaches itself its own twice.
//! - What belongs to a connection has been let through once, and to look up every packet costs 5 % of a connection. A pod
//!   that is not known has no connections: the plugin gives no address of which any are left (`ended` of programs/cni).
//! - As the interface belongs to the key, a pod can send with its own address only. For IPv6, for which the kernel has
//!   no `rp_filter`, this is what keeps it from borrowing another's, and there every packet that a pod sends is looked up.
//! - An address that passes to another pod is unknown again, since the interface is another.
//!
//! The same function makes the rules of the agent's plan and those that the plugin makes itself where
//! there is no table yet: after a reboot, pods may be started before the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use parfait_cluster::{PodIsolation, Snapshot};
use parfait_linux::IfName;
use parfait_linux::attachment::{host_interface, is_named_alike};
use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, DataType, Element, Family as TableFamily, Field, Hook,
    Policy, Rule, Set, Statement, Table, Value, Verdict,
};
use parfait_packet::{Family, Origin};

/// The chain.
pub const CHAIN: &str = "isolation";

/// The set.
pub const KNOWN: &str = "known_pods";

/// The pods that the agent knows, by the node's end of their veth pair and address, and for whom each is.
pub type KnownPods = BTreeMap<(IfName, IpAddr), Origin>;

/// Who is known on a node; `None` if nobody is isolated.
#[must_use]
pub fn known_pods(snapshot: &Snapshot, node: &str) -> Option<KnownPods> {
    if snapshot.config.pod_isolation == PodIsolation::None {
        return None;
    }
    let own = snapshot.pods_on(node).filter(|pod| !pod.host_network);
    let mut known: KnownPods = own
        .flat_map(|pod| {
            let interface = host_interface(&pod.name.namespace, &pod.name.name);
            let key = move |address: &IpAddr| ((interface.clone(), *address), pod.origin());
            pod.addresses.iter().map(key)
        })
        .collect();
    for attachment in snapshot.attachments_on(node) {
        let Ok(interface) = IfName::new(&attachment.interface) else {
            continue;
        };
        for address in &attachment.addresses {
            let known = known.entry((interface.clone(), *address));
            known.or_insert_with(|| attachment.origin());
        }
    }
    Some(known)
}

/// The set and the chain, for a table of this family. `others` are left alone though their names may begin as pods'
/// interfaces do (`pf0hpf` of a BlueField).
#[must_use]
pub fn isolation<'a>(
    known: &KnownPods,
    others: impl IntoIterator<Item = &'a IfName>,
    family: Family,
) -> (Set, Chain) {
    let mut set = Set::new([Field::Iifname, Field::Saddr], DataType::None);
    for ((interface, address), origin) in known {
        if Family::of(*address) == family {
            let key = vec![
                Value::Ifname(interface.to_string()),
                Value::Address(*address),
            ];
            let element = Element::new(Data::None).origin(origin.clone());
            set.elements.insert(key, element);
        }
    }
    let hook = BaseChain {
        kind: ChainType::Filter,
        hook: Hook::Forward,
        priority: -10,
        policy: Policy::Accept,
    };
    let cards = others.into_iter().map(IfName::as_str);
    let cards: BTreeSet<_> = cards.filter(|name| is_named_alike(name)).collect();
    let no_answer = || {
        let known = ct_state::ESTABLISHED | ct_state::RELATED;
        Statement::no_bit(Field::CtState, known)
    };
    let sender = match family {
        Family::Ipv4 => Some(no_answer()),
        Family::Ipv6 => None,
    };
    let rules = [
        unknown(sender, Field::Iifname, Field::Saddr, &cards),
        unknown(Some(no_answer()), Field::Oifname, Field::Daddr, &cards),
    ];
    (set, Chain::base(hook, rules))
}

/// What a node must hold as long as nobody is known: all that the plugin makes where the agent has not
/// made its tables yet.
#[must_use]
pub fn nobody_known() -> [Table; 2] {
    Family::ALL.map(|family| {
        let (set, chain) = isolation(&KnownPods::new(), [], family);
        let family = match family {
            Family::Ipv4 => TableFamily::Ip,
            Family::Ipv6 => TableFamily::Ip6,
        };
        Table::new(family, "parfait")
            .set(KNOWN, set)
            .chain(CHAIN, chain)
    })
}

/// `ct state ! established,related iifname "pf*" iifname != "pf-vxlan" iifname . ip saddr != @known_pods drop`: every interface of that
/// name but the tunnel's and other programs' is a pod's.
fn unknown(
    which: Option<Statement>,
    interface: Field,
    address: Field,
    cards: &BTreeSet<&str>,
) -> Rule {
    let named = |name: &str| Value::Ifname(name.to_owned());
    let mut statements: Vec<_> = which.into_iter().collect();
    statements.extend([
        Statement::is(interface, named("pf*")),
        Statement::is_not(interface, named("pf-vxlan")),
    ]);
    let others = cards
        .iter()
        .map(|name| Statement::is_not(interface, named(name)));
    statements.extend(others);
    statements.push(Statement::not_in_set([interface, address], KNOWN));
    statements.push(Statement::Verdict(Verdict::Drop));
    Rule::new(statements).origin(Origin::parfait("isolation"))
}

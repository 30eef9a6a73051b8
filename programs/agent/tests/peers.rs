//! Nodes that join, leave, change address or pod CIDR: in every routing mode and family what leads to them follows,
//! and what led there before goes. The kernel is one in memory.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
#[path = "../../../model/cluster/tests/fixture/changed.rs"]
mod news;

use std::collections::BTreeSet;

use fixture::{APART, DUAL, SIX, clusters};
use parfait_agent::{Machine, Upkeep};
use parfait_cluster::{Routing, Snapshot};
use parfait_kernel::FakeKernel;
use parfait_kernel::FakeNetfilter;
use parfait_linux::{Address, IfName, Link, LinkKind, State, Sysctl, SysctlKey};
use parfait_packet::Family;

/// node-1's machine: eth0 with its addresses.
fn machine(snapshot: &Snapshot) -> State {
    let eth0 = IfName::new("eth0").expect("a name");
    let mut state = State::default();
    state.insert(
        Link::new(eth0.clone(), LinkKind::Other("interface".to_owned())),
        None,
    );
    for family in Family::ALL {
        state.insert(Sysctl::new(SysctlKey::forwarding(family), "0"), None);
    }
    let underlay = snapshot.nodes["node-1"]
        .underlay
        .as_ref()
        .expect("reported");
    for net in &underlay.addresses {
        state.insert(Address::new(eth0.clone(), *net), None);
    }
    state
}

/// What is in the kernel that leads to peers.
fn ways(state: &State) -> String {
    let peers = State {
        links: std::collections::BTreeMap::new(),
        addresses: std::collections::BTreeMap::new(),
        sysctls: std::collections::BTreeMap::new(),
        tables: parfait_linux::nft::Tables::new(),
        ..state.clone()
    };
    peers.to_string()
}

/// node-3 leaves, comes back with another address, then with another pod CIDR, and dies.
fn lives(first: &Snapshot) -> Vec<Snapshot> {
    let change = |from: &Snapshot, change: &dyn Fn(&str) -> String| {
        let mut to = from.clone();
        let node = to.nodes.get_mut("node-3").expect("a node");
        let again = |text: String| change(&text);
        node.addresses = node
            .addresses
            .iter()
            .map(|a| again(a.to_string()).parse().expect("one"))
            .collect();
        let underlay = node.underlay.as_mut().expect("reported");
        underlay.addresses = underlay
            .addresses
            .iter()
            .map(|a| again(a.to_string()).parse().expect("one"))
            .collect();
        node.pod_cidrs = node
            .pod_cidrs
            .iter()
            .map(|c| again(c.to_string()).parse().expect("one"))
            .collect();
        to
    };
    let moved = change(first, &|text| {
        text.replace("192.168.88.13", "192.168.88.14")
            .replace("88::13", "88::14")
    });
    let near = change(first, &|text| {
        text.replace("192.168.88.", "192.168.77.")
            .replace("fd00:88::", "fd00:77::")
    });
    let renumbered = change(first, &|text| {
        text.replace("10.244.3.", "10.244.9.")
            .replace("244:3::", "244:9::")
    });
    let mut gone = first.clone();
    gone.nodes.remove("node-3");
    gone.pods
        .retain(|_, pod| pod.node.as_deref() != Some("node-3"));
    let mut dead = first.clone();
    dead.nodes.get_mut("node-3").expect("a node").ready = false;
    vec![
        first.clone(),
        gone.clone(),
        first.clone(),
        moved,
        near,
        renumbered,
        dead,
        gone,
    ]
}

#[test]
fn what_leads_to_a_peer_follows_it_and_what_led_there_before_goes() {
    for text in [APART, SIX, DUAL] {
        for routing in [Routing::Auto, Routing::Direct, Routing::Vxlan, Routing::Bgp] {
            let mut first = clusters(&[text]);
            first.config.routing = routing;
            first.pods.clear();
            let fresh = |snapshot: &Snapshot| {
                let machine =
                    Machine::new(FakeKernel::new(machine(snapshot)), FakeNetfilter::default());
                let mut agent = Upkeep::new("node-1", machine);
                let round = agent.round(snapshot, &BTreeSet::new()).expect("a node");
                assert!(round.failures.is_empty(), "{:?}", round.failures);
                ways(&agent.machine().parts().0.state)
            };
            let machine = Machine::new(FakeKernel::new(machine(&first)), FakeNetfilter::default());
            let mut agent = Upkeep::new("node-1", machine);
            let mut seen = BTreeSet::new();
            let mut before = Snapshot::default();
            for (number, snapshot) in lives(&first).iter().enumerate() {
                let changed = news::changed(&before, snapshot);
                agent.round(snapshot, &changed).expect("a node");
                before.clone_from(snapshot);
                let held = ways(&agent.machine().parts().0.state);
                assert_eq!(held, fresh(snapshot), "{routing:?} {number} {text}");
                seen.insert(held);
            }
            // With BGP only the node's own ranges are there; with any other mode the ways differ.
            assert_eq!(seen.len() > 1, routing != Routing::Bgp, "{routing:?}");
        }
    }
}

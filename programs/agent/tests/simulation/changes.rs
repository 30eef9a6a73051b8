//! What the agent does about what it finds on a machine: other programs' changes under `foreignChanges`, and
//! what the kernel cannot hold.

use std::collections::BTreeSet;

use parfait_agent::{Machine, Round, Upkeep};
use parfait_cluster::{ForeignChanges, Snapshot};
use parfait_kernel::{Call, FakeKernel};
use parfait_linux::{Route, RouteKey, RouteProtocol, State, Step, Sysctl, SysctlKey};
use parfait_packet::Family;
use rustix::io::Errno;

use crate::world::{Racing, World, name, parse};
use crate::{fixture, news};

const CLUSTER: &str = "
config clusterCIDRs=10.244.0.0/16,fd00:10:244::/56 serviceCIDRs=10.96.0.0/16
node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 underlay=192.168.77.11/24,fd00:77::11/64
node node-2 pods=10.244.2.0/24,fd00:10:244:2::/64 underlay=192.168.77.12/24,fd00:77::12/64
service web ip=10.96.0.20 ports=80/TCP
service kube-system/dns ip=10.96.0.10 ports=53/UDP servedByNode
";

struct Run {
    agent: Upkeep<FakeKernel, Racing>,
    snapshot: Snapshot,
    told: Snapshot,
}

impl Run {
    fn on(machine: State, more: &str) -> Self {
        let machine = Machine::new(FakeKernel::new(machine), Racing::default());
        Self {
            agent: Upkeep::new("node-1", machine),
            snapshot: fixture::clusters(&[CLUSTER, more]),
            told: Snapshot::default(),
        }
    }

    fn changes(mut self, changes: ForeignChanges) -> Self {
        self.snapshot.config.foreign_changes = changes;
        self
    }

    /// The agent looks at everything again.
    fn look(&mut self) -> Round {
        self.agent.look_again();
        self.round()
    }

    fn round(&mut self) -> Round {
        let changed = news::changed(&self.told, &self.snapshot);
        self.told = self.snapshot.clone();
        self.agent.round(&self.snapshot, &changed).unwrap()
    }

    fn kernel(&mut self) -> &mut State {
        &mut self.agent.machine().parts().0.state
    }

    /// The cluster is told anew, with something more.
    fn more(&mut self, more: &str) {
        let changes = self.snapshot.config.foreign_changes;
        self.snapshot = fixture::clusters(&[CLUSTER, more]);
        self.snapshot.config.foreign_changes = changes;
    }

    /// Somebody loses, spoils and adds things of ours.
    fn meddle(&mut self) {
        let forwarding = SysctlKey::forwarding(Family::Ipv4);
        let extra = Route::unreachable(parse("10.244.99.0/24"));
        let kernel = self.kernel();
        kernel.insert(Sysctl::new(forwarding, "0"), None);
        kernel.insert(extra, None);
        kernel
            .routes
            .retain(|key, _| key.destination != parse("10.244.2.0/24"));
        kernel
            .addresses
            .retain(|key, _| key.1 != parse("10.96.0.10/32"));
        let netfilter = &mut self.agent.machine().parts().1.fake;
        for table in netfilter.tables.values_mut() {
            table.chains.get_mut("source_nat").unwrap().rules.clear();
            if let Some(set) = table.sets.get_mut("own_pods") {
                set.elements.clear();
            }
        }
        netfilter.changed();
    }
}

fn told(round: &Round) -> Vec<String> {
    round.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn what_others_change_is_put_back() {
    let mut run = Run::on(World::machine(), "").changes(ForeignChanges::Restore);
    run.look();
    let before = run.kernel().clone();
    run.meddle();
    let round = run.look();
    assert!(round.steps >= 5 && round.drift.len() >= 5, "{round:?}");
    assert_eq!(told(&round), Vec::<String>::new());
    assert_eq!(*run.kernel(), before);
}

#[test]
fn what_others_change_is_only_told_and_the_plans_own_changes_are_made_around_it() {
    let mut run = Run::on(World::machine(), "").changes(ForeignChanges::Report);
    assert!(run.look().steps > 0, "the first time all is carried out");
    run.meddle();
    let meddled = run.kernel().clone();
    let round = run.look();
    assert_eq!(round.steps, 0);
    assert!(!round.unfinished(), "{round:?}");
    let found = told(&round);
    for part in [
        "different: net.ipv4.ip_forward = 1 (found net.ipv4.ip_forward = 0)",
        "extra: unreachable 10.244.99.0/24 proto 112",
        "missing: 10.244.2.0/24 via 192.168.77.12",
        "missing: inet 10.96.0.10/32 scope host",
        "own_pods",
        "source_nat",
    ] {
        assert!(found.iter().any(|f| f.contains(part)), "{part}: {found:#?}");
    }
    assert_eq!(round.untold(), BTreeSet::new(), "nothing is told twice");
    assert_eq!(*run.kernel(), meddled);
    let between = run.round();
    assert!(round.looked && !between.looked, "nothing has ended");
    run.more(
        "node node-3 pods=10.244.3.0/24 underlay=192.168.77.13/24
         service api ip=10.96.0.21 ports=80/TCP",
    );
    let round = run.look();
    assert!(round.failures.is_empty() && round.steps > 0, "{round:?}");
    let there = |net: &str, state: &State| {
        let mut routes = state.routes.keys();
        routes.any(|key| key.destination == parse(net))
    };
    assert!(there("10.244.3.0/24", run.kernel()), "the new peer's");
    assert!(!there("10.244.2.0/24", run.kernel()), "and no other");
    assert!(told(&round).iter().all(|f| !f.contains("10.96.0.21")));
    assert_eq!(told(&round), found, "as before");
    assert_eq!(run.look().steps, 0);
    let kept = run.changes(ForeignChanges::Restore);
    let mut run = kept;
    assert_eq!(told(&run.look()), Vec::<String>::new(), "put back at last");
    assert!(there("10.244.2.0/24", run.kernel()));
}

#[test]
fn a_kernel_without_ipv6_serves_ipv4_and_says_so() {
    let mut machine = World::machine();
    machine = machine.without(Family::Ipv6);
    let mut run = Run::on(machine, "");
    let round = run.look();
    assert!(!round.unfinished(), "{:?}", round.failures);
    assert!(round.no_ipv6);
    let notes: Vec<_> = round.notes().iter().map(ToString::to_string).collect();
    let notes: Vec<_> = notes.iter().filter(|note| note.contains("IPv6")).collect();
    assert!(
        matches!(&notes[..], [note] if note.contains("start it without ipv6.disable=1")),
        "{notes:?}"
    );
    let (kernel, netfilter) = run.agent.machine().parts();
    let steps = kernel.calls.iter().filter_map(|call| match call {
        Call::Execute(step) => Some(step.to_string()),
        Call::Observe => None,
    });
    let six: Vec<_> = steps
        .filter(|step| step.contains("::") || step.contains("ipv6"))
        .collect();
    assert_eq!(six, Vec::<String>::new());
    let tables: Vec<_> = netfilter
        .fake
        .tables
        .keys()
        .map(|key| key.0.to_string())
        .collect();
    assert_eq!(tables, ["ip"]);
    let again = run.look();
    assert_eq!((again.steps, told(&again)), (0, Vec::new()));
}

#[test]
fn a_setting_that_the_kernel_has_not_is_noted_and_not_tried_for_ever() {
    let mut machine = World::machine();
    let key = SysctlKey::every(Family::Ipv4, "default", "forwarding");
    machine.sysctls.remove(&key);
    let mut run = Run::on(machine, "");
    for _ in 0..2 {
        let round = run.look();
        assert!(!round.unfinished(), "{:?}", round.failures);
        assert_eq!(told(&round), Vec::<String>::new());
        let notes: BTreeSet<_> = round.lacking.iter().map(ToString::to_string).collect();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(
            notes
                .first()
                .unwrap()
                .contains("no setting net.ipv4.conf.default.forwarding"),
            "{notes:?}"
        );
    }
}

#[test]
fn a_default_route_from_a_router_survives_forwarding() {
    let mut machine = World::machine();
    let mut route = Route::via(parse("::/0"), parse("fe80::1"), name("eth0"));
    route.protocol = RouteProtocol::RA;
    machine.insert(route, None);
    let mut run = Run::on(machine, "");
    let round = run.look();
    let underlay = round.underlay.unwrap();
    assert!(underlay.advertised);
    // The agent reports it, and plans with it from then on.
    let this = run.snapshot.nodes.get_mut("node-1").unwrap();
    this.underlay = Some(underlay);
    let fresh = World::machine().sysctls;
    run.kernel().sysctls = fresh;
    run.agent.machine().parts().0.calls.clear();
    run.look();
    let calls = &run.agent.machine().parts().0.calls;
    let writes = calls.iter().filter_map(|call| match call {
        Call::Execute(step) if step.to_string().starts_with("sysctl -w net.ipv6") => {
            Some(Step::to_string(step))
        }
        _ => None,
    });
    assert_eq!(
        writes.collect::<Vec<_>>(),
        [
            "sysctl -w net.ipv6.conf.eth0.accept_ra=\"2\"",
            "sysctl -w net.ipv6.conf.all.forwarding=\"1\"",
        ]
    );
}

#[test]
fn a_kernel_without_vxlan_is_told_what_it_lacks_and_the_rest_is_done() {
    let more = "node node-3 pods=10.244.3.0/24 underlay=192.168.88.13/24";
    let mut healthy = Run::on(World::machine(), more);
    healthy.look();
    let mut calls = healthy.agent.machine().parts().0.calls.iter();
    let makes = |call: &Call| matches!(call, Call::Execute(step) if step.to_string().contains("type vxlan"));
    let position = calls.position(makes).unwrap();
    let mut run = Run::on(World::machine(), more);
    let kernel = run.agent.machine().parts().0;
    kernel.faults.insert(position, Errno::OPNOTSUPP);
    let failures = run.look().failures;
    assert!(
        matches!(&failures[..], [failure] if failure.contains("CONFIG_VXLAN, module vxlan")),
        "{failures:#?}"
    );
    let near = |key: &RouteKey| key.destination == parse("10.244.2.0/24");
    assert!(run.kernel().routes.keys().any(near), "the rest is done");
}

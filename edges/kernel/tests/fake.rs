//! The agent's loop on a kernel in memory whose calls fail: it must come to rest at the plan.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::net::IpAddr;

use ipnet::IpNet;
use parfait_kernel::{Call, Error, FakeKernel, Kernel};
use parfait_linux::{
    Address, IfName, Link, LinkKind, Neighbour, Ownership, Route, RouteProtocol, State, diff,
};
use proptest::prelude::*;
use rustix::io::Errno;

fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

fn ownership() -> Ownership {
    Ownership::agent([name("pf-vxlan")])
}

fn plan(peers: u8) -> State {
    let mut state = State::default();
    let tunnel = name("pf-vxlan");
    state.insert(Link::new(tunnel.clone(), LinkKind::Bridge), None);
    let own: IpAddr = "10.244.1.0".parse().unwrap();
    state.insert(Address::new(tunnel.clone(), IpNet::from(own)), None);
    for peer in 2..peers + 2 {
        let gateway = IpAddr::from([10, 244, peer, 0]);
        let pods = IpNet::new(gateway, 24).unwrap();
        state.insert(Route::via(pods, gateway, tunnel.clone()), None);
        let mac = parfait_linux::Mac::local([peer; 6]);
        state.insert(Neighbour::permanent(tunnel.clone(), gateway, mac), None);
    }
    state
}

/// One round of the agent: observe, compare, execute.
fn round(kernel: &mut FakeKernel, desired: &State) -> bool {
    let Ok(observed) = kernel.observe(&[]) else {
        return false;
    };
    let steps = diff(&observed, desired, &ownership());
    // A failure is the next round's work, as it is the agent's.
    let _ = kernel.execute(&steps);
    steps.is_empty()
}

proptest! {
    #[test]
    fn failing_calls_delay_the_goal_but_do_not_keep_from_it(
        before in 0u8..6,
        after in 0u8..6,
        faults in prop::collection::btree_set(0usize..40, 0..20),
    ) {
        let mut kernel = FakeKernel::new(plan(before));
        let foreign = Route {
            protocol: RouteProtocol::STATIC,
            ..Route::unreachable("192.0.2.0/24".parse().unwrap())
        };
        kernel.state.insert(foreign.clone(), None);
        kernel.faults = faults.into_iter().map(|at| (at, Errno::NOBUFS)).collect();
        let desired = plan(after);
        let rounds = (0..60).take_while(|_| !round(&mut kernel, &desired)).count();
        prop_assert!(rounds < 60, "it never came to rest: {:?}", kernel.calls);
        prop_assert_eq!(kernel.state.routes.get(&foreign.key()).map(|item| &item.value), Some(&foreign));
        kernel.state.routes.remove(&foreign.key());
        prop_assert_eq!(kernel.state, desired);
    }
}

#[test]
fn a_failing_step_is_reported_and_the_others_are_done() {
    let steps = diff(&State::default(), &plan(1), &ownership());
    let mut kernel = FakeKernel::default().fail(1, Errno::NOBUFS);
    let errors = kernel.execute(&steps).unwrap_err();
    assert!(
        matches!(&errors[..], [Error::Step { errno: Errno::NOBUFS, step, .. }] if step.contains("ip address add")),
        "{errors:#?}"
    );
    assert_eq!(kernel.calls.len(), steps.len());
    assert_eq!(kernel.calls[0], Call::Execute(Box::new(steps[0].clone())));
    assert_eq!(
        (kernel.state.addresses.len(), kernel.state.routes.len()),
        (0, 1)
    );
}

#[test]
fn what_is_foreign_stays_and_is_reported() {
    let foreign = Route {
        protocol: RouteProtocol::STATIC,
        ..Route::unreachable("10.9.0.0/16".parse().unwrap())
    };
    let mut kernel = FakeKernel::default();
    kernel.state.insert(foreign.clone(), None);
    let mut desired = State::default();
    desired.insert(Route::unreachable(foreign.destination), None);
    let steps = diff(&kernel.state, &desired, &ownership());
    let errors = kernel.execute(&steps).unwrap_err();
    assert!(
        matches!(errors[..], [Error::Conflict { .. }]),
        "{errors:#?}"
    );
    assert_eq!(kernel.state.routes[&foreign.key()].value, foreign);
}

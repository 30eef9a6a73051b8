//! A load balancer's address on the interface to the segment: missing, not as planned, and one too many.

use parfait_cluster::{ObjectName, Snapshot};
use parfait_linux::Address;
use serde_json::json;

use super::balancers::{add_balancer, add_pool, hold};
use super::{Broken, NodePlan, Socket};

/// Adds a load balancer, and gives the address of it that this node makes known.
fn balance(snapshot: &mut Snapshot) -> Address {
    for node in snapshot.nodes.values_mut() {
        node.ready = true;
    }
    let pool = json!({"addresses": ["192.168.77.200/29"], "announcement": "Neighbor"});
    add_pool(snapshot, "office", pool);
    add_balancer(snapshot, "front", json!({"clusterIP": "10.96.0.77"}));
    let addresses = (200..208).map(|last| format!("192.168.77.{last}"));
    let mut ours = addresses.filter_map(|address| {
        hold(snapshot, "front", &[&address]);
        let plan = NodePlan::new(snapshot, "node-1");
        let one = plan.internet.announcing.first()?;
        Some(parfait_internet::apply::on_link(one))
    });
    ours.next().expect("one of eight is ours")
}

#[test]
fn a_load_balancers_address_that_is_missing_changed_or_left_is_found() {
    let test = "a_load_balancers_address_that_is_missing_changed_or_left_is_found";
    let Some(mut node) = Broken::new(test, "") else {
        return;
    };
    let mut lent = balance(&mut node.snapshot);
    // Nobody here says every half second that it is still wanted.
    lent.lent = Some(600);
    let (item, service) = (lent.address.to_string(), "Service default/front");
    let hold = |node: &Broken| {
        node.repair();
        let mut socket = Socket::open_in(&node.node).unwrap();
        socket.lend(std::slice::from_ref(&lent)).unwrap();
        assert_eq!(node.found(), [], "after the repair");
    };
    node.finds("PF255", &item, service);
    hold(&node);
    node.sh(&format!("ip addr del {item} dev eth0"));
    node.finds("PF255", &item, service);
    hold(&node);
    node.sh(&format!(
        "ip addr del {item} dev eth0; ip addr add {item} dev eth0 scope link"
    ));
    node.finds("PF256", &item, service);
    // What another program has put there is its own to remove.
    node.sh(&format!("ip addr del {item} dev eth0"));
    hold(&node);
    let front = ObjectName::new("default", "front");
    node.snapshot.services.remove(&front);
    node.finds("PF257", &item, "");
    node.repair();
    assert_eq!(node.found(), [], "nothing is left");
}

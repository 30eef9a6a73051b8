//! Node ports where the configuration wants them (`nodePortAddresses`): at addresses that the node has on another card
//! than the one to the other nodes, which only its agent knows.

use super::{CLUSTER, Net, fixture, slices};

const CONFIG: &str = "config clusterCIDRs=10.244.0.0/16,fd00:10:244::/56 serviceCIDRs=10.96.0.0/16,fd00:10:96::/112 \
     nodePortAddresses=192.0.2.0/24,2001:db8::/64";

#[test]
fn a_node_port_is_at_the_address_of_another_card_and_no_more_at_the_first() {
    let test = "a_node_port_is_at_the_address_of_another_card_and_no_more_at_the_first";
    let Some(mut net) = Net::new(test) else {
        return;
    };
    let service = "service dns ip=10.96.0.20,fd00:10:96::20 ports=dns:53/UDP>5353@30053";
    let slices = slices("dns", "dns:5353/UDP", &["one"]);
    net.round(&fixture::clusters(&[CLUSTER, CONFIG, service, &slices]));
    let machines = &net.machines;
    for from in [&machines.pods["client"], &machines.node, &machines.outside] {
        for at in ["192.0.2.10:30053", "[2001:db8::10]:30053"] {
            assert_eq!(net.arrives(&net.client(from, at)), Some(0), "{at}");
        }
        for at in ["192.168.77.11:30053", "[fd00:77::11]:30053"] {
            assert_eq!(net.arrives(&net.client(from, at).connected()), None, "{at}");
        }
    }
}

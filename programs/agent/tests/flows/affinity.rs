//! Clients that keep their endpoint (`sessionAffinity: ClientIP`), as long as there is one to keep.

use parfait_cluster::Snapshot;

use super::{CLUSTER, Client, Net, fixture, slices};

const LOYAL: [&str; 2] = ["10.96.0.21:53", "[fd00:10:96::21]:53"];

/// By chance alone, so many new flows would go to one of two endpoints once in 500 times.
const FLOWS: usize = 10;

fn cluster(endpoints: &[&str]) -> Snapshot {
    let service = "service loyal ip=10.96.0.21,fd00:10:96::21 ports=dns:53/UDP>5353 affinity=600";
    let slices = slices("loyal", "dns:5353/UDP", endpoints);
    fixture::clusters(&[CLUSTER, service, &slices])
}

/// Where a client's new flows go, which must be one and the same.
fn kept(net: &Net, to: &str) -> Option<usize> {
    let flows = (0..FLOWS).map(|_| net.arrives(&net.client(net.pod("client"), to)));
    let mut flows: Vec<_> = flows.collect();
    flows.dedup();
    assert_eq!(flows.len(), 1, "{to}: {flows:?}");
    flows[0]
}

fn moved(net: &Net, to: usize, old: &[Client; 2]) {
    for (at, client) in LOYAL.iter().zip(old) {
        assert_eq!(net.arrives(client), Some(to), "{at}, an old flow");
        assert_eq!(kept(net, at), Some(to), "{at}, new flows");
    }
}

/// Kept across endpoint changes and restarts of the agent; and given up, with the flows that there are, when the
/// endpoint is gone: also if that was while no agent ran.
#[test]
fn a_client_keeps_its_endpoint_until_that_is_gone() {
    let Some(mut net) = Net::new("a_client_keeps_its_endpoint_until_that_is_gone") else {
        return;
    };
    net.round(&cluster(&["one"]));
    let old = LOYAL.map(|to| net.client(net.pod("client"), to));
    moved(&net, 0, &old);
    net.round(&cluster(&["one", "two"]));
    moved(&net, 0, &old);
    net.restart();
    net.round(&cluster(&["one", "two"]));
    moved(&net, 0, &old);
    net.round(&cluster(&["two"]));
    moved(&net, 1, &old);
    net.round(&cluster(&["one", "two"]));
    moved(&net, 1, &old);
    net.restart();
    net.round(&cluster(&["one"]));
    moved(&net, 0, &old);
}

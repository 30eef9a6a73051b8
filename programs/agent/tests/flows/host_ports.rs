//! Datagrams to host ports, from clients that keep their port, while pods with that wish come and go.

use parfait_cluster::Snapshot;

use super::{CLUSTER, Net, fixture};

const AT: [&str; 2] = ["192.168.77.11:9053", "[fd00:77::11]:9053"];

/// The cluster in which this pod has the host port.
fn cluster(of: Option<&str>) -> Snapshot {
    let lines = CLUSTER.lines().map(|line| match of {
        Some(pod) if line.starts_with(&format!("pod {pod} ")) => {
            format!("{line} hostPorts=9053/UDP>5353")
        }
        _ => line.to_owned(),
    });
    fixture::cluster(&lines.collect::<Vec<_>>().join("\n"))
}

/// Lost before there was a pod, moved with the wish, across a restart too, and refused when nobody has it any more.
#[test]
fn datagrams_follow_a_host_port() {
    let Some(mut net) = Net::new("datagrams_follow_a_host_port") else {
        return;
    };
    net.round(&cluster(None));
    let clients = AT.map(|to| net.client(&net.machines.outside, to).connected());
    let all = |net: &Net, wanted: Option<usize>, when: &str| {
        for client in &clients {
            assert_eq!(net.arrives(client), wanted, "{} {when}", client.to);
        }
    };
    all(&net, None, "before there is a pod");
    for client in &clients {
        assert_eq!(net.of(client).len(), 1, "{} is tracked", client.to);
    }
    net.round(&cluster(Some("one")));
    all(&net, Some(0), "with a pod");
    net.round(&cluster(Some("two")));
    all(&net, Some(1), "with another pod");
    net.restart();
    net.round(&cluster(Some("one")));
    all(&net, Some(0), "moved while no agent ran");
    net.round(&cluster(None));
    all(&net, None, "without a pod");
}

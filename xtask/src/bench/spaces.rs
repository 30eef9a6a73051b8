//! Network namespaces to measure in.

use super::shell;

/// A namespace with the underlay's interface.
pub fn node(name: &str) -> Result<(), String> {
    shell(&format!("ip netns add {name}"))?;
    for words in [
        "link set lo up",
        "link add eth0 type veth peer name far0",
        "link set eth0 up",
        "link set far0 up",
        "addr add 192.168.0.10/16 dev eth0",
    ] {
        shell(&format!("ip -n {name} {words}"))?;
    }
    Ok(())
}

/// A node with a client's and a server's pod, connected as Parfait connects pods.
pub fn pods(node: &str) -> Result<(), String> {
    shell(&format!("ip netns add {node}"))?;
    shell(&format!(
        "ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1"
    ))?;
    for (end, addresses) in [("c", 200..=200), ("s", 201..=210)] {
        let pod = format!("{node}-{end}");
        shell(&format!("ip netns add {pod}"))?;
        let mac = |side: &str| format!("02:00:00:00:00:{side}");
        shell(&format!(
            "ip -n {node} link add pod-{end} address {} type veth peer name eth0 address {} netns {pod}",
            mac("01"),
            mac("02")
        ))?;
        shell(&format!("ip -n {node} link set pod-{end} up"))?;
        shell(&format!("ip -n {pod} link set lo up"))?;
        shell(&format!("ip -n {pod} link set eth0 up"))?;
        for last in addresses {
            let address = format!("10.128.0.{last}");
            shell(&format!("ip -n {pod} addr add {address}/32 dev eth0"))?;
            shell(&format!(
                "ip -n {node} route add {address}/32 dev pod-{end}"
            ))?;
            let pinned = format!("neigh add {address} lladdr {} dev pod-{end}", mac("02"));
            shell(&format!("ip -n {node} {pinned}"))?;
        }
        shell(&format!("ip -n {pod} route add 169.254.1.1 dev eth0"))?;
        shell(&format!("ip -n {pod} route add default via 169.254.1.1"))?;
        let gateway = format!("neigh add 169.254.1.1 lladdr {} dev eth0", mac("01"));
        shell(&format!("ip -n {pod} {gateway}"))?;
    }
    Ok(())
}

//! The same Services in the shape of kube-proxy's nftables mode, written from its documentation (KEP-3866, and
//! the README and comments of kubernetes/pkg/proxy/nftables): a chain for each Service port and one for each
//! endpoint, reached through one map.
//!
//! ```text
//! service-ips: 10.64.0.80 . tcp . 80 ──▶ service-…: numgen random mod 10 vmap ──▶ endpoint-…: dnat to 10.128.0.201:8080
//! ```
//!
//! Written are `rival.nft`, all of it, and `rival-there.nft` and `rival-back.nft`, which replace one endpoint of the
//! target Service and put it back, as its partial sync does. The real program takes longer: it computes all this.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use parfait_cluster::{Endpoint, ObjectName, Service, ServicePort, Snapshot};

use crate::target;

const FIXED: &str = "
table ip kube-proxy {
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
  map service-nodeports { type inet_proto . inet_service : verdict; }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  set cluster-ips { type ipv4_addr; }
  set nodeport-ips { type ipv4_addr; elements = { 192.168.0.10 } }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain mark-for-masquerade { mark set mark or 0x4000; }
  chain masquerading { mark and 0x4000 == 0 return; mark set mark xor 0x4000; masquerade fully-random; }
  chain services {
    ip daddr . meta l4proto . th dport vmap @service-ips;
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports;
  }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
  chain cluster-ips-check { ip daddr @cluster-ips reject; ip daddr 10.64.0.0/12 drop; }
  chain filter-prerouting-pre-dnat { type filter hook prerouting priority -110; ct state new jump firewall-check; }
  chain filter-output-pre-dnat { type filter hook output priority -110; ct state new jump firewall-check; }
  chain filter-input {
    type filter hook input priority 0;
    ct state new jump nodeport-endpoints-check;
    ct state new jump service-endpoints-check;
  }
  chain filter-forward {
    type filter hook forward priority 0;
    ct state new jump service-endpoints-check;
    ct state new jump cluster-ips-check;
  }
  chain filter-output { type filter hook output priority 0; ct state new jump service-endpoints-check; }
  chain filter-output-post-dnat { type filter hook output priority -90; ct state new jump cluster-ips-check; }
  chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
}
";

/// Writes the files.
pub fn write(snapshot: &Snapshot, folder: &Path) {
    let mut text = FIXED.to_owned();
    let mut rules = String::new();
    for (number, service) in (0..).zip(snapshot.services.values()) {
        for port in &service.ports {
            let endpoints = endpoints(snapshot, service, port);
            add_service(&mut text, &mut rules, (number, service, port), &endpoints);
        }
        for address in &service.cluster_ips {
            put(
                &mut text,
                format!("add element ip kube-proxy cluster-ips {{ {address} }}"),
            );
        }
    }
    text.push_str(&rules);
    save(folder, "rival.nft", &text);

    let name = ObjectName::new("bench", "target");
    let at = snapshot.services.keys().position(|key| *key == name);
    let (service, at) = (&snapshot.services[&name], at.expect("the target"));
    let (mut there, mut back) = (String::new(), String::new());
    for port in &service.ports {
        let old = endpoints(snapshot, service, port);
        let mut new = old.clone();
        let other = target::endpoint(240);
        new[0].0 = &other;
        let which = (at, service, port);
        replace(&mut there, which, (&old, &new));
        replace(&mut back, which, (&new, &old));
    }
    save(folder, "rival-there.nft", &there);
    save(folder, "rival-back.nft", &back);
}

type Endpoints<'a> = Vec<(&'a Endpoint, u16)>;
type Which<'a> = (usize, &'a Service, &'a ServicePort);

fn endpoints<'a>(snapshot: &'a Snapshot, service: &Service, port: &ServicePort) -> Endpoints<'a> {
    let slices = snapshot.slices_of(&service.name);
    let all = slices.flat_map(|slice| {
        let at = slice.ports.iter().find(|at| at.name == port.name);
        let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
        ready.filter_map(move |endpoint| Some((&**endpoint, at?.port)))
    });
    all.collect()
}

fn add_service(text: &mut String, rules: &mut String, which: Which<'_>, endpoints: &Endpoints<'_>) {
    let (_, service, port) = which;
    let chain = service_chain(which);
    put(text, format!("add chain ip kube-proxy {chain}"));
    for endpoint in endpoints {
        add_endpoint(text, rules, which, endpoint);
    }
    for address in &service.cluster_ips {
        let key = format!("{address} . {} . {}", port.protocol, port.port);
        put(
            rules,
            format!("add element ip kube-proxy service-ips {{ {key} : goto {chain} }}"),
        );
    }
    fill_service(rules, which, endpoints);
}

fn fill_service(rules: &mut String, which: Which<'_>, endpoints: &Endpoints<'_>) {
    let (_, service, port) = which;
    let chain = service_chain(which);
    for address in &service.cluster_ips {
        put(
            rules,
            format!(
                "add rule ip kube-proxy {chain} ip daddr {address} {} dport {} ip saddr != 10.128.0.0/9 jump mark-for-masquerade",
                port.protocol, port.port
            ),
        );
    }
    let choices: Vec<String> = (0..)
        .zip(endpoints)
        .map(|(nth, endpoint): (u32, _)| {
            format!("{nth} : goto {}", endpoint_chain(which, endpoint))
        })
        .collect();
    let (count, choices) = (choices.len(), choices.join(", "));
    put(
        rules,
        format!("add rule ip kube-proxy {chain} numgen random mod {count} vmap {{ {choices} }}"),
    );
}

fn add_endpoint(
    text: &mut String,
    rules: &mut String,
    which: Which<'_>,
    endpoint: &(&Endpoint, u16),
) {
    let chain = endpoint_chain(which, endpoint);
    let (address, number, protocol) = (endpoint.0.address, endpoint.1, which.2.protocol);
    put(text, format!("add chain ip kube-proxy {chain}"));
    put(
        rules,
        format!("add rule ip kube-proxy {chain} ip saddr {address} jump mark-for-masquerade"),
    );
    put(
        rules,
        format!(
            "add rule ip kube-proxy {chain} meta l4proto {protocol} dnat to {address}:{number}"
        ),
    );
}

fn replace(text: &mut String, which: Which<'_>, (old, new): (&Endpoints<'_>, &Endpoints<'_>)) {
    let mut rules = String::new();
    add_endpoint(text, &mut rules, which, &new[0]);
    put(
        text,
        format!("flush chain ip kube-proxy {}", service_chain(which)),
    );
    fill_service(&mut rules, which, new);
    text.push_str(&rules);
    let gone = endpoint_chain(which, &old[0]);
    put(
        text,
        format!("flush chain ip kube-proxy {gone}\ndelete chain ip kube-proxy {gone}"),
    );
}

/// The real names have a hash where this has the Service's number.
fn service_chain((number, service, port): Which<'_>) -> String {
    let label = port.name.as_deref().unwrap_or_default();
    format!(
        "service-{number:08}-{}/{}/{label}",
        service.name, port.protocol
    )
}

fn endpoint_chain((number, service, port): Which<'_>, endpoint: &(&Endpoint, u16)) -> String {
    let label = port.name.as_deref().unwrap_or_default();
    let at = format!("{}/{}", endpoint.0.address, endpoint.1);
    format!(
        "endpoint-{number:08}-{}/{}/{label}__{at}",
        service.name, port.protocol
    )
}

fn put(text: &mut String, line: String) {
    writeln!(text, "{line}").expect("memory");
}

fn save(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("a folder to write to");
}

//! The pod's names: `/etc/resolv.conf`, `/etc/hosts` and its host name.
//!
//! Follows the kubelet's `network/dns` and `makeHostsFile`, and the DNS page of the Kubernetes documentation. The
//! files are made once, with the pod; a change of its spec cannot change them.

use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// The cluster's DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDns {
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

/// The first label of the pod's name in the network.
pub fn hostname(pod: &Pod, node: &str) -> String {
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.host_network) == Some(true) {
        return node.to_owned();
    }
    let asked = spec.and_then(|s| s.hostname_override.clone().or_else(|| s.hostname.clone()));
    let mut name = asked
        .filter(|n| !n.is_empty())
        .or_else(|| pod.metadata.name.clone())
        .unwrap_or_default();
    // HOST_NAME_MAX of Linux, which the kubelet respects by cutting.
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// The pod's full name, if it has a subdomain.
pub fn full_name(pod: &Pod, hostname: &str, domain: &str) -> Option<String> {
    let subdomain = pod
        .spec
        .as_ref()?
        .subdomain
        .as_ref()
        .filter(|s| !s.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref()?;
    Some(format!("{hostname}.{subdomain}.{namespace}.svc.{domain}"))
}

/// `/etc/resolv.conf` for a pod; `host` is the node's.
pub fn resolv_conf(pod: &Pod, dns: &ClusterDns, host: &str) -> String {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = spec.host_network == Some(true);
    let cluster =
        policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !host_network);
    let mut file = if cluster && !dns.servers.is_empty() {
        let d = &dns.domain;
        let own = Resolv::parse(host);
        let mut search = vec![
            format!("{namespace}.svc.{d}"),
            format!("svc.{d}"),
            d.clone(),
        ];
        search.extend(own.search);
        Resolv {
            servers: dns.servers.iter().map(ToString::to_string).collect(),
            search,
            options: vec!["ndots:5".to_owned()],
        }
    } else if policy == "None" {
        Resolv::default()
    } else {
        Resolv::parse(host)
    };
    if let Some(config) = &spec.dns_config {
        file.servers
            .extend(config.nameservers.iter().flatten().cloned());
        file.search
            .extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let same = |o: &String| o.split(':').next() == Some(name);
            file.options.retain(|o| !same(o));
            file.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    file.print()
}

/// `/etc/hosts` for a pod.
pub fn hosts(pod: &Pod, hostname: &str, domain: &str, addresses: &[IpAddr]) -> String {
    let mut text = String::from(
        "# Written by the lab's kubelet.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    let full = full_name(pod, hostname, domain).map(|n| n + "\t");
    for address in addresses {
        let _ = writeln!(
            text,
            "{address}\t{}{hostname}",
            full.as_deref().unwrap_or("")
        );
    }
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_ref());
    for alias in aliases.into_iter().flatten() {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

/// The parts of resolv.conf(5) that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resolv {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolv {
    fn parse(text: &str) -> Resolv {
        let mut file = Resolv::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => file.servers.extend(words.next()),
                Some("search" | "domain") => file.search = words.filter(|w| w != ".").collect(),
                Some("options") => file.options.extend(words),
                _ => {}
            }
        }
        file
    }

    /// At most 3 servers and 32 search domains, each once: what resolvers and Kubernetes accept.
    fn print(&self) -> String {
        let mut seen = std::collections::BTreeSet::new();
        let search: Vec<&str> = self
            .search
            .iter()
            .map(String::as_str)
            .filter(|s| seen.insert(*s))
            .take(32)
            .collect();
        let mut text = String::new();
        if !search.is_empty() {
            let _ = writeln!(text, "search {}", search.join(" "));
        }
        for server in self.servers.iter().take(3) {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(
            json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec}),
        )
        .expect("a pod")
    }

    fn dns() -> ClusterDns {
        ClusterDns {
            servers: vec![
                "10.96.0.10".parse().expect("ip"),
                "fd00:10:96::a".parse().expect("ip"),
            ],
            domain: "cluster.local".to_owned(),
        }
    }

    #[test]
    fn resolv_conf_by_policy() {
        let host = "# a comment\nsearch corp.example\nnameserver 192.0.2.53\noptions edns0\n";
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n\
             nameserver 10.96.0.10\nnameserver fd00:10:96::a\noptions ndots:5\n";
        let own = "search corp.example\nnameserver 192.0.2.53\noptions edns0\n";
        let config = json!({"nameservers": ["1.1.1.1"], "searches": ["a.b"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        for (spec, expected) in [
            (json!({}), cluster),
            (json!({"dnsPolicy": "Default"}), own),
            (json!({"hostNetwork": true}), own),
            (
                json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                cluster,
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": config}),
                "search a.b\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
            ),
        ] {
            assert_eq!(
                resolv_conf(&pod(spec.clone()), &dns(), host),
                expected,
                "{spec}"
            );
        }
    }

    #[test]
    fn hosts_have_names_and_aliases() {
        let pod = pod(json!({"hostname": "db", "subdomain": "pg",
            "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["old", "older"]}]}));
        let name = hostname(&pod, "node-1");
        let text = hosts(
            &pod,
            &name,
            "cluster.local",
            &["10.244.1.5".parse().expect("ip")],
        );
        assert!(text.contains("127.0.0.1\tlocalhost\n"));
        assert!(
            text.contains("10.244.1.5\tdb.pg.shop.svc.cluster.local\tdb\n"),
            "{text}"
        );
        assert!(text.ends_with("10.1.2.3\told\tolder\n"), "{text}");
    }
}

//! [`Recent`]: the denials of late that were sampled and explained, each kind of packet once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use parfait_cluster::{Direction, Snapshot};
use parfait_kernel::nflog::Logged;
use parfait_linux::nft::Hook;
use parfait_packet::{Packet, Protocol};
use parfait_transport::policy::{self, Plan};
use serde_json::{Value, json};

/// How many kinds are remembered; then the one that was seen last longest ago is forgotten.
const MOST: usize = 1_000;

/// When one that goes on is told again.
const AGAIN: Duration = Duration::from_secs(60);

/// How many lines a minute the log takes; more are left out, and counted.
const LINES: u32 = 300;

/// What makes packets one kind: not the sender's port.
type Key = (Direction, IpAddr, IpAddr, Protocol, u16);

/// Denials, explained.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kinds: BTreeMap<Key, Denial>,
    minute: Option<(SystemTime, u32)>,
    /// Lines that were left out.
    pub(super) left_out: u64,
}

/// Packets that were denied for one reason.
#[derive(Clone, Debug)]
struct Denial {
    from: String,
    to: String,
    /// The pod whose policies deny.
    pod: String,
    /// The policies that isolate it, or the rule that denies.
    by: Vec<String>,
    /// What would have to be otherwise.
    would_pass: Option<String>,
    sampled: u64,
    first: SystemTime,
    last: SystemTime,
    told: SystemTime,
}

impl Recent {
    /// Takes a sample. The line to write about it, if it is time for one.
    pub(super) fn take(
        &mut self,
        plan: &Plan,
        snapshot: &Snapshot,
        logged: &Logged,
        now: SystemTime,
    ) -> Option<String> {
        let direction = policy::is_class(&logged.prefix)?;
        let packet = &logged.packet;
        let key = (
            direction,
            packet.source,
            packet.destination,
            packet.protocol,
            packet.destination_port,
        );
        let explain = || explained(plan, snapshot, packet, direction, logged.hook, now);
        let denial = match self.kinds.get_mut(&key) {
            Some(denial) => {
                denial.sampled += 1;
                denial.last = now;
                if now.duration_since(denial.told).unwrap_or_default() < AGAIN {
                    return None;
                }
                // Policies may have changed meanwhile.
                let new = explain();
                denial.by = new.by;
                denial.would_pass = new.would_pass;
                denial.told = now;
                denial.clone()
            }
            None => {
                let denial = explain();
                self.kinds.insert(key, denial.clone());
                self.forget();
                denial
            }
        };
        match self.may_tell(now) {
            true => Some(line(&key, &denial)),
            false => {
                self.left_out += 1;
                None
            }
        }
    }

    /// All of them, the latest first.
    pub(super) fn as_json(&self) -> Vec<Value> {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(_, denial)| std::cmp::Reverse(denial.last));
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap_or_default().as_secs()
        };
        let kinds = kinds.into_iter().map(|(key, denial)| {
            let (direction, source, destination, protocol, port) = key;
            json!({
                "direction": direction.name(),
                "from": denial.from,
                "to": denial.to,
                "source": source,
                "destination": destination,
                "protocol": protocol.to_string(),
                "port": port,
                "pod": denial.pod,
                "by": denial.by,
                "wouldPassIf": denial.would_pass,
                "sampled": denial.sampled,
                "first": seconds(denial.first),
                "last": seconds(denial.last),
            })
        });
        kinds.collect()
    }

    fn forget(&mut self) {
        if self.kinds.len() > MOST {
            let oldest = self.kinds.iter().min_by_key(|(_, denial)| denial.last);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.kinds.remove(&key);
            }
        }
    }

    fn may_tell(&mut self, now: SystemTime) -> bool {
        let (since, lines) = self.minute.get_or_insert((now, 0));
        if now.duration_since(*since).unwrap_or_default() >= Duration::from_secs(60) {
            (*since, *lines) = (now, 0);
        }
        *lines += 1;
        *lines <= LINES
    }
}

fn explained(
    plan: &Plan,
    snapshot: &Snapshot,
    packet: &Packet,
    direction: Direction,
    hook: Option<Hook>,
    now: SystemTime,
) -> Denial {
    let hook = hook.unwrap_or(Hook::Forward);
    let explained = match (hook, direction) {
        // No pod receives anything there.
        (Hook::Input, Direction::Ingress) => policy::explain_node(plan, snapshot, packet),
        _ => policy::explain(plan, snapshot, packet, direction, hook),
    };
    let denied = explained.filter(|explained| !explained.accepted);
    let who = |address: IpAddr| {
        let pod = snapshot.pod_at(address).map(|pod| pod.origin().to_string());
        let node = || {
            snapshot
                .node_at(address)
                .map(|node| node.origin().to_string())
        };
        pod.or_else(node).unwrap_or_else(|| address.to_string())
    };
    let own = match direction {
        Direction::Ingress => packet.destination,
        Direction::Egress => packet.source,
    };
    let near = denied.as_ref().and_then(|denied| denied.nearest.first());
    Denial {
        from: who(packet.source),
        to: who(packet.destination),
        pod: who(own),
        would_pass: near.map(|near| near.hint.clone()),
        by: denied.map_or_else(Vec::new, |denied| {
            let rule = denied.rule.iter();
            rule.chain(&denied.isolated_by)
                .map(ToString::to_string)
                .collect()
        }),
        sampled: 1,
        first: now,
        last: now,
        told: now,
    }
}

/// `Pod shop/a → Pod shop/b 80/tcp: denied for ingress by NetworkPolicy shop/web; would pass if …`
fn line(key: &Key, denial: &Denial) -> String {
    let (direction, _, _, protocol, port) = key;
    let port = match protocol.has_ports() {
        true => format!("{port}/{protocol}"),
        false => protocol.to_string(),
    };
    let by = match denial.by.as_slice() {
        [] => "policies that have changed since".to_owned(),
        by => by.join(", "),
    };
    let hint = denial.would_pass.iter();
    let hint: String = hint.map(|hint| format!("; would pass if {hint}")).collect();
    let Denial {
        from, to, sampled, ..
    } = denial;
    let often = match sampled {
        1 => String::new(),
        many => format!(" ({many} samples so far)"),
    };
    let direction = direction.name();
    format!("{from} → {to} {port}: denied for {direction} by {by}{hint}{often}")
}

#[cfg(test)]
mod tests {
    use parfait_cluster::{Parsed, parse};

    use super::*;

    /// `shop/web` at 10.244.1.2, which lets `app: friend` in to 8080, and `shop/client` at 10.244.1.3.
    fn cluster() -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, ip) in [("web", "10.244.1.2"), ("client", "10.244.1.3")] {
            let pod = json!({
                "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
                "spec": {"nodeName": "node-1", "containers": []},
                "status": {"podIPs": [{"ip": ip}], "phase": "Running"},
            });
            let pod = serde_json::from_value(pod).expect("a Pod");
            let (object, _) = parse(Parsed::Pod(&pod), &|_| Err(String::new()));
            snapshot.insert(object.expect("a pod"));
        }
        let policy = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}],
                "ports": [{"port": 8080}],
            }]},
        });
        let policy = serde_json::from_value(policy).expect("a NetworkPolicy");
        let (object, _) = parse(Parsed::NetworkPolicy(&policy), &|_| Err(String::new()));
        snapshot.insert(object.expect("a policy"));
        snapshot
    }

    fn sample(source_port: u16, port: u16) -> Logged {
        Logged {
            prefix: "ingress-shop-0123456789ab".to_owned(),
            packet: Packet {
                source: IpAddr::from([10, 244, 1, 3]),
                destination: IpAddr::from([10, 244, 1, 2]),
                protocol: Protocol::Tcp,
                source_port,
                destination_port: port,
            },
            hook: Some(Hook::Forward),
        }
    }

    #[test]
    fn one_kind_of_packet_is_told_once_and_again_after_a_while() {
        let snapshot = cluster();
        let plan = policy::plan(&snapshot, "node-1");
        let mut recent = Recent::default();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let mut take = |sample: &Logged, after: u64| {
            recent.take(&plan, &snapshot, sample, start + Duration::from_secs(after))
        };
        let told = "Pod shop/client → Pod shop/web 80/tcp: denied for ingress by NetworkPolicy shop/web; \
                    would pass if the pod had label app=friend and the port were 8080/tcp";
        assert_eq!(take(&sample(1, 80), 0).as_deref(), Some(told));
        // Another connection, the same reason.
        assert_eq!(take(&sample(2, 80), 59), None);
        let again = format!("{told} (3 samples so far)");
        assert_eq!(take(&sample(3, 80), 60), Some(again));
        assert!(take(&sample(1, 81), 60).is_some(), "another port");
        let foreign = Logged {
            prefix: "somebody's".to_owned(),
            ..sample(1, 82)
        };
        assert_eq!(take(&foreign, 60), None);
        let all = recent.as_json();
        assert_eq!(all.len(), 2);
        let first = all
            .iter()
            .find(|one| one["port"] == 80)
            .expect("it is there");
        assert_eq!(
            (&first["sampled"], &first["first"], &first["last"]),
            (&3.into(), &1_000.into(), &1_060.into())
        );
    }

    #[test]
    fn neither_memory_nor_log_grows_without_bound() {
        let snapshot = cluster();
        let plan = policy::plan(&snapshot, "node-1");
        let mut recent = Recent::default();
        let start = SystemTime::UNIX_EPOCH;
        let mut lines = 0;
        for port in 1..=1_200_u16 {
            let now = start + Duration::from_millis(port.into());
            lines += u32::from(
                recent
                    .take(&plan, &snapshot, &sample(1, port), now)
                    .is_some(),
            );
        }
        assert_eq!((lines, recent.left_out), (LINES, u64::from(1_200 - LINES)));
        let all = recent.as_json();
        assert_eq!(all.len(), MOST);
        assert!(
            all.iter().all(|one| one["port"].as_u64() > Some(200)),
            "the oldest are forgotten"
        );
        let later = start + Duration::from_secs(62);
        assert!(
            recent
                .take(&plan, &snapshot, &sample(1, 2_000), later)
                .is_some()
        );
    }
}

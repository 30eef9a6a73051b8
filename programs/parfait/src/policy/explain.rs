//! `parfait policy explain`: one pod, both directions; or a node (`nodes.rs`).

use parfait_cluster::{Direction, ObjectName, Pod, Snapshot};
use parfait_lab_fabric::StateRoot;
use parfait_packet::{Family, Kind, Origin};
use parfait_transport::policy::overview::{Line, Overview, Who};
use parfait_transport::policy::{Effective, overview};
use serde_json::{Value, json};

use super::{listed, nodes, say_json, say_notes};
use crate::args::{Output, PolicyExplain};
use crate::exit::{DONE, Failure};
use crate::explain::{pod_of, snapshot};
use crate::lab::Columns;
use crate::output::say;

/// How many of those who are treated alike are named.
const NAMED: usize = 4;

pub async fn run(root: &StateRoot, args: &PolicyExplain) -> Result<u8, Failure> {
    let (snapshot, mut notes, _) = snapshot(root, &args.picture).await?;
    if let Some(node) = args.pod.strip_prefix("node/") {
        nodes::explain(&snapshot, node, &notes, args.output)?;
        return Ok(DONE);
    }
    let pod = find(args, &snapshot, &mut notes)?;
    if pod.host_network {
        notes.push(
            "it is on its node's network, and so is the node to policies: ask about node/NAME"
                .to_owned(),
        );
    }
    let overviews = overview(&snapshot, &Effective::of(&snapshot), pod);
    match args.output {
        Output::Json => {
            let directions: Vec<Value> = overviews.iter().map(as_json).collect();
            say_json(&json!({
                "pod": pod.origin(),
                "addresses": pod.addresses,
                "node": pod.node,
                "directions": directions,
                "notes": notes,
            }))?;
        }
        Output::Text => {
            let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
            let node = pod.node.as_deref().unwrap_or("no node");
            say!("{} ({} on {node})", pod.origin(), addresses.join(", "));
            for overview in &overviews {
                say!();
                print(overview);
            }
            say!();
            say!("NetworkPolicies stop neither its own node nor the pod itself, and no answers");
            say_notes(&notes);
        }
    }
    Ok(DONE)
}

fn find<'a>(
    args: &PolicyExplain,
    snapshot: &'a Snapshot,
    notes: &mut Vec<String>,
) -> Result<&'a Pod, Failure> {
    let namespace = args.namespace.as_deref().unwrap_or("default");
    let text = pod_of(&args.pod, snapshot, namespace, notes);
    let name = text.strip_prefix("pod/").unwrap_or(&text);
    let (name, namespace) = name.split_once('.').unwrap_or((name, namespace));
    let found = snapshot.pods.get(&ObjectName::new(namespace, name));
    found.ok_or_else(|| Failure::usage(format!("namespace {namespace} has no pod {name:?}")))
}

/// One direction, as text.
pub fn print(overview: &Overview) {
    let direction = overview.direction.name();
    let verb = match overview.direction {
        Direction::Ingress => "may reach it",
        Direction::Egress => "may be reached",
    };
    let (own, cluster): (Vec<_>, Vec<_>) = overview.policies.iter().cloned().partition(isolates);
    let of_node = |policy: &Origin| policy.kind == Kind::NodeNetworkPolicy;
    if !cluster.is_empty() && cluster.iter().all(of_node) {
        say!(
            "{direction}: judged by {}, which comes to this:",
            listed(&cluster)
        );
        print_lines(overview);
        return;
    }
    let asked = match cluster.as_slice() {
        [] => String::new(),
        cluster => format!(", and judged by {}", listed(cluster)),
    };
    match (own.as_slice(), overview.lines.is_empty()) {
        ([], true) => say!("{direction}: not isolated{asked}, everybody {verb}"),
        ([], false) if cluster.is_empty() => say!(
            "{direction}: not isolated, everybody {verb}, but for what the other ends' policies say of these:"
        ),
        ([], false) => say!("{direction}: not isolated{asked}; this is what comes of it:"),
        (own, true) => say!(
            "{direction}: isolated by {}{asked}; nobody {verb}",
            listed(own)
        ),
        (own, false) => {
            say!(
                "{direction}: isolated by {}{asked}; nobody but these {verb}:",
                listed(own)
            );
        }
    }
    if !overview.lines.is_empty() {
        print_lines(overview);
    }
}

fn print_lines(overview: &Overview) {
    let peers = match overview.direction {
        Direction::Ingress => "FROM",
        Direction::Egress => "TO",
    };
    let mut table = Columns::new([peers, "PORTS", "", "BECAUSE OF"]);
    for line in &overview.lines {
        let ports = ports(line, &overview.lines);
        let passes = if line.passes { "may" } else { "may not" };
        let mut by = match line.by.as_slice() {
            [] => "no policy denies it".to_owned(),
            by => listed(by),
        };
        if line.other_end {
            by.push_str(", of the other end");
        }
        table.row([&named(&line.who), &ports, passes, &by]);
    }
    say!("{table}");
}

/// `80/tcp, 53/udp`; of what is denied beside what may pass, that it is the rest.
fn ports(line: &Line, lines: &[Line]) -> String {
    let beside = |other: &Line| other.passes && other.who == line.who;
    if !line.passes && lines.iter().any(beside) && line.ports.len() > 1 {
        return "anything else".to_owned();
    }
    let ports: Vec<_> = line.ports.iter().map(ToString::to_string).collect();
    ports.join(", ")
}

/// Whether a policy denies what it does not allow.
fn isolates(policy: &Origin) -> bool {
    policy.kind == Kind::NetworkPolicy
}

/// Some of those whom a line is about, and how many more there are.
pub fn named(all: &[Who]) -> String {
    some(all, who)
}

/// The first of all, and how many more there are.
pub fn some<T>(all: &[T], said: impl Fn(&T) -> String) -> String {
    // A single one more is named as well.
    let most = if all.len() > NAMED + 1 {
        NAMED
    } else {
        all.len()
    };
    let (first, rest) = all.split_at(most);
    let mut text = first.iter().map(said).collect::<Vec<_>>().join(", ");
    if !rest.is_empty() {
        text.push_str(&format!(" and {} more", rest.len()));
    }
    text
}

pub fn who(who: &Who) -> String {
    match who {
        Who::Pod(pod, None) | Who::Service(pod) => pod.to_string(),
        Who::Pod(pod, Some(family)) => format!("{pod} by {family}"),
        Who::Block(net) => net.to_string(),
        Who::Elsewhere(Family::Ipv4) => "any other IPv4 address".to_owned(),
        Who::Elsewhere(Family::Ipv6) => "any other IPv6 address".to_owned(),
    }
}

/// The same for programs, with everybody in it.
pub fn as_json(overview: &Overview) -> Value {
    let lines = overview.lines.iter().map(|line| {
        json!({
            "peers": line.who.iter().map(who).collect::<Vec<_>>(),
            "ports": line.ports.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "passes": line.passes,
            "because": line.by,
            "otherEnd": line.other_end,
        })
    });
    json!({
        "direction": overview.direction.name(),
        "isolated": overview.policies.iter().any(isolates),
        "policies": overview.policies,
        "lines": lines.collect::<Vec<_>>(),
    })
}

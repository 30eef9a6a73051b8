//! A node's status for people: what differs first in each line, what it is for last.

use parfait_cluster::ForeignChanges;
use parfait_inspect::NodeStatus;
use parfait_inspect::node::{Entry, Held, Peer};
use parfait_packet::{Family, Fault, Origin};

use crate::lab::Columns;
use crate::output::say;

/// Prints all of it.
pub fn print(status: &NodeStatus) {
    let observed = match status.observed {
        true => "the kernel next to the plan",
        false => "THE PLAN ALONE, the kernel was not looked at",
    };
    say!("node {}: {observed}", status.node);
    say!("MTU     {}", budget(status));
    section("INTERFACE", &status.interfaces);
    section("ADDRESS", &status.addresses);
    peers(&status.peers);
    section("ROUTE", &status.routes);
    section("NEIGHBOUR", &status.neighbours);
    section("FORWARDING ENTRY", &status.forwarding);
    section("SETTING", &status.sysctls);
    allocations(status);
    findings(status);
    for note in &status.notes {
        say!("note: {note}");
    }
    say!("{}", conclusion(status));
}

/// `1500 on the underlay − 50 for VXLAN = 1450 in the tunnel; pods 1450`
fn budget(status: &NodeStatus) -> String {
    let mtu = &status.mtu;
    let Some(underlay) = mtu.underlay else {
        return "unknown: the node's agent has not reported its underlay".to_owned();
    };
    let tunnel = match (mtu.overhead, mtu.tunnel) {
        (Some(overhead), Some(tunnel)) => {
            format!(" - {overhead} for VXLAN = {tunnel} in the tunnel")
        }
        _ => ", no tunnel".to_owned(),
    };
    let pod = mtu
        .pod
        .map_or_else(String::new, |pod| format!("; pods {pod}"));
    format!("{underlay} on the underlay{tunnel}{pod}")
}

fn section(header: &str, entries: &[Entry]) {
    if entries.is_empty() {
        return;
    }
    let mut table = Columns::new([header, "KERNEL", "BECAUSE OF"]);
    for entry in entries {
        // What is there instead stands among the findings.
        let held = entry.held.to_string();
        table.row([&entry.item, &held, &because(entry.origin.as_ref())]);
    }
    say!("\n{table}");
}

fn peers(peers: &[Peer]) {
    if peers.is_empty() {
        return;
    }
    let mut table = Columns::new([
        "PEER", "PODS", "PATH", "NEXT HOP", "INSIDE", "MTU", "KERNEL",
    ]);
    for peer in peers {
        let inside = match (&peer.encapsulation, peer.outer) {
            (wrapping, Some(outer)) if !wrapping.is_empty() => {
                format!("{wrapping} over {outer}, {} bytes", peer.overhead)
            }
            _ => "-".to_owned(),
        };
        let hop = peer.next_hop.map_or_else(
            || "-".to_owned(),
            |hop| format!("{hop} dev {}", peer.interface),
        );
        let mtu = peer
            .mtu
            .map_or_else(|| "-".to_owned(), |mtu| mtu.to_string());
        let family = match peer.family {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        };
        let held = peer.held.to_string();
        table.row([&peer.node, family, peer.path, &hop, &inside, &mtu, &held]);
    }
    say!("\n{table}");
}

fn allocations(status: &NodeStatus) {
    if status.allocations.is_empty() {
        return;
    }
    let mut table = Columns::new([
        "ALLOCATION",
        "ADDRESSES",
        "INTERFACE",
        "KERNEL",
        "BECAUSE OF",
    ]);
    for allocation in &status.allocations {
        let addresses: Vec<_> = allocation
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        let because = match &allocation.origin {
            None if allocation.held == Held::Missing => "nothing: the next GC frees it".to_owned(),
            None => "no pod that the API knows".to_owned(),
            origin => because(origin.as_ref()),
        };
        let held = allocation.held.to_string();
        let interface = match &allocation.bucket {
            None => allocation.interface.clone(),
            Some(bucket) => format!("{} {bucket}", allocation.interface),
        };
        table.row([
            &allocation.purpose,
            &addresses.join(" "),
            &interface,
            &held,
            &because,
        ]);
    }
    say!("\n{table}");
}

fn findings(status: &NodeStatus) {
    say!();
    for finding in &status.findings {
        say!("{finding}");
        say!("  what:        {}", finding.fault.what());
        say!("  usual cause: {}", finding.fault.remedy().cause);
        say!("  what to do:  {}", what_to_do(finding.fault, status));
    }
}

fn what_to_do(fault: Fault, status: &NodeStatus) -> String {
    match status.foreign_changes {
        ForeignChanges::Restore => fault.remedy().remedy.to_owned(),
        ForeignChanges::Report => fault.remedy_where_left(),
    }
}

fn conclusion(status: &NodeStatus) -> String {
    match (status.exit_code(), status.findings.len()) {
        (0, _) => "as planned".to_owned(),
        (1, 1) => "1 finding".to_owned(),
        (1, count) => format!("{count} findings"),
        (_, 0) => "unknown: nobody looked".to_owned(),
        _ => "unknown: a rule of another program cannot be evaluated".to_owned(),
    }
}

fn because(origin: Option<&Origin>) -> String {
    origin.map(ToString::to_string).unwrap_or_default()
}

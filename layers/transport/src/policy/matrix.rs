//! The truth table: every pod to every pod at some ports, as policies let them. Two of them can be compared.
//!
//! ```text
//!   80/tcp           1 2 3
//!   1  shop/client   . . r        .  passes                 s  the sender's policies deny it
//!   2  shop/other    . . r        r  the receiver's do      b  both do        -  no family in common
//!   3  shop/web      . . .
//! ```

use std::net::IpAddr;

use parfait_cluster::{Direction, Pod, Snapshot};
use parfait_packet::{Family, Origin, Packet, Protocol};

use super::effective::Effective;

/// The table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The pods with a network of their own.
    pub pods: Vec<Origin>,
    /// Of each port, of each sender, what becomes of a packet to each receiver.
    pub ports: Vec<(Protocol, u16, Vec<Vec<Cell>>)>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// Policies let it pass.
    Passes,
    /// The sender's policies deny it.
    Sender,
    /// The receiver's policies deny it.
    Receiver,
    /// Both do.
    Both,
    /// They have no family in common.
    Apart,
}

/// A connection of which something else becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<'a> {
    /// Who sends.
    pub from: &'a Origin,
    /// Who receives.
    pub to: &'a Origin,
    /// At which port.
    pub port: (Protocol, u16),
    /// What became of it.
    pub before: Cell,
    /// What becomes of it.
    pub after: Cell,
}

impl Cell {
    /// One letter.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Passes => '.',
            Self::Sender => 's',
            Self::Receiver => 'r',
            Self::Both => 'b',
            Self::Apart => '-',
        }
    }

    /// In words.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Sender => "denied by the sender's policies",
            Self::Receiver => "denied by the receiver's policies",
            Self::Both => "denied by the policies of both",
            Self::Apart => "no family in common",
        }
    }
}

impl Matrix {
    /// The table of a cluster: from the pods of these namespaces, or all, to each other.
    #[must_use]
    pub fn of(
        snapshot: &Snapshot,
        namespaces: &[String],
        ports: &[(Protocol, u16)],
        family: Option<Family>,
    ) -> Self {
        let effective = Effective::of(snapshot);
        let pods = snapshot.pods.values();
        let pods = pods.filter(|pod| !pod.host_network && pod.has_network());
        let wanted = |pod: &&Pod| namespaces.is_empty() || namespaces.contains(&pod.name.namespace);
        let pods: Vec<&Pod> = pods.filter(wanted).collect();
        let table = |(protocol, port): (Protocol, u16)| {
            let row = |from: &&Pod| {
                let cells = pods
                    .iter()
                    .map(|to| cell(&effective, from, to, protocol, port, family));
                cells.collect()
            };
            (protocol, port, pods.iter().map(row).collect())
        };
        Self {
            ports: ports.iter().copied().map(table).collect(),
            pods: pods.iter().map(|pod| pod.origin()).collect(),
        }
    }

    /// What is otherwise afterwards, of pods and ports that both tables have.
    #[must_use]
    pub fn changes<'a>(&'a self, after: &'a Self) -> Vec<Changed<'a>> {
        let place = |pod| after.pods.binary_search(pod).ok();
        let places: Vec<Option<usize>> = self.pods.iter().map(place).collect();
        let mut changes = Vec::new();
        for (protocol, port, rows) in &self.ports {
            let same =
                |(other, number, _): &&(Protocol, u16, _)| (other, number) == (protocol, port);
            let Some((.., there)) = after.ports.iter().find(same) else {
                continue;
            };
            for ((from, row), at) in self.pods.iter().zip(rows).zip(&places) {
                for ((to, before), to_at) in self.pods.iter().zip(row).zip(&places) {
                    let (Some(at), Some(to_at)) = (at, to_at) else {
                        continue;
                    };
                    let after = there[*at][*to_at];
                    if *before != after {
                        changes.push(Changed {
                            from,
                            to,
                            port: (*protocol, *port),
                            before: *before,
                            after,
                        });
                    }
                }
            }
        }
        changes
    }
}

fn cell(
    effective: &Effective,
    from: &Pod,
    to: &Pod,
    protocol: Protocol,
    port: u16,
    family: Option<Family>,
) -> Cell {
    let Some((source, destination)) = ends(from, to, family) else {
        return Cell::Apart;
    };
    if source == destination {
        return Cell::Passes;
    }
    let packet = Packet {
        source,
        destination,
        protocol,
        source_port: 0,
        destination_port: port,
    };
    let denies = |own, peer, direction| {
        let class = effective.class(own, direction);
        class.is_some_and(|class| !class.decide(peer, &packet).accepted)
    };
    match (
        denies(source, destination, Direction::Egress),
        denies(destination, source, Direction::Ingress),
    ) {
        (false, false) => Cell::Passes,
        (true, false) => Cell::Sender,
        (false, true) => Cell::Receiver,
        (true, true) => Cell::Both,
    }
}

/// Addresses of the asked family, or of the sender's first that both have.
fn ends(from: &Pod, to: &Pod, family: Option<Family>) -> Option<(IpAddr, IpAddr)> {
    let mut sources = from
        .addresses
        .iter()
        .copied()
        .filter(|address| family.is_none_or(|family| Family::of(*address) == family));
    sources.find_map(|source| Some((source, to.address(Family::of(source))?)))
}

//! What nodes' kernels remember of flows, for `explain`: a lab's nodes', or this machine's.
//!
//! ```text
//!   a lab's node ─▶ parfait lab-memory STATE LAB node/N QUESTION ─▶ in its network: ask, print ─┐
//!   this machine, if it is that node ────────────────────────────────────────────────▶ ask ─────┴─▶ inspect::Memory
//! ```
//!
//! Joining a lab's namespaces demands a process of one thread, which `explain` is not: so it starts itself.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use parfait_cluster::Snapshot;
use parfait_inspect::{Ended, Keeps, Memory};
use parfait_kernel::Socket;
use parfait_kernel::conntrack::Filter;
use parfait_kernel::nft::{NftSocket, Remembered};
use parfait_lab_fabric::{LabName, StateRoot, Target};
use parfait_linux::conntrack::{Entry, Tuple};
use parfait_linux::nft::Family;
use parfait_transport::affinity::{self, Kept};
use parfait_transport::{Frontend, policy};
use serde::{Deserialize, Serialize};

use crate::exit::{DONE, Failure};
use crate::node;
use crate::output::say;

/// What is asked of a kernel.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Kept(Vec<IpAddr>),
    Connection(Tuple),
    Connections(IpAddr, Frontend),
    Ended(u16),
}

/// What it remembers.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    kept: Vec<Keeps>,
    connection: Option<Entry>,
    connections: Vec<Entry>,
    #[serde(default)]
    ended: Vec<Ended>,
}

impl Question {
    /// Asks the kernel of the calling thread's network namespace.
    fn ask(&self) -> Result<Told, parfait_kernel::nft::Error> {
        let mut socket = NftSocket::open()?;
        match self {
            Self::Connection(tuple) => Ok(Told {
                connection: socket.connection(tuple)?,
                ..Told::default()
            }),
            Self::Connections(client, at) => Ok(Told {
                connections: socket.connections(&Filter {
                    protocol: Some(at.protocol.number(parfait_packet::Family::of(*client))),
                    source: Some(*client),
                    destination: Some(at.address),
                    destination_port: Some(at.port),
                    ..Filter::default()
                })?,
                ..Told::default()
            }),
            Self::Ended(port) => {
                let mut told = Told::default();
                for family in [Family::Ip, Family::Ip6] {
                    let all = socket.observe_remembered(family, "parfait", policy::ENDED)?;
                    let of_port = |ended: &Ended| {
                        let ends = [ended.direction.source, ended.direction.destination];
                        ends.iter().any(|end| end.port() == *port)
                    };
                    told.ended
                        .extend(all.iter().filter_map(ended).filter(of_port));
                }
                Ok(told)
            }
            Self::Kept(clients) => {
                let mut told = Told::default();
                for family in [Family::Ip, Family::Ip6] {
                    let all = socket.observe_remembered(family, "parfait", affinity::MAP)?;
                    let kept = all.iter().filter_map(keeps);
                    told.kept
                        .extend(kept.filter(|keeps| clients.contains(&keeps.kept.client)));
                }
                Ok(told)
            }
        }
    }
}

fn keeps(remembered: &Remembered) -> Option<Keeps> {
    Some(Keeps {
        kept: Kept::of(&remembered.key, &remembered.data)?,
        expires: remembered.expires.as_secs(),
    })
}

fn ended(remembered: &Remembered) -> Option<Ended> {
    Some(Ended {
        direction: policy::direction_of(&remembered.key)?,
        expires: remembered.expires.as_secs(),
    })
}

/// The kernels of a lab's nodes.
pub struct OfLab<'r> {
    pub root: &'r StateRoot,
    pub name: &'r LabName,
}

impl OfLab<'_> {
    fn ask(&self, node: &str, question: &Question) -> Result<Told, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let question = serde_json::to_string(question).map_err(|error| error.to_string())?;
        let asked = Command::new(program)
            .arg("lab-memory")
            .arg(self.root.base())
            .args([&self.name.to_string(), &format!("node/{node}"), &question])
            .output()
            .map_err(|error| error.to_string())?;
        match asked.status.success() {
            true => serde_json::from_slice(&asked.stdout).map_err(|error| error.to_string()),
            false => Err(String::from_utf8_lossy(&asked.stderr).trim().to_owned()),
        }
    }
}

impl Memory for OfLab<'_> {
    fn kept(&self, node: &str, clients: &[IpAddr]) -> Result<Vec<Keeps>, String> {
        Ok(self.ask(node, &Question::Kept(clients.to_vec()))?.kept)
    }

    fn connection(&self, node: &str, first: &Tuple) -> Result<Option<Entry>, String> {
        Ok(self.ask(node, &Question::Connection(*first))?.connection)
    }

    fn ended(&self, node: &str, port: u16) -> Result<Vec<Ended>, String> {
        Ok(self.ask(node, &Question::Ended(port))?.ended)
    }

    fn connections(&self, node: &str, client: IpAddr, at: Frontend) -> Result<Vec<Entry>, String> {
        Ok(self
            .ask(node, &Question::Connections(client, at))?
            .connections)
    }
}

/// `lab-memory STATE NAME TARGET QUESTION`: asks a node's kernel on behalf of `explain`.
pub fn in_lab(arguments: &[String]) -> Result<u8, Failure> {
    let [state, name, target, question] = arguments else {
        return Err(Failure::usage(
            "lab-memory STATE NAME TARGET QUESTION (started by `parfait explain`)",
        ));
    };
    let root = StateRoot::locate(Some(Path::new(state)), None);
    let name = name.parse().map_err(Failure::usage)?;
    let target: Target = target.parse().map_err(Failure::usage)?;
    let question: Question = serde_json::from_str(question).map_err(Failure::usage)?;
    let told = || {
        let told = question.ask().map_err(Failure::failed)?;
        say!("{}", serde_json::to_string(&told).map_err(Failure::failed)?);
        Ok(DONE)
    };
    Ok(parfait_lab_fabric::run_in(&root, &name, &target, || {
        told().unwrap_or_else(|failure: Failure| failure.say())
    })?)
}

/// The kernel of this machine, which knows of one node at most.
pub struct OfMachine<'s> {
    pub snapshot: &'s Snapshot,
}

impl OfMachine<'_> {
    fn ask(&self, node: &str, question: &Question) -> Result<Told, String> {
        let text = |error: parfait_kernel::Error| error.to_string();
        let mut socket = Socket::open().map_err(text)?;
        let state = socket.observe(&[]).map_err(text)?;
        node::is_here(self.snapshot, node, &state, &[])?;
        question.ask().map_err(|error| error.to_string())
    }
}

impl Memory for OfMachine<'_> {
    fn kept(&self, node: &str, clients: &[IpAddr]) -> Result<Vec<Keeps>, String> {
        Ok(self.ask(node, &Question::Kept(clients.to_vec()))?.kept)
    }

    fn connection(&self, node: &str, first: &Tuple) -> Result<Option<Entry>, String> {
        Ok(self.ask(node, &Question::Connection(*first))?.connection)
    }

    fn ended(&self, node: &str, port: u16) -> Result<Vec<Ended>, String> {
        Ok(self.ask(node, &Question::Ended(port))?.ended)
    }

    fn connections(&self, node: &str, client: IpAddr, at: Frontend) -> Result<Vec<Entry>, String> {
        Ok(self
            .ask(node, &Question::Connections(client, at))?
            .connections)
    }
}

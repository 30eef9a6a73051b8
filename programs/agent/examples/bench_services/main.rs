//! What `cargo xtask bench services` measures, each part in a process of its own, in the network namespace that it
//! is started in.
//!
//! ```text
//! bench_services layers even|mixed SERVICES ENDPOINTS TURNS   first sync, prove, one changed endpoint, memory
//! bench_services agent  even|mixed SERVICES ENDPOINTS TURNS   the same as the agent does it, with all of a node
//! bench_services hold   even|mixed SERVICES ENDPOINTS SECONDS a thousand changed endpoints a second
//! bench_services load   SERVICES                              the ruleset for `traffic`, left in the kernel
//! bench_services rival  SERVICES ENDPOINTS FOLDER             kube-proxy's shape of it, as files for `nft -f`
//! bench_services traffic …                                    see traffic.rs
//! ```
//!
//! It prints `NAME NUMBER` lines: milliseconds, or KiB where the name begins with `memory`. Reading objects from
//! the API server is not in it.

#![allow(clippy::expect_used, reason = "a benchmark may end by panicking")]

mod changes;
#[path = "../../../../model/cluster/tests/fixture/large.rs"]
mod large;
mod rival;
mod target;
mod told;
mod traffic;
mod watched;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use changes::{Random, Whole};
use large::{Large, OURS};
use parfait_agent::{Machine, Upkeep};
use parfait_cluster::{Key, Snapshot};
use parfait_kernel::Socket;
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::{Tables, diff};
use told::{number, told, told_memory};
use watched::Watched;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["layers", kind, services, endpoints, turns] => {
            layers(size(kind, services, endpoints), number(turns));
        }
        ["agent", kind, services, endpoints, turns] => {
            agent(size(kind, services, endpoints), number(turns));
        }
        ["hold", kind, services, endpoints, seconds] => {
            hold(size(kind, services, endpoints), number(seconds));
        }
        ["load", services] => load(number(services)),
        ["rival", services, endpoints, folder] => {
            let size = size("even", services, endpoints);
            let mut snapshot = size.snapshot();
            target::add(&mut snapshot);
            rival::write(&snapshot, Path::new(folder));
        }
        ["traffic", ref rest @ ..] => traffic::run(rest),
        _ => panic!("usage: see the top of main.rs"),
    }
}

fn size(kind: &str, services: &str, endpoints: &str) -> Large {
    let (services, endpoints) = (number(services), number(endpoints));
    match kind {
        "even" => Large::even(services, endpoints / services),
        _ => Large::mixed(services, endpoints),
    }
}

/// The transport layer and the kernel, part by part.
fn layers(size: Large, turns: u32) {
    let mut snapshot = size.snapshot();
    told_memory("memory-snapshot", "VmRSS");
    let start = Instant::now();
    let mut whole = Whole::plan(&snapshot);
    told("first", start);
    println!("elements {}", whole.elements());
    told_memory("memory", "VmRSS");
    told_memory("memory-peak", "VmHWM");
    prove(&whole);
    let mut random = Random::new(&snapshot);
    for _ in 0..turns {
        whole.change(&mut snapshot, &mut random, 1, "change");
    }
    for _ in 0..turns.min(5) {
        whole.compare_all(&mut snapshot, &mut random);
    }
    told_memory("memory-changed", "VmRSS");
}

/// One look at the whole kernel.
fn prove(whole: &Whole) {
    let mut socket = NftSocket::open().expect("a netlink socket");
    for _ in 0..3 {
        let start = Instant::now();
        let observed = socket.observe(|_, name| name == "parfait");
        let observed = observed.expect("a kernel that answers");
        told("prove-dump", start);
        let compare = Instant::now();
        let found = parfait_transport::prove(&whole.desired(), &observed.tables);
        assert!(found.is_empty(), "{found:?}");
        told("prove-compare", compare);
        told("prove", start);
    }
    told_memory("memory-proved", "VmHWM");
}

/// What the agent does, with everything that a node has.
fn agent(size: Large, turns: u32) {
    let mut snapshot = size.snapshot();
    let start = Instant::now();
    let kernel = Socket::open().expect("a netlink socket");
    let watched = Watched::open(start);
    let mut upkeep = Upkeep::new(OURS, Machine::new(kernel, watched));
    round(&mut upkeep, &snapshot, &BTreeSet::new());
    told("agent-proved", start);
    told_memory("memory-agent", "VmRSS");
    told_memory("memory-agent-peak", "VmHWM");
    let mut random = Random::new(&snapshot);
    for _ in 0..turns {
        let changed = BTreeSet::from([random.toggle(&mut snapshot)]);
        let start = Instant::now();
        round(&mut upkeep, &snapshot, &changed);
        told("agent-change", start);
    }
    told_memory("memory-agent-changed", "VmRSS");
}

fn round(upkeep: &mut Upkeep<Socket, Watched>, snapshot: &Snapshot, changed: &BTreeSet<Key>) {
    let round = upkeep.round(snapshot, changed).expect("a Node");
    assert!(round.failures.is_empty(), "{:?}", round.failures);
}

/// A thousand changes a second; those that come while one batch is carried out are the next.
fn hold(size: Large, seconds: u32) {
    const RATE: f64 = 1_000.0;
    let mut snapshot = size.snapshot();
    let mut whole = Whole::plan(&snapshot);
    let mut random = Random::new(&snapshot);
    told_memory("memory-hold-before", "VmRSS");
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed().as_secs() < u64::from(seconds) {
        let due = (start.elapsed().as_secs_f64() * RATE) as u32;
        if due == done {
            std::thread::sleep(std::time::Duration::from_micros(200));
            continue;
        }
        let batch = due - done;
        whole.change(&mut snapshot, &mut random, batch, "hold-batch");
        done = due;
    }
    println!("hold-changes {done}");
    println!(
        "hold-late {:.1}",
        (start.elapsed().as_secs_f64() * RATE - f64::from(done)) / RATE * 1e3
    );
    told_memory("memory-hold-after", "VmRSS");
    told_memory("memory-hold-peak", "VmHWM");
}

/// Parfait's ruleset among so many small Services, of which one leads to the server of `traffic`.
fn load(services: u32) {
    let mut snapshot = Large::even(services, 1).snapshot();
    target::add(&mut snapshot);
    let plan = parfait_transport::plan(&snapshot, OURS);
    let tables = parfait_transport::apply(&plan);
    let tables: Tables = tables
        .into_iter()
        .map(|table| (table.key(), table))
        .collect();
    let mut socket = NftSocket::open().expect("a netlink socket");
    let loaded = socket.execute(&diff(&Tables::new(), &tables));
    loaded.expect("a kernel that takes it");
}

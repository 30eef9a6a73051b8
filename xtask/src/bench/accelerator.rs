//! `cargo xtask bench accelerator`: what Services would cost if they were chosen when a socket connects.
//!
//! A prototype, which measures whether the nftables form is worth an accelerator, and is no part of the product: a
//! BPF program of type `cgroup/connect4` ([`PROGRAM`]) replaces the ClusterIP by an endpoint in `connect(2)`. From then on the
//! connection is one straight to the pod, of which no packet is translated.
//!
//! ```text
//!   straight      connect(pod)                            what no Service can beat
//!   nftables      connect(10.64.0.80) ─▶ DNAT in prerouting, and back in every answer
//!   accelerated   connect(10.64.0.81) ─▶ BPF: connect(pod)
//! ```
//!
//! All three go through the same node with the same ruleset, in one process, and take turns. `clang` and `bpftool`
//! make and load the program. All processes of the measurement are in its cgroup, so `straight` pays for a miss.

use std::fs;
use std::path::Path;

use super::harness::{Goal, Row, Times, read};
use super::services::FOLDER;
use super::services::traffic::{POD, way};
use super::shell;
use super::spaces::pods;

const PROGRAM: &str = include_str!("connect.bpf.c");
const SERVICES: [u32; 2] = [1, 10_000];
const ENDPOINTS: u32 = 10;
const ROUNDS: usize = 15;
const COUNT: usize = 1_500;

/// The Service that `bench_services load` makes, and one that only the program knows.
const TRANSLATED: &str = "10.64.0.80";
const ACCELERATED: [u8; 4] = [10, 64, 0, 81];

/// 0.98 of the rate.
const ALMOST: f64 = 1.0 / 0.98;

/// Loads the program, and measures.
pub fn run(root: &Path) -> Result<Vec<Row>, String> {
    let program = super::release(root).join("examples/bench_services");
    let program = program.display();
    fs::create_dir_all(FOLDER).map_err(|error| format!("{FOLDER}: {error}"))?;
    let mut rows = Vec::new();
    for services in SERVICES {
        let node = format!("node{services}");
        pods(&node)?;
        shell(&format!("ip netns exec {node} {program} load {services}"))?;
        let group = Group::new(services)?;
        let accelerated = ACCELERATED.map(|byte| byte.to_string()).join(".");
        let ways = [
            way("straight", &node, POD),
            way("nftables", &node, TRANSLATED),
            way("accelerated", &node, &accelerated),
        ];
        let words = format!("{program} traffic {ROUNDS} {COUNT} {}", ways.join(" "));
        let mut times = Times::new();
        read(&group.shell(&words)?, &mut times);
        rows.extend(compared(&times, services));
    }
    Ok(rows)
}

fn compared(times: &Times, services: u32) -> Vec<Row> {
    let of = |way: &str, key: &str| times.get(&format!("{way}-{key}")).cloned();
    let mut rows = Vec::new();
    for (what, key) in [
        ("connection, processor time", "work"),
        ("connection", "connection"),
        ("… 99th percentile", "slow"),
        ("request", "request"),
        ("… 99th percentile", "request-slow"),
    ] {
        for (name, reference) in [
            ("accelerated", "straight"),
            ("accelerated", "nftables"),
            ("nftables", "straight"),
        ] {
            let promised = key == "work" && reference == "straight" && name == "accelerated";
            rows.push(Row {
                name: format!("{what}, {services} Services, {name}"),
                ours: of(name, key).unwrap_or_default(),
                reference: (reference.to_owned(), of(reference, key).unwrap_or_default()),
                goal: match promised {
                    true => Goal::Ratio(ALMOST),
                    false => Goal::Told,
                },
            });
        }
    }
    rows
}

/// A cgroup with the program, which ends with this value.
struct Group {
    folder: String,
}

impl Group {
    fn new(services: u32) -> Result<Self, String> {
        let (object, pins) = (
            format!("{FOLDER}/connect.o"),
            format!("{FOLDER}/bpf{services}"),
        );
        let (source, tree) = (
            format!("{FOLDER}/connect.bpf.c"),
            format!("{FOLDER}/cgroup{services}"),
        );
        write(&source, PROGRAM)?;
        for folder in [&pins, &tree] {
            fs::create_dir_all(folder).map_err(|error| format!("{folder}: {error}"))?;
        }
        let machine = std::env::consts::ARCH;
        shell(&format!(
            "clang -O2 -g -target bpf -I/usr/include/{machine}-linux-gnu -c {source} -o {object}"
        ))?;
        shell(&format!("mount -t bpf none {pins}"))?;
        shell(&format!("mount -t cgroup2 none {tree}"))?;
        let folder = format!("{tree}/parfait-bench-{}", std::process::id());
        fs::create_dir_all(&folder).map_err(|error| format!("{folder}: {error}"))?;
        let group = Self { folder };
        shell(&format!(
            "bpftool prog load {object} {pins}/connect type cgroup/connect4 pinmaps {pins}"
        ))?;
        let elements = format!("{FOLDER}/elements");
        write(&elements, &filled(&pins, services))?;
        shell(&format!("bpftool batch file {elements}"))?;
        shell(&format!(
            "bpftool cgroup attach {} connect4 pinned {pins}/connect",
            group.folder
        ))?;
        Ok(group)
    }

    /// Runs a command line in the cgroup.
    fn shell(&self, line: &str) -> Result<String, String> {
        let script = format!("echo $$ > {}/cgroup.procs\nexec {line}\n", self.folder);
        let file = format!("{FOLDER}/within");
        write(&file, &script)?;
        shell(&format!("sh {file}"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("warning: {} stays: {error}", self.folder);
        }
    }
}

fn write(file: &str, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{file}: {error}"))
}

/// What fills the maps: so many Services with their endpoints, of which the first is the one that is measured.
fn filled(pins: &str, services: u32) -> String {
    let mut lines = String::new();
    for service in 0..services {
        let [_, _, high, low] = service.to_be_bytes();
        let address = match service {
            0 => ACCELERATED,
            _ => [10, 65, high, low],
        };
        let first = service * ENDPOINTS;
        let (key, value) = (
            [&address[..], &80u16.to_be_bytes(), &6u16.to_ne_bytes()].concat(),
            [first.to_ne_bytes(), ENDPOINTS.to_ne_bytes()].concat(),
        );
        lines += &element(pins, "services", &key, &value);
        for endpoint in 0..ENDPOINTS {
            let last = u8::try_from(201 + endpoint).unwrap_or(u8::MAX);
            let key = (first + endpoint).to_ne_bytes();
            let value = [&[10, 128, 0, last][..], &8080u16.to_be_bytes(), &[0, 0]].concat();
            lines += &element(pins, "endpoints", &key, &value);
        }
    }
    lines
}

fn element(pins: &str, map: &str, key: &[u8], value: &[u8]) -> String {
    let hex = |bytes: &[u8]| {
        let bytes = bytes.iter().map(|byte| format!("{byte:02x}"));
        bytes.collect::<Vec<_>>().join(" ")
    };
    let (key, value) = (hex(key), hex(value));
    format!("map update pinned {pins}/{map} key hex {key} value hex {value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_filled_with_every_service_and_its_ten_endpoints() {
        let lines = filled("/p", 2);
        assert_eq!(lines.lines().count(), 2 + 20);
        assert!(lines.starts_with("map update pinned /p/services key hex 0a 40 00 51 00 50"));
        assert!(lines.contains("/p/services key hex 0a 41 00 01 00 50"));
        assert!(lines.contains("value hex 0a 80 00 d2 1f 90 00 00"));
    }
}

//! What Services cost packets: new connections, requests and throughput, through a ClusterIP and straight to the pod.
//!
//! ```text
//!   client ── node (the ruleset) ── server       three network namespaces for each ruleset and number of Services
//! ```
//!
//! All of them take turns, round by round. "Straight" is measured through the node that has the same ruleset, as a
//! pod meets it; the node without any ruleset says what that alone costs: connection tracking, mostly. Processor
//! time counts both ends and the kernel between them, which share one processor: its inverse is the rate that an idle machine
//! reaches, and unlike the clock's it does not count what the machine does besides. So that is what is promised.
//!
//! iperf3 runs for a second at a time, and is told as the time for one Gbit.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bench::harness::{Goal, Row, Times, read};
use crate::bench::shell;
use crate::bench::spaces::pods;

const SERVICES: [u32; 3] = [1, 1_000, 10_000];
const ROUNDS: usize = 15;
const COUNT: usize = 1_500;
const THROUGHPUTS: usize = 3;

const CLUSTER_IP: &str = "10.64.0.80";
/// The server's pod.
pub const POD: &str = "10.128.0.201";

/// A hundredth is what two runs of the same differ by.
const EQUAL: f64 = 1.01;
/// 0.98 of the rate.
const ALMOST: f64 = 1.0 / 0.98;

/// Makes the namespaces, and measures.
pub fn run(program: &Path) -> Result<Vec<Row>, String> {
    let mut ways = vec![way("plain", "plain", POD)];
    pods("plain")?;
    for services in SERVICES {
        let (ours, rival) = (format!("ours{services}"), format!("rival{services}"));
        pods(&ours)?;
        pods(&rival)?;
        let program = program.display();
        shell(&format!("ip netns exec {ours} {program} load {services}"))?;
        shell(&format!(
            "{program} rival {services} {} /run/bench",
            services
        ))?;
        shell(&format!(
            "ip netns exec {rival} nft -f /run/bench/rival.nft"
        ))?;
        for node in [&ours, &rival] {
            ways.push(way(&format!("{node}-straight"), node, POD));
            ways.push(way(node, node, CLUSTER_IP));
        }
    }
    let words = ways.join(" ");
    let printed = shell(&format!(
        "{} traffic {ROUNDS} {COUNT} {words}",
        program.display()
    ))?;
    let mut times = Times::new();
    read(&printed, &mut times);
    throughput(&mut times)?;
    Ok(rows(&times))
}

/// An argument of `bench_services traffic`: from the client's pod through a node to an address.
pub fn way(name: &str, node: &str, address: &str) -> String {
    let port = if address == POD { 8080 } else { 80 };
    format!("{name}={node}-c,{node}-s,{address}:{port}")
}

fn rows(times: &Times) -> Vec<Row> {
    let of = |key: &str| times.get(key).cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for services in SERVICES {
        let ours = format!("ours{services}");
        for (what, key, goal) in [
            ("connection, processor time", "work", Goal::Ratio(ALMOST)),
            ("connection", "connection", Goal::Told),
            ("… 99th percentile", "slow", Goal::Told),
            ("request", "request", Goal::Ratio(ALMOST)),
            ("… 99th percentile", "request-slow", Goal::Told),
            ("iperf3, one Gbit", "gbit", Goal::Ratio(ALMOST)),
        ] {
            let name = format!("{what}, {services} Services");
            let straight = format!("{ours}-straight-{key}");
            let rival = format!("rival{services}-{key}");
            let row = |reference: (&str, &str), goal| Row {
                name: name.clone(),
                ours: of(&format!("{ours}-{key}")),
                reference: (reference.0.to_owned(), of(reference.1)),
                goal,
            };
            rows.push(row(("straight", &straight), goal));
            let not_below = match goal {
                Goal::Told => Goal::Told,
                _ => Goal::Ratio(EQUAL),
            };
            rows.push(row(("kube-proxy's shape", &rival), not_below));
        }
        rows.push(Row {
            name: format!("connection, processor time, kube-proxy's, {services} Services"),
            ours: of(&format!("rival{services}-work")),
            reference: (
                "straight".to_owned(),
                of(&format!("rival{services}-straight-work")),
            ),
            goal: Goal::Told,
        });
    }
    rows.push(Row {
        name: "connection, processor time, 10,000 Services".to_owned(),
        ours: of("ours10000-work"),
        reference: ("1 Service".to_owned(), of("ours1-work")),
        goal: Goal::Ratio(ALMOST),
    });
    rows.push(Row {
        name: "connection, processor time, straight, ruleset".to_owned(),
        ours: of("ours1-straight-work"),
        reference: ("no ruleset".to_owned(), of("plain-work")),
        goal: Goal::Told,
    });
    rows
}

/// iperf3 between the same namespaces, all ways in turns.
fn throughput(times: &mut Times) -> Result<(), String> {
    let mut ways = Vec::new();
    for services in SERVICES {
        for node in [format!("ours{services}"), format!("rival{services}")] {
            ways.push((format!("{node}-straight"), node.clone(), POD));
            ways.push((node.clone(), node, CLUSTER_IP));
        }
    }
    for _ in 0..THROUGHPUTS {
        for (name, node, address) in &ways {
            let rate = iperf(node, address)?;
            let samples = times.entry(format!("{name}-gbit")).or_default();
            samples.push_number(1e9 / rate * 1e3);
        }
    }
    Ok(())
}

/// Bits a second.
fn iperf(node: &str, address: &str) -> Result<f64, String> {
    let _server = Server::start(node)?;
    let client = format!("ip netns exec {node}-c iperf3 -J -t 1 -c {address}");
    let mut last = String::new();
    // The server says nowhere that it listens.
    for _ in 0..100 {
        match shell(&client) {
            Ok(printed) => {
                let received = printed.split("\"sum_received\"").nth(1);
                let rate = received.and_then(|text| text.split("\"bits_per_second\":").nth(1));
                let rate = rate.and_then(|text| text.split([',', '}']).next());
                match rate.and_then(|text| text.trim().parse().ok()) {
                    Some(rate) => return Ok(rate),
                    // A server that is not done with the client before says so, with success.
                    None => last = format!("{client} printed no rate"),
                }
            }
            Err(error) => last = error,
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err(last)
}

/// `iperf3 -s`, which ends with this value.
struct Server(Child);

impl Server {
    fn start(node: &str) -> Result<Self, String> {
        let mut command = Command::new("ip");
        let space = format!("{node}-s");
        command.args(["netns", "exec", &space, "iperf3", "-s"]);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let started = command.spawn();
        started
            .map(Self)
            .map_err(|error| format!("iperf3 -s: {error}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

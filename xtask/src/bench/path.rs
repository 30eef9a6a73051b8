//! `cargo xtask bench path`: what packets between pods cost: throughput of one TCP stream (`iperf3`),
//! and connections made and ended by four threads, on one node and across two, direct and by VXLAN.
//!
//! ```text
//!   ours-a, ours-b ══ ours-1 (eth0) ══════ (eth0) ours-2 ══ ours-c     the plugin, the agent's plan
//!   nat-a,  nat-b  ══ nat-1  (eth0) ══════ (eth0) nat-2  ══ nat-c      `ip`: the same links and routes, and of rules
//!                                                                      the least that Services and masquerade need
//!   hand-a, hand-b ══ hand-1 (eth0) ══════ (eth0) hand-2 ══ hand-c     the links and routes alone,
//!                                                                      no rules, no connection tracking
//! ```
//!
//! They stand side by side, and each round measures one right after the other, the first in turns. A
//! row's milliseconds are the time for a gigabyte or for a thousand connections, so that less is better
//! as everywhere; 0.97 of the reference's rate is at most 1.03 of its time.
//!
//! Tracking connections alone takes more than that where connections are made and ended: so no network with Services
//! reaches the links alone, and the goal is against `nat`. The links alone are told beside it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::harness::{Goal, Row, Samples};
use super::shell;

const ROUNDS: usize = 9;
const GOAL: Goal = Goal::Ratio(1.0 / 0.97);
/// Where servers listen; iperf3's own port is the other one.
const PORT: u16 = 8080;
/// Nodes, with their pods and these pods' addresses.
const NODES: [(&str, &[(&str, &str)]); 2] = [
    ("1", &[("a", "10.244.1.2"), ("b", "10.244.1.3")]),
    ("2", &[("c", "10.244.2.2")]),
];
/// Ours, and the references.
const SIDES: [&str; 3] = ["ours", "nat", "hand"];

/// The samples of each side.
type Sides = [Samples; 3];

const FOLDER: &str = "/run/bench";
const RULES: &str = "/run/bench/least.nft";

/// What every network with Services and masquerade has at least.
const LEAST: &str = "table ip least {
  chain before { type nat hook prerouting priority dstnat; }
  chain through { type filter hook forward priority filter; ct state established,related accept; }
  chain after { type nat hook postrouting priority srcnat;
               ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 192.168.77.0/24 } masquerade fully-random; }
}";

/// Measures one way of routing after the other.
pub fn run(root: &Path) -> Result<Vec<Row>, String> {
    let program = super::release(root).join("examples/bench_path");
    let program = program.display().to_string();
    let mut rows = Vec::new();
    for routing in ["direct", "vxlan"] {
        let servers = build(&program, routing)?;
        // On one node, packets take the same way whatever leads to others.
        if routing == "direct" {
            rows.extend(measure(&program, NODES[0].1[1].1, "one node")?);
        }
        let across = format!("across, {routing}");
        rows.extend(measure(&program, NODES[1].1[0].1, &across)?);
        drop(servers);
        for side in SIDES {
            for name in ["1", "2", "a", "b", "c"] {
                shell(&format!("ip netns del {side}-{name}"))?;
            }
        }
    }
    Ok(rows)
}

/// Processes that end with this value.
struct Servers(Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// From pod a to this address, every round on all sides.
fn measure(program: &str, target: &str, way: &str) -> Result<Vec<Row>, String> {
    let (mut bytes, mut connections) = (Sides::default(), Sides::default());
    for round in 0..=ROUNDS {
        for turn in 0..SIDES.len() {
            let side = (round + turn) % SIDES.len();
            let pod = format!("ip netns exec {}-a", SIDES[side]);
            let gigabyte = gigabyte(&shell(&format!("{pod} iperf3 -c {target} -t 1 -J"))?)?;
            let told = shell(&format!("{pod} {program} connect {target}:{PORT} 700"))?;
            let each: f64 = told.trim().parse().map_err(|_| format!("told {told:?}"))?;
            // The first round warms up: neighbours, caches, routes of connections.
            if round > 0 {
                bytes[side].push(gigabyte);
                // A thousand in milliseconds is as much as one in microseconds.
                connections[side].push(Duration::from_secs_f64(each / 1e3));
            }
        }
    }
    let rows = |what: &str, [ours, nat, hand]: Sides| {
        let row = |name: String, against: &str, samples, goal| Row {
            name,
            ours: ours.clone(),
            reference: (against.to_owned(), samples),
            goal,
        };
        let told = "… against links alone".to_owned();
        [
            row(format!("{what}, {way}"), "least nat by hand", nat, GOAL),
            row(told, "links by hand", hand, Goal::Told),
        ]
    };
    let connections = rows("1,000 connections", connections);
    Ok(rows("1 GB", bytes).into_iter().chain(connections).collect())
}

/// How long one takes at the rate that iperf3's receiver saw.
fn gigabyte(json: &str) -> Result<Duration, String> {
    let received = json.split_once("\"sum_received\"").map(|(_, rest)| rest);
    let rate = received.and_then(|rest| rest.split_once("\"bits_per_second\":"));
    let number = rate.and_then(|(_, rest)| rest.split([',', '}']).next());
    let rate = number.and_then(|number| number.trim().parse::<f64>().ok());
    rate.filter(|rate| *rate > 0.0)
        .map(|rate| Duration::from_secs_f64(8e9 / rate))
        .ok_or_else(|| format!("iperf3 told no rate: {json}"))
}

fn build(program: &str, routing: &str) -> Result<Servers, String> {
    fs::create_dir_all(FOLDER).map_err(|error| format!("{FOLDER}: {error}"))?;
    fs::write(RULES, LEAST).map_err(|error| format!("{RULES}: {error}"))?;
    let mut servers = Servers(Vec::new());
    for side in SIDES {
        for name in ["1", "2", "a", "b", "c"] {
            shell(&format!("ip netns add {side}-{name}"))?;
            shell(&format!("ip -n {side}-{name} link set lo up"))?;
        }
        shell(&format!(
            "ip -n {side}-1 link add eth0 type veth peer name eth0 netns {side}-2"
        ))?;
        for (number, pods) in NODES {
            let node = format!("{side}-{number}");
            lines(
                &node,
                &format!("link set eth0 up\naddr add 192.168.77.1{number}/24 dev eth0"),
            )?;
            match side {
                "ours" => ours(program, routing, number, pods)?,
                _ => by_hand(side, routing, number, pods)?,
            }
            if side == "nat" {
                shell(&format!("ip netns exec {node} nft -f {RULES}"))?;
            }
        }
        for server in ["b", "c"] {
            let port = PORT.to_string();
            for words in [&["iperf3", "-s"][..], &[program, "serve", &port]] {
                servers.0.push(start(&format!("{side}-{server}"), words)?);
            }
        }
    }
    SIDES.iter().try_for_each(|side| answered(side))?;
    Ok(servers)
}

fn start(netns: &str, words: &[&str]) -> Result<Child, String> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns]).args(words);
    // Trying whether it listens is an error in its eyes.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().map_err(|error| format!("ip: {error}"))
}

/// Waits until both servers of both pods accept.
fn answered(side: &str) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..100 {
        let tried = ["10.244.1.3", "10.244.2.2"].iter().try_for_each(|target| {
            [5201, PORT].iter().try_for_each(|port| {
                shell(&format!(
                    "ip netns exec {side}-a nc -z -w 1 {target} {port}"
                ))
                .map(drop)
            })
        });
        match tried {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("no answer: {last}"))
}

/// The program does what the agent and the plugin do.
fn ours(program: &str, routing: &str, number: &str, pods: &[(&str, &str)]) -> Result<(), String> {
    let folder = format!("{FOLDER}/{routing}-{number}");
    fs::create_dir_all(&folder).map_err(|error| format!("{folder}: {error}"))?;
    let pods: Vec<String> = pods
        .iter()
        .map(|(pod, _)| format!("{pod} /run/netns/ours-{pod}"))
        .collect();
    let words = format!(
        "{program} node {routing} {number} {folder} {}",
        pods.join(" ")
    );
    shell(&format!("ip netns exec ours-{number} {words}")).map(drop)
}

/// The same links, routes, neighbours and FDB entries, and nothing besides.
fn by_hand(side: &str, routing: &str, number: &str, pods: &[(&str, &str)]) -> Result<(), String> {
    let node = format!("{side}-{number}");
    let other = match number {
        "1" => "2",
        _ => "1",
    };
    shell(&format!(
        "ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1"
    ))?;
    let mtu = match routing {
        "direct" => 1500,
        _ => 1450,
    };
    for (pod, address) in pods {
        let netns = format!("{side}-{pod}");
        let (near, far) = (
            format!("02:00:00:00:01:0{number}"),
            format!("02:00:00:00:02:0{number}"),
        );
        lines(&node, &format!(
            "link add p{pod} mtu {mtu} address {near} type veth peer name eth0 mtu {mtu} address {far} netns {netns}
             link set p{pod} up"
        ))?;
        lines(
            &netns,
            &format!(
                "link set eth0 up
             addr add {address}/32 dev eth0
             neigh add 169.254.1.1 lladdr {near} dev eth0 nud permanent
             route add default via 169.254.1.1 dev eth0 onlink"
            ),
        )?;
        lines(
            &node,
            &format!(
                "neigh add {address} lladdr {far} dev p{pod} nud permanent
             route add {address} dev p{pod}"
            ),
        )?;
    }
    if routing == "direct" {
        return lines(
            &node,
            &format!("route add 10.244.{other}.0/24 via 192.168.77.1{other}"),
        );
    }
    lines(&node, &format!(
        "link add vx mtu 1450 address 02:00:00:00:03:0{number} type vxlan id 7 local 192.168.77.1{number} dstport 4789 nolearning
         addr add 10.244.{number}.0/32 dev vx
         link set vx up
         neigh add 10.244.{other}.0 lladdr 02:00:00:00:03:0{other} dev vx nud permanent
         route add 10.244.{other}.0/24 via 10.244.{other}.0 dev vx onlink"
    ))?;
    shell(&format!(
        "bridge -n {node} fdb add 02:00:00:00:03:0{other} dev vx dst 192.168.77.1{other} self permanent"
    ))
    .map(drop)
}

/// Each line is given to `ip` in this namespace.
fn lines(netns: &str, text: &str) -> Result<(), String> {
    text.lines()
        .try_for_each(|line| shell(&format!("ip -n {netns} {line}")).map(drop))
}

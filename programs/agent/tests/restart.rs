//! The promise that a restart disturbs nobody, in a lab: agents are killed while a connection and a stream
//! of datagrams go through Services to another node, and nothing may be lost, wait or change.
//!
//! ```text
//!   client (node-1) ──TCP, UDP, IPv4 and IPv6──▶ Service echo ──▶ echo (node-2)
//! ```
//!
//! And agents are no part of attaching pods: one that is stopped keeps no pod from starting.
//!
//! Needs root or user namespaces, `ip` and `nft` to compare, and the built `parfait` beside this
//! test's own folder (or named by `PARFAIT_BIN`). What is missing is said aloud.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const SERVICE: [&str; 2] = ["10.96.77.7:7000", "[fd00:10:96::77]:7000"];

/// Nothing may be silent for longer.
const STALL: Duration = Duration::from_secs(1);

/// What the streams' client is told to connect to, and its own name for the test runner.
const TO: &str = "PARFAIT_TEST_STREAMS_TO";
const CLIENT: &str = "the_client_of_the_streams";

const ECHO: &str = "
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  clusterIP: 10.96.77.7
  clusterIPs: [10.96.77.7, 'fd00:10:96::77']
  selector: {app: echo}
  ports:
  - {name: stream, port: 7000, protocol: TCP}
  - {name: datagrams, port: 7000, protocol: UDP}
---
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  nodeName: node-2
  containers:
  - name: echo
    image: example.com/echo
    ports: [{containerPort: 7000}, {containerPort: 7000, protocol: UDP}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node-1
  containers: [{name: client, image: example.com/client, command: [sleep, '1000']}]
";

const FRESH: &str = "
apiVersion: v1
kind: Pod
metadata: {name: fresh}
spec:
  nodeName: node-2
  containers:
  - name: echo
    image: example.com/echo
    ports: [{containerPort: 7000}, {containerPort: 7000, protocol: UDP}]
";

#[test]
fn killed_agents_disturb_nobody() {
    let Some(lab) = Lab::up("killed_agents_disturb_nobody") else {
        return;
    };
    let before = lab.kernels();
    let streams = lab.streams("pod/client.default", &SERVICE.join(","));
    thread::sleep(Duration::from_millis(500));
    // However it ends, everything stays as it is.
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
        let said: Vec<_> = NODES.map(|node| lab.log(node).len()).into();
        for node in NODES {
            let pid = lab.agent(node).expect("an agent runs");
            kill_process(pid, signal).unwrap();
        }
        for (node, said) in NODES.into_iter().zip(said) {
            let new = || lab.log(node)[said..].to_owned();
            let up = until(|| new().contains("the kernel is as planned"));
            assert!(up, "the agent of {node} did not come back: {}", new());
            assert!(
                new().contains("the kernel is as planned steps=0"),
                "{}",
                new()
            );
        }
        thread::sleep(Duration::from_millis(300));
    }
    streams.end_well();
    let after = lab.kernels();
    for node in NODES {
        let (was, is) = (&before[node], &after[node]);
        let gone: Vec<_> = was.difference(is).collect();
        let new: Vec<_> = is.difference(was).collect();
        assert!(was == is, "{node}: gone {gone:#?}, new {new:#?}");
    }
}

#[test]
fn pods_start_while_the_agent_is_stopped() {
    let Some(lab) = Lab::up("pods_start_while_the_agent_is_stopped") else {
        return;
    };
    let agent = lab.agent("node-2").expect("an agent runs");
    kill_process(agent, Signal::STOP).unwrap();
    let fresh = lab.file("fresh.yaml", FRESH);
    lab.ok(&["lab", "up", "--name", "restart", "--no-check", "-f", &fresh]);
    let shown = lab.exec(
        "pod/fresh.default",
        &["ip", "-o", "address", "show", "eth0"],
    );
    let words = shown.split_whitespace();
    let addresses: Vec<SocketAddr> = words
        .filter_map(|word| word.split_once('/')?.0.parse().ok())
        .filter(|ip: &std::net::IpAddr| !ip.to_string().starts_with("fe80"))
        .map(|ip| SocketAddr::new(ip, 7000))
        .collect();
    assert_eq!(addresses.len(), 2, "{shown}");
    let to: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let to = to.join(",");
    let reached_from = |from: &str| {
        let streams = lab.streams(from, &to);
        thread::sleep(Duration::from_millis(500));
        streams.end_well();
    };
    // Its own node, and nobody else before the agent knows it.
    reached_from("node/node-2");
    let said = lab.log("node-2").len();
    let address = addresses[0].ip();
    let ping = format!("ping -n -c1 -W1 {address} >/dev/null && echo reached || true");
    let reached = || lab.exec("pod/client.default", &["sh", "-c", &ping]);
    assert_eq!(reached().trim(), "", "nobody knows the pod yet");
    kill_process(agent, Signal::CONT).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while reached().trim().is_empty() {
        assert!(
            Instant::now() < end,
            "the agent goes on, and the pod is still alone"
        );
    }
    for from in ["node/node-2", "pod/echo.default", "pod/client.default"] {
        reached_from(from);
    }
    // It catches up with what it has missed, and has nothing to repair.
    thread::sleep(Duration::from_secs(2));
    let said = lab.log("node-2")[said..].to_owned();
    assert!(!said.contains("WARN"), "{said}");
}

/// Not a test of its own: the program that the tests run in a pod. It ends with its standard input.
#[test]
#[ignore = "run by the other tests, in a pod"]
fn the_client_of_the_streams() {
    let Ok(to) = std::env::var(TO) else { return };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for address in to.split(',') {
            let address: SocketAddr = address.parse().unwrap();
            let stop = &stop;
            scope.spawn(move || println!("\n{}", tcp(address, stop)));
            scope.spawn(move || println!("\n{}", udp(address, stop)));
        }
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
    });
}

/// Sends numbers over one connection and wants each back. Says how it went.
fn tcp(to: SocketAddr, stop: &AtomicBool) -> String {
    let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(3)) else {
        return format!("FAILED: no connection to {to}");
    };
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(5 * STALL)).unwrap();
    let (mut longest, mut number) = (Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) {
        let block = format!("number {number:057}");
        let start = Instant::now();
        let mut back = [0; 64];
        let echoed = stream
            .write_all(block.as_bytes())
            .and_then(|()| stream.read_exact(&mut back));
        if let Err(error) = echoed {
            return format!("FAILED: TCP {to}: number {number}: {error}");
        }
        if back != block.as_bytes() {
            return format!("FAILED: TCP {to}: number {number} came back as {back:?}");
        }
        longest = longest.max(start.elapsed());
        number += 1;
        thread::sleep(Duration::from_millis(2));
    }
    verdict("TCP", to, number, 0, longest)
}

/// Sends numbers as datagrams and wants each back.
fn udp(to: SocketAddr, stop: &AtomicBool) -> String {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(2 * STALL)).unwrap();
    let (mut longest, mut number, mut lost) = (Duration::ZERO, 0_u64, 0);
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let mut back = [0; 8];
        let sent = socket.send(&number.to_be_bytes());
        match sent.and_then(|_| socket.recv(&mut back)) {
            Ok(8) if back == number.to_be_bytes() => {}
            _ => lost += 1,
        }
        longest = longest.max(start.elapsed());
        number += 1;
        thread::sleep(Duration::from_millis(2));
    }
    verdict("UDP", to, number, lost, longest)
}

fn verdict(kind: &str, to: SocketAddr, sent: u64, lost: u64, longest: Duration) -> String {
    let well = sent > 10 && lost == 0 && longest < STALL;
    let word = if well { "WELL" } else { "FAILED" };
    format!("{word}: {kind} {to}: {sent} sent, {lost} lost, the slowest took {longest:?}")
}

/// A lab with the shop, the echo server and its client. It ends with this value.
struct Lab {
    dir: TempDir,
    program: PathBuf,
}

/// Streams that go on until they are told to end.
struct Streams(Child);

impl Streams {
    fn end_well(mut self) {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let count = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((count("FAILED:"), count("WELL:")), (0, 4), "{text}{error}");
        let well: Vec<_> = text.lines().filter(|l| l.starts_with("WELL:")).collect();
        println!("{}", well.join("\n"));
    }
}

impl Lab {
    fn up(test: &str) -> Option<Self> {
        let skip = |why: &str| {
            let _ = writeln!(std::io::stderr(), "SKIP: {test}: {why}");
            None
        };
        let Some(built) = built() else {
            return skip("there is no built parfait: run `cargo build -p parfait` first");
        };
        let works = |line: &[&str]| {
            let mut command = Command::new(line[0]);
            let status = command.args(&line[1..]).stdout(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        if !rustix::process::geteuid().is_root() && !works(&["unshare", "-Urn", "true"]) {
            return skip("namespaces are not allowed here");
        }
        if !works(&["nft", "--version"]) || !works(&["ip", "-V"]) {
            return skip("ip and nft are needed, to compare");
        }
        let dir = tempfile::Builder::new()
            .prefix("parfait-")
            .tempdir()
            .unwrap();
        // A copy, so that another build does not replace it under the lab.
        let program = dir.path().join("parfait");
        // Not by this process: what another test starts meanwhile would hold the file open for writing.
        let copied = Command::new("cp").arg(built).arg(&program).status();
        assert!(copied.unwrap().success());
        let lab = Self { dir, program };
        let echo = lab.file("echo.yaml", ECHO);
        let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
        let shop = shop.display().to_string();
        lab.ok(&["lab", "up", "--name", "restart", "-f", &shop, "-f", &echo]);
        Some(lab)
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("PARFAIT_STATE_DIR", self.dir.path())
            .env_remove("PARFAIT_LAB")
            .env_remove("KUBECONFIG")
            .args(line);
        command
    }

    fn ok(&self, line: &[&str]) -> String {
        let output = self.command(line).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{}:\n{out}{err}", line.join(" "));
        out
    }

    fn exec(&self, target: &str, command: &[&str]) -> String {
        let start = ["lab", "exec", "--name", "restart", target, "--"];
        self.ok(&[&start, command].concat())
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn log(&self, node: &str) -> String {
        let logs = self.dir.path().join("labs/restart/logs");
        fs::read_to_string(logs.join(format!("agent-{node}.log"))).unwrap()
    }

    /// The process of a node's agent.
    fn agent(&self, node: &str) -> Option<Pid> {
        let state = self.dir.path().display().to_string();
        let own = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&format!(" agent --node-name {node} ")) && line.contains(&state)
        };
        let mut found = None;
        until(|| {
            let processes = fs::read_dir("/proc").unwrap().flatten();
            let mut pids =
                processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
            found = pids.find(own).and_then(Pid::from_raw);
            found.is_some()
        });
        found
    }

    fn streams(&self, from: &str, to: &str) -> Streams {
        let own = std::env::current_exe().unwrap().display().to_string();
        let target = ["lab", "exec", "--name", "restart", from, "--", &own];
        let test = ["--ignored", "--exact", CLIENT, "--nocapture"];
        let mut command = self.command(&[&target[..], &test].concat());
        command.env(TO, to);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Streams(command.spawn().unwrap())
    }

    /// What every node's kernel holds, as lines, with the handles that tell old from new.
    fn kernels(&self) -> BTreeMap<&'static str, BTreeSet<String>> {
        let list = "nft -a list ruleset; ip -d link; ip address; ip route show table all; \
            ip -6 route show table all; ip neigh show nud permanent; bridge fdb";
        let held = |node: &'static str| {
            let text = self.exec(&format!("node/{node}"), &["sh", "-c", list]);
            (node, text.lines().map(ToOwned::to_owned).collect())
        };
        NODES.map(held).into()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = ["lab", "down", "--name", "restart", "--grace", "1s"];
        let _ = self.command(&down).output();
    }
}

/// The program, from the environment or from where cargo puts it.
fn built() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("PARFAIT_BIN") {
        return Some(named.into());
    }
    let own = std::env::current_exe().ok()?;
    let beside = own.parent()?.parent()?.join("parfait");
    beside.is_file().then_some(beside)
}

/// Waits a while for something to be true.
fn until(mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if done() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

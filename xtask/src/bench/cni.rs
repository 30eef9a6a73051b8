//! `cargo xtask bench cni`: attaching and detaching a pod, as a runtime sees it: a process that starts,
//! reads its configuration and ends. Ours is `parfait-cni`, which the agent installs, built as `programs/cni/README.md` says.
//!
//! The reference are `ptp` and `bridge` with `host-local`, from the Debian package
//! containernetworking-plugins. They take turns with ours pod by pod, and batch by batch where 32 are
//! attached at once. Making the pod's network namespace is not counted: the runtime does it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::harness::{Goal, Row, Samples};
use super::shell;

const REFERENCE: &str = "/usr/lib/cni";
/// One at a time: pods per plugin.
const SINGLE: usize = 20;
/// At once: pods in a batch, and batches per plugin.
const BATCH: usize = 32;
const BATCHES: usize = 3;
const GOAL: Goal = Goal::Ratio(0.25);

/// A plugin and its configuration.
struct Plugin {
    name: &'static str,
    program: PathBuf,
    config: String,
}

/// What ours is built for: without a loader to wait for, and with a C library that starts at once.
pub fn triple() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Measures single and dual stack, one at a time and 32 at once.
pub fn run(root: &Path) -> Result<Vec<Row>, String> {
    let folder = Path::new("/run/bench");
    let io = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(io)?;
    shell("ip link add eth0 type veth peer name far0")?;
    for line in [
        "ip link set eth0 up",
        "ip link set far0 up",
        "ip addr add 192.168.77.11/24 dev eth0",
        "ip addr add fd00:77::11/64 dev eth0 nodad",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    ] {
        shell(line)?;
    }
    let pods: Vec<String> = (0..BATCH).map(|pod| format!("pod{pod}")).collect();
    let mut rows = Vec::new();
    for (stack, dual) in [("IPv4", false), ("dual stack", true)] {
        let plugins = plugins(root, folder, dual).map_err(io)?;
        rows.extend(alone(&plugins, &pods, stack)?);
        rows.extend(at_once(&plugins, &pods, stack)?);
    }
    Ok(rows)
}

fn plugins(root: &Path, folder: &Path, dual: bool) -> std::io::Result<Vec<Plugin>> {
    let state = folder.join(format!("parfait-{dual}"));
    fs::create_dir_all(&state)?;
    let cidrs = match dual {
        true => "\"10.250.0.0/22\",\"fd00:250::/64\"",
        false => "\"10.249.0.0/22\"",
    };
    fs::write(
        state.join("node.json"),
        format!(
            "{{\"node\":\"bench\",\"addresses\":[\"192.168.77.11\",\"fd00:77::11\"],\"podCIDRs\":[{cidrs}],\"mtu\":1450}}"
        ),
    )?;
    let ours = format!(
        "{{\"cniVersion\":\"1.0.0\",\"name\":\"bench\",\"type\":\"parfait\",\"stateDir\":\"{}\"}}",
        state.display()
    );
    let reference = |kind: &'static str, number: usize| {
        let number = number + usize::from(dual);
        let six = format!(
            ",[{{\"subnet\":\"fd00:{number}::/64\"}}]],\"routes\":[{{\"dst\":\"0.0.0.0/0\"}},{{\"dst\":\"::/0\"}}]"
        );
        let rest = match dual {
            true => six.as_str(),
            false => "],\"routes\":[{\"dst\":\"0.0.0.0/0\"}]",
        };
        let config = format!(
            "{{\"cniVersion\":\"1.0.0\",\"name\":\"{kind}-{dual}\",\"type\":\"{kind}\",\"bridge\":\"br{number}\",\"isGateway\":true,\"mtu\":1450,\
             \"ipam\":{{\"type\":\"host-local\",\"dataDir\":\"{}\",\"ranges\":[[{{\"subnet\":\"10.{number}.0.0/22\"}}]{rest}}}}}",
            folder.display()
        );
        Plugin {
            name: kind,
            program: Path::new(REFERENCE).join(kind),
            config,
        }
    };
    Ok(vec![
        Plugin {
            name: "parfait",
            program: super::target(root)
                .join(triple())
                .join("release/parfait-cni"),
            config: ours,
        },
        reference("ptp", 100),
        reference("bridge", 110),
    ])
}

/// ADD and DEL of every plugin.
type Times = Vec<(Samples, Samples)>;

fn alone(plugins: &[Plugin], pods: &[String], stack: &str) -> Result<Vec<Row>, String> {
    let mut times: Times = vec![Default::default(); plugins.len()];
    for round in 0..SINGLE {
        let pod = pods.get(round % pods.len()).map_or("pod0", String::as_str);
        for (plugin, (add, del)) in plugins.iter().zip(&mut times) {
            shell(&format!("ip netns add {pod}"))?;
            for (command, samples) in [("ADD", add), ("DEL", del)] {
                let start = Instant::now();
                plugin.call(command, pod)?;
                samples.push(start.elapsed());
            }
            shell(&format!("ip netns del {pod}"))?;
        }
    }
    Ok(rows(plugins, &times, &format!("one, {stack}")))
}

fn at_once(plugins: &[Plugin], pods: &[String], stack: &str) -> Result<Vec<Row>, String> {
    let mut times: Times = vec![Default::default(); plugins.len()];
    for _ in 0..BATCHES {
        for (plugin, (add, del)) in plugins.iter().zip(&mut times) {
            for pod in pods {
                shell(&format!("ip netns add {pod}"))?;
            }
            for (command, samples) in [("ADD", add), ("DEL", del)] {
                let start = Instant::now();
                let done: Result<Vec<()>, String> = std::thread::scope(|scope| {
                    let calls: Vec<_> = pods
                        .iter()
                        .map(|pod| scope.spawn(move || plugin.call(command, pod)))
                        .collect();
                    let joined = calls.into_iter().map(std::thread::ScopedJoinHandle::join);
                    joined
                        .map(|ended| ended.unwrap_or_else(|_| Err("a call panicked".to_owned())))
                        .collect()
                });
                done?;
                samples.push(start.elapsed());
            }
            for pod in pods {
                shell(&format!("ip netns del {pod}"))?;
            }
        }
    }
    Ok(rows(plugins, &times, &format!("{BATCH} at once, {stack}")))
}

fn rows(plugins: &[Plugin], times: &Times, how: &str) -> Vec<Row> {
    let mut both = plugins.iter().zip(times);
    let Some((_, (add, del))) = both.next() else {
        return Vec::new();
    };
    let row = |command: &str, ours: &Samples, reference: (&Plugin, &Samples)| Row {
        name: format!("{command}, {how}"),
        ours: ours.clone(),
        reference: (reference.0.name.to_owned(), reference.1.clone()),
        goal: GOAL,
    };
    both.flat_map(|(plugin, (their_add, their_del))| {
        [
            row("ADD", add, (plugin, their_add)),
            row("DEL", del, (plugin, their_del)),
        ]
    })
    .collect()
}

impl Plugin {
    fn call(&self, command: &str, pod: &str) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.program.display());
        let mut child = Command::new(&self.program)
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", pod)
            .env("CNI_NETNS", format!("/run/netns/{pod}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", REFERENCE)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(self.config.as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "{} {command}: {}",
                self.name,
                String::from_utf8_lossy(&output.stdout)
            )),
        }
    }
}

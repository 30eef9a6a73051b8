//! The command line: what may be typed, and what `--help` says about it.
//!
//! One definition an option. Names and meanings follow kubectl where it has the same thing (`-f`,
//! `-n`, `-o`). Hidden subcommands with which the program starts itself are not here, see `main`.

mod manifest;
mod policy;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use parfait_lab_fabric::{IpFamily, LabName, LabSpec, Routing, Target, Underlay};

pub use manifest::Manifest;
pub use policy::{Policy, PolicyDenials, PolicyExplain, PolicyLint, PolicyList, PolicyMatrix};

const EXAMPLES: &str = "\
Examples:
  parfait lab up --nodes 3 -f shop.yaml      three nodes on this machine, and an application
  export KUBECONFIG=$(parfait lab kubeconfig --path)
  kubectl get pods -A -o wide                any kubectl works on it
  parfait explain pod/web svc/api            why a packet goes where it goes
  parfait lab exec pod/web -- curl api:8080  a program of this host in a pod's network
  parfait lab down                           leaves nothing

Exit codes:
  0  done; delivered; every check passed
  1  failed; not delivered; a check failed; no such lab runs
  2  wrong usage: the command line, a file, or a pod, node or Service that does not exist
  3  unknown: what is visible does not decide the question";

/// The whole network of a Kubernetes cluster: it makes it, and can explain every packet in it.
#[derive(Debug, Parser)]
#[command(name = "parfait", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
pub struct Args {
    /// Where labs keep their state [default: /run/parfait for root, else $XDG_RUNTIME_DIR/parfait
    /// or /tmp/parfait-UID]
    #[arg(
        long,
        global = true,
        env = "PARFAIT_STATE_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub state_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A cluster on this machine: nodes and pods as namespaces, an API server, your manifests
    #[command(subcommand)]
    Lab(Lab),
    /// Walk a packet through the cluster, and say why it arrives or where it ends
    Explain(Explain),
    /// NetworkPolicies: what they come to, and what was probably not meant
    #[command(subcommand)]
    Policy(Policy),
    /// One node's network: what is planned, next to what its kernel holds
    #[command(subcommand)]
    Node(Node),
    /// Run the network of one node: in the lab and in a real cluster the same program
    Agent(Agent),
    /// Print what an administrator applies to a real cluster to run Parfait
    Manifest(Manifest),
    /// The CNI plugin: a container runtime calls it to attach pods to this node's network
    #[command(after_help = CNI_HELP)]
    Cni,
}

/// Which lab.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// The lab's name: several may run at once
    #[arg(long, env = "PARFAIT_LAB", hide_env_values = true, default_value_t = LabName::default())]
    pub name: LabName,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Create a lab, apply manifests, wait until they are available, check their connections
    Up(Up),
    /// What runs: nodes, pods, Services, addresses, logs
    Status(Status),
    /// End a lab and remove everything it made
    Down(Down),
    /// Print a kubeconfig that kubectl accepts
    Kubeconfig(Kubeconfig),
    /// The labs of this user
    List(List),
    /// Run a program of this host in the network of a node or a pod
    Exec(Exec),
    /// From every pod, connect to everything its environment names; and every Service to its endpoints
    Check(Check),
}

const UP_HELP: &str = "\
Examples:
  parfait lab up                               three nodes, nothing on them yet
  parfait lab up --nodes 5 -f deploy/          five nodes and every .yaml in a directory
  parfait lab up -f more.yaml                  applied to the lab that is running already
  parfait lab up --name v6 --ip-family ipv6    a second lab beside the first

Underlays:
  flat    one segment (routing auto)
  routed  two segments, and a router that has a route to each node's pods (routing direct)
  cloud   each node behind a router whose route table is filled from the Nodes (routing direct)
  bgp     two segments; BIRD on each node and on the router announces pods' networks (routing bgp)
`parfait lab exec router -- ip route` shows what the router knows.

Ctrl-C before the lab is ready takes it down again; later it leaves the lab running.

Exit codes:
  0  everything is available and every check passed
  1  it is not; the lab keeps running, so that you can look
  2  wrong usage, or a manifest that cannot be understood (then nothing is started)";

#[derive(Debug, clap::Args)]
#[command(after_help = UP_HELP)]
pub struct Up {
    #[command(flatten)]
    pub which: Which,
    /// How many nodes [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=i64::from(LabSpec::MAX_NODES)))]
    pub nodes: Option<u8>,
    /// Address families of nodes, pods and Services [default: dual] [possible values: dual, ipv4, ipv6]
    #[arg(long)]
    pub ip_family: Option<IpFamily>,
    /// How pods' packets travel between nodes [default: what the underlay is made for] [possible values:
    /// auto, direct, vxlan, bgp]
    #[arg(long)]
    pub routing: Option<Routing>,
    /// What lies between the nodes [default: flat] [possible values: flat, routed, cloud, bgp]
    #[arg(long)]
    pub underlay: Option<Underlay>,
    /// The largest packet between nodes [default: 1500]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1280..=65535))]
    pub mtu: Option<u32>,
    /// A manifest, a directory of manifests, or - for standard input; may be given several times
    #[arg(short, long = "filename", value_name = "FILE|DIR")]
    pub filename: Vec<PathBuf>,
    /// How long to wait until every workload is available (90, 90s, 2m)
    #[arg(long, default_value = "120s", value_parser = duration)]
    pub wait: Duration,
    /// Do not check the connections at the end
    #[arg(long)]
    pub no_check: bool,
}

#[derive(Debug, clap::Args)]
pub struct Status {
    #[command(flatten)]
    pub which: Which,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A lab that does not run is no error: nothing is left, as asked.\nExit codes: 0 nothing is left, 1 something is."
)]
pub struct Down {
    #[command(flatten)]
    pub which: Which,
    /// Every lab of this user, whatever its name
    #[arg(long)]
    pub all: bool,
    /// How long programs get to end by themselves
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub grace: Duration,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  export KUBECONFIG=$(parfait lab kubeconfig --path)")]
pub struct Kubeconfig {
    #[command(flatten)]
    pub which: Which,
    /// Print where the file is instead of what is in it
    #[arg(long)]
    pub path: bool,
    /// Write it to a file (readable by you alone) instead
    #[arg(long, value_name = "PATH", conflicts_with = "path")]
    pub write: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct List {
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

const EXEC_HELP: &str = "\
The program is the host's and sees the host's files; only its network, resolv.conf and hosts are
the target's. To run in the container itself use kubectl exec.

Examples:
  parfait lab exec node/1 -- ip route
  parfait lab exec pod/frontend-5d8f7 -- curl -s http://cart:7070
  parfait lab exec pod/db-0.shop -- ss -tn          a pod in another namespace

Exit codes: the program's own; 126 it cannot be run, 127 there is none, 128+N signal N ended it;
2 there is no such pod or node.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXEC_HELP)]
pub struct Exec {
    #[command(flatten)]
    pub which: Which,
    /// node/N, pod/NAME, pod/NAME.NAMESPACE, or router: what is between the nodes
    #[arg(value_name = "TARGET")]
    pub target: Target,
    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub command: Vec<std::ffi::OsString>,
}

const CHECK_HELP: &str = "\
What is checked:
  * from every running pod, every host:port in its environment: NAME:PORT, URLs, and pairs
    X_HOST and X_PORT. A name that no Service and no pod has is listed as absent, which is no
    failure: the network is right.
  * from every node, every port of every Service at each of its addresses, and each of its
    endpoints.
TCP must connect. UDP is sent a packet and must not be refused.

Exit codes: 0 every connection works, 1 one does not (the first is explained).";

#[derive(Debug, clap::Args)]
#[command(after_help = CHECK_HELP)]
pub struct Check {
    #[command(flatten)]
    pub which: Which,
    /// Only pods and Services of this namespace [default: all]
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// How long one connection may take
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub timeout: Duration,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

const EXPLAIN_HELP: &str = "\
FROM and TO: pod/NAME[.NAMESPACE], node/NAME, svc/NAME[.NAMESPACE], an address, or a name as the
sender would look it up; deploy/, sts/ and ds/NAME[.NAMESPACE] mean the first of their pods. Behind
TO may stand :PORT; for svc/ also the port's name. FROM may be an address outside the cluster.
Without -f and --kubeconfig: the running lab, else the cluster kubectl would use.

Examples:
  parfait explain pod/frontend svc/cart:7070
  parfait explain pod/web 10.96.0.10 --port 53 --protocol udp
  parfait explain 198.51.100.1 node/node-2:30080          a client outside, by a node port
  parfait explain pod/web svc/cart --source-port 40312    that connection: is it pinned, and where?
  parfait explain pod/web pod/db --protocol icmp --length 1500 --df    would it fit?
  parfait explain deploy/web svc/api -f deploy/     no cluster needed: a directory of YAML

Exit codes: 0 delivered, 1 not delivered, 2 wrong usage, 3 unknown.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXPLAIN_HELP)]
pub struct Explain {
    #[command(flatten)]
    pub picture: Picture,
    /// The sender
    pub from: String,
    /// The receiver
    pub to: String,
    /// The receiver's port, where the receiver does not say it
    #[arg(long)]
    pub port: Option<u16>,
    /// The sender's port: asks for this very flow, which a node may track already, and whose way is decided then;
    /// without it, those that are open are listed
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub source_port: Option<u16>,
    /// The IP family [default: the sender's first that both sides have]
    #[arg(long, value_enum)]
    pub ip_family: Option<Family>,
    /// The protocol [default: the Service port's, else tcp]
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    /// How large the packet is in bytes, with its IP header (ping -s 1472 makes 1500)
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(28..=65535))]
    pub length: Option<u32>,
    /// The packet must not be cut into fragments, as TCP's and those of ping -M do
    #[arg(long, requires = "length")]
    pub df: bool,
    /// The namespace of names without one [default: default for the sender, the sender's for the
    /// receiver]
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Only the verdict and its reason
    #[arg(long, conflicts_with = "full")]
    pub short: bool,
    /// Every step, also those that change nothing
    #[arg(long)]
    pub full: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Which cluster is looked at: a lab's, any other, or one that is only on paper.
#[derive(Clone, Debug, clap::Args)]
pub struct Picture {
    #[command(flatten)]
    pub which: Which,
    /// Manifests to look at instead of a cluster
    #[arg(short, long = "filename", value_name = "FILE|DIR")]
    pub filename: Vec<PathBuf>,
    /// How many nodes the cluster of -f has, where the manifests name none
    #[arg(long, default_value_t = 3, requires = "filename")]
    pub nodes: u8,
    /// The cluster to look at
    #[arg(long, value_name = "FILE", conflicts_with = "filename")]
    pub kubeconfig: Option<PathBuf>,
}

/// A packet's IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// The transport protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Icmp,
}

#[derive(Debug, Subcommand)]
pub enum Node {
    /// Interfaces, addresses, peers, routes, MTU, settings and allocations, each with the object it
    /// is for; what is missing, different or too much, and what to do
    Status(NodeStatus),
}

const NODE_STATUS_HELP: &str = "\
The node is one of the running lab's (all of them, if none is named), or, without a lab or with
--kubeconfig, this machine: the Node of its host name or NODE. To look at the kernel it must run on
that node as root; elsewhere it shows the plan alone, and says so.

Examples:
  parfait node status node-2                        of the running lab
  parfait node status --kubeconfig kubelet.conf     this machine
  parfait node status worker-7 --plan-only          what that node's kernel should hold

Exit codes: 0 as planned, 1 something differs, 2 wrong usage, 3 unknown (the plan alone, or a rule
of another program that cannot be evaluated).";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = NODE_STATUS_HELP)]
pub struct NodeStatus {
    /// The node [default: every node of the lab; else this machine's]
    #[arg(env = "NODE_NAME", hide_env_values = true)]
    pub node: Option<String>,
    /// The lab [default: the default one, if it runs]
    #[arg(
        long = "name",
        env = "PARFAIT_LAB",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub lab: Option<LabName>,
    /// The cluster that this machine is a node of; no lab is looked at then
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where this machine's agent keeps what must survive a restart
    #[arg(long, default_value = Agent::STATE_DIR, value_name = "DIR")]
    pub agent_state_dir: PathBuf,
    /// Do not look at the kernel
    #[arg(long)]
    pub plan_only: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

const CNI_HELP: &str = "\
The agent installs it where the runtime looks for plugins, so nobody needs to call it by hand. With
CNI_COMMAND in its environment and no arguments the program is the plugin under any name.

Variables: CNI_COMMAND (ADD, DEL, CHECK, GC, STATUS, VERSION), CNI_CONTAINERID, CNI_NETNS,
CNI_IFNAME, CNI_ARGS. The network configuration comes on the standard input, the result goes to the
standard output.

Examples:
  CNI_COMMAND=VERSION parfait cni </dev/null    the versions of the specification that it speaks

Exit codes: 0 done, 1 failed: a JSON object on the standard output says why and what to do, 2 wrong
usage.";

const AGENT_HELP: &str = "\
It runs as root, in the node's network, until it is told to stop (SIGTERM), and leaves what it made:
connections go on. What it does is on standard error; RUST_LOG=debug says more.

Examples:
  parfait agent --kubeconfig /etc/parfait/kubeconfig --node-name worker-7
  parfait agent --node-name worker-7 --take-over kube-proxy    in a Pod, where kube-proxy ran before
  parfait node status                                          what it should do, and has done

Exit codes: 0 told to stop, 1 it cannot run, 2 wrong usage.";

#[derive(Debug, clap::Args)]
#[command(after_help = AGENT_HELP)]
pub struct Agent {
    /// How to reach the API server [default: the Pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The Node this agent is for
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Where it keeps what must survive a restart
    #[arg(long, default_value = Agent::STATE_DIR, value_name = "DIR")]
    pub agent_state_dir: PathBuf,
    /// Where the runtime looks for its CNI configuration
    #[arg(long, default_value = Agent::CNI_CONF_DIR, value_name = "DIR")]
    pub cni_conf_dir: PathBuf,
    /// Where the runtime looks for CNI plugins
    #[arg(long, default_value = Agent::CNI_BIN_DIR, value_name = "DIR")]
    pub cni_bin_dir: PathBuf,
    /// Where Prometheus reads what has been counted (http://IP:PORT/metrics); 0.0.0.0 means all of the node's IPv4
    /// addresses, and an empty text nowhere
    #[arg(long, default_value = "127.0.0.1:9442", value_name = "IP:PORT")]
    pub metrics_bind_address: BindAddress,
    /// Where load balancers ask whether the node takes packets (http://IP:PORT/healthz, as of kube-proxy); an empty text
    /// means nowhere
    #[arg(long, default_value = "[::]:10256", value_name = "IP:PORT")]
    pub healthz_bind_address: BindAddress,
    /// Once its own rules stand, remove those of the program that did this before
    #[arg(long, value_name = "PROGRAM")]
    pub take_over: Option<Predecessor>,
}

impl Agent {
    /// Where it keeps what must survive a restart, if not told otherwise.
    pub const STATE_DIR: &str = "/var/lib/parfait";
    /// Where the container runtime looks for its configuration, if not told otherwise.
    pub const CNI_CONF_DIR: &str = "/etc/cni/net.d";
    /// Where it looks for plugins.
    pub const CNI_BIN_DIR: &str = "/opt/cni/bin";
}

/// A program that the agent can take over from.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Predecessor {
    /// Its tables, and its chains in those of iptables (nf_tables back end), with the jumps to them
    KubeProxy,
}

/// Where to listen, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress(pub Option<SocketAddr>);

impl FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let address = text
            .parse()
            .map_err(|_| format!("{text:?} is not IP:PORT, as 0.0.0.0:9442 or [::]:9442"));
        address.map(|address| Self(Some(address)))
    }
}

/// `90`, `90s`, `1500ms`, `2m`, `1m30s`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 90s, 2m or 1m30s");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = &rest[digits..];
        let letters = unit
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit.len());
        let millis = match &unit[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let part = number
            .checked_mul(millis)
            .map(Duration::from_millis)
            .ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &unit[letters..];
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("90", 90_000),
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("250ms", 250),
            ("1h", 3_600_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "s",
            "1x",
            "-1s",
            "1.5s",
            "99999999999999999999h",
            "18446744073709551615h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    /// Where the terminal's width is not known, longer lines would be broken in the middle.
    #[test]
    fn what_stands_behind_the_options_fits_a_hundred_columns() {
        fn check(command: &clap::Command, too_long: &mut Vec<String>) {
            let behind = command.get_after_help().map(ToString::to_string);
            let behind = behind.unwrap_or_default();
            let long = behind.lines().filter(|line| line.chars().count() > 100);
            too_long.extend(long.map(|line| format!("{}: {line}", command.get_name())));
            for command in command.get_subcommands() {
                check(command, too_long);
            }
        }
        let mut too_long = Vec::new();
        check(&<Args as clap::CommandFactory>::command(), &mut too_long);
        assert_eq!(too_long, Vec::<String>::new());
    }

    #[test]
    fn the_commands_of_the_manual_parse() {
        for line in [
            "lab up --nodes 3 -f shop.yaml -f more/ --wait 2m --routing vxlan --ip-family dual",
            "lab up --underlay cloud --mtu 9000 --routing vxlan",
            "lab exec router -- ip route",
            "lab status -o json",
            "lab down --all",
            "lab kubeconfig --path",
            "lab list",
            "lab exec pod/web.shop -- curl -s http://api:8080",
            "lab exec node/1 ip -6 route",
            "lab check -n shop -o json",
            "explain pod/web svc/api:80 --protocol udp --short",
            "explain pod/web svc/api -f deploy --port 80",
            "explain pod/web svc/api --length 1500 --df",
            "policy explain pod/web.shop -f deploy -o json",
            "policy list --effective -n shop",
            "policy lint -f deploy/ -f more.yaml",
            "policy matrix --port 80/tcp --port 53/udp -n a -n b --what-if new.yaml",
            "policy denials -n shop --name lab -o json",
            "policy denials --agent-state-dir d",
            "node status node-1 -o json --name shop",
            "node status --kubeconfig k --agent-state-dir d --plan-only",
            "agent --kubeconfig k --node-name node-1",
            "cni",
        ] {
            let parsed = Args::try_parse_from(std::iter::once("parfait").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for bad in [
            "lab up --nodes 0",
            "lab up --nodes 65",
            "lab up --name A",
            "lab exec svc/x -- true",
            "lab exec node/1",
            "lab up --routing ospf",
            "lab up --underlay fog",
            "lab up --mtu 1279",
            "explain pod/a",
            "policy matrix --port http",
            "policy matrix --port 80/icmp",
            "policy explain",
            "cni ADD",
        ] {
            let parsed = Args::try_parse_from(std::iter::once("parfait").chain(bad.split(' ')));
            assert_eq!(parsed.unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}

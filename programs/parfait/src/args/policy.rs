//! `parfait policy …`: what may be typed.

use std::path::PathBuf;

use clap::Subcommand;
use parfait_packet::Protocol;

use super::{Family, Output, Picture, Which};

#[derive(Debug, Subcommand)]
pub enum Policy {
    /// What isolates a pod or a node, who may reach it, what it may reach, at which ports, and by which rule
    Explain(PolicyExplain),
    /// The policies, and how many pods they isolate; or what they come to
    List(PolicyList),
    /// What is legal and probably not meant: rules that nobody needs, selectors that fit nobody, …
    Lint(PolicyLint),
    /// Every pod to every pod at some ports; and what new policies would change
    Matrix(PolicyMatrix),
    /// What policies have denied of late: who, to whom, by which policies, and what would let it pass
    Denials(PolicyDenials),
}

#[derive(Debug, clap::Args)]
pub struct PolicyExplain {
    /// pod/NAME[.NAMESPACE], or deploy/, sts/, ds/ for the first of their pods; node/NAME
    #[arg(value_name = "POD|NODE")]
    pub pod: String,
    /// The namespace of a name without one [default: default]
    #[arg(short, long)]
    pub namespace: Option<String>,
    #[command(flatten)]
    pub picture: Picture,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct PolicyList {
    /// What the policies of pods and nodes come to together: who may reach them, what they may reach
    #[arg(long)]
    pub effective: bool,
    /// Only policies of these namespaces [default: all]
    #[arg(short, long)]
    pub namespace: Vec<String>,
    #[command(flatten)]
    pub picture: Picture,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

const LINT_HELP: &str = "\
Checks:
  mistake              error    a part that cannot be used
  selects-no-pod       warning  podSelector fits nobody
  peer-matches-nobody  warning  a peer fits nobody
  rule-allows-nothing  warning  nothing is left of a rule
  rule-shadowed        info     another rule for the same pods allows all that it does
  policy-redundant     warning  everything would be the same without it, or without its duplicate
  port-not-open        warning  no container of the receivers declares the port
  allows-everybody     warning  an empty selector, a rule without peers and ports, 0.0.0.0/0
  no-dns               warning  isolated for egress, and not even cluster DNS may be asked
  selects-no-node      warning  nodeSelector fits no node
  node-locked-out      warning  nobody but nodes reaches what others must: ssh, health checks

Exit codes: 0 nothing but infos, 1 an error or a warning, 2 wrong usage.";

#[derive(Debug, clap::Args)]
#[command(after_help = LINT_HELP)]
pub struct PolicyLint {
    /// Only policies of these namespaces [default: all]
    #[arg(short, long)]
    pub namespace: Vec<String>,
    /// A check that is not asked; may be given several times
    #[arg(long, value_name = "CHECK")]
    pub ignore: Vec<String>,
    #[command(flatten)]
    pub picture: Picture,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

const MATRIX_HELP: &str = "\
Examples:
  parfait policy matrix --port 80/tcp -n shop
  parfait policy matrix --what-if policy.yaml       what it would change, before it is applied
  parfait policy matrix -o json > before.json       to be compared later

Exit codes: 0 printed, with --what-if nothing changes; 1 with --what-if something does; 2 wrong
usage.";

#[derive(Debug, clap::Args)]
#[command(after_help = MATRIX_HELP)]
pub struct PolicyMatrix {
    /// A port and its protocol; may be given several times [default: the first ports that the pods' containers
    /// declare]
    #[arg(long = "port", value_name = "PORT/PROTOCOL", value_parser = port)]
    pub ports: Vec<(Protocol, u16)>,
    /// Only pods of these namespaces [default: all]
    #[arg(short, long)]
    pub namespace: Vec<String>,
    /// Policies on top of those that are there (of the same name: instead); only what changes is printed, of nodes too
    #[arg(long, value_name = "FILE|DIR")]
    pub what_if: Vec<PathBuf>,
    /// The IP family [default: the sender's first that both sides have]
    #[arg(long, value_enum)]
    pub ip_family: Option<Family>,
    #[command(flatten)]
    pub picture: Picture,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

const DENIALS_HELP: &str = "\
The agents explain samples: of each set of pods with the same policies one packet a second, five at
first. All of them are counted (http://127.0.0.1:9442/metrics on the node).

Examples:
  parfait policy denials -n shop              on the nodes of the running lab
  parfait policy denials                      on this machine, where no lab runs

Exit codes: 0 printed, 1 no agent has written anything, 2 wrong usage.";

#[derive(Debug, clap::Args)]
#[command(after_help = DENIALS_HELP)]
pub struct PolicyDenials {
    /// Only those to or from pods of these namespaces [default: all]
    #[arg(short, long)]
    pub namespace: Vec<String>,
    #[command(flatten)]
    pub which: Which,
    /// Where this machine's agent keeps what must survive a restart; no lab is looked at then
    #[arg(long, value_name = "DIR")]
    pub agent_state_dir: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `80/tcp`, `53/udp`; without a protocol it is TCP, as in the API.
fn port(text: &str) -> Result<(Protocol, u16), String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = number
        .parse()
        .map_err(|_| format!("{number:?} is no port number"))?;
    let protocol: Protocol = protocol.parse().map_err(|error| format!("{error}"))?;
    match protocol.has_ports() {
        true => Ok((protocol, number)),
        false => Err(format!("{protocol} has no ports")),
    }
}

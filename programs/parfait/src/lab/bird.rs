//! BIRD 2 as the routing daemon of a lab with `--underlay bgp`: on each node, and on the router.
//!
//! ```text
//!   node-1 AS 64513 ──eBGP, BFD── router AS 64512 ──eBGP, BFD── node-3 AS 64515
//!     reads 10.244.1.0/24 proto 112        passes on            writes 10.244.1.0/24 proto bird
//!     from the kernel                                           into the kernel
//! ```
//!
//! A session for each family, so that a cluster of one family needs nothing of the other. Each node is an
//! autonomous system of its own (RFC 7938), so that the router treats all alike. On one segment a
//! route keeps its next hop, and packets go from node to node; to another segment the router is the next hop.
//! A dead node is noticed by BFD (RFC 5880) after three seconds.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use parfait_lab_fabric::{Child, LabDir, LabSpec};

use crate::exit::Failure;

/// The router's autonomous system; node N is in the one N higher. All are private (RFC 6996).
const ROUTER_AS: u32 = 64512;
const GRACE: Duration = Duration::from_secs(1);

/// Where Debian and others put what only root should run.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// BIRD's program.
///
/// # Errors
/// If this host has none.
pub fn program() -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.map(PathBuf::from));
    let mut found = places.map(|dir| dir.join("bird"));
    found.find(|program| program.is_file()).ok_or_else(|| {
        Failure::usage(
            "--underlay bgp needs BIRD 2, and this host has no program `bird`\n  do:  install it \
             (Debian and Ubuntu: `apt-get install bird2`; nothing of its service is used), or try --underlay routed",
        )
    })
}

/// Where `birdc -s` finds the daemon of a node, or of the router.
pub fn control(dir: &LabDir, machine: Option<&str>) -> PathBuf {
    match machine {
        Some(node) => dir.node(node).join("bird.ctl"),
        None => dir.path().join("bird.ctl"),
    }
}

/// The daemon of a node, or of the router, with its configuration written down.
///
/// # Errors
/// If that fails.
pub fn child(
    dir: &LabDir,
    spec: &LabSpec,
    machine: Option<u8>,
    ranges: &[IpNet],
) -> Result<Child, Failure> {
    let name = machine.map(|number| format!("node-{number}"));
    let text = match machine {
        Some(number) => of_node(spec, number, ranges),
        None => of_router(spec, ranges),
    };
    let control = control(dir, name.as_deref());
    let config = control.with_file_name("bird.conf");
    dir.write(&config, text.as_bytes())?;
    let flag = |flag: &str, path: &Path| [OsString::from(flag), path.as_os_str().to_owned()];
    let mut arguments = vec![OsString::from("-f")];
    arguments.extend(flag("-c", &config));
    arguments.extend(flag("-s", &control));
    let what = name.unwrap_or_else(|| "router".to_owned());
    Ok(Child {
        name: format!("bird of {what}"),
        program: program()?,
        arguments,
        log: dir.log(&format!("bird-{what}")),
        grace: GRACE,
    })
}

fn of_node(spec: &LabSpec, number: u8, ranges: &[IpNet]) -> String {
    let mut text = begin(u32::from(number));
    for range in ranges {
        let family = channel(range.addr());
        let _ = write!(
            text,
            "
# What Parfait's agent holds in the kernel: this node's pod CIDR, as `unreachable CIDR proto 112`, and load
# balancers' addresses, as `ADDRESS dev eth0 proto 112`. The latter all nodes have, so the own is preferred.
filter own_{family} {{
  if krt_source != 112 then reject;
  preference = 200;
  if net.len = {} || net ~ [ {range}{{{},{}}} ] then accept;
  reject;
}}
protocol kernel kernel_{family} {{
  learn;
  {family} {{ import filter own_{family}; export where source = RTS_BGP; }};
}}
",
            range.max_prefix_len(),
            range.prefix_len() + 1,
            range.max_prefix_len(),
        );
    }
    let router = spec
        .segments()
        .into_iter()
        .find(|segment| segment.nodes.contains(&number));
    for gateway in router.into_iter().flat_map(|segment| segment.gateways) {
        let family = channel(gateway.addr());
        text += &session(
            &format!("router_{family}"),
            ROUTER_AS + u32::from(number),
            (gateway.addr(), ROUTER_AS),
            &format!(
                "import where net.len < {}; export where proto = \"kernel_{family}\";",
                gateway.max_prefix_len()
            ),
        );
    }
    text
}

fn of_router(spec: &LabSpec, ranges: &[IpNet]) -> String {
    let mut text = begin(254);
    for range in ranges {
        let family = channel(range.addr());
        let _ = write!(
            text,
            "
protocol kernel kernel_{family} {{
  merge paths on;
  {family} {{ import none; export where source = RTS_BGP; }};
}}
",
        );
    }
    for number in 1..=spec.nodes {
        for address in spec.node_addresses(number).all() {
            let family = channel(address);
            text += &session(
                &format!("node_{number}_{family}"),
                ROUTER_AS,
                (address, ROUTER_AS + u32::from(number)),
                "import all; export where source = RTS_BGP;",
            );
        }
    }
    text
}

/// An identifier is needed in a cluster without IPv4 too (RFC 6286).
fn begin(identifier: u32) -> String {
    format!(
        "log stderr all;
router id 0.0.0.{identifier};
protocol device {{ scan time 1; }}
protocol bfd {{
  interface \"*\" {{ interval 300 ms; multiplier 10; }};
}}
"
    )
}

fn session(name: &str, own: u32, (peer, number): (IpAddr, u32), policy: &str) -> String {
    let family = channel(peer);
    format!(
        "
protocol bgp {name} {{
  local as {own};
  neighbor {peer} as {number};
  direct;
  bfd on;
  hold time 9; keepalive time 3;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  {family} {{ {policy} }};
}}
"
    )
}

const fn channel(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

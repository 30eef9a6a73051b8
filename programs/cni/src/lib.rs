//! The CNI plugin: attaches pods to their node's network (Container Network Interface specification
//! 1.1.0). A container runtime starts it for every pod, with the request in `CNI_*` variables and the
//! network configuration on the standard input, and reads a JSON object from the standard output.
//!
//! ```text
//!   runtime ──exec──▶ ADD ─▶ IPAM gives addresses ─▶ veth pair, routes, neighbours ─▶ result
//!                     DEL ─▶ the veth pair goes ─▶ IPAM takes the addresses back
//! ```
//!
//! It needs no daemon: it does the work itself, so pods start and stop while the agent restarts. All
//! it wants of the agent is `node.json` ([`NodeConfig`]). DEL succeeds however often it is sent and
//! whatever is gone already.
//!
//! Deliberately absent: being chained *after* another plugin (refused clearly), static addresses,
//! bandwidth limits and host ports (the reference plugins chain after this one).

mod attach;
mod config;
mod error;
mod file;
pub mod ipam;
mod node;
pub mod record;
mod result;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use parfait_kernel::Socket;
use parfait_linux::attachment::host_interface;
use parfait_linux::{Alias, IfName, LinkKind, Mtu, RouteProtocol};
use parfait_packet::{Kind, Origin};

use crate::attach::{Attachment, container_netns};
use crate::config::Request;
use crate::ipam::{Allocation, Ipam};

pub use config::{AttachmentId, Environment, NetworkConfig, VERSIONS};
pub use error::{Code, Error};
pub use file::{Hook, Moment};
pub use node::NodeConfig;
pub use record::{Bandwidth, PodName, PortMapping, Record};

/// Runs the plugin: the entry point of the program when it is called as a CNI plugin.
pub fn main(
    environment: Environment<'_>,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
) -> ExitCode {
    let (text, code) = match run(environment, stdin) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err((error, version)) => (error.json(&version), ExitCode::FAILURE),
    };
    if text.is_empty() {
        return code;
    }
    match writeln!(stdout, "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Configurations are some hundred bytes, and a prevResult with valid attachments some more each.
const LARGEST_CONFIG: u64 = 4 << 20;

/// Runs the plugin; an error goes with the version of the specification to report it in.
///
/// # Errors
/// What the runtime is told.
pub fn run(environment: Environment<'_>, stdin: &mut dyn Read) -> Result<String, (Error, String)> {
    let newest = VERSIONS[VERSIONS.len() - 1];
    let mut input = String::new();
    let command = environment("CNI_COMMAND").unwrap_or_default();
    let early = |error: Error| (error, newest.to_owned());
    let read = stdin.take(LARGEST_CONFIG).read_to_string(&mut input);
    read.map_err(|error| {
        early(Error::new(
            Code::Io,
            format!("reading the standard input: {error}"),
        ))
    })?;
    if command == "VERSION" {
        return Ok(result::versions(&input));
    }
    let config = NetworkConfig::parse(&input).map_err(early)?;
    let plugin = Plugin {
        config: &config,
        environment,
    };
    plugin
        .command(&command)
        .map_err(|error| (error, config.cni_version.clone()))
}

/// One call.
struct Plugin<'a> {
    config: &'a NetworkConfig,
    environment: Environment<'a>,
}

impl Plugin<'_> {
    fn command(&self, command: &str) -> Result<String, Error> {
        match command {
            "ADD" => self.add(),
            "DEL" => self.del().map(|()| String::new()),
            "CHECK" => self.check().map(|()| String::new()),
            "GC" => self.collect().map(|()| String::new()),
            "STATUS" => self.status().map(|()| String::new()),
            other => Err(Error::new(
                Code::InvalidEnvironment,
                format!("CNI_COMMAND {other:?} is none of ADD, DEL, CHECK, GC, STATUS, VERSION"),
            )),
        }
    }

    fn add(&self) -> Result<String, Error> {
        let request = Request::parse(self.environment)?;
        if self.config.prev_result.is_some() {
            let message = "parfait cannot be chained after another plugin: it must come first";
            return Err(Error::new(Code::InvalidConfig, message)
                .advise("Put it first in the list of plugins."));
        }
        let node = NodeConfig::read(&self.config.state_dir)?;
        let netns_path = request.needed_netns()?;
        let netns = container_netns(netns_path)?;
        let mut socket = Socket::open()?;
        let host = interface(&request);
        let allocation = self.allocate(&request, &node, &host, &mut socket)?;
        let attachment = attachment(&request, &node, host, &allocation, &mut socket)?;
        if let Err(error) = attachment.add(&mut socket, &netns) {
            // The runtime sends a DEL, too; whichever comes first gives the addresses back.
            if let Ok(mut ipam) = self.ipam() {
                let _ = ipam.release(&request.id);
            }
            return Err(error);
        }
        Ok(result::added(
            &self.config.cni_version,
            &attachment,
            netns_path,
        ))
    }

    fn allocate(
        &self,
        request: &Request,
        node: &NodeConfig,
        host: &IfName,
        socket: &mut Socket,
    ) -> Result<Allocation, Error> {
        let mut ipam = self.ipam()?;
        if ipam.is_fresh() {
            adopt(&mut ipam, socket)?;
        }
        ipam.allocate(&request.id, &node.pod_cidrs, host, &purpose(request))
    }

    fn del(&self) -> Result<(), Error> {
        let request = Request::parse(self.environment)?;
        let given = self.ipam()?.find(&request.id).cloned();
        let Some(given) = given else {
            return Ok(());
        };
        self.detach(&given)?;
        self.ipam()?.release(&request.id)
    }

    fn detach(&self, given: &Allocation) -> Result<(), Error> {
        match given.interface() {
            Some(host) => attach::remove(&mut Socket::open()?, &host, &given.addresses),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let request = Request::parse(self.environment)?;
        let node = NodeConfig::read(&self.config.state_dir)?;
        let netns = container_netns(request.needed_netns()?)?;
        let Some(previous) = self.config.previous_addresses() else {
            let message = "CHECK needs the prevResult of the ADD it checks";
            return Err(Error::new(Code::InvalidConfig, message));
        };
        let given = self.ipam()?.find(&request.id).cloned();
        let Some(given) = given else {
            let message = format!("nothing is allocated for {}", request.id);
            return Err(Error::new(Code::UnknownContainer, message));
        };
        if let Some(lost) = given.addresses.iter().find(|ip| !previous.contains(ip)) {
            let message = format!(
                "{lost} is allocated for {}, but not in prevResult",
                request.id
            );
            return Err(Error::new(Code::Drifted, message));
        }
        let mut socket = Socket::open()?;
        let host = interface(&request);
        let attachment = attachment(&request, &node, host, &given, &mut socket)?;
        attachment.check(&mut socket, &netns)
    }

    /// Takes back everything that the runtime does not list. Tries all, and returns all errors.
    fn collect(&self) -> Result<(), Error> {
        let Some(valid) = &self.config.valid_attachments else {
            let message = "GC needs cni.dev/valid-attachments in the configuration";
            return Err(Error::new(Code::InvalidConfig, message));
        };
        let mut ipam = self.ipam()?;
        let mut socket = Socket::open()?;
        let mut errors = Vec::new();
        let mut released = Vec::new();
        for (key, given, adopted) in ipam.unused(valid) {
            // An adopted address belongs to a pod that the runtime may know by a name we do not.
            let done = match given.interface() {
                Some(host) if adopted => Ok(socket.link(&host)?.is_none()),
                Some(host) => attach::remove(&mut socket, &host, &given.addresses).map(|()| true),
                None => Ok(true),
            };
            match done {
                Ok(true) => released.push(key.to_owned()),
                Ok(false) => {}
                Err(error) => errors.push(error.to_string()),
            }
        }
        ipam.release_keys(&released)?;
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::new(Code::Io, errors.join("; ")))
        }
    }

    fn status(&self) -> Result<(), Error> {
        let unavailable = |error: Error| Error {
            code: Code::NotAvailable,
            ..error
        };
        let node = NodeConfig::read(&self.config.state_dir).map_err(unavailable)?;
        if node.pod_cidrs.is_empty() {
            return Err(unavailable(without_range()));
        }
        self.ipam().map(drop).map_err(unavailable)
    }

    fn ipam(&self) -> Result<Ipam<'static>, Error> {
        // The name of the running boot; without one, nothing is ever taken for a reboot.
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = std::fs::read_to_string(path).unwrap_or_default();
        Ipam::open(&self.config.state_dir, boot.trim(), &|_| {})
    }
}

/// Takes note of every address that the kernel routes to a pod.
fn adopt(ipam: &mut Ipam<'_>, socket: &mut Socket) -> Result<(), Error> {
    let state = socket.observe(&[])?;
    for item in state.routes.values() {
        let route = &item.value;
        let host = route.destination.prefix_len() == route.destination.max_prefix_len();
        if route.protocol == RouteProtocol::PARFAIT_CNI
            && host
            && let Some(link) = &route.link
            && matches!(
                state.links.get(link).map(|link| &link.value.kind),
                Some(LinkKind::Veth { .. })
            )
        {
            ipam.adopt(link, route.destination.addr());
        }
    }
    Ok(())
}

/// The node's end. The first interface of a pod is named by the pod alone, so that a plan, which
/// knows only the API, can name it too.
fn interface(request: &Request) -> IfName {
    match &request.pod {
        Some((namespace, pod)) if request.id.ifname == "eth0" => host_interface(namespace, pod),
        Some((namespace, pod)) => {
            host_interface(namespace, &format!("{pod}/{}", request.id.ifname))
        }
        None => host_interface("", &request.id.to_string()),
    }
}

fn purpose(request: &Request) -> String {
    match &request.pod {
        Some((namespace, pod)) => Origin::new(Kind::Pod, namespace, pod).to_string(),
        None => format!("container {}", request.id.container),
    }
}

fn attachment(
    request: &Request,
    node: &NodeConfig,
    host: IfName,
    given: &Allocation,
    socket: &mut Socket,
) -> Result<Attachment, Error> {
    if given.addresses.is_empty() {
        return Err(without_range());
    }
    // A Node may list addresses that its machine does not have (a cloud's NAT); the kernel refuses
    // to send from those.
    let own = socket.own_addresses()?;
    Ok(Attachment {
        host,
        pod: request.ifname.clone(),
        addresses: given.addresses.clone(),
        node: node
            .addresses
            .iter()
            .copied()
            .filter(|address| own.contains(address))
            .collect(),
        mtu: Mtu::new(node.mtu)
            .map_err(|error| Error::new(Code::InvalidConfig, format!("node.json: {error}")))?,
        alias: Alias::new(&purpose(request)),
    })
}

fn without_range() -> Error {
    Error::new(Code::TryAgainLater, "this node has no pod CIDR yet")
        .advise("Check the controller manager's --allocate-node-cidrs and --cluster-cidr.")
}

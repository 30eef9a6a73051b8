//! The commands, one function each (CNI specification 1.1.0, section 2).
//!
//! | command | since | does |
//! |---|---|---|
//! | ADD | 0.1.0 | attaches. Sent again for an attachment that stands, it answers the same and touches nothing |
//! | DEL | 0.1.0 | detaches; whatever is gone already, it succeeds |
//! | CHECK | 0.4.0 | compares what is there with what ADD made |
//! | GC | 1.1.0 | detaches everything of this network that the runtime does not list |
//! | STATUS | 1.1.0 | whether ADD could work now |

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use parfait_cluster::PodIsolation;
use parfait_kernel::Socket;
use parfait_linux::attachment::host_interface;
use parfait_linux::{Alias, IfName, Mtu};
use parfait_packet::{Kind, Origin};

use crate::asked::Asked;
use crate::attach::{self, Attachment, container_netns};
use crate::bandwidth;
use crate::config::{Environment, NetworkConfig};
use crate::doorbell;
use crate::error::{Code, Error};
use crate::ipam::Ipam;
use crate::isolation;
use crate::node::NodeConfig;
use crate::record::Record;
use crate::request::Request;
use crate::result::Answer;

/// The smallest MTU with which Linux lets an interface have IPv6, in bytes.
const IPV6_LEAST: u32 = 1280;

/// One call.
pub(crate) struct Plugin<'a> {
    pub config: &'a NetworkConfig,
    pub environment: Environment<'a>,
}

impl Plugin<'_> {
    pub fn command(&self, command: &str) -> Result<String, Error> {
        let silent = |done: Result<(), Error>| done.map(|()| String::new());
        match command {
            "ADD" => self.add(),
            "DEL" => silent(self.del()),
            "CHECK" => silent(self.since("CHECK", "0.4.0").and_then(|()| self.check())),
            "GC" => silent(self.since("GC", "1.1.0").and_then(|()| self.collect())),
            "STATUS" => silent(self.since("STATUS", "1.1.0").and_then(|()| self.status())),
            other => Err(Error::new(
                Code::InvalidEnvironment,
                format!("CNI_COMMAND {other:?} is none of ADD, DEL, CHECK, GC, STATUS, VERSION"),
            )),
        }
    }

    /// Each part of a version has one digit, so that they compare as texts.
    fn since(&self, command: &str, first: &str) -> Result<(), Error> {
        let version = self.config.version;
        if version >= first {
            return Ok(());
        }
        let message = format!("cniVersion {version} does not have {command}");
        Err(Error::new(Code::IncompatibleVersion, message)
            .advise(format!("Use {first} or later, or do not send it.")))
    }

    fn add(&self) -> Result<String, Error> {
        let request = Request::parse(self.environment)?;
        self.config.refuse_unknown()?;
        let previous = Answer::previous(self.config)?.unwrap_or_default();
        if previous.has_interface(&request.id.ifname) {
            return Err(attach::name_taken(&request.ifname));
        }
        let asked = Asked::parse(self.config, &request.arguments)?;
        let node = NodeConfig::read(&self.config.state_dir)?;
        let netns_path = request.needed_netns()?;
        let netns = container_netns(netns_path, request.own_netns)?;
        let mut socket = Socket::open()?;
        bandwidth::refuse_too_small(asked.bandwidth, mtu(&node)?)?;
        if node.pod_isolation == PodIsolation::UntilKnown {
            isolation::close()?;
        }
        let wanted = Record {
            id: request.id.clone(),
            network: self.config.name.clone(),
            pod: request.arguments.pod.clone(),
            interface: interface(&request),
            addresses: asked.ips,
            mac: asked.mac,
            port_mappings: asked.port_mappings,
            bandwidth: asked.bandwidth,
            netns: Some(netns_path.clone()),
            boot: String::new(),
        };
        let given = self.ipam().allocate(wanted, &node.pool()?, &mut socket)?;
        tell(&given.notes);
        let made = attachment(&request, &node, &given.record, &mut socket)
            .and_then(|made| made.add(&mut socket, &netns).map(|()| made));
        let attachment = match made {
            Ok(attachment) => attachment,
            Err(error) => {
                // The runtime sends a DEL, too; whichever comes first gives the addresses back.
                let _ = given.take_back();
                return Err(error);
            }
        };
        given.attached()?;
        let state_dir = &self.config.state_dir;
        doorbell::ring(state_dir, &request.id, self.config.wait_for_agent);
        Ok(previous.add(self.config, &attachment, netns_path))
    }

    fn del(&self) -> Result<(), Error> {
        let request = Request::parse_leniently(self.environment)?;
        if self.ipam().release(&request.id, &mut Socket::open()?)? {
            doorbell::ring(&self.config.state_dir, &request.id, Duration::ZERO);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        let request = Request::parse(self.environment)?;
        self.config.refuse_unknown()?;
        let Some(previous) = Answer::previous(self.config)? else {
            let message = "CHECK needs the prevResult of the ADD it checks";
            return Err(Error::new(Code::InvalidConfig, message));
        };
        let node = NodeConfig::read(&self.config.state_dir)?;
        let netns = container_netns(request.needed_netns()?, request.own_netns)?;
        let given = self.ipam().find(&request.id)?;
        let Some(given) = given else {
            let message = format!("nothing is allocated for {}", request.id);
            return Err(Error::new(Code::UnknownContainer, message));
        };
        let listed = |ip| previous.ips.iter().any(|one| one.address.addr() == ip);
        if let Some(lost) = given.addresses.iter().find(|ip| !listed(**ip)) {
            let message = format!(
                "{lost} is allocated for {}, but not in prevResult",
                request.id
            );
            return Err(Error::new(Code::Drifted, message));
        }
        if !previous.has_interface(&request.id.ifname) {
            let message = format!(
                "prevResult has no interface {} in the container",
                request.ifname
            );
            return Err(Error::new(Code::Drifted, message));
        }
        let mut socket = Socket::open()?;
        let attachment = attachment(&request, &node, &given, &mut socket)?;
        attachment.check(&mut socket, &netns, &previous)
    }

    /// Takes back everything that the runtime does not list. Tries all, and returns all errors.
    fn collect(&self) -> Result<(), Error> {
        let valid = self.config.valid_attachments()?;
        let name = &self.config.name;
        tell(&self.ipam().collect(name, &valid, &mut Socket::open()?)?);
        Ok(())
    }

    fn status(&self) -> Result<(), Error> {
        let unavailable = |error: Error| Error {
            code: Code::NotAvailable,
            ..error
        };
        self.config.refuse_unknown().map_err(unavailable)?;
        let node = NodeConfig::read(&self.config.state_dir).map_err(unavailable)?;
        node.pool().map_err(unavailable)?;
        self.ipam().check().map_err(unavailable)
    }

    fn ipam(&self) -> Ipam<'static> {
        // The name of the running boot; without one, nothing is ever taken for a reboot.
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = std::fs::read_to_string(path).unwrap_or_default();
        Ipam::new(&self.config.state_dir, boot.trim(), &|_| {})
    }
}

/// Runtimes log what a plugin writes there.
fn tell(notes: &[String]) {
    for note in notes {
        let _ = writeln!(std::io::stderr(), "parfait: {note}");
    }
}

/// The node's end. The first interface of a pod is named by the pod alone, so that a plan, which
/// knows only the API, can name it too.
fn interface(request: &Request) -> IfName {
    let ifname = &request.id.ifname;
    match &request.arguments.pod {
        Some(pod) if ifname == "eth0" => host_interface(&pod.namespace, &pod.name),
        Some(pod) => host_interface(&pod.namespace, &format!("{}/{ifname}", pod.name)),
        None => host_interface("", &request.id.to_string()),
    }
}

fn purpose(request: &Request) -> String {
    match &request.arguments.pod {
        Some(pod) => Origin::new(Kind::Pod, &pod.namespace, &pod.name).to_string(),
        None => format!("container {}", request.id.container),
    }
}

fn attachment(
    request: &Request,
    node: &NodeConfig,
    given: &Record,
    socket: &mut Socket,
) -> Result<Attachment, Error> {
    // A Node may list addresses that its machine does not have (a cloud's NAT); the kernel refuses
    // to send from those.
    let mut own = Vec::new();
    for address in &node.addresses {
        if socket.is_own(*address)? {
            own.push(*address);
        }
    }
    Ok(Attachment {
        host: given.interface.clone(),
        pod: request.ifname.clone(),
        addresses: given.addresses.clone(),
        mac: given.mac,
        node: own,
        mtu: mtu(node)?,
        alias: Alias::new(&purpose(request)),
        bandwidth: given.bandwidth,
    })
}

fn mtu(node: &NodeConfig) -> Result<Mtu, Error> {
    let mtu = Mtu::new(node.mtu)
        .map_err(|error| Error::new(Code::InvalidConfig, format!("node.json: {error}")))?;
    let ipv6 = node.ranges().iter().any(|range| range.addr().is_ipv6());
    if ipv6 && mtu.bytes() < IPV6_LEAST {
        let message = format!(
            "pods' interfaces here would take {mtu} bytes, but IPv6 needs {IPV6_LEAST} (RFC 8200 section 5)"
        );
        return Err(Error::new(Code::InvalidConfig, message).advise(
            "Give the underlay a larger MTU (see the agent's log for how large), or the node no IPv6 pod CIDR.",
        ));
    }
    Ok(mtu)
}

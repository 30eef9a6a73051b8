//! The commands, one function each (CNI specification 1.1.0, section 2).
//!
//! | command | since | does |
//! |---|---|---|
//! | ADD | 0.1.0 | attaches. Sent again for an attachment that stands, it answers the same and touches nothing |
//! | DEL | 0.1.0 | detaches; whatever is gone already, it succeeds |
//! | CHECK | 0.4.0 | compares what is there with what ADD made |
//! | GC | 1.1.0 | detaches everything of this network that the runtime does not list |
//! | STATUS | 1.1.0 | whether ADD could work now |

use std::path::Path;
use std::time::Duration;

use parfait_kernel::Socket;
use parfait_linux::attachment::host_interface;
use parfait_linux::{Alias, IfName, LinkKind, Mtu, RouteProtocol};
use parfait_packet::{Kind, Origin};

use crate::asked::Asked;
use crate::attach::{self, Attachment, container_netns};
use crate::config::{Environment, NetworkConfig};
use crate::doorbell;
use crate::error::{Code, Error};
use crate::ipam::{Allocation, Ipam};
use crate::node::NodeConfig;
use crate::request::Request;
use crate::result::Answer;

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
        let host = interface(&request);
        let allocation = self.allocate(&request, &node, &host, &mut socket)?;
        let attachment = attachment(&request, &node, &asked, host, &allocation, &mut socket)?;
        if let Err(error) = attachment.add(&mut socket, &netns) {
            // The runtime sends a DEL, too; whichever comes first gives the addresses back.
            if let Ok(mut ipam) = self.ipam() {
                let _ = ipam.release(&request.id);
            }
            return Err(error);
        }
        let state_dir = &self.config.state_dir;
        doorbell::ring(state_dir, &request.id, self.config.wait_for_agent);
        Ok(previous.add(self.config, &attachment, netns_path))
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
        let request = Request::parse_leniently(self.environment)?;
        let given = self.ipam()?.find(&request.id).cloned();
        let Some(given) = given else {
            return Ok(());
        };
        self.detach(&given)?;
        self.ipam()?.release(&request.id)?;
        doorbell::ring(&self.config.state_dir, &request.id, Duration::ZERO);
        Ok(())
    }

    fn detach(&self, given: &Allocation) -> Result<(), Error> {
        match given.interface() {
            Some(host) => attach::remove(&mut Socket::open()?, &host, &given.addresses),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let request = Request::parse(self.environment)?;
        self.config.refuse_unknown()?;
        let Some(previous) = Answer::previous(self.config)? else {
            let message = "CHECK needs the prevResult of the ADD it checks";
            return Err(Error::new(Code::InvalidConfig, message));
        };
        let asked = Asked::parse(self.config, &request.arguments)?;
        let node = NodeConfig::read(&self.config.state_dir)?;
        let netns = container_netns(request.needed_netns()?, request.own_netns)?;
        let given = self.ipam()?.find(&request.id).cloned();
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
        let mut socket = Socket::open()?;
        let host = interface(&request);
        let attachment = attachment(&request, &node, &asked, host, &given, &mut socket)?;
        attachment.check(&mut socket, &netns)
    }

    /// Takes back everything that the runtime does not list. Tries all, and returns all errors.
    fn collect(&self) -> Result<(), Error> {
        let valid = self.config.valid_attachments()?;
        let mut ipam = self.ipam()?;
        let mut socket = Socket::open()?;
        let mut errors = Vec::new();
        let mut released = Vec::new();
        for (key, given, adopted) in ipam.unused(&valid) {
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
        self.config.refuse_unknown().map_err(unavailable)?;
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
    asked: &Asked,
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
        mac: asked.mac,
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

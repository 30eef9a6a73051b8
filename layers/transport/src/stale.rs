//! Tracked connections that lead where nobody is any more: conntrack remembers where a flow's first packet went,
//! and sends all later ones there.
//!
//! ```text
//!   udp 10.244.1.5:40000 → 10.96.0.20:53, answered by 10.244.2.7:53      10.244.2.7 is no endpoint any more
//!         └─▶ deleted: the client's next packet gets an endpoint that is, or learns that there is none
//! ```
//!
//! A client that goes on sending from one port (statsd, syslog, QUIC, DNS through one socket) keeps such an entry alive
//! for ever. [`stale()`] names those entries and why; nobody else's, and none that serves:
//!
//! - A **UDP** flow ends when its endpoint stops serving, whatever policy or hint would choose for a new one; so one
//!   that serves while it terminates keeps its flows, as in kube-proxy's `pkg/proxy/conntrack/cleanup.go`. Unlike there,
//!   also if the Service has no endpoint left, or is gone with its address or port, and only by address *and port*.
//! - A UDP flow that was **not translated** because there was no endpoint yet ends when there is one.
//! - A **TCP** connection is its client's to end, and its pod's, which may still be draining. But one that nobody has
//!   ever answered has nothing to lose: the next SYN gets through.
//! - **SCTP** clients have fixed ports and try for ever, so an association ends with its endpoint, once that is not
//!   even listed as terminating. Otherwise as TCP.
//!
//! An entry is ours if it leads from a Service's own address, to a pod, or to an endpoint that was ours ([`Former`]): other
//! programs translate too, at the same node's addresses. What the node answers itself, as cluster DNS, is never one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use parfait_linux::conntrack::{Entry, Tuple};
use parfait_linux::nft::{Data, Tables, Value, Verdict};
use parfait_packet::{Origin, Packet, Protocol};

use crate::apply::Part;
use crate::host_ports::{self, HostPorts};
use crate::listing::Listing;
use crate::plan::Change;
use crate::{Arrival, Frontend, Plan, ServicePlan, Virtual};

/// A tracked connection to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale<'a> {
    /// The connection.
    pub entry: &'a Entry,
    /// What is wrong with it.
    pub why: Why,
    /// The Service's port that it was for, or the Pod's.
    pub origin: Origin,
}

/// Why a tracked connection is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It leads to an endpoint that serves no more.
    EndpointGone(SocketAddr),
    /// It leads nowhere: when it began there was no endpoint, and now there is.
    Untranslated,
    /// It began at an address and port that are no Service's any more.
    FrontendGone,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndpointGone(endpoint) => write!(f, "{endpoint} serves no more"),
            Self::Untranslated => f.write_str("there was no endpoint when it began"),
            Self::FrontendGone => f.write_str("no Service has that address and port any more"),
        }
    }
}

impl fmt::Display for Stale<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, for {}", self.entry, self.why, self.origin)
    }
}

/// Addresses and ports of endpoints.
type Endpoints = BTreeSet<(IpAddr, u16)>;

/// Where connections may still lead because it was planned before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// The endpoints behind each address and port.
    endpoints: BTreeMap<Frontend, Endpoints>,
    /// Whose they were.
    origins: BTreeMap<Frontend, Origin>,
    /// The host ports.
    host_ports: HostPorts,
}

/// The connections of these that are of no use.
#[must_use]
pub fn stale<'a>(
    plan: &Plan,
    former: &Former,
    own_address: &dyn Fn(IpAddr) -> bool,
    entries: &'a [Entry],
) -> Vec<Stale<'a>> {
    let mut serving = Serving::default();
    let find = |entry: &'a Entry| {
        let (why, origin) = plan.judge(former, own_address, &mut serving, entry)?;
        Some(Stale { entry, why, origin })
    };
    entries.iter().filter_map(find).collect()
}

impl Plan {
    /// What is wrong with one connection, and whose it was.
    #[must_use]
    pub fn why_stale(
        &self,
        former: &Former,
        own_address: &dyn Fn(IpAddr) -> bool,
        entry: &Entry,
    ) -> Option<(Why, Origin)> {
        self.judge(former, own_address, &mut Serving::default(), entry)
    }

    fn judge(
        &self,
        former: &Former,
        own_address: &dyn Fn(IpAddr) -> bool,
        serving: &mut Serving,
        entry: &Entry,
    ) -> Option<(Why, Origin)> {
        let at = frontend(&entry.original)?;
        // Our rules are of no zone.
        if entry.zone != 0 {
            return None;
        }
        if let Some((_, behind)) = self.find(&at) {
            let why = match entry.is_dnat() {
                true => {
                    let alive = || serving.has(at, behind, answers(entry));
                    self.ended(former, at, entry, alive)
                }
                false => untranslated(behind, entry),
            };
            return Some((why?, behind.origin.clone()));
        }
        if let Some(target) = self.host_port(&self.common.host_ports, &at) {
            let to = (target.address, target.port);
            let why = match entry.is_dnat() {
                true => (answers(entry) != to && self.is_inside(answers(entry).0))
                    .then_some(Why::EndpointGone(entry.reply.source)),
                false => {
                    (own_address(at.address) && !entry.is_answered()).then_some(Why::Untranslated)
                }
            };
            let why = why.filter(|_| !outlives(entry));
            return Some((why?, target.origin.clone()));
        }
        if !entry.is_dnat() || outlives(entry) {
            return None;
        }
        self.former(former, at, entry)
    }

    /// Whether a translated connection to a present frontend leads to an endpoint that does not serve it.
    fn ended(
        &self,
        former: &Former,
        at: Frontend,
        entry: &Entry,
        alive: impl FnOnce() -> bool,
    ) -> Option<Why> {
        let to = answers(entry);
        let ours = self.is_cluster_ip(at.address)
            || self.is_inside(to.0)
            || former.endpoints.get(&at).is_some_and(|f| f.contains(&to));
        // An association whose endpoint is not even listed has no end to wait for.
        let ends = at.protocol == Protocol::Sctp || !outlives(entry);
        (ours && ends && !alive()).then_some(Why::EndpointGone(entry.reply.source))
    }

    /// Whether a translated connection to what is no frontend leads to where one led, or must have.
    fn former(&self, former: &Former, at: Frontend, entry: &Entry) -> Option<(Why, Origin)> {
        let to = answers(entry);
        if let Some(endpoints) = former.endpoints.get(&at)
            && (endpoints.contains(&to) || self.is_inside(to.0))
        {
            let nobody = || Origin::parfait("Services");
            let origin = former.origins.get(&at).cloned().unwrap_or_else(nobody);
            return Some((Why::FrontendGone, origin));
        }
        if let Some(target) = self.host_port(&former.host_ports, &at)
            && (target.address, target.port) == to
        {
            return Some((Why::FrontendGone, target.origin.clone()));
        }
        // Nobody else translates what is sent to the range that Services' addresses come from.
        let mut networks = self.common.networks.iter();
        let (_, origin) = networks.find(|(net, _)| net.contains(&at.address))?;
        let origin = self.address(at.address).unwrap_or(origin);
        Some((Why::FrontendGone, origin.clone()))
    }

    fn host_port<'p>(&self, ports: &'p HostPorts, at: &Frontend) -> Option<&'p host_ports::Target> {
        if self.common.served.contains_key(&at.address) {
            return None;
        }
        let packet = Packet::new(at.address, at.address, at.protocol, at.port)?;
        host_ports::explain(ports, &packet)
    }

    pub(crate) fn is_inside(&self, address: IpAddr) -> bool {
        self.common.inside.keys().any(|net| net.contains(&address))
    }
}

/// The endpoints that keep the flows they have, of the Services that were asked about. Each is looked through once, as
/// one may list a million.
#[derive(Default)]
struct Serving(BTreeMap<Frontend, Vec<(IpAddr, u16)>>);

impl Serving {
    fn has(&mut self, at: Frontend, behind: &Virtual, to: (IpAddr, u16)) -> bool {
        if behind.inside.has(to) || behind.outside.has(to) {
            return true;
        }
        let all = self.0.entry(at).or_insert_with(|| {
            let mut all: Vec<_> = keeping(&behind.listing, at.protocol).collect();
            all.sort_unstable();
            all
        });
        all.binary_search(&to).is_ok()
    }
}

/// The endpoints that keep the flows they have, of whatever policy: those that serve; for SCTP, all that are listed.
fn keeping(listing: &Listing, protocol: Protocol) -> impl Iterator<Item = (IpAddr, u16)> {
    listing
        .sockets(move |endpoint| endpoint.ready || endpoint.serving || protocol == Protocol::Sctp)
}

/// Those that kept flows and now do not. Only slices that changed are looked through: who stands in another besides is
/// among them, which costs a look at connections and ends none.
fn lost(was: &Listing, now: &Listing, protocol: Protocol) -> Endpoints {
    let (gone, new) = (was.without(now), now.without(was));
    let mut lost: Endpoints = keeping(&gone, protocol).collect();
    for socket in keeping(&new, protocol) {
        lost.remove(&socket);
    }
    lost
}

/// Whether a connection that nobody translated keeps its client from the endpoints that there are now. At addresses
/// that are not the Service's alone somebody else may answer: a program of the node, or a load balancer out there.
fn untranslated(behind: &Virtual, entry: &Entry) -> Option<Why> {
    let own = behind.arrival == Arrival::ClusterIp;
    let lost = !outlives(entry) && (own || !entry.is_answered());
    (lost && !behind.is_empty()).then_some(Why::Untranslated)
}

/// Whether a connection is its two ends' to end. UDP has no ends; what was never answered has one only.
fn outlives(entry: &Entry) -> bool {
    Protocol::of_number(entry.original.protocol) != Some(Protocol::Udp) && entry.is_answered()
}

fn frontend(original: &Tuple) -> Option<Frontend> {
    let protocol = Protocol::of_number(original.protocol).filter(|p| p.has_ports())?;
    Some(Frontend {
        address: original.destination.ip(),
        protocol,
        port: original.destination.port(),
    })
}

fn answers(entry: &Entry) -> (IpAddr, u16) {
    (entry.reply.source.ip(), entry.reply.source.port())
}

impl Former {
    /// Adds where the tables say that connections lead, whoever planned that: for an agent that was away.
    pub fn observe(&mut self, tables: &Tables) {
        for table in tables.values().filter(|table| table.name == "parfait") {
            for (name, set) in &table.sets {
                let leads = ["services", "restricted_services"].contains(&name.as_str());
                let targets = ["endpoints_", "outside_", "keep_"];
                let targets = targets.iter().any(|kind| name.starts_with(kind));
                for (key, element) in set.elements.iter().filter(|_| leads || targets) {
                    let Some(at) = of_key(key) else {
                        continue;
                    };
                    let endpoints = self.endpoints.entry(at).or_default();
                    endpoints.extend(target(&element.data));
                    if let Some(origin) = element.origin.as_ref().filter(|_| leads) {
                        self.origins.insert(at, origin.clone());
                    }
                }
            }
        }
    }

    /// Adds where Services' connections led before they changed. Whether a connection may be stale by that: only
    /// where datagrams or associations lost an endpoint, or have their first.
    pub fn add(&mut self, changes: &[Change]) -> bool {
        let mut found = false;
        for (old, new) in changes {
            let before = old.as_deref().map(blind).unwrap_or_default();
            let after = new.as_deref().map(blind).unwrap_or_default();
            for (at, was) in &before {
                let now = after.get(at);
                let lost = match now {
                    Some(now) => lost(&was.listing, &now.listing, at.protocol),
                    None => keeping(&was.listing, at.protocol).collect(),
                };
                if now.is_none() || !lost.is_empty() {
                    found = true;
                    self.endpoints.entry(*at).or_default().extend(lost);
                    self.origins.insert(*at, was.origin.clone());
                }
            }
            found |= after.iter().any(|(at, now)| {
                let took = before.get(at).is_some_and(|was| !was.is_empty());
                !now.is_empty() && !took
            });
        }
        found
    }

    /// Adds where host ports led before they changed. Whether a connection may be stale by that.
    pub fn add_host_ports(&mut self, before: &HostPorts, after: &HostPorts) -> bool {
        let differ = |a: &HostPorts, b: &HostPorts| {
            let mut ports = a.iter().filter(|(wish, _)| wish.protocol != Protocol::Tcp);
            ports.any(|(wish, target)| b.get(wish) != Some(target))
        };
        for (wish, target) in before {
            if after.get(wish) != Some(target) {
                self.host_ports.insert(*wish, target.clone());
            }
        }
        differ(before, after) || differ(after, before)
    }
}

/// What stands behind addresses and ports whose protocol does not find out by itself that an endpoint is gone.
fn blind(service: &ServicePlan) -> BTreeMap<Frontend, &Virtual> {
    let frontends = service.held();
    let blind = frontends.filter(|(at, _)| at.protocol != Protocol::Tcp);
    blind.map(|(at, behind)| (*at, behind)).collect()
}

/// The endpoint that an element leads to: at once, or by the chain in which clients keep it.
fn target(data: &Data) -> Option<(IpAddr, u16)> {
    match data {
        Data::Target(address, port) => Some((*address, *port)),
        Data::Verdict(Verdict::Goto(chain)) => Part::kept(chain),
        _ => None,
    }
}

/// The address, protocol and port that a key begins with.
pub(crate) fn of_key(key: &[Value]) -> Option<Frontend> {
    let [
        Value::Address(address),
        Value::Protocol(number),
        Value::Port(port),
        ..,
    ] = key
    else {
        return None;
    };
    Some(Frontend {
        address: *address,
        protocol: Protocol::of_number(*number)?,
        port: *port,
    })
}

//! Which load balancer gets which address: Services' wishes and the pools, settled.
//!
//! ```text
//!   what a Service has ──still in a pool for it, and nobody older has it──▶ it keeps
//!   what it wishes     ──in a pool for it, and free─────────────────────────▶ it gets that
//!   all others         ──pools by name, Services by age────────────────────▶ the lowest free address
//! ```
//!
//! The record of what was given is the Services' status alone, so a decision can be made anew at any time, by anybody:
//! the same cluster always gives the same answer, and carrying it out changes it no more.
//!
//! Left alone are Services of other classes, and those of no class that no pool is for, or that have an address which
//! somebody else gave them. Two Services never share an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::{
    AddressRange, LoadBalancer, LoadBalancerPool, Note, ObjectName, Service, Snapshot, Told,
    Underlay,
};
use parfait_linux::attachment::fnv1a;
use parfait_packet::Family;

/// What a Service's status must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The Service.
    pub service: ObjectName,
    /// The addresses of its load balancer, in the order of its families.
    pub addresses: Vec<IpAddr>,
    /// Why; `None` if it is no load balancer any more, and nothing shall be left of it.
    pub told: Option<Told>,
}

impl Decision {
    /// Whether the Service's status says so already.
    #[must_use]
    pub fn is_done(&self, balancer: &LoadBalancer) -> bool {
        !balancer.elsewhere && self.addresses == balancer.held && self.told == balancer.told
    }
}

/// Decides for every Service that is Parfait's to give addresses to, or to take them back from. By name.
#[must_use]
pub fn allocate(snapshot: &Snapshot) -> Vec<Decision> {
    let mut requests: Vec<Request<'_>> = Vec::new();
    let mut taken = Taken::of(snapshot);
    for service in snapshot.services.values() {
        let Some(balancer) = service.outside.load_balancer.as_deref() else {
            continue;
        };
        let request = Request::of(snapshot, service, balancer);
        match request.is_ours() {
            true => requests.push(request),
            false if balancer.wanted => taken.keep(balancer.held.iter().copied(), &service.name),
            false => {}
        }
    }
    // The older first; they are by name already.
    requests.sort_by_key(|request| request.service.created.unwrap_or(i64::MAX));
    let mut all = |round: Round| {
        let mut given = false;
        for request in requests
            .iter_mut()
            .filter(|request| request.balancer.wanted)
        {
            for family in &request.balancer.families {
                given |= round(request, *family, &mut taken);
            }
        }
        given
    };
    all(|request, family, taken| request.keep(family, taken));
    // Whose wish is granted gives up what it had, which somebody else may wish.
    while all(|request, family, taken| request.take_wish(family, taken)) {}
    all(|request, family, taken| request.take_any(family, taken));
    let mut decisions: Vec<_> = requests.into_iter().map(Request::decide).collect();
    decisions.sort_by(|a, b| a.service.cmp(&b.service));
    decisions
}

/// Why a load balancer's Service has no address where its packets would come to the nodes, in words; `None` if it has one,
/// or is no load balancer's.
#[must_use]
pub fn pending(snapshot: &Snapshot, service: &Service) -> Option<String> {
    let balancer = service.outside.load_balancer.as_deref();
    let balancer = balancer.filter(|balancer| balancer.wanted)?;
    if !service.outside.load_balancer_ips.is_empty() {
        return None;
    }
    if balancer.elsewhere || !balancer.held.is_empty() {
        return Some(
            "its load balancer is reached by a name, or sends to the nodes itself".to_owned(),
        );
    }
    let mut decisions = allocate(snapshot).into_iter();
    let told = decisions.find(|decision| decision.service == service.name);
    let told = told.and_then(|decision| decision.told);
    Some(match (told, &balancer.class) {
        (Some(told), _) => told.message,
        (None, Some(class)) => {
            format!(
                "its loadBalancerClass {class} is not Parfait's, and nobody else has given it one"
            )
        }
        (None, None) => {
            "no LoadBalancerPool is for it, and nobody else has given it one".to_owned()
        }
    })
}

/// How many nodes' agents may write.
const WRITERS: usize = 3;

/// The nodes whose agents may carry the decisions out, of which one does: the first of those that are Ready, in an order
/// that no name is favoured by.
#[must_use]
pub fn writers(snapshot: &Snapshot) -> Vec<&str> {
    let nodes = snapshot.nodes.values();
    let mut nodes: Vec<_> = nodes
        .map(|node| {
            (
                !node.ready,
                fnv1a(&[b"load balancer ", node.name.as_bytes()]),
                &*node.name,
            )
        })
        .collect();
    nodes.sort_unstable();
    nodes.truncate(WRITERS);
    nodes.into_iter().map(|(_, _, name)| name).collect()
}

/// What is wrong with pools, whatever Services there are.
#[must_use]
pub fn faults(snapshot: &Snapshot) -> Vec<Note> {
    let mut notes = Vec::new();
    let reserved = Reserved::of(snapshot);
    let pools: Vec<_> = snapshot.pools.values().collect();
    for (index, pool) in pools.iter().enumerate() {
        let field = pool.origin().field("spec.addresses");
        for range in &pool.addresses {
            if let Some(owners) = reserved.within(range) {
                let message = format!("{range} has addresses of {owners}; no Service gets them");
                notes.push(Note::new(field.clone(), message));
            }
            let earlier = pools[..index]
                .iter()
                .filter(|earlier| earlier.addresses.iter().any(|other| other.overlaps(range)));
            for earlier in earlier {
                let message = format!(
                    "{range} overlaps {}; an address in both is announced as the first by name says",
                    earlier.origin()
                );
                notes.push(Note::new(field.clone(), message));
            }
        }
    }
    notes
}

/// How many owners of addresses in a pool are named.
const NAMED: usize = 3;

/// Networks of which no address is one machine's for all others (RFC 6890), and why.
const SPECIAL: [(&str, &str); 10] = [
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "the loopback"),
    ("169.254.0.0/16", "each link"),
    ("224.0.0.0/4", "multicast groups"),
    ("255.255.255.255/32", "the broadcast"),
    ("::/128", "nobody"),
    ("::1/128", "the loopback"),
    ("::ffff:0:0/96", "IPv4, mapped into IPv6"),
    ("fe80::/10", "each link"),
    ("ff00::/8", "multicast groups"),
];

/// Addresses that somebody else uses, and who.
struct Reserved {
    hosts: BTreeMap<IpAddr, String>,
    networks: BTreeMap<IpNet, String>,
}

impl Reserved {
    fn of(snapshot: &Snapshot) -> Self {
        let pods = snapshot.pod_networks().into_iter();
        let mut networks: BTreeMap<_, _> = pods
            .map(|(net, origin)| (net, origin.to_string()))
            .collect();
        let services = snapshot.config.service_cidrs.iter();
        networks.extend(services.map(|net| (net.trunc(), "serviceCIDRs".to_owned())));
        let special = SPECIAL.iter().filter_map(|(network, owner)| {
            let network: IpNet = network.parse().ok()?;
            Some((network, (*owner).to_owned()))
        });
        networks.extend(special);
        let mut hosts = BTreeMap::new();
        for node in snapshot.nodes.values() {
            let underlay = node.underlay.iter();
            let gateways = underlay.clone().flat_map(Underlay::interfaces);
            let gateways = gateways.flat_map(|one| &one.gateways);
            let gateways = gateways.filter(|gateway| !gateway.is_unspecified());
            hosts.extend(gateways.map(|ip| (*ip, "a gateway".to_owned())));
            let prefixes: Vec<_> = underlay.flat_map(Underlay::prefixes).collect();
            hosts.extend(prefixes.iter().flat_map(|prefix| own_of_segment(prefix)));
            let own = prefixes.into_iter().map(IpNet::addr);
            let own = own.chain(node.addresses.iter().copied());
            hosts.extend(own.map(|ip| (ip, node.origin().to_string())));
        }
        Self { hosts, networks }
    }

    /// The network of an address that is reserved, which may be the address alone, and who has it.
    fn find(&self, address: IpAddr) -> Option<(IpNet, &str)> {
        if let Some(owner) = self.hosts.get(&address) {
            return Some((address.into(), owner));
        }
        let mut within = self.networks.iter();
        let (network, owner) = within.find(|(network, _)| network.contains(&address))?;
        Some((*network, owner))
    }

    /// `Node node-1 (192.168.77.11/32), … and 7 more`: whose addresses a range has.
    fn within(&self, range: &AddressRange) -> Option<String> {
        let networks = self
            .networks
            .iter()
            .filter(|(network, _)| range.meets(network))
            .map(|(network, owner)| format!("{owner} ({network})"));
        let hosts = self
            .hosts
            .range(range.first()..)
            .take_while(|(ip, _)| range.contains(**ip))
            .map(|(ip, owner)| format!("{owner} ({ip})"));
        let mut owners = networks.chain(hosts);
        let mut named: Vec<_> = owners.by_ref().take(NAMED).collect();
        match owners.count() {
            0 => {}
            more => named.push(format!("and {more} more")),
        }
        (!named.is_empty()).then(|| named.join(", "))
    }
}

/// What belongs to a whole segment: hosts hear the first and the last address of an IPv4 network as broadcasts (RFC 1122
/// section 3.2.1.3), and every router answers for the first one of an IPv6 network (RFC 4291 section 2.6.1).
fn own_of_segment(prefix: &IpNet) -> Vec<(IpAddr, String)> {
    let segment = prefix.trunc();
    let (first, last) = (segment.network(), segment.broadcast());
    match prefix.max_prefix_len() - prefix.prefix_len() {
        // A network of two or one has no such addresses (RFC 3021, RFC 6164).
        0 | 1 => Vec::new(),
        _ if first.is_ipv4() => {
            let owner = format!("broadcasts in {segment}");
            vec![(first, owner.clone()), (last, owner)]
        }
        _ => vec![(first, format!("all routers of {segment}"))],
    }
}

/// Who has what.
struct Taken {
    by: BTreeMap<IpAddr, ObjectName>,
    reserved: Reserved,
    /// In each pool and family, every address before this one is taken.
    next: BTreeMap<(String, usize), Option<IpAddr>>,
}

impl Taken {
    fn of(snapshot: &Snapshot) -> Self {
        let mut taken = Self {
            by: BTreeMap::new(),
            reserved: Reserved::of(snapshot),
            next: BTreeMap::new(),
        };
        for service in snapshot.services.values() {
            let outside = &service.outside;
            taken.keep(outside.external_ips.iter().copied(), &service.name);
        }
        taken
    }

    fn keep(&mut self, addresses: impl IntoIterator<Item = IpAddr>, service: &ObjectName) {
        for address in addresses {
            self.by.entry(address).or_insert_with(|| service.clone());
        }
    }

    /// Why nobody can have an address.
    fn why_not(&self, address: IpAddr, by: &ObjectName) -> Option<String> {
        if let Some(owner) = self.by.get(&address).filter(|owner| *owner != by) {
            return Some(format!("{address} belongs to Service {owner}"));
        }
        let (network, owner) = self.reserved.find(address)?;
        Some(match network == IpNet::from(address) {
            true => format!("{address} belongs to {owner}"),
            false => format!("{address} lies in {network} of {owner}"),
        })
    }

    /// The lowest free address of a pool.
    fn lowest(&mut self, pool: &LoadBalancerPool, family: Family) -> Option<IpAddr> {
        for (index, range) in pool.addresses.iter().enumerate() {
            if range.family() != family {
                continue;
            }
            let slot = (pool.name.clone(), index);
            let mut at = self.next.get(&slot).copied().unwrap_or(Some(range.first()));
            while let Some(address) = at {
                // The network may be too large to be walked through.
                if let Some((network, _)) = self.reserved.find(address) {
                    at = range.after(network.broadcast());
                } else if self.by.contains_key(&address) {
                    at = range.after(address);
                } else {
                    break;
                }
            }
            self.next.insert(slot, at);
            if at.is_some() {
                return at;
            }
        }
        None
    }
}

/// What one Service takes in a family; whether it took something.
type Round = fn(&mut Request<'_>, Family, &mut Taken) -> bool;

/// One Service that is served, or was.
struct Request<'a> {
    service: &'a Service,
    balancer: &'a LoadBalancer,
    pools: Vec<&'a LoadBalancerPool>,
    /// What it has got so far.
    got: BTreeMap<Family, IpAddr>,
    /// Why it lacks something, or has not what it wished.
    troubles: Vec<(&'static str, String)>,
}

impl<'a> Request<'a> {
    fn of(snapshot: &'a Snapshot, service: &'a Service, balancer: &'a LoadBalancer) -> Self {
        Self {
            service,
            balancer,
            pools: snapshot.pools_for(service).collect(),
            got: BTreeMap::new(),
            troubles: Vec::new(),
        }
    }

    fn is_ours(&self) -> bool {
        let balancer = self.balancer;
        if balancer.told.is_some() {
            return true;
        }
        let held = !balancer.held.is_empty() || balancer.elsewhere;
        let foreign = held && !balancer.held.iter().any(|ip| self.pool(*ip).is_some());
        let asked = balancer.class.is_some() || !self.pools.is_empty();
        balancer.is_ours() && asked && !foreign
    }

    fn pool(&self, address: IpAddr) -> Option<&'a LoadBalancerPool> {
        let mut pools = self.pools.iter().copied();
        pools.find(|pool| pool.contains(address))
    }

    fn wish(&self, family: Family) -> Option<IpAddr> {
        let mut wishes = self.balancer.wishes.iter().copied();
        wishes.find(|wish| Family::of(*wish) == family)
    }

    fn keep(&mut self, family: Family, taken: &mut Taken) -> bool {
        let held = self.balancer.held.iter().copied();
        let usable = held.filter(|address| Family::of(*address) == family);
        let mut usable = usable.filter(|address| self.pool(*address).is_some());
        // What it must give up, for instance because an older Service has it too, is made up for like a first address.
        let kept = usable.find(|address| taken.why_not(*address, &self.service.name).is_none());
        kept.is_some_and(|address| self.give(address, taken))
    }

    /// What it has it keeps until the wish can be granted.
    fn take_wish(&mut self, family: Family, taken: &mut Taken) -> bool {
        let Some(wish) = self.unmet_wish(family) else {
            return false;
        };
        self.pool(wish).is_some()
            && taken.why_not(wish, &self.service.name).is_none()
            && self.give(wish, taken)
    }

    fn unmet_wish(&self, family: Family) -> Option<IpAddr> {
        let got = self.got.get(&family).copied();
        self.wish(family).filter(|wish| Some(*wish) != got)
    }

    fn complain(&mut self, family: Family, taken: &Taken) {
        let Some(wish) = self.unmet_wish(family) else {
            return;
        };
        let refused = match self.pool(wish) {
            None => Some((
                "WishRefused",
                format!(
                    "{wish} is in no pool for this Service: {}",
                    self.pools_of(family)
                ),
            )),
            Some(_) => taken
                .why_not(wish, &self.service.name)
                .map(|why| ("WishRefused", why)),
        };
        self.troubles.extend(refused);
    }

    /// Whoever has a wish waits for that.
    fn take_any(&mut self, family: Family, taken: &mut Taken) -> bool {
        self.complain(family, taken);
        if self.got.contains_key(&family) || self.wish(family).is_some() {
            return false;
        }
        let pools = self.pools.clone();
        if let Some(address) = pools.iter().find_map(|pool| taken.lowest(pool, family)) {
            return self.give(address, taken);
        }
        self.troubles.push(match self.pools.is_empty() {
            true => (
                "NoPool",
                "no LoadBalancerPool is for this Service".to_owned(),
            ),
            false => {
                let message = format!("no free {family} address in {}", self.pools_of(family));
                ("Exhausted", message)
            }
        });
        false
    }

    fn give(&mut self, address: IpAddr, taken: &mut Taken) -> bool {
        taken.keep([address], &self.service.name);
        if let Some(old) = self.got.insert(Family::of(address), address) {
            taken.by.remove(&old);
        }
        true
    }

    fn pools_of(&self, family: Family) -> String {
        let pools: Vec<_> = self
            .pools
            .iter()
            .map(|pool| pool.describe(family))
            .collect();
        match pools.is_empty() {
            true => "there is none".to_owned(),
            false => pools.join(", "),
        }
    }

    fn decide(self) -> Decision {
        let service = self.service.name.clone();
        // Without a pool, somebody else may care for it.
        let abandoned = self.pools.is_empty() && self.balancer.class.is_none();
        if !self.balancer.wanted || abandoned {
            return Decision {
                service,
                addresses: Vec::new(),
                told: None,
            };
        }
        let families = self.balancer.families.iter();
        let addresses: Vec<_> = families
            .filter_map(|family| self.got.get(family).copied())
            .collect();
        let from = |address: &IpAddr| {
            let pool = self
                .pool(*address)
                .map_or_else(String::new, |pool| pool.name.clone());
            format!("{address} from LoadBalancerPool {pool}")
        };
        let mut parts: Vec<_> = addresses.iter().map(from).collect();
        parts.extend(self.troubles.iter().map(|(_, message)| message.clone()));
        let satisfied = self.troubles.is_empty();
        let reason = self
            .troubles
            .last()
            .map_or("Allocated", |(reason, _)| reason);
        let told = Told {
            satisfied,
            reason: reason.to_owned(),
            message: parts.join("; "),
        };
        Decision {
            service,
            addresses,
            told: Some(told),
        }
    }
}

//! The plan as nf_tables: per family one table, a few maps for all Services, and one chain and map per *number* of
//! endpoints.
//!
//! ```text
//! table ip parfait {
//!   map services    { type ipv4_addr . inet_proto . inet_service : classid }
//!   map service_choices { type classid : verdict }
//!   map endpoints_3 { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service }
//!   chain services-prerouting { type nat hook prerouting priority dstnat; … map @services … vmap @service_choices }
//!   chain services-output     { type nat hook output priority -100;       … map @services … vmap @service_choices }
//!   chain n3                  { … dnat to … numgen random mod 3 map @endpoints_3 }
//!   chain kn3                 { … numgen random mod 3 vmap @keep_3 }   (clients keep their endpoint: keep-10800-…)
//!   chain o3                  { … dnat to … numgen random mod 3 map @outside_3 }       (externalTrafficPolicy: Local)
//!   … and what is always there: see ruleset.rs
//! }
//! ```
//!
//! What one Service adds is a fragment: elements, and the chains and maps that these name. A change of one
//! Service is the difference of two fragments ([`Lowered::reapply`]); it does not look at the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use parfait_linux::nft::{
    Chain, Data, DataType, Element, Field, Key, NewData, Rule, Set, Statement, Table, Tables,
    Update, Value, Verdict,
};
use parfait_packet::{Family, Origin};

use crate::plan::{Change, Changes};
use crate::ruleset::{self, AFFINITY, FRONTEND, rule};
use crate::service::{Arrival, Pool};
use crate::{Frontend, Plan, ServicePlan, Virtual};

/// The tables that a node must hold for this plan: one of each family.
#[must_use]
pub fn apply(plan: &Plan) -> Vec<Table> {
    Family::ALL
        .into_iter()
        .map(|family| {
            let mut table = ruleset::base(plan, family);
            for service in plan.services.values() {
                Fragment::of(service, family).add_to(&mut table);
            }
            table
        })
        .collect()
}

/// What is remembered from one change to the next, so that the next needs not look at all Services.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// How many Services use each chain and map.
    uses: BTreeMap<(Family, Part), usize>,
    /// What is there whatever Services there are.
    base: Tables,
}

/// Two parts of the same tables: what a change takes away is in the first, what it brings in the second, and
/// what others use of both in both.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// Before the change.
    pub before: Tables,
    /// After the change.
    pub after: Tables,
}

impl Patch {
    /// Leaves out a family that the kernel does not have.
    pub fn drop_family(&mut self, family: Family) {
        let family = ruleset::table_family(family);
        for tables in [&mut self.before, &mut self.after] {
            tables.retain(|(of, _), _| *of != family);
        }
    }
}

impl Lowered {
    /// Begins with a whole plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let mut lowered = Self::default();
        for family in Family::ALL {
            for service in plan.services.values() {
                lowered.count(&Fragment::of(service, family), family, true);
            }
            let base = ruleset::base(plan, family);
            lowered.base.insert(base.key(), base);
        }
        lowered
    }

    /// Lowers what [`crate::replan`] changed.
    #[must_use]
    pub fn reapply(&mut self, plan: &Plan, changes: &Changes) -> Patch {
        let mut patch = Patch::default();
        for family in Family::ALL {
            let name = (ruleset::table_family(family), "parfait".to_owned());
            let [mut before, mut after] = self.parts(changes, family);
            if changes.common {
                let base = ruleset::base(plan, family);
                let old = self.base.insert(name.clone(), base.clone());
                join(&mut before, old.unwrap_or_else(|| base.clone()));
                join(&mut after, base);
            }
            // They may be equal and still name other objects.
            if changes.common || !changes.services.is_empty() {
                patch.before.insert(name.clone(), before);
                patch.after.insert(name, after);
            }
        }
        patch
    }

    fn parts(&mut self, changes: &Changes, family: Family) -> [Table; 2] {
        let mut both = [(); 2].map(|()| Table::new(ruleset::table_family(family), "parfait"));
        // What only changed among the endpoints that were not chosen, and are not, is nothing to the tables.
        let differing = changes.services.iter().filter(|change| match change {
            (Some(old), Some(new)) => !new.leads_as(old),
            _ => true,
        });
        let fragments = |pick: fn(&Change) -> Option<&ServicePlan>| {
            let services = differing.clone().filter_map(pick);
            services
                .map(|service| Fragment::of(service, family))
                .collect::<Vec<_>>()
        };
        let old = fragments(|(old, _)| old.as_deref());
        let new = fragments(|(_, new)| new.as_deref());
        let parts: BTreeSet<Part> = old.iter().chain(&new).flat_map(Fragment::parts).collect();
        for (table, (fragments, come)) in both.iter_mut().zip([(old, false), (new, true)]) {
            // Before the change all uses count, and after it the new ones.
            if come {
                fragments.iter().for_each(|f| self.count(f, family, true));
            }
            for part in &parts {
                if self
                    .uses
                    .get(&(family, *part))
                    .is_some_and(|uses| *uses > 0)
                {
                    part.define(table);
                }
            }
            if !come {
                fragments.iter().for_each(|f| self.count(f, family, false));
            }
            fragments.into_iter().for_each(|f| f.add_to(table));
        }
        let [before, after] = &mut both;
        for name in ruleset::FILLED {
            let touched = before.sets.contains_key(name) || after.sets.contains_key(name);
            for table in [&mut *before, &mut *after] {
                if touched && !table.sets.contains_key(name) {
                    let set = ruleset::definition(name);
                    table.sets.insert(name.to_owned(), set);
                }
            }
        }
        both
    }

    fn count(&mut self, fragment: &Fragment, family: Family, come: bool) {
        for part in fragment.parts() {
            let uses = self.uses.entry((family, part)).or_default();
            match come {
                true => *uses += 1,
                false => *uses = uses.saturating_sub(1),
            }
            if *uses == 0 {
                self.uses.remove(&(family, part));
            }
        }
    }
}

/// Adds the sets and chains of `base` that are not there, and of those that are, the elements.
fn join(table: &mut Table, base: Table) {
    for (name, set) in base.sets {
        let present = table.sets.entry(name).or_insert_with(|| Set {
            elements: BTreeMap::new(),
            ..set.clone()
        });
        present.elements.extend(set.elements);
    }
    table.chains.extend(base.chains);
}

/// Whose endpoints a chain chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Space {
    /// Those for clients in the cluster, or for all.
    Inside,
    /// Those for clients outside, where they are others.
    Outside,
}

/// A chain or a map that exists because some Service needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The endpoints of all frontends that have so many.
    Map(Space, u32),
    /// The choice among so many.
    Choice(Space, u32),
    /// The same where clients keep their endpoint: a [`Part::Keep`] for each.
    KeptMap(Space, u32),
    /// The choice among so many that clients keep.
    KeptChoice(Space, u32),
    /// A client is sent to the endpoint it has, or to this one, which it then has for some seconds.
    Keep(u32, IpAddr, u16),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(Space::Inside, count) => write!(f, "endpoints_{count}"),
            Self::Map(Space::Outside, count) => write!(f, "outside_{count}"),
            Self::Choice(Space::Inside, count) => write!(f, "n{count}"),
            Self::Choice(Space::Outside, count) => write!(f, "o{count}"),
            Self::KeptMap(Space::Inside, count) => write!(f, "keep_{count}"),
            Self::KeptMap(Space::Outside, count) => write!(f, "keep_outside_{count}"),
            Self::KeptChoice(Space::Inside, count) => write!(f, "kn{count}"),
            Self::KeptChoice(Space::Outside, count) => write!(f, "ko{count}"),
            Self::Keep(seconds, address, port) => {
                // nft(8) takes no colons in names.
                let address = address.to_string().replace(':', "-");
                write!(f, "keep-{seconds}-{address}-{port}")
            }
        }
    }
}

impl Part {
    /// The chains and maps whose names are of this form are this layer's.
    pub(crate) fn is_one(name: &str) -> bool {
        const FORMS: [&str; 8] = [
            "endpoints_",
            "outside_",
            "keep_outside_",
            "keep_",
            "kn",
            "ko",
            "n",
            "o",
        ];
        let number = |text: &str| text.parse::<u32>().is_ok();
        let mut forms = FORMS.iter().filter_map(|form| name.strip_prefix(form));
        forms.any(number) || name.starts_with("keep-")
    }

    /// The endpoint that clients keep in a chain of this name.
    pub(crate) fn kept(chain: &str) -> Option<(IpAddr, u16)> {
        let (_, endpoint) = chain.strip_prefix("keep-")?.split_once('-')?;
        let (address, port) = endpoint.rsplit_once('-')?;
        let address = address
            .parse()
            .or_else(|_| address.replace('-', ":").parse());
        Some((address.ok()?, port.parse().ok()?))
    }

    fn define(self, table: &mut Table) {
        let name = self.to_string();
        let set = match self {
            Self::Map(_, count) => Some(Set::new(numbered(count), DataType::Target)),
            Self::KeptMap(_, count) => Some(Set::new(numbered(count), DataType::Verdict)),
            Self::Choice(..) | Self::KeptChoice(..) | Self::Keep(..) => None,
        };
        let rules = match self {
            Self::Choice(space, count) => vec![choose(count, Self::Map(space, count))],
            Self::KeptChoice(space, count) => {
                vec![choose_keeper(count, Self::KeptMap(space, count))]
            }
            Self::Keep(seconds, address, port) => keep(seconds, address, port),
            Self::Map(..) | Self::KeptMap(..) => Vec::new(),
        };
        match set {
            Some(set) => {
                table.sets.entry(name).or_insert(set);
            }
            None => {
                for map in ruleset::CHOICES {
                    let choice = self.priority().map(|number| ruleset::choice(number, &name));
                    let map = table.sets.entry(map.to_owned());
                    let map = map.or_insert_with_key(|name| ruleset::definition(name));
                    map.elements.extend(choice);
                }
                table.chains.insert(name, Chain::regular(rules));
            }
        }
    }

    /// By which a frontend's map leads to this choice: its number of endpoints, of which there are at most 8,192
    /// ([`crate::listing::MOST`]), as the minor number of a class.
    fn priority(self) -> Option<u32> {
        match self {
            Self::Choice(Space::Inside, count) => Some(count),
            Self::Choice(Space::Outside, count) => Some(0x1_0000 | count),
            Self::KeptChoice(Space::Inside, count) => Some(0x2_0000 | count),
            Self::KeptChoice(Space::Outside, count) => Some(0x3_0000 | count),
            Self::Map(..) | Self::KeptMap(..) | Self::Keep(..) => None,
        }
    }
}

/// `meta priority set none dnat to ip daddr . meta l4proto . th dport . numgen random mod N map @endpoints_N`
fn choose(count: u32, map: Part) -> Rule {
    let dnat = Statement::DnatMap {
        fields: numbered(count),
        map: map.to_string(),
    };
    rule([ruleset::forget(), dnat], "Services")
}

/// `meta priority set none ip daddr . meta l4proto . th dport . numgen random mod N vmap @keep_N`
fn choose_keeper(count: u32, map: Part) -> Rule {
    let keeper = Statement::Vmap {
        fields: numbered(count),
        map: map.to_string(),
    };
    rule([ruleset::forget(), keeper], "session affinity")
}

/// An `update` leaves what an element that is there maps to, and lets it stay for as long again; so a client that has
/// an endpoint keeps it, and one that has none gets this one:
///
/// ```text
/// update @affinity { KEY timeout 3h : 10.244.1.3 . 8080 }
/// dnat to KEY map @affinity
/// dnat to 10.244.1.3:8080                                   (if @affinity is full)
/// ```
///
/// where KEY is `ip saddr . ip daddr . meta l4proto . th dport`. One chain for each endpoint, because what a map has
/// cannot be put into another in a way that nft 1.0 could print.
fn keep(seconds: u32, address: IpAddr, port: u16) -> Vec<Rule> {
    let update = Update {
        set: "affinity".to_owned(),
        key: AFFINITY.to_vec(),
        timeout: Some(Duration::from_secs(u64::from(seconds))),
        data: NewData::Fixed(Data::Target(address, port)),
    };
    let kept = Statement::DnatMap {
        fields: AFFINITY.to_vec(),
        map: "affinity".to_owned(),
    };
    [
        Statement::Update(update),
        kept,
        Statement::Dnat(address, port),
    ]
    .map(|statement| rule([statement], "session affinity"))
    .into()
}

fn numbered(count: u32) -> Vec<Field> {
    let mut fields = FRONTEND.to_vec();
    fields.push(Field::NumgenRandom(count));
    fields
}

/// What one Service adds to the table of one family.
#[derive(Debug, Default)]
struct Fragment {
    elements: BTreeMap<String, BTreeMap<Key, Element>>,
    choices: BTreeSet<Part>,
}

impl Fragment {
    fn of(service: &ServicePlan, family: Family) -> Self {
        let mut fragment = Self::default();
        let of_family = |frontend: &&Frontend| Family::of(frontend.address) == family;
        for (name, addresses) in [
            ("cluster_ips", &service.cluster_ips),
            ("outside_ips", &service.outside_ips),
        ] {
            for (address, origin) in service.held_of(addresses) {
                if Family::of(*address) == family {
                    fragment.put(name, vec![Value::Address(*address)], Data::None, origin);
                }
            }
        }
        for (frontend, behind) in service.held().filter(|(at, _)| of_family(at)) {
            fragment.frontend(frontend, behind);
        }
        fragment
    }

    fn frontend(&mut self, at: &Frontend, behind: &Virtual) {
        let origin = &behind.origin;
        if behind.arrival == Arrival::NodePort {
            let name = ruleset::node_ports(at.protocol);
            self.put(&name, vec![Value::Port(at.port)], Data::None, origin);
        }
        if behind.is_empty() {
            // A Service's own address is refused whole.
            if behind.arrival != Arrival::ClusterIp {
                self.put("refused", key(at), Data::None, origin);
            }
            return;
        }
        let mut goal = match behind.splits() {
            true => self.split(at, behind),
            false => self.choose(Space::Inside, at, &behind.inside, behind),
        };
        if let Some(sources) = &behind.sources {
            for net in ruleset::widest(sources.iter().copied()) {
                if Family::of(net.addr()) == Family::of(at.address) {
                    let mut key = key(at);
                    key.push(Value::prefix(net));
                    self.put("source_ranges", key, Data::None, origin);
                }
            }
            self.lead("restricted_services", at, goal, origin);
            goal = Some(ruleset::GOTO_RESTRICTED);
        }
        self.lead("services", at, goal, origin);
    }

    fn split(&mut self, at: &Frontend, behind: &Virtual) -> Option<u32> {
        let inside = self.choose(Space::Inside, at, &behind.inside, behind);
        self.lead("inside_services", at, inside, &behind.origin);
        let outside = self.choose(Space::Outside, at, &behind.outside, behind);
        self.lead("outside_services", at, outside, &behind.origin);
        Some(ruleset::GOTO_LOCAL)
    }

    /// Puts a pool's endpoints into their map, and returns the priority of packets that get one of them.
    fn choose(
        &mut self,
        space: Space,
        at: &Frontend,
        pool: &Pool,
        behind: &Virtual,
    ) -> Option<u32> {
        let count = u32::try_from(pool.backends.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return None;
        }
        let (map, choice) = match behind.affinity {
            None => (Part::Map(space, count), Part::Choice(space, count)),
            Some(_) => (Part::KeptMap(space, count), Part::KeptChoice(space, count)),
        };
        let name = map.to_string();
        for (number, backend) in (0u32..).zip(&pool.backends) {
            let mut key = key(at);
            key.push(Value::Number(number));
            let (address, port) = backend.socket();
            let data = match behind.affinity {
                None => Data::Target(address, port),
                Some(seconds) => {
                    let keep = Part::Keep(seconds, address, port);
                    self.choices.insert(keep);
                    Data::Verdict(Verdict::Goto(keep.to_string()))
                }
            };
            self.put(&name, key, data, &backend.origin);
        }
        self.choices.extend([map, choice]);
        choice.priority()
    }

    fn lead(&mut self, map: &str, at: &Frontend, priority: Option<u32>, origin: &Origin) {
        if let Some(priority) = priority {
            self.put(map, key(at), Data::Priority(priority), origin);
        }
    }

    fn put(&mut self, set: &str, key: Key, data: Data, origin: &Origin) {
        let element = Element {
            data,
            origin: Some(origin.clone()),
        };
        let elements = match self.elements.get_mut(set) {
            Some(elements) => elements,
            None => self.elements.entry(set.to_owned()).or_default(),
        };
        elements.insert(key, element);
    }

    fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        self.choices.iter().copied()
    }

    fn add_to(self, table: &mut Table) {
        for part in &self.choices {
            part.define(table);
        }
        for (name, elements) in self.elements {
            let set = match table.sets.get_mut(&name) {
                Some(set) => set,
                None => table
                    .sets
                    .entry(name.clone())
                    .or_insert(ruleset::definition(&name)),
            };
            set.elements.extend(elements);
        }
    }
}

pub(crate) fn key(frontend: &Frontend) -> Key {
    let family = Family::of(frontend.address);
    vec![
        Value::Address(frontend.address),
        Value::Protocol(frontend.protocol.number(family)),
        Value::Port(frontend.port),
    ]
}

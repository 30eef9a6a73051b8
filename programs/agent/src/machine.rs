//! [`Machine`]: the kernel of this node, kept equal to a planned [`State`].
//!
//! What the kernel holds is remembered, but only to find out that there is nothing to do. Before
//! anything is done it is read again, and nf_tables take a transaction only for the ruleset that it
//! was made for; so what another program changed meanwhile is not overwritten unseen. What it
//! changed while nothing was to do is noticed when the caller [forgets](Machine::forget).
//!
//! Tables can have hundreds of thousands of elements. Once they are as planned, only the number of that ruleset is
//! remembered: a change is then [patched](Machine::patch) in, or, if the number is another, all is looked at again.

use std::collections::BTreeSet;

use parfait_join::Observed;
use parfait_kernel::nft::{self as edge, NftSocket};
use parfait_kernel::{Kernel, Netfilter, Socket};
use parfait_linux::attachment::is_host_interface;
use parfait_linux::nft::{self, NftStep};
use parfait_linux::{
    IfName, Item, Object, Ownership, RouteProtocol, State, Step, Sysctl, SysctlKey, diff,
};
use parfait_transport::Patch;

use crate::{features, merge};

/// The tables that Parfait owns.
const TABLE: &str = "parfait";

/// The links that the agent makes and removes.
const OWN_LINKS: [&str; 1] = [parfait_link::plan::TUNNEL];

/// How often a transaction is made anew because another program changed a ruleset meanwhile.
const TRIES: usize = 5;

/// What went wrong while the kernel was made equal to the plan.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The kernel cannot be asked.
    #[error("reading what the kernel holds: {0}")]
    Observe(String),
    /// Some steps failed; the others are done.
    #[error("{} of {tried} steps failed: {}", failed.len(), first_of(failed))]
    Execute {
        /// How many were tried.
        tried: usize,
        /// What failed, and why.
        failed: Vec<String>,
    },
}

impl SyncError {
    pub(crate) fn observe(error: impl std::fmt::Display) -> Self {
        Self::Observe(error.to_string())
    }
}

/// How many failures of one sync are told; those of a thousand steps mostly say the same.
const TOLD: usize = 5;

fn first_of(failed: &[String]) -> String {
    let told = failed[..failed.len().min(TOLD)].join("; ");
    match failed.len().saturating_sub(TOLD) {
        0 => told,
        more => format!("{told}; and {more} more"),
    }
}

/// This node's kernel.
pub struct Machine<K = Socket, N = NftSocket> {
    kernel: K,
    netfilter: N,
    /// What the kernel holds, as far as it is known. Its tables are empty unless they are [`Rules::Read`].
    known: State,
    /// Whether everything but the tables is known.
    objects_known: bool,
    rules: Rules,
    /// The ruleset that `rules` are of.
    generation: u32,
    /// The settings that `known` has, where the kernel has them.
    asked: BTreeSet<SysctlKey>,
    /// Settings that are read though no plan names them.
    watched: BTreeSet<SysctlKey>,
    /// What was carried out last, while other programs' changes are only told.
    carried: Option<State>,
    put_off: Vec<String>,
    tables_done: bool,
}

/// What is known of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// Nothing.
    Unknown,
    /// What they hold.
    Read,
    /// That they were as planned.
    AsPlanned,
}

impl Machine {
    /// Opens the netlink sockets, in the network namespace of the calling thread, and tries them.
    ///
    /// # Errors
    /// If the kernel refuses: it has no nf_tables, or the caller lacks CAP_NET_ADMIN.
    pub fn open() -> Result<Self, SyncError> {
        let kernel = Socket::open().map_err(SyncError::observe)?;
        let mut netfilter = NftSocket::open().map_err(SyncError::observe)?;
        // Opening succeeds for everybody, asking does not.
        netfilter
            .observe(|_, _| false)
            .map_err(SyncError::observe)?;
        Ok(Self::new(kernel, netfilter))
    }
}

impl<K: Kernel, N: Netfilter> Machine<K, N> {
    /// A machine with this kernel.
    pub fn new(kernel: K, netfilter: N) -> Self {
        Self {
            kernel,
            netfilter,
            known: State::default(),
            objects_known: false,
            rules: Rules::Unknown,
            generation: 0,
            asked: BTreeSet::new(),
            watched: BTreeSet::new(),
            carried: None,
            put_off: Vec::new(),
            tables_done: false,
        }
    }

    /// The kernel itself.
    pub fn parts(&mut self) -> (&mut K, &mut N) {
        (&mut self.kernel, &mut self.netfilter)
    }

    /// Forgets what is known, so that it is looked at again.
    pub fn forget(&mut self) {
        self.forget_objects();
        self.forget_rules();
    }

    fn forget_objects(&mut self) {
        self.objects_known = false;
    }

    fn forget_rules(&mut self) {
        self.rules = Rules::Unknown;
        self.known.tables.clear();
    }

    /// The tables are as planned: what they hold need not be remembered.
    pub fn settle(&mut self) {
        if self.rules == Rules::Read && self.tables_done && self.carried.is_none() {
            self.rules = Rules::AsPlanned;
            self.known.tables.clear();
        }
    }

    /// Whether a change of the plan can be [patched](Machine::patch) in.
    #[must_use]
    pub fn is_patchable(&self) -> bool {
        self.rules == Rules::AsPlanned && self.carried.is_none()
    }

    /// Whether everything but the tables is known.
    #[must_use]
    pub const fn knows_objects(&self) -> bool {
        self.objects_known
    }

    /// From now on this setting is observed as well.
    pub fn watch(&mut self, setting: SysctlKey) {
        self.watched.insert(setting);
    }

    /// What the last sync could not do on pods' links because they are not as planned. They come and
    /// go by the CNI plugin, and the API server tells of it later: it is for the next round.
    #[must_use]
    pub fn put_off(&self) -> &[String] {
        &self.put_off
    }

    /// Whether the last sync left the tables as they should be, whatever became of the rest.
    #[must_use]
    pub const fn tables_done(&self) -> bool {
        self.tables_done
    }

    /// What the kernel holds: everything Parfait could own, and what it stands on.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn observe(&mut self, desired: &State) -> Result<&State, SyncError> {
        self.observe_objects(desired)?;
        if self.rules != Rules::Read {
            self.read_tables()?;
        }
        Ok(&self.known)
    }

    /// The same without the tables, which are then empty or what they were.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn observe_objects(&mut self, desired: &State) -> Result<&State, SyncError> {
        if !self.objects_known || !settings(desired, &self.watched).is_subset(&self.asked) {
            self.look_at_objects(desired)?;
        }
        Ok(&self.known)
    }

    fn read_tables(&mut self) -> Result<(), SyncError> {
        let observed = self.netfilter.observe(TABLE).map_err(SyncError::observe)?;
        self.known.tables = observed.tables;
        self.generation = observed.generation;
        self.rules = Rules::Read;
        Ok(())
    }

    /// Everything that a proof asks for: other programs' tables too, which [`Machine::observe`] leaves
    /// out because they can be large.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn survey(
        &mut self,
        desired: &State,
        underlay: Option<&IfName>,
    ) -> Result<Observed, SyncError> {
        let (tables, handles) = self.netfilter.survey().map_err(SyncError::observe)?;
        let offload = underlay.and_then(|link| self.kernel.offload(link));
        let known = self.observe_objects(desired)?;
        Ok(Observed {
            state: State {
                links: known.links.clone(),
                addresses: known.addresses.clone(),
                routes: known.routes.clone(),
                neighbours: known.neighbours.clone(),
                fdb: known.fdb.clone(),
                sysctls: known.sysctls.clone(),
                tables: tables.tables,
            },
            handles,
            offload,
        })
    }

    /// Makes the kernel equal to the plan. Returns how many steps that took: none if it was.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or steps failed. What they are about is then forgotten.
    pub fn sync(&mut self, desired: &State) -> Result<usize, SyncError> {
        self.carried = None;
        self.carry_out(desired)
    }

    /// Carries out what is new in the plan since the last time, and leaves what others have changed
    /// meanwhile. The first time, all of it.
    ///
    /// # Errors
    /// As [`Machine::sync`].
    pub fn sync_changes(&mut self, desired: &State) -> Result<usize, SyncError> {
        let steps = self.carry_out(desired)?;
        if self.put_off.is_empty() {
            let observed = self.observe(desired)?;
            let mut carried = attachable(desired, observed);
            carried.tables = desired.tables.clone();
            self.carried = Some(carried);
        }
        Ok(steps)
    }

    /// Carries out a change of the plan: `objects`, unless they are as they were, and of the tables the difference
    /// of two parts. Only if [it can be](Machine::is_patchable). `None` if another program has changed a ruleset, and
    /// all must be looked at.
    ///
    /// # Errors
    /// As [`Machine::sync`].
    pub fn patch(
        &mut self,
        objects: Option<&State>,
        tables: &Patch,
    ) -> Result<Option<usize>, SyncError> {
        self.put_off.clear();
        self.tables_done = false;
        let mut failed = Vec::new();
        let mut tried = 0;
        if let Some(desired) = objects {
            let fresh = !self.objects_known;
            self.observe_objects(desired)?;
            tried += self.sync_objects(desired, fresh, &mut failed)?;
        }
        let steps = nft::diff(&tables.before, &tables.after);
        if !steps.is_empty() {
            tried += steps.len();
            match self.execute(&nft::phases(steps)) {
                Ok(()) => {}
                Err(edge::Error::Changed) => {
                    self.forget_rules();
                    return Ok(None);
                }
                Err(error) => failed.push(refused(&error)),
            }
        }
        self.tables_done = self.rules == Rules::AsPlanned;
        done(tried, failed).map(Some)
    }

    fn carry_out(&mut self, desired: &State) -> Result<usize, SyncError> {
        self.put_off.clear();
        self.tables_done = false;
        let fresh = !self.objects_known;
        self.observe(desired)?;
        let mut failed = Vec::new();
        let objects = self.sync_objects(desired, fresh, &mut failed);
        let tables = self.sync_tables(desired, &mut failed);
        done(objects? + tables?, failed)
    }

    /// Looks at one set of our tables, and does what `decide` makes of it: about what the kernel itself has added.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or refuses.
    pub fn tend(
        &mut self,
        set: &str,
        decide: impl Fn(&nft::Tables) -> Vec<NftStep>,
    ) -> Result<(), SyncError> {
        for _ in 0..TRIES {
            let observed = self.netfilter.observe_set(TABLE, set);
            let observed = observed.map_err(SyncError::observe)?;
            let steps = decide(&observed.tables);
            if steps.is_empty() {
                return Ok(());
            }
            let same = observed.generation == self.generation;
            match self.netfilter.execute_at(&steps, observed.generation) {
                // Elements that the kernel added are not part of what is known.
                Ok(()) if same => self.generation = after(self.generation),
                Ok(()) => {}
                Err(edge::Error::Changed) => continue,
                Err(error) => return done(steps.len(), vec![error.to_string()]).map(drop),
            }
            return Ok(());
        }
        Ok(())
    }

    fn objects(&mut self, desired: &State) -> Result<State, SyncError> {
        self.asked = settings(desired, &self.watched);
        let sysctls: Vec<SysctlKey> = self.asked.iter().cloned().collect();
        self.kernel.observe(&sysctls).map_err(SyncError::observe)
    }

    /// Looks again at everything but the tables.
    fn look_at_objects(&mut self, desired: &State) -> Result<(), SyncError> {
        let objects = self.objects(desired)?;
        let tables = std::mem::take(&mut self.known.tables);
        self.known = State { tables, ..objects };
        self.objects_known = true;
        Ok(())
    }

    /// The steps that are left to do.
    fn steps(&self, desired: &State) -> Vec<Step> {
        let possible = attachable(desired, &self.known);
        match &self.carried {
            Some(carried) => {
                let goal = merge::objects(carried, &possible, &self.known);
                steps(&self.known, &goal)
            }
            None => steps(&self.known, &possible),
        }
    }

    fn sync_objects(
        &mut self,
        desired: &State,
        fresh: bool,
        failed: &mut Vec<String>,
    ) -> Result<usize, SyncError> {
        let mut steps = self.steps(desired);
        if !steps.is_empty() && !fresh {
            if let Err(error) = self.look_at_objects(desired) {
                self.forget_objects();
                return Err(error);
            }
            steps = self.steps(desired);
        }
        for step in &steps {
            tracing::info!("{step}");
        }
        match self.kernel.execute(&steps) {
            Ok(()) => steps.iter().for_each(|step| self.known.apply(step)),
            Err(errors) => {
                self.forget_objects();
                self.take_errors(&steps, errors, failed);
            }
        }
        Ok(steps.len())
    }

    /// What fails on pods' links is put off.
    fn take_errors(
        &mut self,
        steps: &[Step],
        errors: Vec<parfait_kernel::Error>,
        failed: &mut Vec<String>,
    ) {
        let on_pods = steps.iter().filter(|step| is_on_pod(step.object()));
        let on_pods: BTreeSet<String> = on_pods.map(ToString::to_string).collect();
        for error in errors {
            match step_of(&error).is_some_and(|step| on_pods.contains(step)) {
                true => self.put_off.push(error.to_string()),
                false => {
                    let text = error.to_string();
                    let errno = error.errno().map(|errno| errno.raw_os_error());
                    let lacking = features::lacking(&text, errno);
                    failed.push(text + &lacking);
                }
            }
        }
    }

    fn sync_tables(
        &mut self,
        desired: &State,
        failed: &mut Vec<String>,
    ) -> Result<usize, SyncError> {
        for _ in 0..TRIES {
            let known = &self.known.tables;
            let merged = self
                .carried
                .as_ref()
                .map(|carried| merge::tables(&carried.tables, &desired.tables, known));
            let steps = nft::diff(known, merged.as_ref().unwrap_or(&desired.tables));
            if steps.is_empty() {
                self.tables_done = true;
                return Ok(0);
            }
            let count = steps.len();
            let phases = nft::phases(steps);
            match self.execute(&phases) {
                Ok(()) => {
                    for step in phases.iter().flatten() {
                        nft::diff::apply(&mut self.known.tables, step);
                    }
                    self.tables_done = true;
                    return Ok(count);
                }
                Err(edge::Error::Changed) => {
                    tracing::info!("another program changed a ruleset meanwhile; looking again");
                    self.read_tables()?;
                }
                Err(error) => {
                    failed.push(refused(&error));
                    return Ok(count);
                }
            }
        }
        self.forget_rules();
        failed.push(edge::Error::Changed.to_string());
        Ok(0)
    }

    /// The transactions of one difference, made for the ruleset that is known.
    fn execute(&mut self, phases: &[Vec<NftStep>]) -> Result<(), edge::Error> {
        for phase in phases {
            for step in phase {
                tracing::debug!("{step}");
            }
            match self.netfilter.execute_at(phase, self.generation) {
                Ok(()) => self.generation = after(self.generation),
                Err(edge::Error::Changed) => return Err(edge::Error::Changed),
                Err(error) => {
                    self.forget_rules();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// A refusal, and what the kernel may lack.
fn refused(error: &edge::Error) -> String {
    let text = error.to_string();
    let errno = error.errno().map(|errno| errno.raw_os_error());
    let lacking = features::lacking(&text, errno);
    text + &lacking
}

fn done(tried: usize, failed: Vec<String>) -> Result<usize, SyncError> {
    match failed.is_empty() {
        true => Ok(tried),
        false => Err(SyncError::Execute { tried, failed }),
    }
}

/// The part of the plan that can be carried out now, and what lies on pods' links of what is there:
/// without the links themselves, which only the CNI plugin makes and removes, and without what lies
/// on those that are not (or not yet, or no longer) the planned pod's.
#[must_use]
pub fn attachable(desired: &State, observed: &State) -> State {
    let there = |name: &IfName| {
        let mac = |state: &State| state.links.get(name).map(|item| item.value.mac);
        // The Ethernet address follows from the pod's IP address: it tells a pod from the next one of
        // the same name.
        mac(observed).is_some() && mac(observed) == mac(desired)
    };
    let keep = |name: &IfName| !is_host_interface(name.as_str()) || there(name);
    let mut state = State {
        links: desired.links.clone(),
        addresses: desired.addresses.clone(),
        routes: desired.routes.clone(),
        neighbours: desired.neighbours.clone(),
        fdb: desired.fdb.clone(),
        sysctls: desired.sysctls.clone(),
        tables: nft::Tables::new(),
    };
    state
        .links
        .retain(|name, _| !is_host_interface(name.as_str()));
    state.neighbours.retain(|(link, _), _| keep(link));
    state
        .routes
        .retain(|key, _| key.link.as_ref().is_none_or(keep));
    state
        .sysctls
        .retain(|key, _| key.link().is_none_or(|link| keep(&link)) && !is_unknown(key, observed));
    state
}

/// The planned settings that this kernel does not have.
pub(crate) fn unknown<'d>(
    desired: &'d State,
    observed: &State,
) -> impl Iterator<Item = &'d Item<Sysctl>> {
    let all = desired.sysctls.iter();
    all.filter(|(key, _)| is_unknown(key, observed))
        .map(|(_, item)| item)
}

/// Whether a setting was looked for in vain, though its interface is there.
fn is_unknown(key: &SysctlKey, observed: &State) -> bool {
    let there = |link: &IfName| observed.links.contains_key(link);
    !observed.sysctls.contains_key(key) && key.link().as_ref().is_none_or(there)
}

fn settings(desired: &State, watched: &BTreeSet<SysctlKey>) -> BTreeSet<SysctlKey> {
    let planned = desired.sysctls.keys();
    planned.chain(watched).cloned().collect()
}

fn steps(observed: &State, desired: &State) -> Vec<Step> {
    let links = OWN_LINKS.iter().filter_map(|name| IfName::new(name).ok());
    let ownership = Ownership::agent(links);
    let mut steps = diff(observed, desired, &ownership);
    for step in &mut steps {
        if let Step::Create(item) = step
            && is_spoiled(&item.value, observed)
        {
            *step = Step::Change(Item::new(item.value.clone(), item.origin.clone()));
        }
    }
    steps
}

/// Whether the CNI plugin made this for the same pod, and it is not what it was or must now be. That
/// is put right in place; the agent removes none of it.
fn is_spoiled(wanted: &Object, observed: &State) -> bool {
    let found = match wanted {
        Object::Route(route) => {
            let slot = (route.destination, route.metric);
            let mut same_slot = observed.routes.values().map(|item| &item.value);
            observed
                .routes
                .get(&route.key())
                .is_some_and(|found| found.value.protocol == RouteProtocol::PARFAIT_CNI)
                && same_slot.all(|r| (r.destination, r.metric) != slot || r.link == route.link)
        }
        Object::Neighbour(neighbour) => observed.neighbours.contains_key(&neighbour.key()),
        _ => false,
    };
    found && is_on_pod(wanted)
}

/// Whether it lies on the node's end of a pod's veth pair.
fn is_on_pod(object: &Object) -> bool {
    let link = match object {
        Object::Route(route) => route.link.as_ref(),
        Object::Neighbour(neighbour) => Some(&neighbour.link),
        _ => None,
    };
    link.is_some_and(|link| is_host_interface(link.as_str()))
}

/// The step that an error is about, as it prints.
fn step_of(error: &parfait_kernel::Error) -> Option<&str> {
    use parfait_kernel::Error;
    match error {
        Error::Step { step, .. }
        | Error::Conflict { step, .. }
        | Error::NoSuchLink { step, .. } => Some(step),
        _ => None,
    }
}

/// The number of the ruleset that a transaction makes (`nf_tables_commit` leaves out 0).
const fn after(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

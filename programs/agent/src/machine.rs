//! [`Machine`]: the kernel of this node, kept equal to a planned [`State`].

use parfait_kernel::nft::NftSocket;
use parfait_kernel::{Kernel, Socket};
use parfait_linux::attachment::is_host_interface;
use parfait_linux::nft;
use parfait_linux::{IfName, Ownership, RouteProtocol, State, diff};

/// The tables that Parfait owns.
const TABLE: &str = "parfait";

/// The links that the agent makes and removes.
const OWN_LINKS: [&str; 1] = [parfait_link::plan::TUNNEL];

/// What went wrong while the kernel was made equal to the plan.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The kernel cannot be asked.
    #[error("observe: {0}")]
    Observe(String),
    /// Some steps failed; the others are done.
    #[error("{} of {tried} steps failed; the first: {}", failed.len(), failed.first().map_or("", String::as_str))]
    Execute {
        /// How many were tried.
        tried: usize,
        /// What failed, and why.
        failed: Vec<String>,
    },
}

/// This node's kernel. It is observed when needed, and remembered between two changes.
pub struct Machine {
    netlink: Socket,
    netfilter: NftSocket,
    /// What the kernel holds, as far as it is known; `None` until it is observed (again).
    known: Option<State>,
}

impl Machine {
    /// Opens the netlink sockets, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open() -> Result<Self, SyncError> {
        let refused = |error: &dyn std::fmt::Display| SyncError::Observe(error.to_string());
        Ok(Self {
            netlink: Socket::open().map_err(|error| refused(&error))?,
            netfilter: NftSocket::open().map_err(|error| refused(&error))?,
            known: None,
        })
    }

    /// Forgets what is known, so that the next sync looks again.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// What the kernel holds: everything Parfait could own, and what it stands on.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn observe(&mut self, desired: &State) -> Result<&State, SyncError> {
        if self.known.is_none() {
            let sysctls: Vec<_> = desired.sysctls.keys().cloned().collect();
            let observed = self.netlink.observe(&sysctls);
            let mut observed = observed.map_err(|error| SyncError::Observe(error.to_string()))?;
            observed.tables = self
                .netfilter
                .observe(|_, name| name == TABLE)
                .map_err(|error| SyncError::Observe(error.to_string()))?
                .tables;
            self.known = Some(observed);
        }
        Ok(self.known.get_or_insert_default())
    }

    /// Makes the kernel equal to the plan. Returns how many steps that took: none if it was.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or steps failed. What is known is then forgotten.
    pub fn sync(&mut self, desired: &State) -> Result<usize, SyncError> {
        let observed = self.observe(desired)?;
        let desired = without_attachments(desired, observed);
        let steps = diff(observed, &desired, &ownership());
        let tables = nft::diff(&observed.tables, &desired.tables);
        let tried = steps.len() + tables.len();
        if tried == 0 {
            return Ok(0);
        }
        for step in &steps {
            tracing::info!("{step}");
        }
        for step in &tables {
            tracing::debug!("{step}");
        }
        let mut failed = Vec::new();
        if let Err(errors) = self.netlink.execute(&steps) {
            failed.extend(errors.iter().map(ToString::to_string));
        }
        if !tables.is_empty()
            && let Err(error) = self.netfilter.execute(&tables)
        {
            failed.push(error.to_string());
        }
        if !failed.is_empty() {
            self.forget();
            return Err(SyncError::Execute { tried, failed });
        }
        if let Some(known) = &mut self.known {
            steps.iter().for_each(|step| known.apply(step));
            tables
                .iter()
                .for_each(|step| nft::diff::apply(&mut known.tables, step));
        }
        Ok(tried)
    }
}

fn ownership() -> Ownership {
    let links = OWN_LINKS.iter().filter_map(|name| IfName::new(name).ok());
    Ownership::agent(links)
}

/// The plan without what only the CNI plugin can make: veth pairs, and what lies on those that are
/// not there. Routes and neighbours on veth pairs that are there are put back if they are lost.
fn without_attachments(desired: &State, observed: &State) -> State {
    let mut desired = desired.clone();
    desired
        .links
        .retain(|name, _| !is_host_interface(name.as_str()));
    let absent =
        |link: &IfName| is_host_interface(link.as_str()) && !observed.links.contains_key(link);
    desired.neighbours.retain(|(link, _), _| !absent(link));
    desired.routes.retain(|key, item| {
        let made_by_plugin = item.value.protocol == RouteProtocol::PARFAIT_CNI;
        !(made_by_plugin && key.link.as_ref().is_some_and(absent))
    });
    desired
}

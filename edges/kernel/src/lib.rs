//! The kernel's edge: carries out [`Step`]s, and observes what a network
//! namespace holds, over netlink.
//!
//! ```text
//!   [Step] ──▶ Kernel::execute ──▶ rtnetlink, /proc/sys, nf_tables
//!   State  ◀── Kernel::observe ◀──┘
//! ```
//!
//! It decides nothing. [`Socket`] is a real network namespace, [`FakeKernel`] one in memory whose
//! system calls can be made to fail; both are a [`Kernel`], so that the agent's loop can be tried
//! without a kernel. So are [`nft::NftSocket`] and [`FakeNetfilter`] both a [`Netfilter`].
//!
//! Promises: a step that is already done succeeds; a step that finds something foreign in its way
//! fails and leaves it; every other step is still tried, and all errors are returned. Blocking, so
//! that the CNI plugin needs no runtime: an async program calls it from a blocking thread.
//!
//! [`nflog`] hands over packets that rules tell of. [`events`] tells that somebody else has changed something, not what: whoever is told looks again.
//!
//! Deliberately absent: shelling out to `ip` or `nft` (only the tests do, to compare).

mod announce;
mod bring_up;
pub mod conntrack;
mod error;
pub mod events;
mod execute;
mod facts;
mod fake;
mod fake_nft;
mod message;
mod netns;
pub mod nflog;
pub mod nft;
mod observe;
pub mod offload;
mod qdisc;
mod remove;
mod socket;
pub mod sysctl;

use parfait_linux::conntrack::Entry;
use parfait_linux::nft::NftStep;
use parfait_linux::{IfName, Offload, State, Step, SysctlKey};

pub use announce::announce;
use conntrack::Filter;
pub use error::Error;
pub use facts::NodeFacts;
pub use fake::{Call, FakeKernel};
pub use fake_nft::FakeNetfilter;
pub use netns::NetNs;
pub use socket::Socket;

/// What the agent needs of a kernel.
pub trait Kernel {
    /// What the namespace holds: its links, addresses, routes of the main table, neighbours,
    /// forwarding entries, and of its settings the listed ones. No nf_tables.
    ///
    /// # Errors
    /// If the kernel cannot be asked. A setting that does not exist is left out.
    fn observe(&mut self, sysctls: &[SysctlKey]) -> Result<State, Error>;

    /// Does the steps in order. A failing one does not keep the others from being tried.
    ///
    /// # Errors
    /// One for each step that failed.
    fn execute(&mut self, steps: &[Step]) -> Result<(), Vec<Error>>;

    /// What this card does with packets inside tunnels. `None` where there is no card to ask.
    fn offload(&mut self, _link: &IfName) -> Option<Offload> {
        None
    }
}

/// What the agent needs of nf_tables and conntrack.
pub trait Netfilter {
    /// The tables of this name, in all families, as they were at one moment.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn observe(&mut self, name: &str) -> Result<nft::Observed, nft::Error>;

    /// One set of the tables of this name, and nothing else of them.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn observe_set(&mut self, table: &str, set: &str) -> Result<nft::Observed, nft::Error>;

    /// The tables of all programs, with the numbers of their rules.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn survey(&mut self) -> Result<(nft::Observed, nft::Handles), nft::Error>;

    /// Does the steps, all or none, if no ruleset has changed since that moment.
    ///
    /// # Errors
    /// [`nft::Error::Changed`] if one has, another if the kernel refuses.
    fn execute_at(&mut self, steps: &[NftStep], generation: u32) -> Result<(), nft::Error>;

    /// The tracked connections that are meant.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn connections(&mut self, filter: &Filter) -> Result<Vec<Entry>, nft::Error>;

    /// Removes a connection, so that its next packet is a first one again. Whether it was still there.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn delete_connection(&mut self, entry: &Entry) -> Result<bool, nft::Error>;
}

impl Netfilter for nft::NftSocket {
    fn observe(&mut self, name: &str) -> Result<nft::Observed, nft::Error> {
        Self::observe(self, |_, table| table == name)
    }

    fn observe_set(&mut self, table: &str, set: &str) -> Result<nft::Observed, nft::Error> {
        Self::observe_set(self, table, set)
    }

    fn survey(&mut self) -> Result<(nft::Observed, nft::Handles), nft::Error> {
        Ok((self.observe_all()?, self.handles()?))
    }

    fn execute_at(&mut self, steps: &[NftStep], generation: u32) -> Result<(), nft::Error> {
        Self::execute_at(self, steps, generation)
    }

    fn connections(&mut self, filter: &Filter) -> Result<Vec<Entry>, nft::Error> {
        Self::connections(self, filter)
    }

    fn delete_connection(&mut self, entry: &Entry) -> Result<bool, nft::Error> {
        Self::delete_connection(self, entry)
    }
}

//! nf_tables over netlink: carries out the steps of [`parfait_linux::nft::diff()`], and reads what the
//! kernel holds back into the same values.
//!
//! ```text
//!   Tables ──diff──▶ [NftStep] ──lower──▶ expressions ──one sendmsg──▶ kernel
//!   Tables ◀─────────────────────raise── expressions ◀───dumps─────────┘
//! ```
//!
//! Promises: a call of [`NftSocket::execute`] is one transaction, all or nothing; what is executed is
//! observed equal; `nft list ruleset` prints it as [`parfait_linux::nft::render`] does; other
//! programs' tables are read, and never written unless a step names them.
//!
//! Deliberately absent: shelling out to `nft`; tables of the families arp, bridge and netdev, which
//! no packet that Parfait routes passes; what nf_tables has besides tables, chains, rules and sets
//! (objects, flowtables): rules that use them are read as opaque. Follows net/netfilter/nf_tables_api.c
//! and libnftnl.

mod ask;
pub(crate) mod attr;
mod counters;
mod element;
mod error;
mod execute;
mod handles;
mod layout;
mod lower;
mod number;
mod observe;
mod raise;
mod set;
mod socket;

use parfait_linux::nft::{Family, NftStep, Tables, diff};

pub use ask::CalledChain;
pub use counters::Counts;
pub use error::Error;
pub use handles::Handles;
pub use observe::{Observed, Remembered};
pub use socket::NftSocket;

pub(crate) use attr::{Attribute, Writer, find};
pub(crate) use layout::address;
pub(crate) use socket::{ACK, DUMP};

/// How often [`NftSocket::reconcile`] tries again when another program changes rules meanwhile.
const TRIES: usize = 5;

impl NftSocket {
    /// Carries out the steps in one transaction.
    ///
    /// # Errors
    /// If the kernel refuses one of them, or one has no form that is written here. Then nothing has
    /// changed (unless the send buffer is too small for all and cannot be enlarged: then the
    /// transactions before have been carried out).
    pub fn execute(&mut self, steps: &[NftStep]) -> Result<(), Error> {
        execute::execute(self, steps, None)
    }

    /// As [`NftSocket::execute`], but only if no ruleset has changed since that observation.
    ///
    /// # Errors
    /// As before, and [`Error::Changed`].
    pub fn execute_at(&mut self, steps: &[NftStep], generation: u32) -> Result<(), Error> {
        execute::execute(self, steps, Some(generation))
    }

    /// Reads the tables that `wanted` picks, by family and name.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or other programs change rules faster than they can be read.
    pub fn observe(&mut self, wanted: impl Fn(Family, &str) -> bool) -> Result<Observed, Error> {
        observe::observe(self, &wanted)
    }

    /// Reads one set of the tables of this name, and nothing else of them.
    ///
    /// # Errors
    /// As [`NftSocket::observe`].
    pub fn observe_set(&mut self, table: &str, set: &str) -> Result<Observed, Error> {
        observe::observe_set(self, table, set)
    }

    /// Reads what packets have added to a map of one table, with how long each element stays yet. Nothing if there is no
    /// such table or map.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn observe_remembered(
        &mut self,
        family: Family,
        table: &str,
        map: &str,
    ) -> Result<Vec<Remembered>, Error> {
        observe::observe_remembered(self, family, table, map)
    }

    /// Reads all tables of the families ip, ip6 and inet.
    ///
    /// # Errors
    /// As [`NftSocket::observe`].
    pub fn observe_all(&mut self) -> Result<Observed, Error> {
        self.observe(|_, _| true)
    }

    /// Makes the tables of this name what is desired, whatever they are now, and leaves all others
    /// alone. Gives the steps that it took; none, if nothing was to do.
    ///
    /// # Errors
    /// As [`NftSocket::observe`] and [`NftSocket::execute`].
    pub fn reconcile(&mut self, name: &str, desired: &Tables) -> Result<Vec<NftStep>, Error> {
        for _ in 0..TRIES {
            let observed = self.observe(|_, table| table == name)?;
            let steps = diff(&observed.tables, desired);
            if steps.is_empty() {
                return Ok(steps);
            }
            match self.execute_at(&steps, observed.generation) {
                Err(Error::Changed) => {}
                done => return done.map(|()| steps),
            }
        }
        Err(Error::Changed)
    }
}

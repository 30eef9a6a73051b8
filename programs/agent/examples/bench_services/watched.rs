//! [`Watched`]: nf_tables, which tell when the first transaction is done, and how long each one takes.

use std::time::Instant;

use parfait_kernel::Netfilter;
use parfait_kernel::conntrack::Filter;
use parfait_kernel::nft::{Error, Handles, NftSocket, Observed};
use parfait_linux::conntrack::Entry;
use parfait_linux::nft::NftStep;

use crate::told::told;

/// The kernel's, in the network namespace of the thread.
pub struct Watched {
    socket: NftSocket,
    waiting: Option<Instant>,
}

impl Watched {
    /// Tells how long after `start` the first transaction is done.
    pub fn open(start: Instant) -> Self {
        Self {
            socket: NftSocket::open().expect("a netlink socket"),
            waiting: Some(start),
        }
    }
}

impl Netfilter for Watched {
    fn observe(&mut self, name: &str) -> Result<Observed, Error> {
        Netfilter::observe(&mut self.socket, name)
    }

    fn observe_set(&mut self, table: &str, set: &str) -> Result<Observed, Error> {
        self.socket.observe_set(table, set)
    }

    fn survey(&mut self) -> Result<(Observed, Handles), Error> {
        self.socket.survey()
    }

    fn execute_at(&mut self, steps: &[NftStep], generation: u32) -> Result<(), Error> {
        let begin = Instant::now();
        self.socket.execute_at(steps, generation)?;
        match self.waiting.take() {
            Some(start) => {
                told("agent-first", start);
                told("agent-first-kernel", begin);
            }
            None => told("agent-kernel", begin),
        }
        Ok(())
    }

    fn connections(&mut self, which: &Filter) -> Result<Vec<Entry>, Error> {
        Netfilter::connections(&mut self.socket, which)
    }

    fn delete_connection(&mut self, entry: &Entry) -> Result<bool, Error> {
        Netfilter::delete_connection(&mut self.socket, entry)
    }
}

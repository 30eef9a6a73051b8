//! [`Server`]: answers at a set of addresses that changes while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{BindError, Names, bind, run};

/// A running server. Addresses that stay are not interrupted when others come and go; dropping it
/// ends all.
pub struct Server {
    names: Arc<Names>,
    tasks: BTreeMap<SocketAddr, JoinHandle<()>>,
}

impl Server {
    /// A server that listens nowhere yet.
    #[must_use]
    pub fn new(names: Arc<Names>) -> Self {
        Self {
            names,
            tasks: BTreeMap::new(),
        }
    }

    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.tasks.keys().copied()
    }

    /// Listens at these addresses and no others. When it returns, those that are gone are free.
    ///
    /// # Errors
    /// The first that could not be bound; all others are served. Calling it again tries again.
    pub async fn listen(&mut self, wanted: &BTreeSet<SocketAddr>) -> Result<(), BindError> {
        let gone = self
            .tasks
            .extract_if(.., |at, task| !wanted.contains(at) || task.is_finished());
        for (_, task) in gone.collect::<Vec<_>>() {
            task.abort();
            // An aborted task has dropped its sockets once it can be joined.
            let _ = task.await;
        }
        let mut result = Ok(());
        for address in wanted {
            if self.tasks.contains_key(address) {
                continue;
            }
            match bind(&[*address]) {
                Ok(sockets) => {
                    let (names, address) = (self.names.clone(), *address);
                    let task = tokio::spawn(async move {
                        if let Err(error) = run(sockets, names).await {
                            tracing::warn!(%address, %error, "DNS ended");
                        }
                    });
                    self.tasks.insert(address, task);
                }
                Err(error) if result.is_ok() => result = Err(error),
                Err(_) => {}
            }
        }
        result
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

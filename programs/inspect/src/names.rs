//! Looking a name up as the sender's resolver would.

use std::net::IpAddr;

use parfait_cluster::{ObjectName, Snapshot};
use parfait_packet::{Hop, Reason};

/// What a look-up gives.
pub(crate) struct LookedUp {
    /// The addresses, in the order of the answer.
    pub(crate) addresses: Vec<IpAddr>,
    /// The Service that the name is of, if it is one's.
    pub(crate) service: Option<ObjectName>,
    /// Every name that was tried, and its answer.
    pub(crate) hops: Vec<Hop>,
    /// Why there is no address, if there is none.
    pub(crate) failure: Option<Reason>,
}

/// Looks a name up for a client in a namespace.
pub(crate) fn look_up(snapshot: &Snapshot, namespace: &str, name: &str) -> LookedUp {
    let _ = (snapshot, namespace, name);
    LookedUp {
        addresses: Vec::new(),
        service: None,
        hops: Vec::new(),
        failure: Some(Reason::NoSuchName),
    }
}

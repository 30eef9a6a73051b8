//! Addresses that were given back, and connections that are left of whoever had them.
//!
//! ```text
//!   attachments/10.244.1.3@4f2c…@eth0 ──DEL──▶ ended/10.244.1.3 ──▶ its connections leave conntrack ──▶ given again
//! ```
//!
//! What belongs to a connection passes the rules unasked (`isolation.rs` of the internet layer), so a pod must not get
//! another's connections with its address. To look through conntrack takes milliseconds even if it is empty, and a
//! second if it is full. So the agent does it after pods have ended, in a time of its own, and ADD only if an
//! address is needed first.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use parfait_kernel::Netfilter;
use parfait_kernel::conntrack::Filter;
use parfait_linux::conntrack::Entry;

use super::store::{Ended, Locked, Store};
use crate::error::Error;

/// Removes what conntrack has of pods that have ended: for the agent. How many connections there were.
///
/// # Errors
/// If the folder cannot be read, or the kernel cannot be asked.
pub fn forget_ended(state_dir: &Path, netfilter: &mut impl Netfilter) -> Result<usize, Error> {
    let store = Store::new(state_dir);
    let ended = store.ended()?;
    if ended.is_empty() {
        return Ok(0);
    }
    let since: Vec<_> = ended.iter().map(Ended::since).collect();
    let entries = netfilter.connections(&Filter::default())?;
    // Only now, because whoever asks for an address waits for it.
    let _lock = Locked::wait(&store.lock())?;
    let mut forgotten = 0;
    for (one, since) in ended.iter().zip(since) {
        // What was given again meanwhile, and has ended again, had other connections.
        if since.is_some() && one.since() == since {
            forgotten += forget(netfilter, &entries, &one.addresses)?;
            let _ = std::fs::remove_file(&one.path);
        }
    }
    Ok(forgotten)
}

/// Removes those of these connections that have one of the addresses at an end. How many.
pub(super) fn forget(
    netfilter: &mut impl Netfilter,
    entries: &[Entry],
    addresses: &BTreeSet<IpAddr>,
) -> Result<usize, Error> {
    let mut forgotten = 0;
    for entry in entries {
        if entry.has_an_end_at(addresses) && netfilter.delete_connection(entry)? {
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

//! Reading the allocations, without any lock: for the agent and for `parfait node status`.

use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::error::Error;
use crate::ipam::Pool;
use crate::ipam::store::Store;
use crate::node::NodeConfig;
use crate::record::Record;

/// The folder whose entries change with every allocation: for inotify(7). A record appears whole
/// (`IN_MOVED_TO`) and goes whole (`IN_MOVED_FROM`). It may not be there yet.
#[must_use]
pub fn folder(state_dir: &Path) -> PathBuf {
    Store::new(state_dir).attachments()
}

/// Every allocation of this node, ordered by address as text. What cannot be read (one damaged file)
/// is told beside the rest, and hides nothing else. Addresses that were found in use without a record
/// are not in it. No folder: nothing is allocated.
///
/// Takes no lock: what is allocated meanwhile is in it or not, but always whole.
///
/// # Errors
/// If the folder cannot be read, or is of a newer version.
pub fn read_all(state_dir: &Path) -> Result<(Vec<Record>, Vec<Error>), Error> {
    let store = Store::new(state_dir);
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    if !store.is_ours()? {
        return Ok((records, errors));
    }
    for name in store.names()? {
        match store.read(&name) {
            Ok(Some(record)) if !name.found() => records.push(record),
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    Ok((records, errors))
}

/// A node's ranges and how much of them is taken: for `parfait node status`.
#[derive(Clone, Debug)]
pub struct Allocations {
    /// In the order in which they are used up; then those that the node had before and that are still in
    /// use stand in `records` alone.
    pub ranges: Vec<RangeUse>,
    /// Every allocation.
    pub records: Vec<Record>,
    /// What could not be read.
    pub errors: Vec<Error>,
}

/// How much of a range is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeUse {
    /// The range.
    pub range: IpNet,
    /// How many addresses pods can have.
    pub size: u128,
    /// How many are taken, those of damaged records and those without a record included.
    pub used: usize,
}

impl RangeUse {
    /// How many are free.
    #[must_use]
    pub fn free(&self) -> u128 {
        self.size.saturating_sub(self.used as u128)
    }
}

/// Reads the ranges and the allocations of a node, without a lock.
///
/// # Errors
/// If the agent has not told the ranges yet, or the folder cannot be read.
pub fn allocations(state_dir: &Path) -> Result<Allocations, Error> {
    let node = NodeConfig::read(state_dir)?;
    let (records, errors) = read_all(state_dir)?;
    let names = Store::new(state_dir).names()?;
    let taken = |range: &IpNet| {
        let addresses = names.iter().flat_map(|name| &name.addresses);
        addresses.filter(|ip| range.contains(*ip)).count()
    };
    let of = |range: &IpNet| RangeUse {
        range: *range,
        size: Pool::size(range),
        used: taken(range),
    };
    Ok(Allocations {
        ranges: node.ranges().iter().map(of).collect(),
        records,
        errors,
    })
}

//! [`Ipam`]: which container has which addresses of the node's ranges.
//!
//! One file, `<stateDir>/ipam/allocations.json`, replaced whole (see `file`) under a lock
//! (flock(2) on `ipam/lock`): killed at any moment, the plugin leaves the old allocations or the new
//! ones. Both families are given and taken back together.
//!
//! What is promised:
//! - an address is given to one container at a time; asking twice for the same container and
//!   interface gives the same addresses;
//! - an address that was given back is not given again before all others of its range were;
//! - `.0` and `.1` of a range are never given (the first is nobody's, the second is the node's own
//!   address in the pod network), nor the last of an IPv4 range;
//! - after a reboot (another `boot_id`) nothing is in use any more: no network namespace outlives
//!   one;
//! - a lost file is rebuilt from what the kernel holds ([`Ipam::adopt`]).
//!
//! Left out: several ranges of one family, and static addresses asked for by a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use parfait_linux::IfName;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::config::AttachmentId;
use crate::error::{Code, Error};
use crate::file::{Hook, replace};

mod read;
#[allow(dead_code, reason = "read_all() uses the half of it that reads")]
mod store;

pub use read::{folder, read_all};

/// What one attachment was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// One address of each range, in the ranges' order.
    pub addresses: Vec<IpAddr>,
    /// The node's end of its veth pair.
    pub interface: String,
    /// The pod, `namespace/name`, or the container; for people.
    #[serde(rename = "for")]
    pub purpose: String,
}

impl Allocation {
    /// The node's end of the veth pair, if the file names a valid one.
    #[must_use]
    pub fn interface(&self) -> Option<IfName> {
        IfName::new(&self.interface).ok()
    }
}

/// What is in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Allocations {
    /// The boot in which these were given.
    boot: String,
    /// The address of each range that was given last.
    last: BTreeMap<String, IpAddr>,
    /// By container and interface.
    attachments: BTreeMap<String, Allocation>,
}

/// The name under which addresses stand that were found in use without an allocation.
const ADOPTED: &str = "(adopted)";

/// The allocations of a node, locked while this value lives.
pub struct Ipam<'a> {
    path: PathBuf,
    hook: Hook<'a>,
    allocations: Allocations,
    /// Nothing was allocated ever, or the file was lost.
    fresh: bool,
    /// Held until this value goes.
    _lock: File,
}

impl std::fmt::Debug for Ipam<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.allocations.fmt(f)
    }
}

impl<'a> Ipam<'a> {
    /// Waits for the lock, and reads the allocations. `boot` names the running boot.
    ///
    /// # Errors
    /// If the files cannot be made or read, or hold something else.
    pub fn open(state_dir: &Path, boot: &str, hook: Hook<'a>) -> Result<Self, Error> {
        let folder = state_dir.join("ipam");
        std::fs::create_dir_all(&folder).map_err(|error| Error::file("making", &folder, &error))?;
        let lock = folder.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(|error| Error::file("opening", &lock, &error))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| Error::file("locking", &lock, &errno.into()))?;
        let path = folder.join("allocations.json");
        let (mut allocations, fresh) = read(&path)?;
        if allocations.boot != boot {
            allocations.attachments.clear();
            boot.clone_into(&mut allocations.boot);
        }
        Ok(Self {
            path,
            hook,
            allocations,
            fresh,
            _lock: file,
        })
    }

    /// Whether there is no record of anything: then what is in use should be [adopted](Self::adopt).
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Takes note of an address that the kernel routes to a pod, and that no allocation names.
    pub fn adopt(&mut self, interface: &IfName, address: IpAddr) {
        let id = format!("{ADOPTED}/{interface}");
        let adopted = self
            .allocations
            .attachments
            .entry(id)
            .or_insert_with(|| Allocation {
                addresses: Vec::new(),
                interface: interface.to_string(),
                purpose: "found in use".to_owned(),
            });
        if !adopted.addresses.contains(&address) {
            adopted.addresses.push(address);
        }
    }

    /// What an attachment was given.
    #[must_use]
    pub fn find(&self, id: &AttachmentId) -> Option<&Allocation> {
        self.allocations.attachments.get(&id.to_string())
    }

    /// Gives an attachment one address of each range, and writes that down. What it has already stays.
    ///
    /// # Errors
    /// If a range is exhausted, or the file cannot be written. Then nothing was given.
    pub fn allocate(
        &mut self,
        id: &AttachmentId,
        ranges: &[IpNet],
        interface: &IfName,
        purpose: &str,
    ) -> Result<Allocation, Error> {
        if let Some(given) = self.find(id)
            && given.addresses.len() == ranges.len()
            && ranges
                .iter()
                .zip(&given.addresses)
                .all(|(range, ip)| range.contains(ip))
        {
            return Ok(given.clone());
        }
        let mut next = self.allocations.clone();
        next.attachments.remove(&id.to_string());
        // The interface is this attachment's now; whoever had it before is gone.
        next.attachments.remove(&format!("{ADOPTED}/{interface}"));
        let used: BTreeSet<_> = next
            .attachments
            .values()
            .flat_map(|given| &given.addresses)
            .collect();
        let addresses = ranges
            .iter()
            .map(|range| {
                let last = next.last.get(&range.to_string()).copied();
                free(range, last, &used).ok_or_else(|| exhausted(range, used.len()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        for (range, address) in ranges.iter().zip(&addresses) {
            next.last.insert(range.to_string(), *address);
        }
        let allocation = Allocation {
            addresses,
            interface: interface.to_string(),
            purpose: purpose.to_owned(),
        };
        next.attachments.insert(id.to_string(), allocation.clone());
        self.write(next)?;
        Ok(allocation)
    }

    /// Takes back what an attachment was given; nothing if it has nothing.
    ///
    /// # Errors
    /// If the file cannot be written. Then nothing was taken back.
    pub fn release(&mut self, id: &AttachmentId) -> Result<(), Error> {
        self.release_keys(&[id.to_string()])
    }

    /// The attachments that are not in use any more, by what the runtime says. Adopted ones are
    /// unknown to the runtime; the caller must look whether their interface is there.
    pub fn unused<'s>(
        &'s self,
        valid: &'s BTreeSet<AttachmentId>,
    ) -> impl Iterator<Item = (&'s str, &'s Allocation, bool)> {
        let valid: BTreeSet<_> = valid.iter().map(ToString::to_string).collect();
        self.allocations
            .attachments
            .iter()
            .filter(move |(key, _)| !valid.contains(*key))
            .map(|(key, given)| (key.as_str(), given, key.starts_with(ADOPTED)))
    }

    /// Takes back what these have (keys as [`Ipam::unused`] names them).
    ///
    /// # Errors
    /// If the file cannot be written. Then nothing was taken back.
    pub fn release_keys(&mut self, keys: &[String]) -> Result<(), Error> {
        let mut next = self.allocations.clone();
        let before = next.attachments.len();
        next.attachments.retain(|key, _| !keys.contains(key));
        if next.attachments.len() == before {
            return Ok(());
        }
        self.write(next)
    }

    fn write(&mut self, next: Allocations) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(&next)
            .map_err(|error| Error::new(Code::Io, format!("writing the allocations: {error}")))?;
        replace(&self.path, text.as_bytes(), self.hook)?;
        self.allocations = next;
        self.fresh = false;
        Ok(())
    }
}

/// The allocations, and whether there is no file.
fn read(path: &Path) -> Result<(Allocations, bool), Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok((Allocations::default(), true));
        }
        Err(error) => return Err(Error::file("reading", path, &error)),
    };
    let allocations = serde_json::from_str(&text).map_err(|error| {
        Error::new(Code::Io, format!("{} is damaged: {error}", path.display()))
            .advise("Move the file away: the allocations are then rebuilt from the node's routes.")
    })?;
    Ok((allocations, false))
}

/// The first free address after the last one given, around the end of the range.
fn free(range: &IpNet, last: Option<IpAddr>, used: &BTreeSet<&IpAddr>) -> Option<IpAddr> {
    let (first, end) = bounds(range)?;
    let start = match last.map(number) {
        Some(last) if (first..end).contains(&last) => last + 1,
        _ => first,
    };
    // No more than one address is skipped for each that is in use.
    let most = u128::try_from(used.len()).ok()? + 1;
    let after = start..=end.min(start.saturating_add(most));
    let before = first..=end.min(first.saturating_add(most));
    after
        .chain(before)
        .map(|candidate| address(candidate, range))
        .find(|candidate| !used.contains(candidate))
}

/// The first and last number that may be given: neither `.0`, `.1`, nor the IPv4 broadcast address.
fn bounds(range: &IpNet) -> Option<(u128, u128)> {
    let first = number(range.network()).checked_add(2)?;
    let last = number(range.broadcast());
    let last = match range {
        IpNet::V4(_) => last.checked_sub(1)?,
        IpNet::V6(_) => last,
    };
    (first <= last).then_some((first, last))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(number: u128, range: &IpNet) -> IpAddr {
    match range {
        // Numbers come from within the range, so that they fit its family.
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

fn exhausted(range: &IpNet, used: usize) -> Error {
    Error::new(
        Code::Exhausted,
        format!("no address is left in this node's pod CIDR {range} ({used} addresses are in use)"),
    )
    .advise(
        "Delete pods from this node, or give nodes larger ranges (the controller manager's --node-cidr-mask-size).",
    )
}

#[cfg(test)]
mod tests;

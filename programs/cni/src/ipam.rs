//! [`Ipam`]: which container has which addresses of the node's ranges.
//!
//! ```text
//!   lock ─▶ read the names ─▶ choose (pool) ─▶ write the record ─▶ unlock ─▶ fsync ─▶ attach
//! ```
//!
//! What is promised, however and whenever a plugin is killed, and tested against a model:
//! - an address is given to one container at a time; asking twice for the same container and
//!   interface gives the same addresses;
//! - it is on the disk before it is answered;
//! - an address that was given back is not given again before all others of its range were, nor while conntrack has
//!   connections of whoever had it;
//! - nothing of a live attachment is given to another: an address that is routed to an interface is
//!   not given, record or not; the first call after a boot, one that meets such an address, and each GC
//!   hold the records against what the kernel has. What is there without a record gets one; records of
//!   earlier boots whose interface is gone are taken back; GC takes back what the runtime does not
//!   list;
//! - an exhausted range first takes back what is provably dead: nobody works on it, the interface and
//!   the routes are gone, and so is the network namespace, or the boot was another;
//! - a damaged file reserves what its name says, and stands in nobody else's way; a folder written by a
//!   newer parfait is not touched.
//!
//! DEL is not synced: if a machine loses power right then, the record is back and of an earlier boot.

mod ended;
mod pool;
mod read;
mod reality;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use parfait_linux::IfName;
use serde::{Deserialize, Serialize};

use crate::config::AttachmentId;
use crate::error::{Code, Error};
use crate::file::{self, Hook, Moment};
use crate::record::Record;

use pool::{Last, Taken};
use store::{FOUND, Locked, Name, Store};

pub use ended::forget_ended;
pub use pool::Pool;
pub use read::{Allocations, RangeUse, allocations, folder, read_all};
pub use reality::{Reality, Seen};

/// The longest name of a file on Linux's file systems, in bytes (`NAME_MAX`).
const LONGEST_NAME: usize = 255;

/// The allocations of a node.
pub struct Ipam<'a> {
    store: Store,
    boot: String,
    hook: Hook<'a>,
}

/// What would be found again if it were lost.
#[derive(Default, Serialize, Deserialize)]
struct Hint {
    /// The boot in which the records were last held against the kernel.
    boot: String,
    /// The address of each range that was given last.
    last: Last,
}

/// What an attachment was given. While this lives nobody takes it for dead.
#[derive(Debug)]
pub struct Given {
    /// The record, with the addresses.
    pub record: Record,
    /// What was noticed and repaired on the way, for the log.
    pub notes: Vec<String>,
    path: PathBuf,
    /// The attachment had these addresses before this call.
    kept: bool,
    /// Files of the same attachment with other addresses. Their interface may still be there.
    replaced: Vec<(PathBuf, Locked)>,
    lock: Locked,
}

impl Given {
    /// To be called when it is attached: what the attachment had before is free now.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn attached(self) -> Result<Record, Error> {
        for (path, _lock) in &self.replaced {
            remove(path, &|_| {})?;
        }
        Ok(self.record)
    }

    /// To be called when it could not be attached, and nothing of it is there. What the attachment had
    /// before this call stays for DEL.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn take_back(self) -> Result<(), Error> {
        if self.kept {
            return Ok(());
        }
        remove(&self.path, &|_| {})
    }
}

impl<'a> Ipam<'a> {
    /// `boot` names the running boot.
    #[must_use]
    pub fn new(state_dir: &Path, boot: &str, hook: Hook<'a>) -> Self {
        Self {
            store: Store::new(state_dir),
            boot: boot.to_owned(),
            hook,
        }
    }

    /// Whether addresses could be given.
    ///
    /// # Errors
    /// If the folder cannot be made, written or read, or is of a newer version.
    pub fn check(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        self.store.names().map(drop)
    }

    /// What an attachment was given.
    ///
    /// # Errors
    /// If the folder or the record cannot be read.
    pub fn find(&self, id: &AttachmentId) -> Result<Option<Record>, Error> {
        self.store.is_ours()?;
        let names = self.store.names()?;
        let name = names.iter().find(|name| name.id == *id);
        name.map_or(Ok(None), |name| self.store.read(name))
    }

    /// Gives an attachment one address of each family, those in `wanted.addresses` if there are any.
    /// What it has already stays if it fits. On the disk when this returns.
    ///
    /// # Errors
    /// If no such address is free, another call for this attachment is under way, or a file cannot be
    /// read or written. Then nothing was given.
    pub fn allocate(
        &self,
        wanted: Record,
        pool: &Pool,
        reality: &mut dyn Reality,
    ) -> Result<Given, Error> {
        let lock = self.lock()?;
        let mut hint = self.hint();
        let mut notes = Vec::new();
        if hint.boot != self.boot {
            self.reconcile(reality, &mut notes)?;
            hint.boot.clone_from(&self.boot);
        }
        let mut names = self.store.names()?;
        let mut own = self.own(&wanted.id, &mut names)?;
        let fits = |name: &Name| {
            pool.fits(&name.addresses)
                && wanted
                    .addresses
                    .iter()
                    .all(|ip| name.addresses.contains(ip))
        };
        let kept = own.iter().position(|(name, _)| fits(name));
        let addresses = match kept {
            Some(position) => own.swap_remove(position).0.addresses,
            None => {
                let (wished, last) = (&wanted.addresses, &hint.last);
                let chosen = self.choose(wished, pool, &names, last, reality, &mut notes)?;
                if is_routed(&chosen, &own, reality)? {
                    // Somebody has removed the record of what is there.
                    self.reconcile(reality, &mut notes)?;
                    names = self.store.names()?;
                    names.retain(|name| name.id != wanted.id);
                    self.choose(wished, pool, &names, last, reality, &mut notes)?
                } else {
                    chosen
                }
            }
        };
        if kept.is_none() {
            self.forget(&wanted.interface, &addresses, reality, &mut notes)?;
        }
        pool.note(&addresses, &mut hint.last);
        let record = Record {
            addresses,
            boot: self.boot.clone(),
            ..wanted
        };
        self.write_hint(&hint)?;
        let (path, own_lock) = self.write(&record)?;
        drop(lock);
        let replaced = own
            .into_iter()
            .map(|(name, lock)| (self.store.path(&name), lock));
        let given = Given {
            record,
            notes,
            path,
            kept: kept.is_some(),
            replaced: replaced.collect(),
            lock: own_lock,
        };
        match self.sync(&given) {
            Ok(()) => Ok(given),
            Err(error) => {
                let _ = given.take_back();
                Err(error)
            }
        }
    }

    /// Ends the connections of whoever had these addresses before, under the lock. Conntrack is looked through once for
    /// all that have ended: it takes milliseconds on an empty table, and the agent does the same before it is needed.
    /// If the agent has not, it may know that pod still: one of the same name, at the same interface, is another.
    fn forget(
        &self,
        interface: &IfName,
        addresses: &[IpAddr],
        reality: &mut dyn Reality,
        notes: &mut Vec<String>,
    ) -> Result<(), Error> {
        let ended = self.store.ended()?;
        let had = ended.iter().flat_map(|one| &one.addresses);
        let had: BTreeSet<IpAddr> = had.copied().collect();
        if !addresses.iter().any(|address| had.contains(address)) {
            return Ok(());
        }
        // Before the record is written, from which the agent knows the next one.
        reality.isolate(interface, addresses)?;
        if let Err(error) = reality.forget(&had) {
            // A kernel that cannot be asked for connections has pods all the same.
            notes.push(format!("connections of earlier pods may be left: {error}"));
            return Ok(());
        }
        for one in ended {
            let _ = std::fs::remove_file(one.path);
        }
        Ok(())
    }

    /// Takes out the names that are this attachment's own, locked.
    fn own(&self, id: &AttachmentId, names: &mut Vec<Name>) -> Result<Vec<(Name, Locked)>, Error> {
        let mut own = Vec::new();
        for name in names.extract_if(.., |name| name.id == *id) {
            match Locked::at_once(&self.store.path(&name))? {
                Some(Some(lock)) => own.push((name, lock)),
                Some(None) => {}
                None => {
                    let message = format!("another call for {id} is under way");
                    return Err(Error::new(Code::TryAgainLater, message)
                        .advise("A runtime sends one command for a container at a time."));
                }
            }
        }
        Ok(own)
    }

    /// Chooses addresses; if there are none, after taking back what is dead.
    fn choose(
        &self,
        wished: &[IpAddr],
        pool: &Pool,
        names: &[Name],
        last: &Last,
        reality: &mut dyn Reality,
        notes: &mut Vec<String>,
    ) -> Result<Vec<IpAddr>, Error> {
        let choose = |names: &[Name]| {
            let owners = names
                .iter()
                .flat_map(|name| name.addresses.iter().map(move |ip| (*ip, name)));
            let taken = Taken {
                owners: owners.collect(),
                describe: &|name| self.describe(name),
            };
            pool.choose(wished, &taken, last)
        };
        let error = match choose(names) {
            Err(error) if matches!(error.code, Code::Exhausted | Code::TryAgainLater) => error,
            chosen => return chosen,
        };
        let seen = reality.look()?;
        let mut left = Vec::new();
        for name in names {
            let why = "its interface and its network namespace are gone";
            if !(self.is_dead(name, &seen) && self.take_back(name, why, notes)?) {
                left.push(name.clone());
            }
        }
        if left.len() == names.len() {
            return Err(error);
        }
        choose(&left)
    }

    /// Whether an attachment is provably gone. What cannot be read proves nothing.
    fn is_dead(&self, name: &Name, seen: &Seen) -> bool {
        if seen.has(&name.addresses) {
            return false;
        }
        match self.store.read(name) {
            Ok(Some(record)) => {
                let netns = record.netns.as_ref().filter(|_| record.boot == self.boot);
                netns.is_none_or(|path| !path.exists())
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Removes a record unless somebody works on it; `false` if so.
    fn take_back(&self, name: &Name, why: &str, notes: &mut Vec<String>) -> Result<bool, Error> {
        let path = self.store.path(name);
        let Some(lock) = Locked::at_once(&path)? else {
            return Ok(false);
        };
        if lock.is_some() {
            notes.push(format!("taken back from {}: {why}", self.describe(name)));
            remove(&path, self.hook)?;
        }
        Ok(true)
    }

    /// Holds the records against the kernel, under the lock: what is there without a record gets one,
    /// and what is of another boot and gone is taken back.
    fn reconcile(&self, reality: &mut dyn Reality, notes: &mut Vec<String>) -> Result<(), Error> {
        let seen = reality.look()?;
        let mut known = BTreeSet::new();
        for name in self.store.names()? {
            let gone = match self.store.read(&name) {
                Ok(None) => continue,
                Err(error) if error.code == Code::NotAvailable => return Err(error),
                _ if seen.has(&name.addresses) => None,
                Ok(Some(record)) if record.boot == self.boot => None,
                Ok(Some(_)) => Some("it was given before the machine started".to_owned()),
                // Cut short when the machine lost power: nothing of it is there any more.
                Err(error) => Some(format!("nothing of it is there, and {}", error.message)),
            };
            let left = match gone {
                Some(why) => !self.take_back(&name, &why, notes)?,
                None => true,
            };
            if left {
                known.extend(name.addresses);
            }
        }
        for (interface, addresses) in seen.others(&known) {
            notes.push(format!(
                "{addresses:?} is routed to {interface}, but nobody has it: it stays taken while the interface is there"
            ));
            self.write(&Record {
                id: AttachmentId {
                    container: FOUND.to_owned(),
                    ifname: interface.to_string(),
                },
                network: String::new(),
                pod: None,
                interface: interface.clone(),
                addresses,
                mac: None,
                port_mappings: Vec::new(),
                bandwidth: None,
                netns: None,
                boot: self.boot.clone(),
            })?;
        }
        Ok(())
    }

    /// Detaches an attachment, and takes back what it was given. Waits while somebody else works on
    /// it. Nothing happens if there is nothing; whether there was.
    ///
    /// # Errors
    /// If the kernel refuses, or a file cannot be read or removed. Then the addresses stay taken.
    pub fn release(&self, id: &AttachmentId, reality: &mut dyn Reality) -> Result<bool, Error> {
        self.store.is_ours()?;
        let mut found = false;
        for name in self.store.names()?.iter().filter(|name| name.id == *id) {
            if let Some(_lock) = Locked::existing(&self.store.path(name))? {
                self.detach(name, reality)?;
                found = true;
            }
        }
        Ok(found)
    }

    /// Detaches all that the runtime does not list, of this network and of those unknown, and holds the
    /// records against the kernel. Tries all; returns what it did.
    ///
    /// # Errors
    /// All errors in one.
    pub fn collect(
        &self,
        network: &str,
        valid: &BTreeSet<AttachmentId>,
        reality: &mut dyn Reality,
    ) -> Result<Vec<String>, Error> {
        let mut notes = Vec::new();
        {
            let _lock = self.lock()?;
            self.reconcile(reality, &mut notes)?;
            let boot = self.boot.clone();
            self.write_hint(&Hint {
                boot,
                ..self.hint()
            })?;
        }
        let seen = reality.look()?;
        let mut errors = Vec::new();
        for name in self.store.names()? {
            let done = self.collect_one(&name, network, valid, &seen, reality);
            match done {
                Ok(true) => notes.push(format!("collected {}", name.id)),
                Ok(false) => {}
                Err(error) => errors.push(error.to_string()),
            }
        }
        match &errors[..] {
            [] => Ok(notes),
            errors => Err(Error::new(Code::Io, errors.join("; "))),
        }
    }

    fn collect_one(
        &self,
        name: &Name,
        network: &str,
        valid: &BTreeSet<AttachmentId>,
        seen: &Seen,
        reality: &mut dyn Reality,
    ) -> Result<bool, Error> {
        // The runtime may know the pod of such addresses by a name that we do not.
        let unknown = name.found() && seen.has(&name.addresses);
        if valid.contains(&name.id) || unknown {
            return Ok(false);
        }
        let Some(Some(_lock)) = Locked::at_once(&self.store.path(name))? else {
            return Ok(false);
        };
        match self.store.read(name) {
            Ok(Some(record)) if !["", network].contains(&record.network.as_str()) => Ok(false),
            Err(error) if error.code == Code::NotAvailable => Err(error),
            _ => self.detach(name, reality).map(|()| true),
        }
    }

    /// First the interface, then the record: a record is what finds an interface again.
    fn detach(&self, name: &Name, reality: &mut dyn Reality) -> Result<(), Error> {
        let interface = match self.store.read(name) {
            Ok(record) => record.map(|record| record.interface),
            Err(error) if error.code == Code::NotAvailable => return Err(error),
            // Damaged, but its addresses lead to it.
            Err(_) => reality.look()?.interface(&name.addresses).cloned(),
        };
        if let Some(interface) = interface {
            reality.detach(&interface, &name.addresses)?;
        }
        remove(&self.store.path(name), self.hook)
    }

    /// Who has something, for people.
    fn describe(&self, name: &Name) -> String {
        match self.store.read(name) {
            Ok(Some(Record { pod: Some(pod), .. })) => format!("Pod {pod} ({})", name.id),
            _ => format!("container {}", name.id),
        }
    }

    fn lock(&self) -> Result<Locked, Error> {
        let folder = self.store.attachments();
        let made = std::fs::create_dir_all(&folder);
        made.map_err(|error| Error::file("making", &folder, &error))?;
        let lock = Locked::wait(&self.store.lock())?;
        if !self.store.is_ours()? {
            for name in self.store.names()? {
                self.store.read(&name)?;
            }
            let version = format!("{}\n", store::VERSION);
            file::replace(&self.store.version(), version.as_bytes(), self.hook)?;
        }
        Ok(lock)
    }

    fn hint(&self) -> Hint {
        let text = std::fs::read_to_string(self.store.hint()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn write_hint(&self, hint: &Hint) -> Result<(), Error> {
        let text = serde_json::to_string(hint)
            .map_err(|error| Error::new(Code::Io, format!("writing a hint: {error}")))?;
        let beside = self.store.beside();
        file::write(&beside, text.as_bytes(), self.hook)?;
        file::rename(&beside, &self.store.hint(), self.hook)
    }

    /// Writes a record under the lock; it is not on the disk yet. With its own lock.
    fn write(&self, record: &Record) -> Result<(PathBuf, Locked), Error> {
        let name = Name {
            addresses: record.addresses.clone(),
            id: record.id.clone(),
        };
        let length = name.to_string().len();
        if length > LONGEST_NAME {
            let most = LONGEST_NAME.saturating_sub(length - name.id.container.len());
            let message = format!("CNI_CONTAINERID is longer than {most} bytes");
            return Err(Error::new(Code::InvalidEnvironment, message)
                .advise("A file is named by it: use a shorter one."));
        }
        let (beside, path) = (self.store.beside(), self.store.path(&name));
        let file = file::write(&beside, Store::text(record)?.as_bytes(), self.hook)?;
        let lock = Locked::new(file, &beside)?;
        file::rename(&beside, &path, self.hook)?;
        Ok((path, lock))
    }

    /// Outside of the lock: many wait for the disk together.
    fn sync(&self, given: &Given) -> Result<(), Error> {
        file::sync(given.lock.file(), &given.path)?;
        file::sync_folder_of(&given.path)?;
        (self.hook)(Moment::Synced);
        Ok(())
    }
}

/// Whether one of them leads to somebody else's interface.
fn is_routed(
    addresses: &[IpAddr],
    own: &[(Name, Locked)],
    reality: &mut dyn Reality,
) -> Result<bool, Error> {
    for address in addresses {
        let known = own.iter().any(|(name, _)| name.addresses.contains(address));
        if !known && reality.is_routed(*address)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remove(path: &Path, hook: Hook<'_>) -> Result<(), Error> {
    match store::end(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("removing", path, &error))
        }
        _ => {
            hook(Moment::Removed);
            Ok(())
        }
    }
}

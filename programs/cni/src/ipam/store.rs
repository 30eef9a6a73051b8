//! The folder: one file for each attachment, named by what it reserves and for whom.
//!
//! ```text
//!   <stateDir>/ipam/version                                              1
//!   <stateDir>/ipam/lock                                                 flock(2), one chooses at a time
//!   <stateDir>/ipam/hint.json                                            last addresses, last boot
//!   <stateDir>/ipam/attachments/10.244.1.2,fd00::2@4f2c…@eth0            a Record
//!   <stateDir>/ipam/ended/10.244.1.3,fd00::3                             given back, connections may be left
//! ```
//!
//! The name alone says which addresses are taken: choosing one reads no file, and a damaged file
//! still reserves what it reserved. One file each, because then several plugins wait for the disk
//! together: ext4 and XFS commit what is waiting at once.
//!
//! The lock of an attachment's own file (flock(2)) says that somebody works on that attachment now;
//! the kernel lets go of it however the plugin ends.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::config::AttachmentId;
use crate::error::{Code, Error};
use crate::record::Record;

/// The version of the folder's layout and of the records in it. A change that an older plugin would
/// misunderstand makes it one more.
pub(super) const VERSION: u32 = 1;

/// The container of addresses that were found in use without a record. No runtime's container is
/// called so: those start with a letter or digit.
pub(super) const FOUND: &str = "(found)";

/// What a file's name says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// The addresses it reserves.
    pub addresses: Vec<IpAddr>,
    /// For whom.
    pub id: AttachmentId,
}

impl Name {
    /// Parses it. Neither an address nor a container's name has an `@`.
    pub fn parse(text: &str) -> Option<Self> {
        let (addresses, id) = text.split_once('@')?;
        let (container, ifname) = id.split_once('@')?;
        let addresses = addresses.split(',').map(str::parse);
        Some(Self {
            addresses: addresses.collect::<Result<_, _>>().ok()?,
            id: AttachmentId {
                container: container.to_owned(),
                ifname: ifname.to_owned(),
            },
        })
    }

    /// Whether these addresses were found in use, and nobody knows whose they are.
    pub fn found(&self) -> bool {
        self.id.container == FOUND
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let Self { id, .. } = self;
        write!(f, "{}@{}@{}", addresses.join(","), id.container, id.ifname)
    }
}

/// The paths.
#[derive(Clone, Debug)]
pub(super) struct Store {
    folder: PathBuf,
}

/// A record as its file has it.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    record: T,
}

impl Store {
    pub fn new(state_dir: &Path) -> Self {
        Self {
            folder: state_dir.join("ipam"),
        }
    }

    pub fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }

    pub fn hint(&self) -> PathBuf {
        self.folder.join("hint.json")
    }

    pub fn version(&self) -> PathBuf {
        self.folder.join("version")
    }

    /// Where a record is written before it gets its name; only under the lock.
    pub fn beside(&self) -> PathBuf {
        self.folder.join("new")
    }

    pub fn attachments(&self) -> PathBuf {
        self.folder.join("attachments")
    }

    /// What was given back and may have connections left.
    pub fn ended(&self) -> Result<Vec<Ended>, Error> {
        let folder = self.folder.join(ENDED);
        let failed = |error| Error::file("reading", &folder, &error);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut ended = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            ended.push(Ended {
                addresses: name.split(',').filter_map(|ip| ip.parse().ok()).collect(),
                path,
            });
        }
        Ok(ended)
    }

    pub fn path(&self, name: &Name) -> PathBuf {
        self.attachments().join(name.to_string())
    }

    /// Whether the folder is of this version. `false` if there is none yet.
    ///
    /// # Errors
    /// If it is of a newer one, or does not say.
    pub fn is_ours(&self) -> Result<bool, Error> {
        let path = self.version();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::file("reading", &path, &error)),
        };
        match text.trim().parse::<u32>() {
            Ok(VERSION) => Ok(true),
            Ok(newer) if newer > VERSION => Err(written_by_newer(&path, newer)),
            _ => {
                let message = format!(
                    "{}, line 1: {:?} is no version: the file is damaged",
                    path.display(),
                    text.trim()
                );
                Err(Error::new(Code::Io, message).advise(format!(
                    "Check the disk. This parfait writes {VERSION}: if no newer one ever ran here, remove the file; the allocations beside it stay."
                )))
            }
        }
    }

    /// All names, in their order. A file that is not ours is an error: it may reserve something.
    pub fn names(&self) -> Result<Vec<Name>, Error> {
        let folder = self.attachments();
        let failed = |error| Error::file("reading", &folder, &error);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(failed)?.file_name();
            let name = file.to_str().and_then(Name::parse).ok_or_else(|| {
                let path = folder.join(&file);
                Error::new(
                    Code::Io,
                    format!("{} is no allocation of parfait's", path.display()),
                )
                .advise("Move it away: names in this folder are ADDRESSES@CONTAINER@INTERFACE.")
            })?;
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    /// The record of this name; `None` if it is gone.
    pub fn read(&self, name: &Name) -> Result<Option<Record>, Error> {
        let path = self.path(name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("reading", &path, &error)),
        };
        parse(&text, &path, name).map(Some)
    }

    /// The content of a record's file.
    pub fn text(record: &Record) -> Result<String, Error> {
        let version = VERSION;
        let text = serde_json::to_string(&Versioned { version, record });
        text.map(|text| text + "\n")
            .map_err(|error| Error::new(Code::Io, format!("writing an allocation: {error}")))
    }
}

/// Addresses that were given back together.
#[derive(Debug)]
pub(super) struct Ended {
    pub addresses: BTreeSet<IpAddr>,
    /// The file that says so.
    pub path: PathBuf,
}

impl Ended {
    /// The file's number and when it was renamed: the same addresses may have ended again. `None` if it is gone.
    pub fn since(&self) -> Option<(u64, i64, i64)> {
        let metadata = std::fs::metadata(&self.path).ok()?;
        Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
    }
}

/// The folder of [`Store::ended`].
const ENDED: &str = "ended";

/// Takes a record away: in one step its addresses are free, and noted as ended.
pub(super) fn end(record: &Path) -> std::io::Result<()> {
    let name = record.file_name().unwrap_or_default().to_string_lossy();
    let addresses = name.split('@').next().unwrap_or_default();
    let folder = record.ancestors().nth(2).unwrap_or(record).join(ENDED);
    let ended = folder.join(addresses);
    match std::fs::rename(record, &ended) {
        Err(error) if error.kind() == ErrorKind::NotFound && !folder.exists() => {
            std::fs::create_dir_all(&folder)?;
            std::fs::rename(record, &ended)
        }
        done => done,
    }
}

fn parse(text: &str, path: &Path, name: &Name) -> Result<Record, Error> {
    let damaged = |line: usize, why: &str| {
        let message = format!(
            "{}, line {line}: {why}: the file is damaged",
            path.display()
        );
        Error::new(Code::Io, message).advise(format!(
            "Its addresses stay taken, and DEL and GC still work: delete the pod of container {}. Check the disk.",
            name.id.container
        ))
    };
    let versioned: Versioned<serde_json::Value> =
        serde_json::from_str(text).map_err(|error| damaged(error.line(), &error.to_string()))?;
    if versioned.version > VERSION {
        return Err(written_by_newer(path, versioned.version));
    }
    let record: Record =
        serde_json::from_value(versioned.record).map_err(|error| damaged(1, &error.to_string()))?;
    if record.id != name.id || record.addresses != name.addresses {
        return Err(damaged(1, "it does not say what its name says"));
    }
    Ok(record)
}

fn written_by_newer(path: &Path, version: u32) -> Error {
    let message = format!(
        "{} was written by a newer parfait (version {version}; this one knows {VERSION})",
        path.display()
    );
    Error::new(Code::NotAvailable, message).advise(
        "Install that parfait again. To go back to this one, drain the node, stop its kubelet, remove the folder ipam, and start the kubelet.",
    )
}

/// A file's lock, held while this lives.
#[derive(Debug)]
pub(super) struct Locked {
    file: File,
}

impl Locked {
    /// Waits for the lock of a file, which is made if need be.
    pub fn wait(path: &Path) -> Result<Self, Error> {
        let opened = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        let file = opened.map_err(|error| Error::file("opening", path, &error))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| Error::file("locking", path, &errno.into()))?;
        Ok(Self { file })
    }

    /// The lock of a file that was just made, and that nobody else can know of.
    pub fn new(file: File, path: &Path) -> Result<Self, Error> {
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| Error::file("locking", path, &errno.into()))?;
        Ok(Self { file })
    }

    /// The lock of a file that is there: `None` if it is gone, or went while this waited.
    pub fn existing(path: &Path) -> Result<Option<Self>, Error> {
        Self::open(path, FlockOperation::LockExclusive).map(|found| found.flatten())
    }

    /// As [`existing`](Self::existing), without waiting: `Some(None)` is gone, `None` is busy.
    pub fn at_once(path: &Path) -> Result<Option<Option<Self>>, Error> {
        Self::open(path, FlockOperation::NonBlockingLockExclusive)
    }

    fn open(path: &Path, operation: FlockOperation) -> Result<Option<Option<Self>>, Error> {
        loop {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(None)),
                Err(error) => return Err(Error::file("opening", path, &error)),
            };
            match flock(&file, operation) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(Error::file("locking", path, &errno.into())),
            }
            // Somebody may have removed or replaced it before this had the lock.
            let number = |found: std::io::Result<Metadata>| found.ok().map(|found| found.ino());
            if number(file.metadata()) == number(std::fs::metadata(path)) {
                return Ok(Some(Some(Self { file })));
            }
        }
    }

    pub const fn file(&self) -> &File {
        &self.file
    }
}

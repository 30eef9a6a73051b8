//! Where a lab keeps what it must keep on disk, and how it is found again.
//!
//! ```text
//! /run/parfait/labs/            root; else $XDG_RUNTIME_DIR/parfait/labs or /tmp/parfait-UID/labs
//!   lab.lock                    held for as long as the lab lives
//!   lab/
//!     spec.json  lab.json       what was asked for; the processes that are the lab
//!     kubeconfig                for kubectl on the host
//!     logs/*.log                of the supervisor and of each node's programs, of limited size
//!     ns/                       a tmpfs inside the lab with a file for each network namespace
//!     nodes/node-1/             resolv.conf, hosts, and the state of the node's programs
//! ```
//!
//! The directories are 0700 and must be ours: in `/tmp` anybody could have put them there first.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::lock::Lock;
use crate::{Error, LabName, LabSpec, ProcessId};

/// The most that is read of a state file: more was not written by us.
const FILE_LIMIT: u64 = 1 << 20;

/// The directory that holds all labs of one user.
#[derive(Clone, Debug)]
pub struct StateRoot {
    base: PathBuf,
    usual: bool,
}

impl StateRoot {
    /// The one asked for, or the user's usual one.
    #[must_use]
    pub fn locate(explicit: Option<&Path>, runtime_dir: Option<&Path>) -> Self {
        let uid = rustix::process::geteuid();
        let base = match (explicit, runtime_dir) {
            (Some(dir), _) => std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()),
            (None, _) if uid.is_root() => PathBuf::from("/run/parfait"),
            (None, Some(dir)) if dir.is_dir() => dir.join("parfait"),
            (None, _) => PathBuf::from(format!("/tmp/parfait-{}", uid.as_raw())),
        };
        Self {
            base,
            usual: explicit.is_none(),
        }
    }

    /// A lab's place, whether it is there or not.
    #[must_use]
    pub fn lab(&self, name: &LabName) -> LabDir {
        LabDir {
            path: self.labs().join(name.as_str()),
            name: name.clone(),
        }
    }

    /// Whether it is where this user's labs are when nothing is said.
    #[must_use]
    pub const fn is_usual(&self) -> bool {
        self.usual
    }

    /// The directory as it was located.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Makes the directories, and makes sure that they are ours alone.
    pub fn create(&self) -> Result<(), Error> {
        for dir in [&self.base, &self.labs()] {
            match DirBuilder::new().mode(0o700).recursive(true).create(dir) {
                Ok(()) => {}
                Err(error) => return Err(Error::state("create", dir, error)),
            }
            check_ours(dir)?;
        }
        Ok(())
    }

    /// The names of all labs which left something here, alive or not.
    pub fn names(&self) -> Result<Vec<LabName>, Error> {
        let labs = self.labs();
        let entries = match fs::read_dir(&labs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::state("list", &labs, error)),
        };
        check_ours(&labs)?;
        let mut names: Vec<LabName> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                name.strip_suffix(".lock").unwrap_or(&name).parse().ok()
            })
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn labs(&self) -> PathBuf {
        self.base.join("labs")
    }
}

/// What the supervisor's first process wrote about the lab once it was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the program that runs it.
    pub version: String,
    /// What was asked for.
    pub spec: LabSpec,
    /// PID 1 of the lab, as the host counts.
    pub init: ProcessId,
    /// The inode of its PID namespace: every process of the lab has it.
    pub pid_namespace: u64,
    /// Where the API server listens on the host.
    pub api: Vec<SocketAddr>,
    /// When it was started, in seconds since 1970.
    pub started: u64,
    /// Whether it runs in a user namespace.
    pub rootless: bool,
    /// The lab's cgroups, one a hierarchy, where we may have them.
    pub cgroups: Vec<PathBuf>,
}

/// What is known of a lab by looking at its lock and record.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Nothing is there.
    Absent,
    /// Some command is creating or removing it.
    Changing,
    /// It runs, and was ready once.
    Running(Box<Record>),
    /// It died and left its state behind.
    Dead,
}

/// One lab's directory.
#[derive(Clone, Debug)]
pub struct LabDir {
    path: PathBuf,
    name: LabName,
}

impl LabDir {
    /// The directory as such.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lab's name.
    #[must_use]
    pub const fn name(&self) -> &LabName {
        &self.name
    }

    /// The kubeconfig for people on the host.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// The kubeconfig of the nodes' programs, which reach the API server through the underlay.
    #[must_use]
    pub fn node_kubeconfig(&self) -> PathBuf {
        self.path.join("node.kubeconfig")
    }

    /// The kubeconfig of the nodes' agents, who may do what they have to.
    #[must_use]
    pub fn agent_kubeconfig(&self) -> PathBuf {
        self.path.join("agent.kubeconfig")
    }

    /// Where a program's output goes.
    #[must_use]
    pub fn log(&self, program: &str) -> PathBuf {
        self.path.join("logs").join(format!("{program}.log"))
    }

    /// A node's own directory.
    #[must_use]
    pub fn node(&self, node: &str) -> PathBuf {
        self.path.join("nodes").join(node)
    }

    /// Where a node's kubelet keeps its pods: `NAMESPACE_NAME/{netns,resolv.conf,hosts}`.
    #[must_use]
    pub fn pods(&self, node: &str) -> PathBuf {
        self.node(node).join("pods")
    }

    /// The file, inside the lab, that is a node's network namespace.
    #[must_use]
    pub fn node_netns(&self, node: &str) -> PathBuf {
        self.namespaces().join(node)
    }

    /// The running program, as a file inside the lab: it stays the same when the one on disk is
    /// replaced while the lab runs.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.namespaces().join("parfait")
    }

    /// Looks whether the lab is alive.
    pub fn observe(&self) -> Result<Condition, Error> {
        match self.path.parent() {
            // What somebody else put there must not be taken for a lab of ours.
            Some(labs) if labs.exists() => check_ours(labs)?,
            _ => return Ok(Condition::Absent),
        }
        match Lock::acquire(&self.lock_path(), false)? {
            Some(_free) if self.path.exists() => Ok(Condition::Dead),
            Some(_free) => Ok(Condition::Absent),
            None if !self.lock_path().exists() => Ok(if self.path.exists() {
                Condition::Dead
            } else {
                Condition::Absent
            }),
            None => match (self.record(), self.ready_path().exists()) {
                (Ok(record), true) if record.init.alive() => {
                    Ok(Condition::Running(Box::new(record)))
                }
                _ => Ok(Condition::Changing),
            },
        }
    }

    /// What the lab wrote about itself.
    pub fn record(&self) -> Result<Record, Error> {
        read_json(&self.path.join("lab.json"))
    }

    /// What was asked for.
    pub fn spec(&self) -> Result<LabSpec, Error> {
        read_json(&self.path.join("spec.json"))
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<(), Error> {
        write_json(&self.path.join("lab.json"), record)
    }

    pub(crate) fn write_spec(&self, spec: &LabSpec) -> Result<(), Error> {
        write_json(&self.path.join("spec.json"), spec)
    }

    pub(crate) fn write_ready(&self) -> Result<(), Error> {
        self.write(&self.ready_path(), b"")
    }

    /// Writes a file whole or not at all, readable by its owner alone.
    pub fn write(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        write_atomically(path, content)
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.path.with_file_name(format!("{}.lock", self.name))
    }

    pub(crate) fn namespaces(&self) -> PathBuf {
        self.path.join("ns")
    }

    fn ready_path(&self) -> PathBuf {
        self.path.join("ready")
    }

    /// Makes the directories of a new lab.
    pub(crate) fn create(&self, spec: &LabSpec) -> Result<(), Error> {
        let mut dirs = vec![
            self.path.clone(),
            self.path.join("logs"),
            self.namespaces(),
            self.path.join("nodes"),
        ];
        dirs.extend(
            spec.node_names()
                .flat_map(|node| [self.node(&node), self.pods(&node)]),
        );
        for dir in dirs {
            DirBuilder::new()
                .mode(0o700)
                .create(&dir)
                .map_err(|e| Error::state("create", &dir, e))?;
        }
        self.write_spec(spec)
    }

    /// Removes everything the lab left on disk.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match fs::symlink_metadata(&self.path) {
            Ok(meta) => remove_tree(&self.path, meta.dev()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::state("examine", &self.path, error)),
        }
    }
}

/// A directory of ours: no symbolic link, owned by us, not writable by others.
fn check_ours(dir: &Path) -> Result<(), Error> {
    let meta = fs::symlink_metadata(dir).map_err(|e| Error::state("examine", dir, e))?;
    let uid = rustix::process::geteuid().as_raw();
    let why = if !meta.is_dir() {
        "it is no directory".to_owned()
    } else if meta.uid() != uid {
        format!("it belongs to user {}, and you are user {uid}", meta.uid())
    } else if meta.mode() & 0o022 != 0 {
        format!("others may write to it (mode {:o})", meta.mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(Error::Unsafe {
        path: dir.to_owned(),
        why,
    })
}

/// Like `rm -r`, without leaving the file system and without following links. Directories that
/// deny even their owner (overlayfs makes one of mode 000) are opened first.
fn remove_tree(path: &Path, device: u64) -> Result<(), Error> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::state("examine", path, error)),
    };
    if !meta.is_dir() {
        return fs::remove_file(path).map_err(|e| Error::state("remove", path, e));
    }
    if meta.dev() != device {
        let source = io::Error::other("something is mounted there");
        return Err(Error::state("remove", path, source));
    }
    if meta.mode() & 0o700 != 0o700 {
        let open = fs::Permissions::from_mode(0o700);
        fs::set_permissions(path, open).map_err(|e| Error::state("open", path, e))?;
    }
    for entry in fs::read_dir(path).map_err(|e| Error::state("list", path, e))? {
        remove_tree(
            &entry.map_err(|e| Error::state("list", path, e))?.path(),
            device,
        )?;
    }
    fs::remove_dir(path).map_err(|e| Error::state("remove", path, e))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|e| Error::state("open", path, e))?;
    file.take(FILE_LIMIT)
        .read_to_string(&mut text)
        .map_err(|e| Error::state("read", path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::state("understand", path, e))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value).map_err(|e| Error::state("write", path, e))?;
    write_atomically(path, &text)
}

fn write_atomically(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| Error::state("write", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("state");
        let root = StateRoot::locate(Some(&base), None);
        root.create().unwrap();
        fs::set_permissions(&base, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(
            root.create()
                .unwrap_err()
                .to_string()
                .contains("others may write to it (mode 777)")
        );
        fs::remove_dir_all(&base).unwrap();
        std::os::unix::fs::symlink("/tmp", &base).unwrap();
        assert!(matches!(root.create(), Err(Error::Unsafe { .. })));
    }

    #[test]
    fn a_tree_with_closed_directories_is_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "stays").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/work")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), tree.join("a/dirlink")).unwrap();
        fs::set_permissions(tree.join("a/work"), fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree, fs::metadata(&tree).unwrap().dev()).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(outside).unwrap(), "stays");
    }

    #[test]
    fn a_lab_nobody_holds_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let root = StateRoot::locate(Some(dir.path()), None);
        root.create().unwrap();
        let lab = root.lab(&LabName::default());
        assert!(matches!(lab.observe(), Ok(Condition::Absent)));
        fs::create_dir(lab.path()).unwrap();
        assert!(matches!(lab.observe(), Ok(Condition::Dead)));
        let held = Lock::acquire(&lab.lock_path(), true).unwrap();
        assert!(matches!(lab.observe(), Ok(Condition::Changing)));
        drop(held);
        assert!(matches!(lab.observe(), Ok(Condition::Dead)));
        assert_eq!(root.names().unwrap(), [LabName::default()]);
    }
}

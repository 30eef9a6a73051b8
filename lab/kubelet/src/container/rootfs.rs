//! The container's root: the host's directories, on which every change stays in the container's memory.
//!
//! ```text
//!   tmpfs /            (the container's own: /tmp /run /home /root /proc /sys /dev …)
//!   ├─ usr   overlay   lower: the host's /usr, upper: tmpfs of the container
//!   ├─ etc   overlay   lower: the host's /etc …
//!   └─ bin → usr/bin   links are copied
//! ```
//!
//! One overlay for each first-level directory, not one for `/`: in a user namespace the kernel refuses a lower
//! directory below which it has locked mounts (`/proc`, `/sys`, … below `/`), and machines keep `/usr` or `/var`
//! on filesystems of their own. A directory that the kernel will not take as a lower one even so is bound
//! read-only, with a note.
//!
//! It promises that nothing under the new root can be written through to the host: overlays, tmpfs and read-only
//! binds only, apart from volumes, which are the pod's own tmpfs. Home directories, the superuser's files,
//! password hashes, host keys, the lab's state and other people's mounts (`/mnt`, `/media`) are not shown at all, nor
//! is what the host does not let everybody read ([`private`]).
//! Hard links, whiteouts and copy-up are overlayfs' own affair (Documentation/filesystems/overlayfs.rst).

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use super::spec::{Bind, PARFAIT, RootSpec};
use super::{StepError, mounts, path, private, pseudo};

/// First-level directories which the container gets empty and of its own, if the host has them or not.
const FRESH: &[&str] = &[
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "root",
    "home",
    "mnt",
    "media",
    "boot",
    "lost+found",
];

/// What belongs to the host alone, below the directories that are shown.
const SECRET: &[&str] = &[
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/kubernetes",
    "/var/lib/kubelet",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/private",
    "/var/backups",
    "/var/spool/cron",
];

const MIB: u64 = 1 << 20;

/// A volume with its place in the new root.
struct Placed<'a> {
    bind: &'a Bind,
    /// Relative to the root, without links.
    at: PathBuf,
    is_dir: bool,
}

/// One of the host's first-level directories in the container.
struct Shown {
    name: String,
    /// By an overlay, which shows nothing of other filesystems mounted below.
    overlaid: bool,
}

/// Builds the root in the caller's mount namespace, which must be private, and moves into it. Returns
/// notes on what could not be done as asked.
pub fn enter(spec: &RootSpec, pids: u32) -> Result<Vec<String>, StepError> {
    let mut notes = Vec::new();
    mounts::tmpfs(&spec.base, spec.scratch_bytes.max(MIB), 0o755)?;
    for dir in ["root", "upper", "work"] {
        make_dir(&spec.base.join(dir))?;
    }
    std::env::set_current_dir(&spec.base)
        .map_err(StepError::at(format!("enter {}", spec.base.display())))?;
    let root = spec.base.join("root");
    mounts::tmpfs(&root, 64 * MIB, 0o755)?;

    let placed = place(&spec.binds)?;
    let shown = lay_out(&root, &placed, &mut notes)?;
    let covers = cover(&root, spec, &shown)?;
    pseudo::mount(&root, pids, &mut notes)?;
    show_parfait(&root, spec)?;
    // Outside other volumes the places are made first, since what follows may seal their surroundings.
    for volume in &placed {
        make_place(&root, volume)?;
    }
    mounts::seal(&root.join("dev"), true, false)?;
    for cover in &covers {
        mounts::seal(cover, true, false)?;
    }
    if spec.read_only {
        for dir in shown
            .iter()
            .map(|top| top.name.as_str())
            .chain(["tmp", "run", "var/tmp"])
        {
            let dir = root.join(dir);
            if dir.exists() {
                mounts::seal(&dir, true, false).or_else(ignore_no_mount)?;
            }
        }
    }
    for volume in &placed {
        mount_volume(&root, volume)?;
    }
    if spec.read_only {
        mounts::seal(&root, true, false)?;
    }
    pivot(&root)?;
    Ok(notes)
}

/// `/var/tmp` and the like are no mounts of their own on every machine.
fn ignore_no_mount(error: StepError) -> Result<(), StepError> {
    match error.source.raw_os_error() {
        Some(libc::EINVAL) => Ok(()),
        _ => Err(error),
    }
}

/// Finds out where each volume goes, before anything is mounted.
fn place(binds: &[Bind]) -> Result<Vec<Placed<'_>>, StepError> {
    let fresh = |top: &str| FRESH.contains(&top);
    let mut placed = Vec::new();
    for bind in binds {
        let step = || format!("mount {} in the container", bind.target);
        let at = path::resolve(&bind.target, Path::new("/"), &fresh)
            .ok_or_else(|| StepError::new(step(), "its symbolic links go in circles"))?;
        let first = at.components().next().and_then(|c| c.as_os_str().to_str());
        if matches!(first, None | Some("proc" | "sys")) {
            return Err(StepError::new(
                step(),
                "/, /proc and /sys are the container's own: choose another mountPath",
            ));
        }
        let meta = std::fs::metadata(&bind.source).map_err(StepError::at(format!(
            "{} (from {})",
            step(),
            bind.source.display()
        )))?;
        placed.push(Placed {
            bind,
            at,
            is_dir: meta.is_dir(),
        });
    }
    // Parents before what is mounted inside them.
    placed.sort_by_key(|p| p.at.components().count());
    Ok(placed)
}

/// Makes every first-level entry. Returns those which are mounts of the host's.
fn lay_out(
    root: &Path,
    placed: &[Placed<'_>],
    notes: &mut Vec<String>,
) -> Result<Vec<Shown>, StepError> {
    let mut shown = Vec::new();
    let entries = std::fs::read_dir("/").map_err(StepError::at("list /"))?;
    let mut names: BTreeSet<(String, bool)> = BTreeSet::new();
    for entry in entries.flatten() {
        let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else {
            continue;
        };
        if kind.is_symlink() {
            if let Ok(target) = std::fs::read_link(entry.path()) {
                let _ = symlink(target, root.join(&name));
            }
        } else if kind.is_dir() && !FRESH.contains(&name.as_str()) {
            names.insert((name, true));
        }
    }
    names.extend(FRESH.iter().map(|name| ((*name).to_owned(), false)));
    for (name, overlaid) in names {
        let target = root.join(&name);
        make_dir(&target)?;
        if overlaid {
            let overlaid = show(&name, &target, placed, notes)?;
            shown.push(Shown { name, overlaid });
        }
    }
    mounts::tmpfs(&root.join("tmp"), 64 * MIB, 0o1777)?;
    mounts::tmpfs(&root.join("run"), 16 * MIB, 0o755)?;
    set_mode(&root.join("root"), 0o700)?;
    if root.join("var/tmp").is_dir() {
        mounts::tmpfs(&root.join("var/tmp"), 16 * MIB, 0o1777)?;
    }
    Ok(shown)
}

/// Shows one of the host's directories, with the places for volumes that the host has not. Says whether by an overlay.
fn show(
    name: &str,
    target: &Path,
    placed: &[Placed<'_>],
    notes: &mut Vec<String>,
) -> Result<bool, StepError> {
    let lower = Path::new("/").join(name);
    let (upper, work) = (Path::new("upper").join(name), Path::new("work").join(name));
    make_dir(&upper)?;
    make_dir(&work)?;
    if let Ok(meta) = std::fs::metadata(&lower) {
        set_mode(&upper, meta.permissions().mode() & 0o7777)?;
    }
    for volume in placed.iter().filter(|p| p.at.starts_with(name)) {
        prepare_upper(&volume.at, volume.is_dir)?;
    }
    // The options are a comma-separated list in which colons separate lower directories.
    let plain = !name.contains([',', ':', '\\']);
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    // overlay(lowerdir=/usr,upperdir=upper/usr,workdir=work/usr,userxattr); the last keeps its marks in
    // user.* attributes, the only ones that a user namespace may write.
    let options = |extra: &str| {
        format!(
            "lowerdir={},upperdir={},workdir={}{extra}",
            lower.display(),
            upper.display(),
            work.display()
        )
    };
    let mounted = plain
        && (mounts::filesystem("overlay", target, flags, &options(",userxattr")).is_ok()
            || mounts::filesystem("overlay", target, flags, &options("")).is_ok());
    if !mounted {
        mounts::bind(&lower, target)?;
        mounts::seal(target, true, true)?;
        notes.push(format!(
            "/{name} is read-only in the container: this kernel takes no overlay of it"
        ));
    }
    Ok(mounted)
}

/// Makes the path of a volume in the upper layer of its overlay, as far as the host does not have it. This
/// needs no permission in the host's directories, which in a user namespace belong to nobody.
fn prepare_upper(at: &Path, is_dir: bool) -> Result<(), StepError> {
    if Path::new("/").join(at).exists() {
        return Ok(());
    }
    let upper = Path::new("upper").join(at);
    let mut dirs: Vec<&Path> = at.ancestors().skip(usize::from(!is_dir)).collect();
    dirs.reverse();
    for dir in dirs.into_iter().filter(|d| !d.as_os_str().is_empty()) {
        let copy = Path::new("upper").join(dir);
        make_dir(&copy)?;
        if let Ok(meta) = std::fs::metadata(Path::new("/").join(dir)) {
            set_mode(&copy, meta.permissions().mode() & 0o7777)?;
        }
    }
    if !is_dir {
        std::fs::write(&upper, "").map_err(StepError::at(format!("make {}", at.display())))?;
    }
    Ok(())
}

/// Covers what containers must not see. Returns the directories among that, for volumes to be placed in and then to be
/// sealed.
fn cover(root: &Path, spec: &RootSpec, shown: &[Shown]) -> Result<Vec<PathBuf>, StepError> {
    let mut covers = Vec::new();
    let mut one = |at: PathBuf| -> Result<(), StepError> {
        if mounts::cover(&at)? {
            covers.push(at);
        }
        Ok(())
    };
    for path in SECRET
        .iter()
        .map(Path::new)
        .chain(spec.hide.iter().map(PathBuf::as_path))
    {
        if let Some(at) = place_of(path)? {
            one(root.join(at))?;
        }
    }
    for top in shown {
        for path in private::below(&Path::new("/").join(&top.name), !top.overlaid) {
            one(root.join(path.strip_prefix("/").unwrap_or(&path)))?;
        }
    }
    Ok(covers)
}

/// Where one of the host's paths is below the container's root, resolved as the container would resolve it.
fn place_of(host_path: &Path) -> Result<Option<PathBuf>, StepError> {
    let fresh = |top: &str| FRESH.contains(&top);
    let Some(text) = host_path.to_str() else {
        return Err(StepError::new(
            format!("hide {}", host_path.display()),
            "the path is not UTF-8",
        ));
    };
    Ok(path::resolve(text, Path::new("/"), &fresh).filter(|at| at.components().count() > 0))
}

/// The lab's binary, and its other names as links to it.
fn show_parfait(root: &Path, spec: &RootSpec) -> Result<(), StepError> {
    let dir = root.join("run/parfait/bin");
    make_dir(&dir)?;
    let binary = root.join(PARFAIT.trim_start_matches('/'));
    std::fs::write(&binary, "").map_err(StepError::at(format!("make {PARFAIT}")))?;
    mounts::bind(&spec.parfait, &binary)?;
    mounts::seal(&binary, true, false)?;
    for name in &spec.applets {
        symlink(PARFAIT, dir.join(name))
            .map_err(StepError::at(format!("link /run/parfait/bin/{name}")))?;
    }
    Ok(())
}

/// Makes the place for a volume, as far as it is not there.
fn make_place(root: &Path, volume: &Placed<'_>) -> Result<path::Place, StepError> {
    path::open_below(root, &volume.at, volume.is_dir)
}

fn mount_volume(root: &Path, volume: &Placed<'_>) -> Result<(), StepError> {
    // Inside another volume there was no place to make before that one was mounted.
    let below = make_place(root, volume)?;
    mounts::bind(&volume.bind.source, &below.path())?;
    // What was opened is the place below; opened again it is what has been mounted on it.
    let mounted = make_place(root, volume)?;
    mounts::seal(&mounted.path(), volume.bind.read_only, true)
}

/// Makes `root` the root and forgets the old one: after this no path leads back to the host's files.
fn pivot(root: &Path) -> Result<(), StepError> {
    let step = || format!("move into the root {}", root.display());
    std::env::set_current_dir(root).map_err(StepError::at(step()))?;
    rustix::process::pivot_root(".", ".").map_err(StepError::at(step()))?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)
        .map_err(StepError::at("let go of the host's root"))?;
    std::env::set_current_dir("/").map_err(StepError::at(step()))
}

fn make_dir(path: &Path) -> Result<(), StepError> {
    std::fs::create_dir_all(path).map_err(StepError::at(format!("make {}", path.display())))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StepError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(StepError::at(format!("set the mode of {}", path.display())))
}

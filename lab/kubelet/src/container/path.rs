//! Where a path of the container really lies.
//!
//! A volume's `mountPath` is the manifest's, and the container's root mirrors the host's symbolic links. If
//! mount(2) followed `/var/run`, an absolute link to `/run`, it would leave the new root and mount over
//! the host's own `/run`. So paths are resolved here, link by link, as if the root were theirs, and only
//! the result, which crosses no link, is ever mounted on.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::StepError;

/// Symbolic links followed before giving up, as in path_resolution(7).
const MAX_LINKS: usize = 40;

/// Resolves an absolute path against a root whose links are those below `host`, except under the first-level
/// directories for which `fresh` says that the container gets an empty one. Returns the path relative to
/// the root, or `None` if the links go in circles.
pub fn resolve(path: &str, host: &Path, fresh: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut todo: VecDeque<OsString> = components(Path::new(path)).collect();
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            done.pop();
            continue;
        }
        let candidate = done.join(&name);
        let hidden = candidate
            .components()
            .next()
            .and_then(|c| c.as_os_str().to_str())
            .is_some_and(|first| candidate.components().count() > 1 && fresh(first));
        let link = if hidden {
            None
        } else {
            std::fs::read_link(host.join(&candidate)).ok()
        };
        match link {
            Some(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                if target.is_absolute() {
                    done = PathBuf::new();
                }
                for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(part);
                }
            }
            None => done = candidate,
        }
    }
    Some(done)
}

/// A place found by [`open_below`], held open so that nobody can exchange it for another.
#[derive(Debug)]
pub struct Place {
    fd: OwnedFd,
}

impl Place {
    /// A path for mount(2) that leads to exactly this place, in this process.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

/// Opens `path`, relative and plain, below the directory `root`, making what is missing: directories, and at the end a
/// file unless `is_dir`. No symbolic link is followed. Volumes are what containers make of them, and a link in one to
/// `/etc` must lead nowhere (CVE-2017-1002101 was such a one). openat2(2), Linux 5.6.
pub fn open_below(root: &Path, path: &Path, is_dir: bool) -> Result<Place, StepError> {
    let step = || StepError::at::<Errno>(format!("find {} in {}", path.display(), root.display()));
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut at = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty()).map_err(step())?;
    let names: Vec<OsString> = components(path).collect();
    for (i, name) in names.iter().enumerate() {
        let open =
            |at: &OwnedFd| rustix::fs::openat2(at.as_fd(), name, flags, Mode::empty(), resolve);
        at = match open(&at) {
            Err(Errno::NOENT) => {
                if is_dir || i + 1 < names.len() {
                    rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)).map_err(step())?;
                } else {
                    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    rustix::fs::openat(&at, name, new, Mode::from_raw_mode(0o644))
                        .map_err(step())?;
                }
                open(&at).map_err(step())?
            }
            Err(Errno::LOOP) => {
                return Err(StepError::new(
                    format!("find {} in {}", path.display(), root.display()),
                    format!("{name:?} is a symbolic link in a volume, which is not followed"),
                ));
            }
            other => other.map_err(step())?,
        };
    }
    Ok(Place { fd: at })
}

fn components(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn places_are_made_below_and_links_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(&root).expect("mkdir");
        std::fs::create_dir_all(&outside).expect("mkdir");
        open_below(&root, Path::new("a/b"), true).expect("a directory");
        open_below(&root, Path::new("a/f"), false).expect("a file");
        assert!(root.join("a/b").is_dir() && root.join("a/f").is_file());
        symlink(&outside, root.join("a/way")).expect("symlink");
        for path in ["a/way", "a/way/new", "../outside", "a/../../outside/x"] {
            open_below(&root, Path::new(path), true).expect_err(path);
        }
        assert_eq!(std::fs::read_dir(&outside).expect("list").count(), 0);
    }

    #[test]
    fn links_stay_inside_the_root() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let host = dir.path();
        std::fs::create_dir_all(host.join("var")).expect("mkdir");
        std::fs::create_dir_all(host.join("run/secret")).expect("mkdir");
        symlink("/run", host.join("var/run")).expect("symlink");
        symlink("../../../../../etc", host.join("var/up")).expect("symlink");
        symlink("loop", host.join("loop")).expect("symlink");
        symlink("/root", host.join("run/secret/link")).expect("symlink");
        let fresh = |top: &str| top == "run";
        let at = |path: &str| resolve(path, host, &fresh).map(|p| p.display().to_string());
        assert_eq!(at("/var/run/app").as_deref(), Some("run/app"));
        assert_eq!(at("/var/up/hosts").as_deref(), Some("etc/hosts"));
        assert_eq!(at("/../../a/./b//c").as_deref(), Some("a/b/c"));
        assert_eq!(at("/loop/x"), None);
        // The container's own /run has none of the host's links.
        assert_eq!(at("/run/secret/link").as_deref(), Some("run/secret/link"));
    }
}

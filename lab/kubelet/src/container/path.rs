//! Where a path of the container really lies.
//!
//! A volume's `mountPath` is the manifest's, and the container's root mirrors the host's symbolic links. If
//! mount(2) followed `/var/run`, an absolute link to `/run`, it would leave the new root and mount over
//! the host's own `/run`. So paths are resolved here, link by link, as if the root were theirs, and only
//! the result, which crosses no link, is ever mounted on.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

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

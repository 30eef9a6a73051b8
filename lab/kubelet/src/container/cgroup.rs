//! Limits on processes and memory by cgroups, where the machine lets us make some.
//!
//! Version 1 (`pids` and `memory` hierarchies, each a mount) and version 2 (one hierarchy, whose
//! controllers must be passed down with `cgroup.subtree_control`). A lab without root gets them only where
//! the service manager has delegated its cgroup; otherwise there are none, and `kernel.pid_max` of the container
//! and the sizes of its tmpfs are what limits it. Documentation: cgroups(7), cgroup-v2.rst.
//!
//! Cgroups are directories and outlive a killed lab, empty; [`remove_tree`] is for whoever cleans up.

use std::path::{Path, PathBuf};

/// The cgroup directories of one container, one for each hierarchy. Removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    dirs: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the cgroup `name`, a relative path, and sets its limits. It may come out without any directory.
    pub fn create(name: &str, pids: u32, memory: Option<u64>) -> Cgroup {
        let mut dirs = Vec::new();
        for hierarchy in hierarchies() {
            let dir = hierarchy.base.join(name);
            if std::fs::create_dir_all(&dir).is_err() {
                continue;
            }
            if hierarchy.unified {
                hierarchy.pass_down(&dir);
            }
            set(&dir, "pids.max", &pids.to_string());
            if let Some(bytes) = memory {
                let bytes = bytes.to_string();
                set(&dir, "memory.limit_in_bytes", &bytes);
                set(&dir, "memory.memsw.limit_in_bytes", &bytes);
                set(&dir, "memory.max", &bytes);
                set(&dir, "memory.swap.max", "0");
            }
            dirs.push(dir);
        }
        Cgroup { dirs }
    }

    /// Moves the calling process in. The ones it starts follow.
    pub fn enter(&self) {
        for dir in &self.dirs {
            set(dir, "cgroup.procs", "0");
        }
    }

    /// Whether the kernel has killed a process here because memory ran out.
    pub fn oom_killed(&self) -> bool {
        self.dirs
            .iter()
            .flat_map(|dir| ["memory.oom_control", "memory.events"].map(|f| dir.join(f)))
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .any(|line| {
                line.strip_prefix("oom_kill ")
                    .is_some_and(|n| n.trim() != "0")
            })
    }

    /// Whether processes are limited by a cgroup.
    pub fn limits_pids(&self) -> bool {
        self.dirs.iter().any(|dir| dir.join("pids.max").exists())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in &self.dirs {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Joins the cgroup `name` if it exists: for a program started beside a container's own.
pub fn join(name: &str) {
    for hierarchy in hierarchies() {
        let dir = hierarchy.base.join(name);
        if dir.is_dir() {
            set(&dir, "cgroup.procs", "0");
        }
    }
}

/// Removes the cgroup `name` and all below it, as far as they are empty of processes.
pub fn remove_tree(name: &str) {
    for hierarchy in hierarchies() {
        remove_dirs(&hierarchy.base.join(name));
    }
}

fn remove_dirs(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_dirs(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

/// A missing file means that this hierarchy has not that controller, so failures do not matter.
fn set(dir: &Path, file: &str, value: &str) {
    let path = dir.join(file);
    if path.exists()
        && let Err(error) = std::fs::write(&path, value)
    {
        tracing::debug!(path = %path.display(), value, %error, "cgroup limit not set");
    }
}

/// A mounted hierarchy that has a controller of ours.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// The directory below which we may make cgroups.
    base: PathBuf,
    unified: bool,
}

impl Hierarchy {
    /// Lets the controllers reach `leaf`: each cgroup above it must pass them on.
    fn pass_down(&self, leaf: &Path) {
        let above: Vec<&Path> = leaf
            .ancestors()
            .skip(1)
            .take_while(|dir| dir.starts_with(&self.base))
            .collect();
        for dir in above.into_iter().rev() {
            for controller in ["+pids", "+memory"] {
                set(dir, "cgroup.subtree_control", controller);
            }
        }
    }
}

fn hierarchies() -> Vec<Hierarchy> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    parse(&mounts, &own, &|dir| dir.is_dir(), &|dir| {
        std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default()
    })
}

/// Finds the hierarchies in mountinfo (proc_pid_mountinfo(5)) and our place in them in `/proc/self/cgroup`.
fn parse(
    mounts: &str,
    own: &str,
    is_dir: &dyn Fn(&Path) -> bool,
    controllers: &dyn Fn(&Path) -> String,
) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (&[_, _, _, top, point, ..], &[kind, _, options, ..]) = (&left[..], &right[..]) else {
            continue;
        };
        let has = |name: &str| options.split(',').any(|o| o == name);
        let unified = kind == "cgroup2";
        if !unified && !(kind == "cgroup" && (has("pids") || has("memory"))) {
            continue;
        }
        let point = Path::new(point);
        let ours = own.lines().find_map(|l| {
            let (_, rest) = l.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            let here = if unified {
                names.is_empty()
            } else {
                names.split(',').any(|n| !n.is_empty() && has(n))
            };
            here.then(|| path.strip_prefix(top.trim_end_matches('/')).unwrap_or(path))
        });
        let base = match ours {
            // In version 2 a cgroup with processes may have no children with controllers, so ours go beside it.
            Some(path) if unified => {
                let dir = point.join(path.trim_start_matches('/'));
                dir.parent()
                    .filter(|p| p.starts_with(point))
                    .unwrap_or(point)
                    .to_owned()
            }
            Some(path) => point.join(path.trim_start_matches('/')),
            None => point.to_owned(),
        };
        let base = if is_dir(&base) {
            base
        } else {
            point.to_owned()
        };
        let list = controllers(&base);
        let useful = !unified
            || list
                .split_whitespace()
                .any(|c| c == "pids" || c == "memory");
        let hierarchy = Hierarchy { base, unified };
        if useful && !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
32 25 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn version_1_beside_an_empty_version_2() {
        let own = "8:pids:/\n4:memory:/box/1\n0::/\n";
        let found = parse(HYBRID, own, &|_| true, &|_| "hugetlb".to_owned());
        let bases: Vec<_> = found.iter().map(|h| h.base.display().to_string()).collect();
        assert_eq!(
            bases,
            ["/sys/fs/cgroup/memory/box/1", "/sys/fs/cgroup/pids/"]
        );
    }

    #[test]
    fn version_2_goes_beside_our_own_cgroup() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let own = "0::/user.slice/user@1000.service/app.slice/lab.scope\n";
        let found = parse(mounts, own, &|_| true, &|_| "memory pids".to_owned());
        assert_eq!(
            found,
            [Hierarchy {
                base: "/sys/fs/cgroup/user.slice/user@1000.service/app.slice".into(),
                unified: true
            }]
        );
    }
}

//! The lab's cgroups: one empty directory a hierarchy, below which the kubelets limit pods.
//!
//! Version 1 and 2 hierarchies are both found in `/proc/self/mountinfo`, and the lab's cgroup is
//! made below our own one, so that limits on us hold for the lab too. Where that is forbidden (an
//! ordinary user without a delegated cgroup) there is none, and pods are not limited.
//! Source: `cgroups(7)`.

use std::path::{Component, Path, PathBuf};
use std::{fs, io, thread, time};

/// The controllers that limit pods.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// The directory's name: the lab's, and a number that tells apart labs of one name in different
/// state directories.
#[must_use]
pub fn lab_cgroup_name(lab: &Path) -> String {
    let name = lab.file_name().unwrap_or_default().to_string_lossy();
    // FNV-1a, 32 bits.
    let hash = lab
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    format!("parfait-{name}-{hash:08x}")
}

/// Where the lab's cgroups would be: for each hierarchy with a controller that limits pods.
pub(crate) fn places(lab: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    hierarchies(&mounts, &ours)
        .into_iter()
        .map(|own| own.join(lab_cgroup_name(lab)))
        .collect()
}

/// Makes those that may be made and answers which.
pub(crate) fn create(places: &[PathBuf]) -> Vec<PathBuf> {
    let made = |path: &&PathBuf| match fs::create_dir(path) {
        Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
        Ok(()) => true,
    };
    places.iter().filter(made).cloned().collect()
}

/// Removes the lab's cgroups with everything below. The processes in them have just been killed,
/// and the kernel may need a moment to notice.
pub(crate) fn remove(lab: &Path, cgroups: &[PathBuf]) -> Vec<(PathBuf, io::Error)> {
    let name = lab_cgroup_name(lab);
    let ours = |path: &&PathBuf| {
        // The list comes from a file: only directories of the lab's name, by a plain path.
        path.file_name().is_some_and(|last| last == name.as_str())
            && path
                .components()
                .all(|c| matches!(c, Component::RootDir | Component::Normal(_)))
    };
    let mut failed = Vec::new();
    for cgroup in cgroups.iter().filter(ours) {
        let mut result = remove_tree(cgroup);
        for _ in 0..50 {
            if result.is_ok() {
                break;
            }
            thread::sleep(time::Duration::from_millis(10));
            result = remove_tree(cgroup);
        }
        failed.extend(result.err().map(|error| (cgroup.clone(), error)));
    }
    failed
}

/// Only `rmdir`: the files in a cgroup are the kernel's and go with it.
fn remove_tree(cgroup: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Our own cgroup's directory in each hierarchy that has a controller for pods.
fn hierarchies(mounts: &str, ours: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        // 31 23 0:27 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let mut before = before.split(' ').skip(3);
        let (Some(root), Some(point)) = (before.next(), before.next()) else {
            continue;
        };
        let mut after = after.split(' ');
        let (kind, options) = (
            after.next().unwrap_or_default(),
            after.nth(1).unwrap_or_default(),
        );
        let controller = match kind {
            "cgroup" => CONTROLLERS
                .into_iter()
                .find(|c| options.split(',').any(|o| o == *c)),
            "cgroup2" if has_controllers(Path::new(point)) => Some(""),
            _ => None,
        };
        let Some(controller) = controller else {
            continue;
        };
        let own = ours.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let names = fields.next()?;
            let path = fields.next()?;
            names
                .split(',')
                .any(|name| name == controller)
                .then_some(path)
        });
        let Some(own) = own else { continue };
        // In a container the hierarchy is mounted from some point below its root.
        let below = own.strip_prefix(root.trim_end_matches('/')).unwrap_or(own);
        found.push(Path::new(point).join(below.trim_start_matches('/')));
    }
    found
}

fn has_controllers(point: &Path) -> bool {
    let names = fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default();
    names
        .split_whitespace()
        .any(|name| CONTROLLERS.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_version_1() {
        let mounts = "\
31 23 0:27 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
32 23 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 23 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
20 1 8:1 / / rw - ext4 /dev/root rw
";
        let ours = "8:pids:/\n4:memory:/jobs/7\n0::/\n";
        let found = hierarchies(mounts, ours);
        assert_eq!(
            found,
            [
                Path::new("/sys/fs/cgroup/pids"),
                Path::new("/sys/fs/cgroup/memory/jobs/7")
            ]
        );
    }

    #[test]
    fn a_foreign_path_in_the_record_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let lab = Path::new("/run/parfait/labs/lab");
        let foreign = dir.path().join("other");
        let ours = dir.path().join(lab_cgroup_name(lab));
        fs::create_dir(&foreign).unwrap();
        fs::create_dir_all(ours.join("node-1/pod")).unwrap();
        let winding = ours.join("..").join(lab_cgroup_name(lab));
        assert!(remove(lab, &[foreign.clone(), winding.clone()]).is_empty());
        assert!(foreign.exists() && ours.exists());
        assert!(remove(lab, std::slice::from_ref(&ours)).is_empty());
        assert!(!ours.exists());
    }
}

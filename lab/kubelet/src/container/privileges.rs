//! Who the program is and what it may do: user and groups, capabilities, resource limits.
//!
//! A container keeps `NET_BIND_SERVICE` and `NET_RAW` (low ports, `ping`), which act on its pod's network only.
//! A manifest may drop them and may add others of the [`ADDABLE`], which act on the container's own files and
//! processes. Nothing else is given, whatever the manifest asks: `SYS_ADMIN`, `NET_ADMIN`, `MKNOD`, `privileged`.
//! The bounding set is cut to the same list and `no_new_privs` is set, so no program can regain any.
//! capabilities(7) describes what happens to them at execve(2) and setuid(2): a program that is not
//! user 0 has none.

use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::StepError;
use super::spec::{Identity, Limits};

/// Names without `CAP_` and numbers of the capabilities that a container has unless it drops them.
const DEFAULT: &[(&str, u8)] = &[("NET_BIND_SERVICE", 10), ("NET_RAW", 13)];

/// The capabilities that a container may add.
const ADDABLE: &[(&str, u8)] = &[
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("NET_BIND_SERVICE", 10),
    ("NET_RAW", 13),
    ("SYS_CHROOT", 18),
];

/// The capabilities for a `securityContext.capabilities`, and the names that are refused.
pub fn allowed_capabilities(add: &[String], drop: &[String]) -> (Vec<u8>, Vec<String>) {
    let plain = |name: &String| {
        let upper = name.to_ascii_uppercase();
        upper
            .strip_prefix("CAP_")
            .map_or(upper.clone(), str::to_owned)
    };
    let dropped: Vec<String> = drop.iter().map(plain).collect();
    let all = dropped.iter().any(|name| name == "ALL");
    let mut kept: Vec<u8> = DEFAULT
        .iter()
        .filter(|(name, _)| !all && !dropped.iter().any(|d| d == name))
        .map(|(_, number)| *number)
        .collect();
    let mut refused = Vec::new();
    for name in add.iter().map(plain) {
        match ADDABLE.iter().find(|(n, _)| *n == name) {
            Some((_, number)) => kept.push(*number),
            None if name == "ALL" => {
                kept.extend(ADDABLE.iter().map(|(_, number)| *number));
                refused.push(name);
            }
            None => refused.push(name),
        }
    }
    kept.sort_unstable();
    kept.dedup();
    (kept, refused)
}

/// Whether the user namespace of this process maps `id`, in `/proc/self/uid_map` or `gid_map`. Without root
/// only 0 is mapped.
pub fn mapped(map: &str, id: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/self/{map}")).unwrap_or_default();
    map_has(&text, id)
}

fn map_has(text: &str, id: u32) -> bool {
    text.lines().any(|line| {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        matches!(numbers[..], [first, _, count]
            if (first..first.saturating_add(count)).contains(&u64::from(id)))
    })
}

/// Limits on the caller's resources, which its children inherit.
pub fn set_limits(limits: &Limits, uid: u32) -> Result<(), StepError> {
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, limits.nofile)?;
    if uid != 0 {
        // Counted per user over the whole machine, so it is a brake and no quota.
        limit(Resource::Nproc, u64::from(limits.pids) * 8)?;
    }
    Ok(())
}

/// Lowers a limit; a hard limit that is lower already stays.
fn limit(resource: Resource, value: u64) -> Result<(), StepError> {
    let hard = rustix::process::getrlimit(resource).maximum;
    let value = hard.map_or(value, |hard| hard.min(value));
    let new = Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    rustix::process::setrlimit(resource, new)
        .map_err(StepError::at(format!("limit {resource:?} to {value}")))
}

/// Becomes `identity` with `capabilities` and nothing else, for good.
pub fn surrender(identity: &Identity, capabilities: &[u8]) -> Result<(), StepError> {
    use rustix::fs::{Gid, Uid};
    for number in 0..=63u8 {
        if capabilities.contains(&number) {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
        let result =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) {
                break; // The kernel has no capability of this number, nor of higher ones.
            }
            return Err(StepError::at(format!("drop capability {number}"))(error));
        }
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // Forbidden in a user namespace made without root; then there are no groups that count.
        Err(rustix::io::Errno::PERM) if identity.groups.is_empty() => {}
        result => result.map_err(StepError::at(format!("take groups {:?}", identity.groups)))?,
    }
    if let Some(gid) = identity.gid {
        let id = Gid::from_raw(gid);
        rustix::thread::set_thread_res_gid(id, id, id)
            .map_err(StepError::at(format!("become group {gid}")))?;
    }
    if let Some(uid) = identity.uid {
        let id = Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(id, id, id)
            .map_err(StepError::at(format!("become user {uid}")))?;
    }
    let root = identity.uid.unwrap_or(0) == 0;
    let kept = capabilities
        .iter()
        .filter(|_| root)
        .fold(CapabilitySet::empty(), |set, number| {
            set | CapabilitySet::from_bits_retain(1 << number)
        });
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(StepError::at("drop capabilities"))?;
    rustix::thread::clear_ambient_capability_set()
        .map_err(StepError::at("drop ambient capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(StepError::at("set no_new_privs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn capabilities_go_down_or_to_harmless_ones() {
        type Row = (
            &'static [&'static str],
            &'static [&'static str],
            &'static [u8],
            &'static [&'static str],
        );
        let table: &[Row] = &[
            (&[], &[], &[10, 13], &[]),
            (&[], &["ALL"], &[], &[]),
            (&["NET_BIND_SERVICE"], &["ALL"], &[10], &[]),
            (&[], &["CAP_NET_RAW"], &[10], &[]),
            (
                &["SYS_ADMIN", "net_admin", "CHOWN"],
                &[],
                &[0, 10, 13],
                &["SYS_ADMIN", "NET_ADMIN"],
            ),
            (
                &["MKNOD", "SYS_PTRACE"],
                &["ALL"],
                &[],
                &["MKNOD", "SYS_PTRACE"],
            ),
        ];
        for (add, drop, kept, refused) in table {
            let (k, r) = allowed_capabilities(&names(add), &names(drop));
            assert_eq!(
                (&k[..], r),
                (*kept, names(refused)),
                "add {add:?} drop {drop:?}"
            );
        }
    }

    #[test]
    fn identities_are_taken_only_if_mapped() {
        assert!(map_has("0 0 4294967295", 1000));
        assert!(map_has("0 1000 1", 0));
        assert!(!map_has("0 1000 1", 1));
        assert!(map_has("0 1000 1\n1 100000 65536", 999));
        assert!(!map_has("", 0));
    }
}

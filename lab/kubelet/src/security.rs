//! What a pod's `securityContext` means in the lab: who the program runs as, and with which capabilities.
//!
//! A container's own fields win over the pod's. Requests that would let the container reach the host (
//! `privileged`, `SYS_ADMIN`, host namespaces other than the network) are refused, not failed: the container
//! runs without, and a note says so, which becomes a Warning event. Identities that the lab's user namespace does not
//! map (all but 0, without root) cannot be taken; then the program runs as the lab's user.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::container::{Identity, allowed_capabilities};

/// The decision for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    pub identity: Identity,
    pub capabilities: Vec<u8>,
    pub read_only_root: bool,
    /// What was asked and not given.
    pub notes: Vec<String>,
}

/// Which numbers can be taken: `uid` and `gid` say whether one is mapped.
#[derive(Clone, Copy)]
pub struct Mapped<'a> {
    pub uid: &'a dyn Fn(u32) -> bool,
    pub gid: &'a dyn Fn(u32) -> bool,
}

/// Decides, or says why the container must not run.
pub fn decide(
    spec: &PodSpec,
    container: &Container,
    mapped: Mapped<'_>,
) -> Result<Security, String> {
    let own = container.security_context.as_ref();
    let (identity, note) = identity(spec, container, mapped)?;
    let mut notes: Vec<String> = note.into_iter().collect();
    let caps = own.and_then(|c| c.capabilities.as_ref());
    let (capabilities, refused) = allowed_capabilities(
        caps.and_then(|c| c.add.as_deref()).unwrap_or_default(),
        caps.and_then(|c| c.drop.as_deref()).unwrap_or_default(),
    );
    if !refused.is_empty() {
        notes.push(format!(
            "capabilities {} are not given: a container of the lab cannot reach the host",
            refused.join(", ")
        ));
    }
    if own.and_then(|c| c.privileged) == Some(true) {
        notes.push("privileged is ignored: a container of the lab cannot reach the host".into());
    }
    if spec.host_pid == Some(true) || spec.host_ipc == Some(true) {
        notes.push(
            "hostPID and hostIPC are ignored: a container of the lab cannot reach the host".into(),
        );
    }
    Ok(Security {
        identity,
        capabilities,
        read_only_root: own.and_then(|c| c.read_only_root_filesystem) == Some(true),
        notes,
    })
}

/// Whom to run as, with a note if that is not who was asked for.
fn identity(
    spec: &PodSpec,
    container: &Container,
    mapped: Mapped<'_>,
) -> Result<(Identity, Option<String>), String> {
    let pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let id = |own: Option<i64>, pod: Option<i64>| own.or(pod).and_then(|n| u32::try_from(n).ok());
    let uid = id(
        own.and_then(|c| c.run_as_user),
        pod.and_then(|c| c.run_as_user),
    );
    let gid = id(
        own.and_then(|c| c.run_as_group),
        pod.and_then(|c| c.run_as_group),
    );
    let non_root = own
        .and_then(|c| c.run_as_non_root)
        .or(pod.and_then(|c| c.run_as_non_root));
    if non_root == Some(true) && uid == Some(0) {
        return Err(
            "container's runAsUser breaks non-root policy: runAsNonRoot is set, runAsUser is 0"
                .into(),
        );
    }
    let groups = pod
        .and_then(|c| c.supplemental_groups.clone())
        .unwrap_or_default()
        .into_iter()
        .chain(pod.and_then(|c| c.fs_group))
        .filter_map(|g| u32::try_from(g).ok());
    let groups: Vec<u32> = groups.collect();
    let takeable = uid.is_none_or(mapped.uid)
        && gid.is_none_or(mapped.gid)
        && groups.iter().all(|g| (mapped.gid)(*g));
    if takeable {
        // As container runtimes do for a user whom the image does not know.
        let gid = gid.or_else(|| uid.filter(|u| *u != 0).map(|_| 0));
        return Ok((Identity { uid, gid, groups }, None));
    }
    let note = format!(
        "runAsUser, runAsGroup and fsGroup are ignored (user {}, group {}): the lab runs without root and has only its own user",
        uid.map_or("-".into(), |u| u.to_string()),
        gid.map_or("-".into(), |g| g.to_string()),
    );
    Ok((Identity::default(), Some(note)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decided(
        pod: serde_json::Value,
        own: serde_json::Value,
        root: bool,
    ) -> Result<Security, String> {
        let spec: PodSpec =
            serde_json::from_value(json!({"containers": [], "securityContext": pod}))
                .expect("a spec");
        let container: Container =
            serde_json::from_value(json!({"name": "c", "securityContext": own}))
                .expect("a container");
        let map = |id: u32| root || id == 0;
        decide(
            &spec,
            &container,
            Mapped {
                uid: &map,
                gid: &map,
            },
        )
    }

    #[test]
    fn identities_as_root_and_without() {
        let pod = json!({"runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 2000});
        let s = decided(pod.clone(), json!({"runAsUser": 5}), true).expect("allowed");
        assert_eq!(
            s.identity,
            Identity {
                uid: Some(5),
                gid: Some(1001),
                groups: vec![2000]
            }
        );
        assert!(s.notes.is_empty());
        let s = decided(pod, json!({}), false).expect("allowed");
        assert_eq!(s.identity, Identity::default());
        assert!(s.notes[0].contains("without root"), "{:?}", s.notes);
    }

    #[test]
    fn what_reaches_for_the_host_is_refused() {
        let own =
            json!({"privileged": true, "capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}});
        let s = decided(json!({}), own, true).expect("allowed");
        assert!(s.capabilities.is_empty());
        assert_eq!(s.notes.len(), 2, "{:?}", s.notes);
        let error = decided(
            json!({"runAsNonRoot": true, "runAsUser": 0}),
            json!({}),
            true,
        );
        assert!(error.is_err());
    }
}

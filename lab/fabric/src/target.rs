//! [`Target`]: whose network a program is to see: `node/1`, `node/node-1`, `pod/web`, `pod/web.shop`, or
//! `router`, the switch or router between the nodes.

use parfait_cluster::nearest;
use std::path::PathBuf;
use std::str::FromStr;
use std::{fmt, fs};

use crate::state::LabDir;
use crate::{Error, LabSpec};

/// What was asked for, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A node, by name or number.
    Node(String),
    /// The switch or router between the nodes.
    Router,
    /// A pod, by name, or name and namespace with a `.` between them.
    Pod(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "router" {
            return Ok(Self::Router);
        }
        match text.split_once('/') {
            Some(("node" | "nodes" | "no", name)) if !name.is_empty() => {
                Ok(Self::Node(name.to_owned()))
            }
            Some(("pod" | "pods" | "po", name)) if !name.is_empty() && !name.contains('/') => {
                Ok(Self::Pod(name.to_owned()))
            }
            _ => Err(format!(
                "{text:?} names neither a node nor a pod: write node/1, pod/NAME, pod/NAME.NAMESPACE or router"
            )),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Router => f.write_str("router"),
            Self::Pod(name) => write!(f, "pod/{name}"),
        }
    }
}

/// What belongs to a target, as paths inside the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its network namespace.
    pub netns: PathBuf,
    /// The directory with its resolv.conf and hosts.
    pub dir: PathBuf,
    /// Its host name.
    pub hostname: String,
}

/// Finds a target in a lab.
pub(crate) fn find(dir: &LabDir, spec: &LabSpec, target: &Target) -> Result<Place, Error> {
    match target {
        Target::Node(name) => find_node(dir, spec, name),
        Target::Pod(name) => find_pod(dir, spec, name),
        Target::Router => Ok(Place {
            // The supervisor's and PID 1's own, in the lab's /proc.
            netns: PathBuf::from("/proc/1/ns/net"),
            dir: dir.path().to_owned(),
            hostname: "router".to_owned(),
        }),
    }
}

fn find_node(dir: &LabDir, spec: &LabSpec, name: &str) -> Result<Place, Error> {
    let names: Vec<String> = spec.node_names().collect();
    let full = if name.bytes().all(|b| b.is_ascii_digit()) {
        format!("node-{name}")
    } else {
        name.to_owned()
    };
    if names.contains(&full) {
        return Ok(Place {
            netns: dir.node_netns(&full),
            dir: dir.node(&full),
            hostname: full,
        });
    }
    let nearest = nearest(&full, names.iter().map(String::as_str)).map(|n| format!("node/{n}"));
    Err(Error::NoTarget {
        kind: "node",
        name: name.to_owned(),
        lab: dir.name().clone(),
        nearest,
    })
}

fn find_pod(dir: &LabDir, spec: &LabSpec, name: &str) -> Result<Place, Error> {
    let mut pods = Vec::new();
    for node in spec.node_names() {
        for entry in fs::read_dir(dir.pods(&node))
            .into_iter()
            .flatten()
            .flatten()
        {
            // NAMESPACE_NAME: neither may hold an underscore.
            let file = entry.file_name();
            let Some((namespace, pod)) = file.to_str().and_then(|f| f.split_once('_')) else {
                continue;
            };
            // NAMESPACE_NAME_UID holds logs, which stay for a while.
            if !pod.contains('_') {
                pods.push((pod.to_owned(), namespace.to_owned(), entry.path()));
            }
        }
    }
    pods.sort();
    let matches = |(pod, namespace, _): &&(String, String, PathBuf)| {
        (pod == name && namespace == "default")
            || name
                .strip_prefix(pod.as_str())
                .and_then(|rest| rest.strip_prefix('.'))
                == Some(namespace)
    };
    if let Some((pod, _, path)) = pods.iter().find(matches) {
        return Ok(Place {
            netns: path.join("netns"),
            dir: path.clone(),
            hostname: pod.clone(),
        });
    }
    let known: Vec<String> = pods
        .iter()
        .map(|(pod, ns, _)| {
            if ns == "default" {
                pod.clone()
            } else {
                format!("{pod}.{ns}")
            }
        })
        .collect();
    let nearest = nearest(name, known.iter().map(String::as_str)).map(|n| format!("pod/{n}"));
    Err(Error::NoTarget {
        kind: "pod",
        name: name.to_owned(),
        lab: dir.name().clone(),
        nearest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IpFamily, LabName, Routing, StateRoot, Underlay};

    #[test]
    fn targets_parse() {
        assert_eq!("node/1".parse(), Ok(Target::Node("1".to_owned())));
        assert_eq!(
            "pod/web.shop".parse(),
            Ok(Target::Pod("web.shop".to_owned()))
        );
        for bad in ["", "web", "svc/web", "pod/", "pod/a/b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pods_are_found_and_the_nearest_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        let name = LabName::default();
        let spec = LabSpec {
            name: name.clone(),
            nodes: 2,
            ip_family: IpFamily::Dual,
            routing: Routing::Auto,
            underlay: Underlay::Flat,
            mtu: 1500,
        };
        let root = StateRoot::locate(Some(tmp.path()), None);
        root.create().unwrap();
        let dir = root.lab(&name);
        dir.create(&spec).unwrap();
        for pod in [
            "default_frontend-5d8-abc",
            "default_web.v1",
            "shop_db-0",
            "shop_db-1_uid",
        ] {
            fs::create_dir(dir.pods("node-2").join(pod)).unwrap();
        }
        let found = |name: &str| find(&dir, &spec, &name.parse().unwrap());
        for (written, host) in [
            ("pod/web.v1", "web.v1"),
            ("pod/web.v1.default", "web.v1"),
            ("pod/db-0.shop", "db-0"),
            ("node/2", "node-2"),
            ("node/node-1", "node-1"),
        ] {
            assert_eq!(found(written).unwrap().hostname, host);
        }
        for (written, nearest) in [
            ("pod/frontend", "pod/frontend-5d8-abc"),
            ("pod/db-0", "pod/db-0.shop"),
            ("pod/db-1.shop", "pod/db-0.shop"),
            ("node/3", "node/node-1"),
        ] {
            let error = found(written).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!("; did you mean {nearest}?")),
                "{error}"
            );
        }
        assert!(
            found("pod/zzzzzz")
                .unwrap_err()
                .to_string()
                .ends_with("no pod zzzzzz in lab lab")
        );
    }
}

//! One agent on each node.
//!
//! It needs of its node: the network namespace, because that is what it programs; to be privileged, because container
//! runtimes show others `/proc/sys` read-only, and settings of interfaces are part of the plan; and three directories, which
//! have the same names inside and outside, since the CNI plugin runs outside. Not needed: the node's processes, its root
//! file system, a socket of the container runtime.

use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::{Value, json};

use super::{ACCOUNT, NAMESPACE};
use crate::args::{Agent, Manifest, Predecessor};
use crate::exit::Failure;

/// The DaemonSet. It comes before all other pods, on every node, whatever taints it has: without it a node stays unready.
pub fn daemon_set(args: &Manifest) -> Result<DaemonSet, Failure> {
    let labels = json!({"app.kubernetes.io/name": ACCOUNT});
    serde_json::from_value(json!({
        "metadata": {"name": ACCOUNT, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": ACCOUNT,
                    "hostNetwork": true,
                    // The node's own: cluster DNS is the agent's to answer.
                    "dnsPolicy": "Default",
                    "priorityClassName": "system-node-critical",
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "tolerations": [{"operator": "Exists"}],
                    "terminationGracePeriodSeconds": 5,
                    "containers": [agent(args)],
                    "volumes": volumes(),
                },
            },
        },
    }))
    .map_err(Failure::failed)
}

fn agent(args: &Manifest) -> Value {
    let mounts: Vec<_> = directories()
        .map(|(name, path)| json!({"name": name, "mountPath": path}))
        .into();
    json!({
        "name": "agent",
        "image": args.image,
        "command": command(args.take_over),
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "KUBERNETES_SERVICE_HOST", "value": args.api_server.host},
            {"name": "KUBERNETES_SERVICE_PORT", "value": args.api_server.port.to_string()},
        ],
        "securityContext": {"privileged": true},
        "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}},
        "volumeMounts": mounts,
    })
}

fn command(take_over: Option<Predecessor>) -> Vec<&'static str> {
    let mut command = vec!["parfait", "agent", "--node-name=$(NODE_NAME)"];
    command.extend(take_over.map(|Predecessor::KubeProxy| "--take-over=kube-proxy"));
    command
}

/// What of the node the agent writes to, where it looks for it if not told otherwise.
const fn directories() -> [(&'static str, &'static str); 3] {
    [
        ("state", Agent::STATE_DIR),
        ("cni-conf", Agent::CNI_CONF_DIR),
        ("cni-bin", Agent::CNI_BIN_DIR),
    ]
}

fn volumes() -> Vec<Value> {
    directories()
        .map(|(name, path)| {
            json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}})
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser as _;
    use std::path::PathBuf;

    /// What its container runs is understood, and looks for its directories where they are mounted.
    #[test]
    fn the_agent_of_the_daemon_set_starts() {
        for take_over in [None, Some(Predecessor::KubeProxy)] {
            let args = Args::try_parse_from(command(take_over)).expect("it is understood");
            let Command::Agent(agent) = args.command else {
                panic!("no agent: {args:?}");
            };
            assert_eq!(agent.node_name, "$(NODE_NAME)");
            assert_eq!(agent.take_over.is_some(), take_over.is_some());
            assert_eq!(agent.kubeconfig, None, "its ServiceAccount is used");
            let used = [agent.agent_state_dir, agent.cni_conf_dir, agent.cni_bin_dir];
            let mounted = directories().map(|(_, path)| PathBuf::from(path));
            assert_eq!(used, mounted);
        }
    }
}

//! The router's route table, kept as the Node objects say: with `--underlay cloud` as a cloud's route controller
//! does it, with `routed` in place of the administrator who announces each node's pod network.
//!
//! ```text
//!   Node node-2  podCIDRs 10.244.2.0/24, InternalIP 192.168.77.12
//!        └─▶ router: 10.244.2.0/24 via 192.168.77.12       (the kernel's own table)
//!        └─▶ condition NetworkUnavailable: False, RouteCreated  (cloud only)
//! ```
//!
//! A Node that the router cannot reach gets the condition with status True and reason NoRouteCreated.
//! Sources: `cloud-provider/controllers/route` of Kubernetes; node conditions in its API conventions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use parfait_lab_fabric::{LabSpec, Router, Underlay};
use serde_json::json;

use crate::exit::said;

/// How long after a failure, and at the latest without a change, the table is looked at again.
const AGAIN: Duration = Duration::from_secs(5);

/// Keeps the table until the lab ends; the text says why it could not.
pub async fn run(client: Client, spec: LabSpec) -> String {
    let mut router = match Router::open(&spec) {
        Ok(router) => router,
        Err(error) => return error.to_string(),
    };
    loop {
        match hold(&client, &spec, &mut router).await {
            Ok(seen) => changed(&client, &seen).await,
            Err(why) => {
                tracing::warn!("the router's routes: {why}; trying again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Waits until a Node has changed since what was seen. What somebody does to the table itself is put right then
/// too, at the latest after [`AGAIN`].
async fn changed(client: &Client, seen: &str) {
    let nodes: Api<Node> = Api::all(client.clone());
    let watch = async {
        match nodes.watch(&WatchParams::default(), seen).await {
            Ok(events) => drop(std::pin::pin!(events).next().await),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    };
    drop(tokio::time::timeout(AGAIN, watch).await);
}

/// Answers which version of the Nodes it has seen.
async fn hold(client: &Client, spec: &LabSpec, router: &mut Router) -> Result<String, String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let listed = nodes.list(&ListParams::default()).await;
    let listed = listed.map_err(|e| said(&e))?;
    let seen = listed.metadata.resource_version.unwrap_or_default();
    let nodes = listed.items;
    let wanted: BTreeMap<IpNet, IpAddr> = nodes.iter().flat_map(routes).collect();
    let failed = router.hold(&wanted).map_err(|e| e.to_string())?;
    for node in nodes.iter().filter(|_| spec.underlay == Underlay::Cloud) {
        let why: Vec<_> = routes(node)
            .filter_map(|(cidr, _)| Some(format!("{cidr}: {}", failed.get(&cidr)?)))
            .collect();
        if routes(node).next().is_some() {
            tell(client, node, &why.join("; ")).await?;
        }
    }
    Ok(seen)
}

/// Each pod CIDR leads to the node's address of its family.
fn routes(node: &Node) -> impl Iterator<Item = (IpNet, IpAddr)> + '_ {
    let cidrs = node
        .spec
        .iter()
        .flat_map(|spec| spec.pod_cidrs.iter().flatten());
    let addresses = node
        .status
        .iter()
        .flat_map(|s| s.addresses.iter().flatten());
    let addresses: Vec<IpAddr> = addresses
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect();
    cidrs.filter_map(move |cidr| {
        let cidr: IpNet = cidr.parse().ok()?;
        let same = |address: &&IpAddr| address.is_ipv4() == cidr.addr().is_ipv4();
        Some((cidr, *addresses.iter().find(same)?))
    })
}

/// The condition, unless it says so already.
async fn tell(client: &Client, node: &Node, why: &str) -> Result<(), String> {
    let (status, reason, message) = match why {
        "" => (
            "False",
            "RouteCreated",
            "the router has a route to the node's pods".to_owned(),
        ),
        why => (
            "True",
            "NoRouteCreated",
            format!("the router could not create a route: {why}"),
        ),
    };
    let known = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .any(|c| {
            c.type_ == "NetworkUnavailable"
                && c.status == status
                && c.message.as_deref() == Some(&message)
        });
    if known {
        return Ok(());
    }
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let condition = json!({
        "type": "NetworkUnavailable", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    });
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    let done = nodes
        .patch_status(&node.name_any(), &PatchParams::default(), &patch)
        .await;
    done.map(drop).map_err(|e| said(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_cidr_leads_to_the_address_of_its_family() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "node-1"},
            "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64", "wrong"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "node-1"},
                {"type": "InternalIP", "address": "fd00:77::11"},
                {"type": "InternalIP", "address": "192.168.77.11"},
            ]},
        }))
        .unwrap();
        let found: Vec<_> = routes(&node)
            .map(|(cidr, to)| format!("{cidr} via {to}"))
            .collect();
        assert_eq!(
            found,
            [
                "10.244.1.0/24 via 192.168.77.11",
                "fd00:10:244:1::/64 via fd00:77::11"
            ]
        );
    }
}

//! What a node's agent may ask of the API server: the rules of its Role and ClusterRole.
//!
//! Promises: a request of this crate is allowed by these rules, and no rule allows what nothing here asks for. Both are
//! tested against RBAC as a lab's API server decides it (`programs/parfait/tests/manifest.rs`), and every agent of a lab
//! has these rights and no others.
//!
//! Left out: whatever the API server gives to everybody that it knows (`system:discovery`), and what RBAC cannot say: that
//! an agent annotates its own Node only. What people need for `parfait explain` is to read what is followed here.

use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Resource;
use parfait_cluster::{Config, RawClusterNetworkPolicy, RawLoadBalancerPool, RawNodeNetworkPolicy};

use crate::Lease;

/// What an agent may do with objects of every namespace, and of none.
#[must_use]
pub fn everywhere() -> Vec<PolicyRule> {
    vec![
        // The feed.
        rule::<Namespace>(&["list", "watch"]),
        rule::<Pod>(&["list", "watch"]),
        // Its own, with what it found about the underlay.
        rule::<Node>(&["list", "watch", "patch"]),
        // The feed; before an Event or a status is written about one, it is read again.
        rule::<Service>(&["list", "watch", "get"]),
        rule::<EndpointSlice>(&["list", "watch", "get"]),
        rule::<NetworkPolicy>(&["list", "watch", "get"]),
        rule::<RawClusterNetworkPolicy>(&["list", "watch", "get"]),
        rule::<RawNodeNetworkPolicy>(&["list", "watch", "get"]),
        rule::<RawLoadBalancerPool>(&["list", "watch", "get"]),
        // Addresses from pools.
        status(rule::<Service>(&["update"])),
        // Whether all of a policy is used.
        status(rule::<RawClusterNetworkPolicy>(&["patch"])),
        status(rule::<RawNodeNetworkPolicy>(&["patch"])),
        // Said again, an Event is patched.
        rule::<Event>(&["create", "patch"]),
    ]
}

/// What an agent may do in `kube-system` besides.
#[must_use]
pub fn in_kube_system() -> Vec<PolicyRule> {
    vec![
        named(
            &Config::object_name().name,
            rule::<ConfigMap>(&["list", "watch"]),
        ),
        // Who gives load balancers' addresses out. A right to create cannot name what is not there yet.
        rule::<coordination::Lease>(&["create"]),
        named(
            Lease::LOAD_BALANCER,
            rule::<coordination::Lease>(&["get", "update"]),
        ),
    ]
}

fn rule<K: Resource<DynamicType = ()>>(verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![K::group(&()).into_owned()]),
        resources: Some(vec![K::plural(&()).into_owned()]),
        verbs: verbs.iter().map(ToString::to_string).collect(),
        ..PolicyRule::default()
    }
}

fn status(rule: PolicyRule) -> PolicyRule {
    let of = |resources: Vec<String>| {
        resources
            .iter()
            .map(|name| format!("{name}/status"))
            .collect()
    };
    PolicyRule {
        resources: rule.resources.map(of),
        ..rule
    }
}

fn named(name: &str, rule: PolicyRule) -> PolicyRule {
    PolicyRule {
        resource_names: Some(vec![name.to_owned()]),
        ..rule
    }
}

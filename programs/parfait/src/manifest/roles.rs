//! Who an agent is to the API server, and what it may do there ([`parfait_kube::rights`]).

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::NAMESPACE;

/// The agents' ServiceAccount, and the name of all that is about it.
pub const ACCOUNT: &str = "parfait";

/// Everything that gives agents their rights.
pub struct Rights {
    pub account: ServiceAccount,
    pub cluster_role: ClusterRole,
    pub cluster_binding: ClusterRoleBinding,
    pub role: Role,
    pub binding: RoleBinding,
}

/// The rights that every agent has, and no others.
pub fn rights() -> Rights {
    let within = ObjectMeta {
        name: Some(ACCOUNT.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        ..ObjectMeta::default()
    };
    let everywhere = ObjectMeta {
        namespace: None,
        ..within.clone()
    };
    Rights {
        account: ServiceAccount {
            metadata: within.clone(),
            ..ServiceAccount::default()
        },
        cluster_role: ClusterRole {
            metadata: everywhere.clone(),
            rules: Some(parfait_kube::rights::everywhere()),
            ..ClusterRole::default()
        },
        cluster_binding: ClusterRoleBinding {
            metadata: everywhere,
            role_ref: named("ClusterRole"),
            subjects: Some(vec![agents()]),
        },
        role: Role {
            metadata: within.clone(),
            rules: Some(parfait_kube::rights::in_kube_system()),
        },
        binding: RoleBinding {
            metadata: within,
            role_ref: named("Role"),
            subjects: Some(vec![agents()]),
        },
    }
}

fn named(kind: &str) -> RoleRef {
    RoleRef {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: kind.to_owned(),
        name: ACCOUNT.to_owned(),
    }
}

fn agents() -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: ACCOUNT.to_owned(),
        namespace: Some(NAMESPACE.to_owned()),
        api_group: None,
    }
}

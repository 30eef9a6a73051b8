//! Which defaults and rules belong to which kind.

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::autoscaling::v2 as autoscaling;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::api::scheduling::v1 as scheduling;
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;

use super::Kind;
use crate::status::FieldErrors;
use crate::validate::names::NameRule;
use crate::{custom, defaults, validate};

impl Kind for core::Pod {
    fn fill_defaults(&mut self) {
        defaults::pod::pod(self);
    }
    fn validate(&self, errors: &mut FieldErrors) {
        validate::pod::pod(self, errors);
    }
    fn validate_update(&self, old: &Self, errors: &mut FieldErrors) {
        validate::pod::pod_update(self, old, errors);
    }
}

impl Kind for core::PodTemplate {
    fn fill_defaults(&mut self) {
        if let Some(spec) = self.template.as_mut().and_then(|t| t.spec.as_mut()) {
            defaults::pod::pod_spec(spec);
        }
    }
}

impl Kind for core::Service {
    const NAME: NameRule = NameRule::Label1035;
    fn leave_behind(&mut self, old: &Self) {
        defaults::network::service_type_changed(self, old);
    }
    fn fill_defaults(&mut self) {
        defaults::network::service(self);
    }
    fn validate(&self, errors: &mut FieldErrors) {
        validate::service::service(self, errors);
    }
    fn validate_update(&self, old: &Self, errors: &mut FieldErrors) {
        validate::service::service_update(self, old, errors);
    }
}

impl Kind for core::Namespace {
    const NAME: NameRule = NameRule::Label1123;
    fn fill_defaults(&mut self) {
        defaults::other::namespace(self);
    }
}

impl Kind for core::Secret {
    fn fill_defaults(&mut self) {
        defaults::other::secret(self);
    }
    fn validate(&self, errors: &mut FieldErrors) {
        validate::other::secret(self, errors);
    }
    fn validate_update(&self, old: &Self, errors: &mut FieldErrors) {
        validate::other::secret_update(self, old, errors);
    }
}

impl Kind for core::ConfigMap {
    fn validate(&self, errors: &mut FieldErrors) {
        validate::other::config_map(self, errors);
    }
    fn validate_update(&self, old: &Self, errors: &mut FieldErrors) {
        validate::other::config_map_update(self, old, errors);
    }
}

impl Kind for core::Node {
    fn fill_defaults(&mut self) {
        defaults::other::node(self);
    }
    fn validate(&self, errors: &mut FieldErrors) {
        validate::other::node(self, errors);
    }
    fn validate_update(&self, old: &Self, errors: &mut FieldErrors) {
        validate::other::node_update(self, old, errors);
    }
}

impl Kind for core::PersistentVolumeClaim {
    fn fill_defaults(&mut self) {
        defaults::other::persistent_volume_claim(self);
    }
}

impl Kind for extensions::CustomResourceDefinition {
    fn validate(&self, errors: &mut FieldErrors) {
        custom::validate(self, errors);
    }
}

impl Kind for core::PersistentVolume {}
impl Kind for core::Endpoints {}
impl Kind for core::ServiceAccount {}
impl Kind for core::Event {}
impl Kind for core::LimitRange {}
impl Kind for core::ResourceQuota {}

impl Kind for core::ReplicationController {
    fn fill_defaults(&mut self) {
        defaults::apps::replication_controller(self);
    }
}

impl Kind for apps::Deployment {
    fn fill_defaults(&mut self) {
        defaults::apps::deployment(self);
    }
    fn validate(&self, errors: &mut FieldErrors) {
        validate::apps::deployment(self, errors);
    }
    fn validate_update(&self, old: &Self, errors: &mut FieldErrors) {
        validate::apps::deployment_update(self, old, errors);
    }
}

impl Kind for apps::ReplicaSet {
    fn fill_defaults(&mut self) {
        defaults::apps::replica_set(self);
    }
    fn validate(&self, errors: &mut FieldErrors) {
        validate::apps::replica_set(self, errors);
    }
    fn validate_update(&self, old: &Self, errors: &mut FieldErrors) {
        validate::apps::replica_set_update(self, old, errors);
    }
}

impl Kind for apps::StatefulSet {
    fn fill_defaults(&mut self) {
        defaults::apps::stateful_set(self);
    }
    fn validate(&self, errors: &mut FieldErrors) {
        validate::apps::stateful_set(self, errors);
    }
    fn validate_update(&self, old: &Self, errors: &mut FieldErrors) {
        validate::apps::stateful_set_update(self, old, errors);
    }
}

impl Kind for apps::DaemonSet {
    fn fill_defaults(&mut self) {
        defaults::apps::daemon_set(self);
    }
    fn validate(&self, errors: &mut FieldErrors) {
        validate::apps::daemon_set(self, errors);
    }
    fn validate_update(&self, old: &Self, errors: &mut FieldErrors) {
        validate::apps::daemon_set_update(self, old, errors);
    }
}

impl Kind for apps::ControllerRevision {}

impl Kind for discovery::EndpointSlice {
    fn fill_defaults(&mut self) {
        defaults::network::endpoint_slice(self);
    }
    fn validate(&self, errors: &mut FieldErrors) {
        validate::network::endpoint_slice(self, errors);
    }
    fn validate_update(&self, old: &Self, errors: &mut FieldErrors) {
        validate::network::endpoint_slice_update(self, old, errors);
    }
}

impl Kind for networking::NetworkPolicy {
    fn fill_defaults(&mut self) {
        defaults::network::network_policy(self);
    }
    fn validate(&self, errors: &mut FieldErrors) {
        validate::network::network_policy(self, errors);
    }
}

impl Kind for networking::Ingress {
    fn validate(&self, errors: &mut FieldErrors) {
        validate::network::ingress(self, errors);
    }
}

impl Kind for networking::IngressClass {}
impl Kind for networking::ServiceCIDR {}
impl Kind for networking::IPAddress {
    const NAME: NameRule = NameRule::IpAddress;
}
impl Kind for coordination::Lease {}
impl Kind for events::Event {}

impl Kind for rbac::Role {
    const NAME: NameRule = NameRule::PathSegment;
}
impl Kind for rbac::RoleBinding {
    const NAME: NameRule = NameRule::PathSegment;
}
impl Kind for rbac::ClusterRole {
    const NAME: NameRule = NameRule::PathSegment;
}
impl Kind for rbac::ClusterRoleBinding {
    const NAME: NameRule = NameRule::PathSegment;
}

impl Kind for batch::Job {
    fn fill_defaults(&mut self) {
        defaults::apps::job(self);
    }
}
impl Kind for batch::CronJob {
    fn fill_defaults(&mut self) {
        defaults::apps::cron_job(self);
    }
}
impl Kind for policy::PodDisruptionBudget {}
impl Kind for autoscaling::HorizontalPodAutoscaler {}
impl Kind for scheduling::PriorityClass {}
impl Kind for storage::StorageClass {}

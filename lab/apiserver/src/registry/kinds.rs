//! The rows of the table of kinds, grouped as the API groups are.
//!
//! The rows of [`accepted_rows`] and, of core, the volumes, quotas, limit ranges and replication controllers are
//! accepted: stored, checked for type and unknown fields and given back, and nothing acts on them (rbac is asked
//! for ServiceAccounts alone, batch has no controller, storage does not exist).

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

use super::{Form, Resource};
use crate::patch::schema;
use crate::table;

const NAMESPACED: bool = true;
const CLUSTER: bool = false;

/// Every row, core first.
pub fn rows() -> Vec<Resource> {
    let mut rows = core_rows();
    rows.extend(apps_rows());
    rows.extend(network_rows());
    rows.extend(accepted_rows());
    rows
}

fn core_rows() -> Vec<Resource> {
    vec![
        Resource::of::<core::Pod>(NAMESPACED, table::PODS)
            .short(&["po"])
            .in_all()
            .with_status()
            .counted()
            .returns_deleted()
            .merged_by(&schema::POD),
        Resource::of::<core::Service>(NAMESPACED, table::SERVICES)
            .short(&["svc"])
            .in_all()
            .with_status()
            .returns_deleted()
            .merged_by(&schema::SERVICE),
        Resource::of::<core::Endpoints>(NAMESPACED, table::ENDPOINTS).short(&["ep"]),
        Resource::of::<core::Node>(CLUSTER, table::NODES)
            .short(&["no"])
            .with_status()
            .merged_by(&schema::NODE),
        Resource::of::<core::Namespace>(CLUSTER, table::NAMESPACES)
            .short(&["ns"])
            .with_status()
            .returns_deleted()
            .merged_by(&schema::CONDITIONED),
        Resource::of::<core::ConfigMap>(NAMESPACED, table::CONFIGMAPS).short(&["cm"]),
        Resource::of::<core::Secret>(NAMESPACED, table::SECRETS),
        Resource::of::<core::ServiceAccount>(NAMESPACED, table::SERVICEACCOUNTS)
            .short(&["sa"])
            .returns_deleted()
            .merged_by(&schema::SERVICE_ACCOUNT),
        Resource::of::<core::Event>(NAMESPACED, table::EVENTS).short(&["ev"]),
        Resource::of::<core::PersistentVolumeClaim>(NAMESPACED, table::PERSISTENTVOLUMECLAIMS)
            .short(&["pvc"])
            .with_status()
            .returns_deleted()
            .merged_by(&schema::CONDITIONED),
        Resource::of::<core::PersistentVolume>(CLUSTER, table::PERSISTENTVOLUMES)
            .short(&["pv"])
            .with_status()
            .returns_deleted(),
        Resource::of::<core::ReplicationController>(NAMESPACED, table::REPLICATIONCONTROLLERS)
            .short(&["rc"])
            .in_all()
            .with_status()
            .with_scale()
            .counted()
            .merged_by(&schema::WORKLOAD),
        Resource::of::<core::LimitRange>(NAMESPACED, table::CREATED_AT).short(&["limits"]),
        Resource::of::<core::ResourceQuota>(NAMESPACED, table::DEFAULT)
            .short(&["quota"])
            .with_status(),
        Resource::of::<core::PodTemplate>(NAMESPACED, table::PODTEMPLATES)
            .merged_by(&schema::POD_TEMPLATE_OBJECT),
    ]
}

fn apps_rows() -> Vec<Resource> {
    vec![
        Resource::of::<apps::Deployment>(NAMESPACED, table::DEPLOYMENTS)
            .short(&["deploy"])
            .in_all()
            .with_status()
            .with_scale()
            .counted()
            .merged_by(&schema::DEPLOYMENT),
        Resource::of::<apps::ReplicaSet>(NAMESPACED, table::REPLICASETS)
            .short(&["rs"])
            .in_all()
            .with_status()
            .with_scale()
            .counted()
            .merged_by(&schema::WORKLOAD),
        Resource::of::<apps::StatefulSet>(NAMESPACED, table::STATEFULSETS)
            .short(&["sts"])
            .in_all()
            .with_status()
            .with_scale()
            .counted()
            .merged_by(&schema::WORKLOAD),
        Resource::of::<apps::DaemonSet>(NAMESPACED, table::DAEMONSETS)
            .short(&["ds"])
            .in_all()
            .with_status()
            .counted()
            .merged_by(&schema::WORKLOAD),
        Resource::of::<apps::ControllerRevision>(NAMESPACED, table::CONTROLLERREVISIONS),
    ]
}

fn network_rows() -> Vec<Resource> {
    vec![
        Resource::of::<discovery::EndpointSlice>(NAMESPACED, table::ENDPOINTSLICES).counted(),
        Resource::of::<networking::NetworkPolicy>(NAMESPACED, table::NETWORKPOLICIES)
            .short(&["netpol"])
            .counted(),
        Resource::of::<networking::Ingress>(NAMESPACED, table::INGRESSES)
            .short(&["ing"])
            .with_status()
            .counted(),
        Resource::of::<networking::IngressClass>(CLUSTER, table::INGRESSCLASSES).counted(),
        Resource::of::<networking::ServiceCIDR>(CLUSTER, table::SERVICECIDRS)
            .with_status()
            .merged_by(&schema::CONDITIONED),
        Resource::of::<networking::IPAddress>(CLUSTER, table::IPADDRESSES).short(&["ip"]),
        Resource::of::<coordination::Lease>(NAMESPACED, table::LEASES),
        Resource::of::<events::Event>(NAMESPACED, table::EVENTS)
            .short(&["ev"])
            .spoken_as(Form::EventsV1),
    ]
}

fn accepted_rows() -> Vec<Resource> {
    vec![
        Resource::of::<extensions::CustomResourceDefinition>(CLUSTER, table::CREATED_AT)
            .short(&["crd", "crds"])
            .with_status()
            .counted()
            .merged_by(&schema::CONDITIONED),
        Resource::of::<rbac::Role>(NAMESPACED, table::CREATED_AT),
        Resource::of::<rbac::RoleBinding>(NAMESPACED, table::ROLEBINDINGS),
        Resource::of::<rbac::ClusterRole>(CLUSTER, table::CREATED_AT),
        Resource::of::<rbac::ClusterRoleBinding>(CLUSTER, table::ROLEBINDINGS),
        Resource::of::<batch::Job>(NAMESPACED, table::JOBS)
            .in_all()
            .with_status()
            .counted()
            .merged_by(&schema::WORKLOAD),
        Resource::of::<batch::CronJob>(NAMESPACED, table::CRONJOBS)
            .short(&["cj"])
            .in_all()
            .with_status()
            .counted()
            .merged_by(&schema::CRON_JOB),
        Resource::of::<policy::PodDisruptionBudget>(NAMESPACED, table::PODDISRUPTIONBUDGETS)
            .short(&["pdb"])
            .with_status()
            .counted()
            .merged_by(&schema::CONDITIONED),
        Resource::of::<autoscaling::HorizontalPodAutoscaler>(NAMESPACED, table::DEFAULT)
            .short(&["hpa"])
            .in_all()
            .with_status(),
        Resource::of::<scheduling::PriorityClass>(CLUSTER, table::PRIORITYCLASSES)
            .short(&["pc"])
            .counted(),
        Resource::of::<storage::StorageClass>(CLUSTER, table::STORAGECLASSES)
            .short(&["sc"])
            .returns_deleted(),
    ]
}

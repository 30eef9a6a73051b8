//! Load balancers: the pools, and what a Service has to do with them.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, Metadata, Resource};
use parfait_packet::{Family, Kind, Origin};
use serde::{Deserialize, Serialize};

use super::list;
use crate::balancer::Told;
use crate::{Announcement, LabelSelector, LoadBalancer, LoadBalancerPool, Note};

/// `parfait.dev/v1alpha1` LoadBalancerPool, as the API has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RawLoadBalancerPool {
    /// Its name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was asked for.
    #[serde(default)]
    pub spec: RawPoolSpec,
}

/// Its `spec`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RawPoolSpec {
    /// Addresses, CIDRs and ranges.
    pub addresses: Vec<String>,
    /// How they are made known.
    pub announcement: Option<String>,
    /// The class of the Services that it is for.
    pub load_balancer_class: Option<String>,
    /// Which Services.
    pub service_selector: Option<serde_json::Value>,
    /// Of which namespaces.
    pub namespaces: Vec<String>,
    /// Of which of them, by their labels.
    pub namespace_selector: Option<serde_json::Value>,
}

impl Resource for RawLoadBalancerPool {
    const API_VERSION: &'static str = "parfait.dev/v1alpha1";
    const GROUP: &'static str = "parfait.dev";
    const KIND: &'static str = "LoadBalancerPool";
    const VERSION: &'static str = "v1alpha1";
    const URL_PATH_SEGMENT: &'static str = "loadbalancerpools";
    type Scope = ClusterResourceScope;
}

impl Metadata for RawLoadBalancerPool {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A pool whose selector or class cannot be meant so is left out: it could give addresses to the wrong Services.
pub(super) fn pool(raw: &RawLoadBalancerPool, notes: &mut Vec<Note>) -> Option<LoadBalancerPool> {
    let name = raw.metadata.name.clone()?;
    let origin = Origin::new(Kind::LoadBalancerPool, "", &name);
    let at = |field: &str| origin.clone().field(field);
    let spec = &raw.spec;
    let mut refuse = |field: &str, why: String| {
        notes.push(Note::new(at(field), format!("{why}; the pool is not used")));
        None
    };
    let announcement = match spec.announcement.as_deref() {
        None | Some("" | "Neighbor") => Announcement::Neighbor,
        Some("BGP") => Announcement::Bgp,
        Some("None") => Announcement::None,
        Some(other) => {
            let why = format!("{other:?} is none of Neighbor, BGP, None");
            return refuse("spec.announcement", why);
        }
    };
    let class = spec.load_balancer_class.clone();
    if let Some(class) = class
        .as_deref()
        .filter(|class| !class.starts_with(LoadBalancerPool::CLASSES))
    {
        let why = format!(
            "{class:?} does not begin with {}",
            LoadBalancerPool::CLASSES
        );
        return refuse("spec.loadBalancerClass", why);
    }
    let service_selector = match selector(spec.service_selector.as_ref()) {
        Ok(selector) => selector,
        Err(why) => return refuse("spec.serviceSelector", why),
    };
    let namespace_selector = match selector(spec.namespace_selector.as_ref()) {
        Ok(selector) => selector,
        Err(why) => return refuse("spec.namespaceSelector", why),
    };
    Some(LoadBalancerPool {
        addresses: list(
            &spec.addresses,
            "an address, a CIDR or FIRST-LAST",
            &at("spec.addresses"),
            notes,
        ),
        name,
        announcement,
        class,
        service_selector,
        namespaces: spec.namespaces.clone(),
        namespace_selector,
    })
}

fn selector(value: Option<&serde_json::Value>) -> Result<LabelSelector, String> {
    let Some(value) = value else {
        return Ok(LabelSelector::default());
    };
    let read = LabelSelector::deserialize(value).map_err(|error| error.to_string())?;
    match read.fault() {
        None => Ok(read),
        Some(fault) => Err(fault),
    }
}

/// `None` for a Service that no load balancer has to do with.
pub(super) fn of_service(
    service: &core::Service,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Option<Box<LoadBalancer>> {
    let spec = service.spec.as_ref()?;
    let status = service.status.as_ref();
    let wanted = spec.type_.as_deref() == Some("LoadBalancer");
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let told = conditions.into_iter().flatten();
    let mut told = told.filter(|condition| condition.type_ == LoadBalancer::CONDITION);
    let told = told.next().map(|condition| Told {
        satisfied: condition.status == "True",
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    });
    if !wanted && told.is_none() {
        return None;
    }
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let points = ingress.map_or(0, Vec::len);
    let held: Vec<_> = ingress
        .into_iter()
        .flatten()
        .filter(|point| point.hostname.is_none() && point.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|point| point.ip.as_ref()?.parse().ok())
        .collect();
    let annotations = service.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get(LoadBalancer::WISHES));
    let annotated = annotated.iter().flat_map(|text| text.split(','));
    let annotated = annotated.map(str::trim).filter(|text| !text.is_empty());
    let field = format!("metadata.annotations[{}]", LoadBalancer::WISHES);
    let mut wishes = list(
        annotated,
        "an IP address",
        &origin.clone().field(&field),
        notes,
    );
    if wishes.is_empty() {
        let given = spec.load_balancer_ip.iter().filter(|text| !text.is_empty());
        let field = origin.clone().field("spec.loadBalancerIP");
        wishes = list(given, "an IP address", &field, notes);
    }
    Some(Box::new(LoadBalancer {
        wanted,
        class: spec.load_balancer_class.clone(),
        labels: service.metadata.labels.clone().unwrap_or_default(),
        families: families(spec),
        wishes,
        elsewhere: points > held.len(),
        held,
        told,
    }))
}

/// The API server fills `ipFamilies` in; where objects come from files, the cluster IPs say as much.
fn families(spec: &core::ServiceSpec) -> Vec<Family> {
    let named = spec.ip_families.iter().flatten();
    let mut families: Vec<Family> = named
        .filter_map(|name| match name.as_str() {
            "IPv4" => Some(Family::Ipv4),
            "IPv6" => Some(Family::Ipv6),
            _ => None,
        })
        .collect();
    if families.is_empty() {
        let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let ips = ips.filter_map(|text| text.parse().ok());
        families.extend(ips.map(Family::of));
    }
    if families.is_empty() {
        families.push(Family::Ipv4);
    }
    let mut unique = Vec::new();
    for family in families {
        if !unique.contains(&family) {
            unique.push(family);
        }
    }
    unique
}

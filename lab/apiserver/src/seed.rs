//! What every cluster holds from the start: the system namespaces, the API's own Service, the Service ranges.
//!
//! kube-apiserver's `systemnamespaces` and `kubernetesservice` controllers keep these; here they are written once, and
//! the endpoints of `default/kubernetes` are the addresses given in [`crate::Config::advertise`].

use serde_json::{Value, json};

use crate::allocate::Family;
use crate::body::Decoded;
use crate::handle::{Checks, Core, Warnings, create_object};
use crate::registry;
use crate::request::FieldValidation;
use crate::status::ApiError;
use crate::{Config, prepare};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Writes the first objects into an empty store.
pub fn seed(core: &Core, config: &Config) -> Result<(), ApiError> {
    for name in NAMESPACES {
        create(
            core,
            ("", "v1", "namespaces"),
            "",
            json!({ "metadata": { "name": name } }),
        )?;
        let account = json!({ "metadata": { "name": "default" } });
        create(core, ("", "v1", "serviceaccounts"), name, account)?;
    }
    let families = core
        .store
        .write(|store| Ok(store.addresses().families().to_vec()))?;
    let Some(primary) = families.first().copied() else {
        return Ok(());
    };
    let ranges: Vec<String> = core.store.write(|store| {
        let pools = store.addresses();
        Ok(families
            .iter()
            .filter_map(|f| pools.range(*f))
            .map(|r| r.to_string())
            .collect())
    })?;
    let cidr = json!({ "metadata": { "name": "kubernetes" }, "spec": { "cidrs": ranges } });
    create(core, ("networking.k8s.io", "v1", "servicecidrs"), "", cidr)?;
    kubernetes_service(core, config, primary)
}

fn kubernetes_service(core: &Core, config: &Config, primary: Family) -> Result<(), ApiError> {
    let target = config
        .advertise
        .first()
        .map_or(6443, std::net::SocketAddr::port);
    let address = core.store.write(|store| {
        let range = store.addresses().range(primary);
        Ok(range.and_then(|r| r.hosts().next()).map(|a| a.to_string()))
    })?;
    // An IPv6 range's first host is the network's own address, which is no Service's.
    let address = address.map(|a| {
        if a.ends_with("::") {
            format!("{a}1")
        } else {
            a
        }
    });
    let labels = json!({ "component": "apiserver", "provider": "kubernetes" });
    let service = json!({
        "metadata": { "name": "kubernetes", "labels": labels },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "ipFamilies": [primary.name()], "ipFamilyPolicy": "SingleStack",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": target }],
        },
    });
    create(core, ("", "v1", "services"), "default", service)?;
    let backends: Vec<String> = config
        .advertise
        .iter()
        .filter(|a| Family::of(a.ip()) == primary)
        .map(|a| a.ip().to_string())
        .collect();
    if backends.is_empty() {
        return Ok(());
    }
    let endpoints: Vec<Value> = backends
        .iter()
        .map(|a| json!({ "addresses": [a], "conditions": { "ready": true } }))
        .collect();
    let slice = json!({
        "metadata": { "name": "kubernetes", "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": primary.name(), "endpoints": endpoints,
        "ports": [{ "name": "https", "port": target, "protocol": "TCP" }],
    });
    create(
        core,
        ("discovery.k8s.io", "v1", "endpointslices"),
        "default",
        slice,
    )?;
    let addresses: Vec<Value> = backends.iter().map(|a| json!({ "ip": a })).collect();
    let old_form = json!({
        "metadata": { "name": "kubernetes", "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
        "subsets": [{ "addresses": addresses, "ports": [{ "name": "https", "port": target, "protocol": "TCP" }] }],
    });
    create(core, ("", "v1", "endpoints"), "default", old_form)
}

fn create(
    core: &Core,
    (group, version, plural): (&str, &str, &str),
    namespace: &str,
    value: Value,
) -> Result<(), ApiError> {
    let resource = registry::find(group, version, plural).ok_or_else(ApiError::no_such_resource)?;
    let checks = Checks {
        validation: FieldValidation::Strict,
        dry_run: false,
    };
    let name = prepare::name_of(&value).to_owned();
    let decoded = Decoded {
        value,
        duplicates: Vec::new(),
    };
    create_object(
        core,
        resource,
        namespace,
        decoded,
        checks,
        &mut Warnings::default(),
    )
    .map_err(|error| {
        tracing::error!(%error, plural, name, "cannot create an object every cluster has");
        error
    })?;
    Ok(())
}

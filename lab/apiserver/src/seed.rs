//! What every API server holds from the start: the system namespaces and the ranges of its Services.
//!
//! kube-apiserver's `systemnamespaces` and default ServiceCIDR controllers keep these; here they are written once.
//! The Service `default/kubernetes`, the ServiceAccounts and the CA ConfigMaps are the controllers' work; the low band
//! of each range is not handed out (see [`crate::allocate`]), so the first address is still there for them.

use serde_json::{Value, json};

use crate::body::Decoded;
use crate::handle::{Checks, Core, Warnings, create_object};
use crate::prepare;
use crate::registry::{self, Resource};
use crate::request::FieldValidation;
use crate::status::ApiError;

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Writes the first objects into an empty store.
pub fn seed(core: &Core) -> Result<(), ApiError> {
    for name in NAMESPACES {
        let namespace = json!({ "metadata": { "name": name } });
        create(core, registry::core("namespaces"), namespace)?;
    }
    let ranges: Vec<String> = core.store.write(|store| {
        let pools = store.addresses();
        let ranges = pools
            .families()
            .iter()
            .filter_map(|family| pools.range(*family));
        Ok(ranges.map(|range| range.to_string()).collect())
    })?;
    match registry::find("networking.k8s.io", "v1", "servicecidrs") {
        Some(resource) if !ranges.is_empty() => {
            let cidr = json!({ "metadata": { "name": "kubernetes" }, "spec": { "cidrs": ranges } });
            create(core, resource, cidr)
        }
        _ => Ok(()),
    }
}

fn create(core: &Core, resource: &'static Resource, value: Value) -> Result<(), ApiError> {
    let checks = Checks {
        validation: FieldValidation::Strict,
        dry_run: false,
    };
    let name = prepare::name_of(&value).to_owned();
    let decoded = Decoded {
        value,
        duplicates: Vec::new(),
    };
    let created = create_object(
        core,
        resource,
        "",
        decoded,
        checks,
        &mut Warnings::default(),
    );
    created.map(drop).inspect_err(|error| {
        tracing::error!(%error, resource = resource.plural, name, "cannot create an object every cluster has");
    })
}

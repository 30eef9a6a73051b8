//! Custom resources: the rows that CustomResourceDefinitions add to the table of kinds.
//!
//! ```text
//!  CustomResourceDefinition ─stored─▶ rows, one for each served version ─▶ discovery, paths, printing, rules
//! ```
//!
//! The rows follow the stored definitions: whoever asks for one first looks whether a definition was written since.
//! All versions of a resource share their objects, which are spoken in the version that is asked for (conversion
//! strategy `None`). When a definition goes, so do its objects.
//!
//! Left out: webhook conversion, CEL rules but for those known to `rules.rs`, `selectableFields`, scale paths other than `.spec.replicas`, and names that
//! are taken by another definition (the first one written keeps the path).

use std::sync::{PoisonError, RwLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps,
};
use serde_json::{Value, json};

use crate::patch::schema as merge;
use crate::prepare;
use crate::registry::{self, Form, Resource};
use crate::status::FieldErrors;
use crate::store::{Object, Store};
use crate::table::{self, Printer};
use crate::validate::names::NameRule;

mod rules;
mod schema;

/// The group of the definitions themselves.
pub const GROUP: &str = "apiextensions.k8s.io";

/// The rows of all definitions.
#[derive(Default)]
pub struct Customs {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// Up to which revision of the definitions' slot this is.
    revision: u64,
    definitions: Vec<Definition>,
}

/// One definition that is served.
struct Definition {
    uid: String,
    revision: u64,
    slot: usize,
    rows: Vec<&'static Resource>,
}

impl Customs {
    /// Every custom row, in the order of the definitions' names.
    pub fn rows(&self, store: &Store) -> Vec<&'static Resource> {
        let slot = registry::definitions().slot;
        let written = store.last_change(slot);
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if known.revision == written {
                return known.rows();
            }
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // What is written meanwhile is seen at the next look.
        known.follow(store, slot);
        known.revision = written;
        known.rows()
    }
}

impl Known {
    fn rows(&self) -> Vec<&'static Resource> {
        let rows = self.definitions.iter().flat_map(|found| &found.rows);
        rows.copied().collect()
    }

    fn follow(&mut self, store: &Store, slot: usize) {
        let Ok(listing) = store.list(slot, None, None) else {
            return;
        };
        let mut before = std::mem::take(&mut self.definitions);
        for object in &listing.objects {
            let uid = object.value["metadata"]["uid"].as_str().unwrap_or_default();
            let same = before.iter().position(|known| known.uid == uid);
            let known = same.map(|at| before.remove(at));
            self.definitions.push(match known {
                Some(known) if known.revision == object.revision => known,
                known => Definition::read(object, uid, known.map(|known| known.slot), store),
            });
        }
        for gone in before {
            store.clear(gone.slot);
        }
    }
}

impl Definition {
    fn read(object: &Object, uid: &str, slot: Option<usize>, store: &Store) -> Self {
        let slot = slot.unwrap_or_else(|| store.add_slot());
        let parsed = crate::kind::parse::<CustomResourceDefinition>(&object.value);
        let rows = parsed.map_or_else(|_| Vec::new(), |definition| rows(&definition, slot));
        Self {
            uid: uid.to_owned(),
            revision: object.revision,
            slot,
            rows,
        }
    }
}

/// The rows live as long as the program, like all others: there are as many as definitions are written.
fn rows(definition: &CustomResourceDefinition, slot: usize) -> Vec<&'static Resource> {
    let served = definition
        .spec
        .versions
        .iter()
        .filter(|version| version.served);
    served
        .map(|version| &*Box::leak(Box::new(row(definition, version, slot))))
        .collect()
}

fn row(
    definition: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
    slot: usize,
) -> Resource {
    let names = &definition.spec.names;
    let subresources = version.subresources.as_ref();
    let scale = subresources.and_then(|all| all.scale.as_ref());
    let shape: JSONSchemaProps = version
        .schema
        .as_ref()
        .and_then(|schema| schema.open_api_v3_schema.clone())
        .unwrap_or_default();
    Resource {
        group: leak(&definition.spec.group),
        version: leak(&version.name),
        plural: leak(&names.plural),
        singular: singular(definition),
        kind: leak(&names.kind),
        namespaced: definition.spec.scope == "Namespaced",
        short_names: leak_all(names.short_names.as_deref()),
        categories: leak_all(names.categories.as_deref()),
        status: subresources.is_some_and(|all| all.status.is_some()),
        scale: scale.is_some_and(|scale| scale.spec_replicas_path == ".spec.replicas"),
        generation: true,
        returns_deleted: false,
        slot,
        form: Form::Custom,
        name_rule: NameRule::Subdomain,
        schema: &merge::PLAIN,
        columns: table::DEFAULT,
        printers: printers(version),
        complete: Box::new(move |completion| schema::complete(&shape, completion)),
    }
}

fn printers(version: &CustomResourceDefinitionVersion) -> Option<Vec<Printer>> {
    let declared = version.additional_printer_columns.as_ref()?;
    let printers = declared.iter().map(|column| {
        let wide = column.priority.unwrap_or(0) > 0;
        Printer::new(&column.name, &column.type_, &column.json_path, wide)
    });
    Some(printers.collect())
}

fn singular(definition: &CustomResourceDefinition) -> String {
    let names = &definition.spec.names;
    let given = names.singular.clone().filter(|name| !name.is_empty());
    given.unwrap_or_else(|| names.kind.to_lowercase())
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn leak_all(texts: Option<&[String]>) -> &'static [&'static str] {
    let texts: Vec<_> = texts.unwrap_or_default().iter().map(|t| leak(t)).collect();
    Box::leak(texts.into_boxed_slice())
}

/// A stored object in a version of its resource.
pub fn spoken(resource: &Resource, stored: &Value) -> Value {
    let mut value = stored.clone();
    value["apiVersion"] = json!(resource.api_version());
    value
}

/// What kube-apiserver's controllers write when a definition is accepted, which here happens at once.
pub fn initial_status(value: &Value) -> Value {
    let names = &value["spec"]["names"];
    let kind = names["kind"].as_str().unwrap_or_default();
    let mut accepted = names.clone();
    if accepted["listKind"].is_null() {
        accepted["listKind"] = json!(format!("{kind}List"));
    }
    if accepted["singular"].is_null() {
        accepted["singular"] = json!(kind.to_lowercase());
    }
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": prepare::now(),
        })
    };
    let versions = value["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<&Value> = versions
        .filter(|version| version["storage"] == true)
        .map(|version| &version["name"])
        .collect();
    json!({
        "acceptedNames": accepted,
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    })
}

/// The rules of a definition.
pub fn validate(definition: &CustomResourceDefinition, errors: &mut FieldErrors) {
    let spec = &definition.spec;
    let name = definition.metadata.name.as_deref().unwrap_or_default();
    if name != format!("{}.{}", spec.names.plural, spec.group) {
        errors.invalid(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        );
    }
    if !spec.group.contains('.') {
        errors.invalid(
            "spec.group",
            spec.group.as_str(),
            "should be a domain with at least one dot",
        );
    }
    if registry::all().iter().any(|row| row.group == spec.group) {
        errors.invalid(
            "spec.group",
            spec.group.as_str(),
            "is a group of Kubernetes itself",
        );
    }
    if !matches!(spec.scope.as_str(), "Namespaced" | "Cluster") {
        errors.not_supported(
            "spec.scope",
            spec.scope.as_str(),
            &["Cluster", "Namespaced"],
        );
    }
    if spec
        .versions
        .iter()
        .filter(|version| version.storage)
        .count()
        != 1
    {
        errors.invalid(
            "spec.versions",
            spec.versions.len(),
            "must have exactly one version marked as storage version",
        );
    }
    for (index, version) in spec.versions.iter().enumerate() {
        let schema = version.schema.as_ref();
        if schema
            .and_then(|schema| schema.open_api_v3_schema.as_ref())
            .is_none()
        {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            errors.required(field, "schemas are required");
        }
    }
}

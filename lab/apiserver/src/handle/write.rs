//! create, update and patch.
//!
//! ```text
//!  body ─▶ prepare ─▶ complete (parse, unknown fields, defaults, rules) ─▶ [ lock: unchanged? addresses ] ─▶ stored
//!             ▲                                                                     │
//!             └────────────── patch again on a newer object ◀────── changed meanwhile
//! ```
//!
//! The costly part runs outside the lock on a reading of the object; the lock then checks that the reading is still
//! current. A patch that lost the race is applied again, as kube-apiserver does; an update is a conflict only if the
//! client named a resource version.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

use super::{Call, Core};
use crate::body::{self, Decoded};
use crate::kind::{Completion, TypeError, parse};
use crate::patch::{self, PatchForm};
use crate::prepare::{self, Part};
use crate::registry::{self, Form, Resource};
use crate::request::FieldValidation;
use crate::status::ApiError;
use crate::store::{Key, Object, Writer};
use crate::{custom, events, service_addresses, validate};

/// How often a patch is tried again when others write the same object.
const PATCH_ATTEMPTS: usize = 8;

/// How many Events are kept. Kubernetes keeps an hour's; a lab left alone must not grow for ever.
const EVENTS_KEPT: usize = 2000;

/// Sentences for `Warning` headers.
#[derive(Debug, Default)]
pub struct Warnings(Vec<String>);

impl Warnings {
    /// What is told with every answer about a resource.
    pub(super) fn about(resource: &Resource) -> Self {
        Self(validate::warnings::deprecated(resource))
    }

    pub(super) fn put_into(self, response: &mut Response<Body>) {
        for text in self.0 {
            let quoted = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace(['\n', '\r'], " ");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                response
                    .headers_mut()
                    .append(HeaderName::from_static("warning"), value);
            }
        }
    }
}

/// POST to a collection.
pub fn create(call: &Call) -> Result<Response<Body>, ApiError> {
    let decoded = body::decode(&call.content_type, &call.body)?;
    let mut warnings = Warnings::default();
    let namespace = match (&call.target.namespace, call.target.resource.namespaced) {
        (None, true) => return Err(ApiError::method_not_allowed()),
        (namespace, _) => namespace.clone().unwrap_or_default(),
    };
    let checks = Checks {
        validation: call.options.field_validation,
        dry_run: call.options.dry_run,
    };
    let object = create_object(
        &call.core,
        call.target.resource,
        &namespace,
        decoded,
        checks,
        &mut warnings,
    )?;
    let mut response = call.show(StatusCode::CREATED, &object);
    warnings.put_into(&mut response);
    Ok(response)
}

/// How a write is checked, and whether it is meant.
#[derive(Debug, Clone, Copy)]
pub struct Checks {
    /// Unknown and duplicate fields.
    pub validation: FieldValidation,
    /// Do everything but store.
    pub dry_run: bool,
}

/// Creates one object, for a client or for the server itself.
pub fn create_object(
    core: &Core,
    resource: &'static Resource,
    namespace: &str,
    decoded: Decoded,
    checks: Checks,
    warnings: &mut Warnings,
) -> Result<Arc<Object>, ApiError> {
    let mut value = decoded.value;
    prepare::create(resource, namespace, &mut value)?;
    let value = completed(
        resource,
        value,
        None,
        &decoded.duplicates,
        checks.validation,
        warnings,
    )?;
    let name = prepare::name_of(&value).to_owned();
    core.store.write(|store| {
        check_namespace(store, resource, namespace, &name)?;
        let key = Key::new(namespace, name.as_str());
        if store.read(resource.slot, &key).is_some() {
            return Err(ApiError::already_exists(resource, &name));
        }
        let object = commit(store, resource, key, value, None, checks.dry_run)?;
        if resource.slot == registry::core("events").slot {
            store.shrink(resource.slot, EVENTS_KEPT);
        }
        Ok(object)
    })
}

/// PUT of one object.
pub fn replace(call: &Call) -> Result<Response<Body>, ApiError> {
    replace_part(call, Part::Main)
}

/// PUT of an object or of one part of it.
pub fn replace_part(call: &Call, part: Part) -> Result<Response<Body>, ApiError> {
    let decoded = body::decode(&call.content_type, &call.body)?;
    write_part(call, part, &decoded.duplicates, |_| {
        Ok(decoded.value.clone())
    })
}

/// PATCH of one object.
pub fn patch(call: &Call) -> Result<Response<Body>, ApiError> {
    patch_part(call, Part::Main)
}

/// PATCH of an object or of one part of it.
pub fn patch_part(call: &Call, part: Part) -> Result<Response<Body>, ApiError> {
    let form = PatchForm::parse(&call.content_type)?;
    let patch = body::decode_json(&call.body)?;
    let schema = call.target.resource.schema;
    write_part(call, part, &patch.duplicates, |current| {
        patch::apply(form, schema, current, &patch.value)
    })
}

fn write_part(
    call: &Call,
    part: Part,
    duplicates: &[String],
    next: impl Fn(&Value) -> Result<Value, ApiError>,
) -> Result<Response<Body>, ApiError> {
    let mut warnings = Warnings::default();
    let update = Update {
        resource: call.target.resource,
        key: call.key(),
        part,
        duplicates,
        checks: Checks {
            validation: call.options.field_validation,
            dry_run: call.options.dry_run,
        },
    };
    let object = update.run(&call.core, &mut warnings, next)?;
    let mut response = call.show(StatusCode::OK, &object);
    warnings.put_into(&mut response);
    Ok(response)
}

/// One write to an existing object.
pub struct Update<'a> {
    /// The object's resource.
    pub resource: &'static Resource,
    /// The object.
    pub key: Key,
    /// What of it is written.
    pub part: Part,
    /// Fields that occurred twice in the request.
    pub duplicates: &'a [String],
    /// How strict, and whether meant.
    pub checks: Checks,
}

impl Update<'_> {
    /// Computes the successor with `next` until nobody else wrote in between.
    pub fn run(
        &self,
        core: &Core,
        warnings: &mut Warnings,
        next: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<Arc<Object>, ApiError> {
        for _ in 0..PATCH_ATTEMPTS {
            warnings.0.clear();
            let current = core.store.read(self.resource.slot, &self.key);
            let current =
                current.ok_or_else(|| ApiError::not_found(self.resource, &self.key.name))?;
            let spoken = spoken(self.resource, &current.value);
            let mut value = next(&spoken)?;
            prepare::update(self.resource, self.part, &mut value, &spoken)?;
            let validation = self.checks.validation;
            let mut value = completed(
                self.resource,
                value,
                Some(&spoken),
                self.duplicates,
                validation,
                warnings,
            )?;
            prepare::bump_generation(self.resource, &mut value, &spoken);
            let stored = core.store.write(|store| {
                let same = store
                    .read(self.resource.slot, &self.key)
                    .is_some_and(|o| o.revision == current.revision);
                if !same {
                    return Ok(None);
                }
                commit(
                    store,
                    self.resource,
                    self.key.clone(),
                    value,
                    Some(&current),
                    self.checks.dry_run,
                )
                .map(Some)
            })?;
            if let Some(object) = stored {
                return Ok(object);
            }
        }
        Err(ApiError::stale(self.resource, &self.key.name))
    }
}

fn completed(
    resource: &Resource,
    value: Value,
    old: Option<&Value>,
    duplicates: &[String],
    validation: FieldValidation,
    warnings: &mut Warnings,
) -> Result<Value, ApiError> {
    let mut done = (resource.complete)(Completion { value, old })
        .map_err(|error| wrong_type(resource, &error))?;
    let unknown = done
        .unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""));
    let twice = duplicates
        .iter()
        .map(|path| format!("duplicate field \"{path}\""));
    let complaints: Vec<String> = unknown.chain(twice).collect();
    match validation {
        FieldValidation::Strict if !complaints.is_empty() => {
            return Err(ApiError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                resource.kind,
                resource.version,
                resource.kind,
                complaints.join(", ")
            )));
        }
        FieldValidation::Warn => warnings.0.extend(complaints),
        _ => {}
    }
    warnings
        .0
        .extend(validate::warnings::of(resource, &done.value));
    validate::metadata::metadata(resource, &done.value["metadata"], &mut done.errors);
    if done.errors.is_empty() {
        return Ok(done.value);
    }
    Err(ApiError::invalid(
        resource,
        prepare::name_of(&done.value),
        &done.errors.0,
    ))
}

fn wrong_type(resource: &Resource, error: &TypeError) -> ApiError {
    ApiError::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: {error}",
        resource.kind, resource.version, resource.kind
    ))
}

fn spoken(resource: &Resource, stored: &Value) -> Value {
    match resource.form {
        Form::Stored => stored.clone(),
        Form::EventsV1 => events::to_events_v1(stored),
        Form::Custom => custom::spoken(resource, stored),
    }
}

fn check_namespace(
    store: &Writer<'_>,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    if !resource.namespaced {
        return Ok(());
    }
    let namespaces = registry::core("namespaces");
    let Some(object) = store.read(namespaces.slot, &Key::new("", namespace)) else {
        return Err(ApiError::not_found(namespaces, namespace));
    };
    if object.value["metadata"]["deletionTimestamp"].is_null() {
        Ok(())
    } else {
        Err(ApiError::namespace_terminating(resource, name, namespace))
    }
}

/// The last step, under the lock: addresses, then the object; or its removal, if this write freed it.
fn commit(
    store: &mut Writer<'_>,
    resource: &Resource,
    key: Key,
    mut value: Value,
    old: Option<&Arc<Object>>,
    dry_run: bool,
) -> Result<Arc<Object>, ApiError> {
    if resource.form == Form::EventsV1 {
        value = events::to_core_v1(&value);
    }
    let pools = (dry_run && resource.is_core("Service")).then(|| store.addresses().clone());
    if resource.is_core("Service") {
        value = with_addresses(store, resource, value, old.map(|o| &o.value))?;
    }
    if let Some(pools) = pools {
        *store.addresses() = pools;
    }
    if let Some(old) = old.filter(|old| old.value == value) {
        // Nothing changed: no new revision, nobody is woken.
        return Ok(old.clone());
    }
    let finished = prepare::is_finished(resource, &value);
    if dry_run {
        return Ok(Object::unstored(value));
    }
    let object = store.put(resource.slot, key.clone(), value);
    if finished {
        super::delete::forget(store, resource, &key);
    }
    Ok(object)
}

fn with_addresses(
    store: &mut Writer<'_>,
    resource: &Resource,
    value: Value,
    old: Option<&Value>,
) -> Result<Value, ApiError> {
    let broken = |error: TypeError| ApiError::internal(error.to_string());
    let mut service: Service = parse(&value).map_err(broken)?;
    let old: Option<Service> = old.map(parse).transpose().map_err(broken)?;
    let errors = service_addresses::assign(store.addresses(), &mut service, old.as_ref());
    if !errors.is_empty() {
        return Err(ApiError::invalid(
            resource,
            prepare::name_of(&value),
            &errors.0,
        ));
    }
    serde_json::to_value(&service).map_err(|error| ApiError::internal(error.to_string()))
}

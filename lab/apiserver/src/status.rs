//! Kubernetes-shaped errors: every refusal of this server is a `Status` object.
//!
//! kubectl, client-go and kube-rs read three things from a refusal: the HTTP code, the machine-readable
//! `reason`, and `details.causes` naming the fields at fault. The wording follows
//! `k8s.io/apimachinery/pkg/api/errors` and `pkg/util/validation/field`, because people search for it and
//! scripts match it.
//!
//! Promise: an [`ApiError`] always becomes a valid `Status`. Left out: retry hints for overload, which the
//! lab has no limits to speak of.

use serde_json::{Value, json};

use crate::registry::Resource;

/// A refusal, ready to be sent as a `Status` object.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code, repeated inside the `Status`.
    pub code: u16,
    /// Machine-readable reason, as `metav1.StatusReason` spells it.
    pub reason: &'static str,
    /// The sentence kubectl prints after `Error from server`.
    pub message: String,
    /// `details` of the `Status`, `Null` when there are none.
    pub details: Value,
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
        }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = json!({ "name": name, "kind": resource.plural });
        if !resource.group.is_empty() {
            self.details["group"] = json!(resource.group);
        }
        self
    }

    /// 404 for an object of a known resource.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} \"{name}\" not found", resource.qualified()),
        )
        .about(resource, name)
    }

    /// 404 for a path this server does not serve at all.
    pub fn no_such_resource() -> Self {
        let mut error = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = json!({});
        error
    }

    /// 409: a create of a name that is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", resource.qualified()),
        )
        .about(resource, name)
    }

    /// 409: a write based on an old reading, or a precondition that does not hold.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            resource.qualified()
        );
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// 409 with the usual words for a stale `resourceVersion`.
    pub fn stale(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 422: the object was understood and breaks a rule; every broken rule is listed.
    pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().map(FieldError::to_string).collect();
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!(
            "{} \"{name}\" is invalid: {list}",
            resource.qualified_kind()
        );
        let mut error = Self::new(422, "Invalid", message).about(resource, name);
        error.details["kind"] = json!(resource.kind);
        error.details["causes"] = errors
            .iter()
            .map(|e| json!({ "reason": e.rule.reason(), "message": e.body(), "field": e.field }))
            .collect();
        error
    }

    /// 403 for an object of a known resource, or for all of them.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let what = resource.qualified();
        let message = match name {
            "" => format!("{what} is forbidden: {why}"),
            name => format!("{what} \"{name}\" is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// 403 for a create into a namespace that is going away.
    pub fn namespace_terminating(resource: &Resource, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut error = Self::forbidden(resource, name, &why);
        error.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        error
    }

    /// 400: the request itself makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: no token, or a wrong one.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405: the path exists, the verb does not.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406: nothing this server can print is acceptable to the client.
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json (also as Table or PartialObjectMetadata)";
        Self::new(406, "NotAcceptable", message)
    }

    /// 413: more than a sane object.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 415: the body is in a form this server does not read.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 410: the client asks for a past this server no longer remembers; it must list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 504 with the cause clients look for when they are ahead of the server.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut error = Self::new(504, "Timeout", message);
        error.details = json!({ "causes": [{
            "reason": "ResourceVersionTooLarge",
            "message": "Too large resource version",
        }], "retryAfterSeconds": 1 });
        error
    }

    /// 501: part of the Kubernetes API that this server knows of and does not serve.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(501, "NotImplemented", message)
    }

    /// 500: a broken promise of this server.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {}", message.into()),
        )
    }

    /// The `Status` object on the wire.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

/// The `Status` that answers a delete which left nothing to return.
pub fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    let mut details = json!({ "name": name, "kind": resource.plural, "uid": uid });
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}

/// Which rule a field broke, as `field.ErrorType` distinguishes them.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// The field must be there and is not.
    Required,
    /// The value is malformed or out of bounds.
    Invalid(Value),
    /// The value is not one of a closed list.
    NotSupported(Value, Vec<String>),
    /// The value must be unique and is not.
    Duplicate(Value),
    /// The value names something that is not there.
    NotFound(Value),
    /// The field may not be set here.
    Forbidden,
    /// The value is longer than allowed.
    TooLong(usize),
}

impl Rule {
    fn reason(&self) -> &'static str {
        match self {
            Rule::Required => "FieldValueRequired",
            Rule::Invalid(_) => "FieldValueInvalid",
            Rule::NotSupported(..) => "FieldValueNotSupported",
            Rule::Duplicate(_) => "FieldValueDuplicate",
            Rule::NotFound(_) => "FieldValueNotFound",
            Rule::Forbidden => "FieldValueForbidden",
            Rule::TooLong(_) => "FieldValueTooLong",
        }
    }
}

/// One field and the rule it broke. `Display` gives Kubernetes' words.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Path such as `spec.ports[0].port`.
    pub field: String,
    /// What was broken.
    pub rule: Rule,
    /// The rest of the sentence; may be empty.
    pub detail: String,
}

impl FieldError {
    fn body(&self) -> String {
        let head = match &self.rule {
            Rule::Required => "Required value".to_owned(),
            Rule::Invalid(value) => format!("Invalid value: {value}"),
            Rule::Duplicate(value) => format!("Duplicate value: {value}"),
            Rule::NotFound(value) => format!("Not found: {value}"),
            Rule::Forbidden => "Forbidden".to_owned(),
            Rule::TooLong(_) => "Too long".to_owned(),
            Rule::NotSupported(value, allowed) => {
                let allowed: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
                return format!(
                    "Unsupported value: {value}: supported values: {}",
                    allowed.join(", ")
                );
            }
        };
        match (&self.rule, self.detail.as_str()) {
            (Rule::TooLong(limit), "") => format!("{head}: may not be more than {limit} bytes"),
            (_, "") => head,
            (_, detail) => format!("{head}: {detail}"),
        }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// The broken rules of one object, collected so that the user sees all of them at once.
#[derive(Debug, Default)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    /// Nothing broken so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The field is missing.
    pub fn required(&mut self, field: impl Into<String>, detail: &str) {
        self.push(field, Rule::Required, detail);
    }

    /// The value is wrong.
    pub fn invalid(
        &mut self,
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.push(field, Rule::Invalid(value.into()), detail);
    }

    /// The value is not in the closed list.
    pub fn not_supported(
        &mut self,
        field: impl Into<String>,
        value: impl Into<Value>,
        allowed: &[&str],
    ) {
        let mut allowed: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
        allowed.sort();
        self.push(field, Rule::NotSupported(value.into(), allowed), "");
    }

    /// The value was used before.
    pub fn duplicate(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        self.push(field, Rule::Duplicate(value.into()), "");
    }

    /// The value names something that is not there.
    pub fn not_found(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        self.push(field, Rule::NotFound(value.into()), "");
    }

    /// The field may not be set.
    pub fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.push(field, Rule::Forbidden, detail);
    }

    /// The value is longer than `limit` bytes.
    pub fn too_long(&mut self, field: impl Into<String>, limit: usize) {
        self.push(field, Rule::TooLong(limit), "");
    }

    fn push(&mut self, field: impl Into<String>, rule: Rule, detail: impl Into<String>) {
        self.0.push(FieldError {
            field: field.into(),
            rule,
            detail: detail.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    #[test]
    fn words_are_those_of_kubernetes() {
        let service = registry::find("", "v1", "services").expect("services are served");
        let mut errors = FieldErrors::default();
        errors.required("spec.ports", "");
        let one = ApiError::invalid(service, "x", &errors.0);
        assert_eq!(
            one.message,
            "Service \"x\" is invalid: spec.ports: Required value"
        );
        errors.not_supported("spec.type", "Foo", &["NodePort", "ClusterIP"]);
        errors.duplicate("spec.ports[1].name", "a");
        let many = ApiError::invalid(service, "x", &errors.0);
        assert_eq!(
            many.message,
            "Service \"x\" is invalid: [spec.ports: Required value, spec.type: Unsupported value: \"Foo\": \
             supported values: \"ClusterIP\", \"NodePort\", spec.ports[1].name: Duplicate value: \"a\"]"
        );
        assert_eq!(
            many.to_status()["details"]["causes"][1]["reason"],
            "FieldValueNotSupported"
        );
        let deployment =
            registry::find("apps", "v1", "deployments").expect("deployments are served");
        assert_eq!(
            ApiError::not_found(deployment, "d").message,
            "deployments.apps \"d\" not found"
        );
    }
}

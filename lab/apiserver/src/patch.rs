//! PATCH in the three forms this server reads, chosen by content type.
//!
//! | content type | form | specification |
//! |---|---|---|
//! | `application/merge-patch+json` | JSON merge patch | RFC 7396 (was 7386) |
//! | `application/json-patch+json` | JSON patch | RFC 6902 |
//! | `application/strategic-merge-patch+json` | strategic merge | Kubernetes, see [`strategic`] |
//!
//! Server-side apply (`application/apply-patch+yaml`) needs field ownership, which the lab does not keep: doing it
//! as a plain merge would look right until a removed field stayed. It is refused with 415, and kubectl says so.

use serde_json::Value;

use crate::status::ApiError;

mod json;
pub mod schema;
pub mod strategic;

use schema::Schema;

/// The form of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchForm {
    /// RFC 7396.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes' strategic merge.
    Strategic,
}

impl PatchForm {
    /// Chooses by the request's content type.
    pub fn parse(content_type: &str) -> Result<Self, ApiError> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Ok(PatchForm::Merge),
            "application/json-patch+json" => Ok(PatchForm::Json),
            "application/strategic-merge-patch+json" => Ok(PatchForm::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
                Err(ApiError::unsupported_media_type(
                    "server-side apply is not served by the lab: use client-side apply (kubectl apply without \
                     --server-side) or a merge, strategic-merge or JSON patch",
                ))
            }
            other => Err(ApiError::unsupported_media_type(format!(
                "the body of the request was in an unknown format ({other:?}) - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json"
            ))),
        }
    }
}

/// Applies `patch` to `current`.
pub fn apply(
    form: PatchForm,
    schema: &Schema,
    current: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    match form {
        PatchForm::Merge => {
            if !patch.is_object() {
                return Err(ApiError::bad_request("a merge patch must be a JSON object"));
            }
            let mut value = current.clone();
            json_patch::merge(&mut value, patch);
            Ok(value)
        }
        PatchForm::Json => json::apply(current, patch),
        PatchForm::Strategic => strategic::apply(schema, current, patch),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn three_forms() {
        let current = json!({ "a": 1, "b": { "c": 2 } });
        let merged = apply(
            PatchForm::Merge,
            &schema::OBJECT,
            &current,
            &json!({ "a": null, "b": { "d": 3 } }),
        );
        assert_eq!(merged.expect("a merge"), json!({ "b": { "c": 2, "d": 3 } }));
        let patch = json!([{ "op": "test", "path": "/a", "value": 2 }]);
        let error =
            apply(PatchForm::Json, &schema::OBJECT, &current, &patch).expect_err("the test fails");
        assert_eq!(error.code, 422);
        assert_eq!(
            PatchForm::parse("application/apply-patch+yaml")
                .expect_err("not served")
                .code,
            415
        );
        assert_eq!(
            PatchForm::parse("application/merge-patch+json; charset=utf-8").ok(),
            Some(PatchForm::Merge)
        );
    }
}

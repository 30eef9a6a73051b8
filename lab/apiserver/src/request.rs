//! What a request is about: resource, namespace, name, subresource and options, read from path and query.
//!
//! The paths are those of `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`. The deprecated `/watch/` prefix is
//! not served.

use axum::extract::Query;
use http::Uri;

use crate::registry::Resource;
use crate::status::ApiError;

/// The resource a path leads to.
#[derive(Clone)]
pub struct Target {
    /// The row of the table of kinds.
    pub resource: &'static Resource,
    /// The namespace in the path, if any.
    pub namespace: Option<String>,
    /// The object's name, if the path names one.
    pub name: Option<String>,
    /// `status`, `scale`, `binding`, … if the path goes on.
    pub subresource: Option<String>,
}

impl Target {
    /// Reads a path below `/api/v1` or `/apis/GROUP/VERSION`.
    ///
    /// `find` tells which resource is served at a group, version and plural.
    pub fn parse(
        path: &str,
        find: impl Fn(&str, &str, &str) -> Option<&'static Resource>,
    ) -> Result<Self, ApiError> {
        let segments: Vec<String> = path
            .split('/')
            .filter(|s| !s.is_empty())
            .map(percent_decode)
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(ApiError::no_such_resource()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let [plural, rest @ ..] = rest else {
            return Err(ApiError::no_such_resource());
        };
        let resource = find(group, version, plural).ok_or_else(ApiError::no_such_resource)?;
        if namespace.is_some() && !resource.namespaced {
            return Err(ApiError::no_such_resource());
        }
        let (name, subresource) = match rest {
            [] => (None, None),
            [name] => (Some((*name).to_owned()), None),
            [name, subresource, ..] => (Some((*name).to_owned()), Some((*subresource).to_owned())),
        };
        if name.is_some() && resource.namespaced && namespace.is_none() {
            return Err(ApiError::no_such_resource());
        }
        Ok(Target {
            resource,
            namespace,
            name,
            subresource,
        })
    }

    /// The namespace part of the object's key.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

/// How strictly unknown and duplicate fields are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in `Warning` headers.
    Warn,
    /// Refuse.
    Strict,
}

/// Query parameters, all of them that matter to any verb.
#[derive(Debug, Clone)]
pub struct Options {
    /// `labelSelector`.
    pub label_selector: String,
    /// `fieldSelector`.
    pub field_selector: String,
    /// `watch`.
    pub watch: bool,
    /// `resourceVersion`; `None` when absent or empty.
    pub resource_version: Option<u64>,
    /// `resourceVersionMatch`.
    pub resource_version_match: String,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`.
    pub send_initial_events: bool,
    /// `timeoutSeconds`.
    pub timeout_seconds: Option<u64>,
    /// `limit`; 0 means all.
    pub limit: usize,
    /// `continue`.
    pub continue_token: String,
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldValidation`.
    pub field_validation: FieldValidation,
    /// `includeObject`, for tables.
    pub include_object: String,
    /// `gracePeriodSeconds`.
    pub grace_period_seconds: Option<i64>,
    /// `propagationPolicy`.
    pub propagation_policy: Option<String>,
}

impl Options {
    /// Reads the query of a request.
    pub fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| ApiError::bad_request(format!("malformed query: {error}")))?;
        let text = |name: &str| {
            pairs
                .iter()
                .find(|(k, _)| k == name)
                .map_or("", |(_, v)| v.as_str())
        };
        let flag = |name: &str| {
            matches!(text(name), "true" | "1")
                || (text(name).is_empty() && pairs.iter().any(|(k, _)| k == name))
        };
        let number = |name: &str| -> Result<Option<u64>, ApiError> {
            match text(name) {
                "" => Ok(None),
                value => value.parse().map(Some).map_err(|_| {
                    ApiError::bad_request(format!(
                        "invalid {name}: {value:?} is not a non-negative integer"
                    ))
                }),
            }
        };
        let field_validation = match text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}"
                )));
            }
        };
        let dry_run = match text("dryRun") {
            "" => false,
            "All" => true,
            other => {
                return Err(ApiError::bad_request(format!(
                    "dryRun: Unsupported value: {other:?}"
                )));
            }
        };
        Ok(Options {
            label_selector: text("labelSelector").to_owned(),
            field_selector: text("fieldSelector").to_owned(),
            watch: flag("watch"),
            resource_version: number("resourceVersion")?,
            resource_version_match: text("resourceVersionMatch").to_owned(),
            bookmarks: flag("allowWatchBookmarks"),
            send_initial_events: flag("sendInitialEvents"),
            timeout_seconds: number("timeoutSeconds")?,
            limit: usize::try_from(number("limit")?.unwrap_or(0)).unwrap_or(usize::MAX),
            continue_token: text("continue").to_owned(),
            dry_run,
            field_validation,
            include_object: text("includeObject").to_owned(),
            grace_period_seconds: number("gracePeriodSeconds")?.and_then(|n| i64::try_from(n).ok()),
            propagation_policy: Some(text("propagationPolicy").to_owned())
                .filter(|p| !p.is_empty()),
        })
    }
}

fn percent_decode(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes
            .get(i + 1..i + 3)
            .and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[i], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> String {
        match Target::parse(path, crate::registry::find) {
            Ok(t) => format!(
                "{} {} {} {}",
                t.resource.qualified(),
                t.namespace.as_deref().unwrap_or("-"),
                t.name.as_deref().unwrap_or("-"),
                t.subresource.as_deref().unwrap_or("-")
            ),
            Err(error) => error.code.to_string(),
        }
    }

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/api/v1/pods", "pods - - -"),
            ("/api/v1/namespaces", "namespaces - - -"),
            ("/api/v1/namespaces/a", "namespaces - a -"),
            ("/api/v1/namespaces/a/finalize", "namespaces - a finalize"),
            ("/api/v1/namespaces/a/pods", "pods a - -"),
            ("/api/v1/namespaces/a/pods/p/status", "pods a p status"),
            (
                "/api/v1/namespaces/a/services/s/proxy/x/y",
                "services a s proxy",
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "deployments.apps a d scale",
            ),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "clusterroles.rbac.authorization.k8s.io - system:node -",
            ),
            ("/api/v1/nodes/n", "nodes - n -"),
            ("/api/v1/namespaces/a/nodes/n", "404"),
            ("/api/v1/pods/p", "404"),
            ("/apis/apps/v1/pods", "404"),
            ("/apis/example.com/v1/things", "404"),
            ("/", "404"),
        ] {
            assert_eq!(parsed(path), expected, "{path}");
        }
    }

    #[test]
    fn options() {
        let uri: Uri = "/x?watch=1&labelSelector=a%3Db&resourceVersion=0&fieldValidation=Strict"
            .parse()
            .expect("a URI");
        let options = Options::parse(&uri).expect("options");
        assert!(options.watch);
        assert_eq!(options.label_selector, "a=b");
        assert_eq!(options.resource_version, Some(0));
        assert_eq!(options.field_validation, FieldValidation::Strict);
        let uri: Uri = "/x?resourceVersion=abc".parse().expect("a URI");
        assert_eq!(Options::parse(&uri).expect_err("no number").code, 400);
    }
}

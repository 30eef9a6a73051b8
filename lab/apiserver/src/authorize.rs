//! Who may do what: RBAC, for whoever does not hold the lab's own token.
//!
//! ```text
//!   token ─▶ ServiceAccount ─▶ its bindings ─▶ their roles ─▶ a rule that allows verb, resource, name?
//! ```
//!
//! As `k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac` and `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go` have
//! it: rights add up, a RoleBinding counts in its namespace, and a list or watch of the one object that its field selector
//! names has that name. Discovery is open to all who are known.
//!
//! Left out: users and groups but those of ServiceAccounts, aggregated ClusterRoles, and the guard against giving rights
//! away that one does not have: who may write roles here holds the lab's own token.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{PoisonError, RwLock};

use http::Method;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use serde::de::DeserializeOwned;

use crate::handle::Core;
use crate::random;
use crate::registry;
use crate::request::{Options, Target};
use crate::status::ApiError;
use crate::store::Key;

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    namespace: String,
    name: String,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// A right that was made use of: one verb of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// `get`, `list`, …
    pub verb: String,
    /// The API group, empty for core.
    pub group: String,
    /// `services`, or `services/status`.
    pub resource: String,
    /// The names that the rule is for; none: for all.
    pub names: Vec<String>,
}

/// Whose tokens were given out, and what was done with them.
#[derive(Default)]
pub struct Accounts {
    tokens: RwLock<BTreeMap<String, Account>>,
    used: RwLock<BTreeSet<Right>>,
}

impl Accounts {
    /// A token for a ServiceAccount.
    pub fn give(&self, namespace: &str, name: &str) -> String {
        let token = random::token();
        let account = Account {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let mut all = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(token.clone(), account);
        token
    }

    /// Whose token this is.
    pub fn find(&self, token: &str) -> Option<Account> {
        let all = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        all.get(token).cloned()
    }

    /// The rights that were needed so far, by anybody.
    pub fn used(&self) -> BTreeSet<Right> {
        let used = self.used.read().unwrap_or_else(PoisonError::into_inner);
        used.clone()
    }

    fn note(&self, right: Right) {
        let mut used = self.used.write().unwrap_or_else(PoisonError::into_inner);
        used.insert(right);
    }
}

/// What a request asks for, as RBAC sees it.
struct Asked<'a> {
    verb: &'static str,
    group: &'a str,
    /// `services`, or `services/status`.
    resource: String,
    namespace: Option<&'a str>,
    name: Option<String>,
}

/// Refuses what no role allows this ServiceAccount. What is no request for a resource passes: it is discovery, or nothing.
///
/// # Errors
/// 403, with the words of Kubernetes.
pub fn authorize(
    core: &Core,
    by: &Account,
    method: &Method,
    uri: &http::Uri,
) -> Result<(), ApiError> {
    let find = |group: &str, version: &str, plural: &str| core.find(group, version, plural);
    let Ok(target) = Target::parse(uri.path(), find) else {
        return Ok(());
    };
    let asked = Asked::of(&target, &Options::parse(uri)?, method);
    let rules = rules(core, by, asked.namespace);
    let rule = rules.iter().find(|rule| asked.is_allowed_by(rule));
    let rule = rule.ok_or_else(|| asked.forbidden(target.resource, by))?;
    core.accounts.note(Right {
        verb: asked.verb.to_owned(),
        group: asked.group.to_owned(),
        resource: asked.resource,
        names: rule.resource_names.clone().unwrap_or_default(),
    });
    Ok(())
}

impl<'a> Asked<'a> {
    fn of(target: &'a Target, options: &Options, method: &Method) -> Self {
        let selected = || {
            let mut parts = options.field_selector.split(',');
            let name = parts.find_map(|part| part.strip_prefix("metadata.name="))?;
            Some(name.trim_start_matches('=').to_owned())
        };
        let verb = match (method, target.name.is_some()) {
            (&Method::GET, _) if options.watch => "watch",
            (&Method::GET, true) => "get",
            (&Method::GET, false) => "list",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, true) => "delete",
            (&Method::DELETE, false) => "deletecollection",
            // None of the API's: refused later as not allowed.
            _ => "",
        };
        let plural = target.resource.plural;
        Self {
            verb,
            group: target.resource.group,
            resource: match &target.subresource {
                Some(sub) => format!("{plural}/{sub}"),
                None => plural.to_owned(),
            },
            namespace: target.namespace.as_deref(),
            name: match verb {
                "list" | "watch" | "deletecollection" => target.name.clone().or_else(selected),
                _ => target.name.clone(),
            },
        }
    }

    fn is_allowed_by(&self, rule: &PolicyRule) -> bool {
        let has =
            |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        let has_some =
            |list: &Option<Vec<String>>, wanted| has(list.as_deref().unwrap_or_default(), wanted);
        let names = rule.resource_names.as_deref().unwrap_or_default();
        let named = names.is_empty() || self.name.as_ref().is_some_and(|name| names.contains(name));
        has(&rule.verbs, self.verb)
            && has_some(&rule.api_groups, self.group)
            && has_some(&rule.resources, &self.resource)
            && named
    }

    fn forbidden(&self, resource: &registry::Resource, by: &Account) -> ApiError {
        let Self {
            verb,
            group,
            resource: what,
            ..
        } = self;
        let place = match self.namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        let why = format!(
            "User \"{by}\" cannot {verb} resource \"{what}\" in API group \"{group}\" {place}"
        );
        ApiError::forbidden(resource, self.name.as_deref().unwrap_or_default(), &why)
    }
}

/// All rules that hold for a ServiceAccount in a namespace, or for requests of no namespace.
fn rules(core: &Core, by: &Account, namespace: Option<&str>) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    for binding in all::<ClusterRoleBinding>(core, "clusterrolebindings", None) {
        if means(binding.subjects.as_deref(), by) {
            rules.extend(role(core, &binding.role_ref, ""));
        }
    }
    if let Some(namespace) = namespace {
        for binding in all::<RoleBinding>(core, "rolebindings", Some(namespace)) {
            if means(binding.subjects.as_deref(), by) {
                rules.extend(role(core, &binding.role_ref, namespace));
            }
        }
    }
    rules
}

fn means(subjects: Option<&[Subject]>, by: &Account) -> bool {
    let groups = [
        "system:authenticated".to_owned(),
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{}", by.namespace),
    ];
    subjects
        .unwrap_or_default()
        .iter()
        .any(|subject| match subject.kind.as_str() {
            "ServiceAccount" => {
                subject.name == by.name && subject.namespace.as_deref() == Some(&by.namespace)
            }
            "User" => subject.name == by.to_string(),
            "Group" => groups.contains(&subject.name),
            _ => false,
        })
}

/// The rules of the role that a binding names; none if there is no such role.
fn role(core: &Core, named: &RoleRef, namespace: &str) -> Vec<PolicyRule> {
    let rules = match named.kind.as_str() {
        "ClusterRole" => one::<ClusterRole>(core, "clusterroles", Key::new("", &named.name))
            .and_then(|role| role.rules),
        "Role" => {
            one::<Role>(core, "roles", Key::new(namespace, &named.name)).and_then(|role| role.rules)
        }
        _ => None,
    };
    rules.unwrap_or_default()
}

fn slot(plural: &str) -> Option<usize> {
    registry::find("rbac.authorization.k8s.io", "v1", plural).map(|row| row.slot)
}

fn one<T: DeserializeOwned>(core: &Core, plural: &str, key: Key) -> Option<T> {
    let object = core.store.read(slot(plural)?, &key)?;
    serde_json::from_value(object.value.clone()).ok()
}

fn all<T: DeserializeOwned>(core: &Core, plural: &str, namespace: Option<&str>) -> Vec<T> {
    let listing = slot(plural).and_then(|slot| core.store.list(slot, namespace, None).ok());
    let objects = listing.into_iter().flat_map(|listing| listing.objects);
    let read = objects.filter_map(|object| serde_json::from_value(object.value.clone()).ok());
    read.collect()
}

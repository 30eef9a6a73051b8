//! A container's environment: Service variables, `envFrom`, `env`, in this order, later ones winning.
//!
//! Follows the kubelet's `makeEnvironmentVariables` and the expansion rules of `third_party/forked/golang/expansion`:
//! `$(NAME)` is replaced by what was defined before it, `$$` is a dollar sign, and a reference to an unknown name
//! stays as written. `FileKeyRef` (an alpha feature) is not served.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};

use crate::fields::{self, Addresses, Machine};
use crate::sources::{Entries, Source, Sources};

/// What an environment is made from.
#[derive(Debug)]
pub struct Surroundings<'a> {
    pub pod: &'a Pod,
    pub addresses: &'a Addresses,
    pub machine: Machine,
    pub sources: &'a Sources,
    /// The Services of the pod's namespace, and `default/kubernetes`.
    pub services: &'a [Service],
}

/// Why a container cannot have its environment. The kubelet shows it as `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error(
        "{source_name} not found: create it in the pod's namespace, or mark the reference optional"
    )]
    NoSource { source_name: String },
    #[error("{source_name} has no key {key:?}: add it, or mark the reference optional")]
    NoKey { source_name: String, key: String },
    #[error("environment variable {name:?}: {message}")]
    Field { name: String, message: String },
}

/// What a container's environment has by itself if the manifest does not say otherwise.
pub const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/parfait/bin";

/// The environment of `container`, each name once.
pub fn build(
    container: &Container,
    around: &Surroundings<'_>,
    hostname: &str,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Env::default();
    env.set("PATH", DEFAULT_PATH.to_owned());
    env.set("HOSTNAME", hostname.to_owned());
    let spec = around.pod.spec.as_ref();
    let links = spec.and_then(|s| s.enable_service_links).unwrap_or(true);
    let namespace = around
        .pod
        .metadata
        .namespace
        .as_deref()
        .unwrap_or("default");
    for (name, value) in service_variables(around.services, namespace, links) {
        env.set(&name, value);
    }
    add_env_from(container, around.sources, &mut env)?;
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) => Some(expand(text, |name| env.find(name))),
            (None, Some(from)) => one_value(container, &variable.name, from, around)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.set(&variable.name, value);
        }
    }
    Ok(env.list)
}

/// Replaces `$(NAME)` by what `find` knows.
pub fn expand<'a>(text: &str, find: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match find(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// `REDIS_SERVICE_HOST=10.96.0.7` and the rest of Docker's old link variables, for each Service with an address.
/// Without service links only `kubernetes` of the default namespace has some.
fn service_variables(services: &[Service], namespace: &str, links: bool) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = service.metadata.namespace.as_deref() == Some(namespace);
        let master =
            name == "kubernetes" && service.metadata.namespace.as_deref() == Some("default");
        let spec = service.spec.as_ref();
        let ip = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or("None");
        if !(master || (links && own)) || ip == "None" || ip.is_empty() {
            continue;
        }
        let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        all.push((format!("{prefix}_SERVICE_HOST"), ip.to_owned()));
        all.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
        for port in ports {
            if let Some(n) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let n = n.to_uppercase().replace('-', "_");
                all.push((format!("{prefix}_SERVICE_PORT_{n}"), port.port.to_string()));
            }
        }
        let url = |p: &str, n: i32| format!("{}://{host}:{n}", p.to_lowercase());
        for (i, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            if i == 0 {
                all.push((format!("{prefix}_PORT"), url(protocol, port.port)));
            }
            let stem = format!("{prefix}_PORT_{}_{protocol}", port.port);
            all.push((stem.clone(), url(protocol, port.port)));
            all.push((format!("{stem}_PROTO"), protocol.to_lowercase()));
            all.push((format!("{stem}_PORT"), port.port.to_string()));
            all.push((format!("{stem}_ADDR"), ip.to_owned()));
        }
    }
    all
}

fn add_env_from(container: &Container, sources: &Sources, env: &mut Env) -> Result<(), EnvError> {
    for from in container.env_from.iter().flatten() {
        let (source, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(r), _) => (Source::ConfigMap(r.name.clone()), r.optional),
            (None, Some(r)) => (Source::Secret(r.name.clone()), r.optional),
            (None, None) => continue,
        };
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (key, value) in entries(sources, &source, optional)?.into_iter().flatten() {
            let value = String::from_utf8_lossy(value).into_owned();
            env.set(&format!("{prefix}{key}"), value);
        }
    }
    Ok(())
}

/// The value of a `valueFrom`; `None` leaves the variable out (an optional reference to nothing).
fn one_value(
    container: &Container,
    name: &str,
    from: &EnvVarSource,
    around: &Surroundings<'_>,
) -> Result<Option<String>, EnvError> {
    let wrong = |message: String| EnvError::Field {
        name: name.to_owned(),
        message,
    };
    if let Some(r) = &from.field_ref {
        return fields::field(around.pod, around.addresses, &r.field_path)
            .map(Some)
            .map_err(wrong);
    }
    if let Some(r) = &from.resource_field_ref {
        let other = r.container_name.as_deref().and_then(|name| {
            let all = around.pod.spec.as_ref().map(|s| s.containers.as_slice());
            all.unwrap_or_default().iter().find(|c| c.name == name)
        });
        return fields::resource(other.unwrap_or(container), around.machine, r)
            .map(Some)
            .map_err(wrong);
    }
    let (source, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(r), _) => (Source::ConfigMap(r.name.clone()), &r.key, r.optional),
        (None, Some(r)) => (Source::Secret(r.name.clone()), &r.key, r.optional),
        (None, None) => {
            return Err(wrong(
                "this kind of valueFrom is not served by the lab".to_owned(),
            ));
        }
    };
    let Some(found) = entries(around.sources, &source, optional)? else {
        return Ok(None);
    };
    match found.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => Err(EnvError::NoKey {
            source_name: source.to_string(),
            key: key.clone(),
        }),
    }
}

fn entries<'a>(
    sources: &'a Sources,
    source: &Source,
    optional: Option<bool>,
) -> Result<Option<&'a Entries>, EnvError> {
    match sources.get(source) {
        None if optional != Some(true) => Err(EnvError::NoSource {
            source_name: source.to_string(),
        }),
        found => Ok(found),
    }
}

/// An ordered list in which a later value replaces an earlier one.
#[derive(Debug, Default)]
struct Env {
    list: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Env {
    fn set(&mut self, name: &str, value: String) {
        match self.places.get(name) {
            Some(at) => self.list[*at].1 = value,
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|at| self.list[*at].1.as_str())
    }
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;

//! Calling CNI plugins, exactly as a container runtime does.
//!
//! A network is a configuration list (`*.conflist`, or a single plugin's `*.conf` or `*.json`; the first by name in
//! `/etc/cni/net.d`), in the newest version that it names and that is known here. For ADD its plugins run in
//! order, each with its part of the list and the result of the one before on standard input; for DEL in reverse. What,
//! where and who are in the environment:
//!
//! ```text
//! CNI_COMMAND=ADD CNI_CONTAINERID=… CNI_NETNS=/…/netns CNI_IFNAME=eth0 CNI_PATH=/…/bin
//! CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=…;K8S_POD_UID=…
//! ```
//!
//! What a plugin's `capabilities` name is filled in as containerd does: `portMappings` from the pod's `hostPort`s, `bandwidth` from
//! its annotations `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth`, and all its annotations. Where
//! the version has them, STATUS is asked before the node is Ready ([`Readiness`]), and GC when the kubelet starts.
//!
//! Follows the CNI specification 1.1 (sections 2 to 5) and libcni. Left out: CHECK, which no runtime sends, and
//! plugins from other files than the list's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::quantity;

/// A plugin may wait for others, but not for ever.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The versions that this kubelet speaks.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The first with STATUS and GC.
const WITH_STATUS: &str = "1.1.0";

/// The annotations that limit a pod.
const BANDWIDTH: [(&str, &str); 2] = [
    ("kubernetes.io/ingress-bandwidth", "ingress"),
    ("kubernetes.io/egress-bandwidth", "egress"),
];

/// The capability by which a plugin sees a pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// A configuration list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub name: String,
    #[serde(rename = "cniVersion", default = "oldest_version")]
    pub version: String,
    /// What else it can be spoken to in; the newest that is known here is taken.
    #[serde(rename = "cniVersions", default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    #[serde(
        rename = "disableGC",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub disable_gc: bool,
    pub plugins: Vec<Map<String, Value>>,
}

fn oldest_version() -> String {
    "0.3.0".to_owned()
}

/// One pod's end of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub container_id: String,
    pub netns: PathBuf,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub port_mappings: Vec<PortMapping>,
    #[serde(default)]
    pub bandwidth: Option<Bandwidth>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The `bandwidth` capability: bits a second and bits; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    pub ingress_rate: u64,
    pub ingress_burst: u64,
    pub egress_rate: u64,
    pub egress_burst: u64,
}

/// The `portMappings` capability: a `hostPort`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub host_port: i32,
    pub container_port: i32,
    pub protocol: String,
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty", default)]
    pub host_ip: String,
}

#[derive(Debug, thiserror::Error)]
pub enum CniError {
    #[error(
        "no CNI configuration: {dir} has no valid *.conflist (the network's agent writes it when it is ready)"
    )]
    NoNetwork { dir: PathBuf },
    #[error("CNI configuration {path}: {message}")]
    BadNetwork { path: PathBuf, message: String },
    #[error("annotation {name}: {value:?}: must be 1k to 1P bits a second, as 10M")]
    BadLimit { name: &'static str, value: String },
    #[error("CNI plugin {plugin} {command}: cannot be run from {dir}: {source}")]
    Start {
        plugin: String,
        command: &'static str,
        dir: PathBuf,
        source: std::io::Error,
    },
    #[error("CNI plugin {plugin} {command}: did not end within {} s", TIMEOUT.as_secs())]
    Timeout {
        plugin: String,
        command: &'static str,
    },
    #[error("CNI plugin {plugin} {command}: {message} (code {code})")]
    Plugin {
        plugin: String,
        command: &'static str,
        code: u64,
        message: String,
    },
    #[error("CNI plugin {plugin} {command}: answered what is no result: {message}")]
    BadResult {
        plugin: String,
        command: &'static str,
        message: String,
    },
}

/// Finds the network: the first readable configuration list of the directory.
pub fn find_network(dir: &Path) -> Result<Network, CniError> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| {
            let extension = p.extension().and_then(|e| e.to_str());
            matches!(extension, Some("conflist" | "conf" | "json"))
        })
        .collect();
    files.sort();
    let mut first_error = None;
    for path in files {
        match parse_network(&path) {
            Ok(network) => return Ok(network),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or(CniError::NoNetwork {
        dir: dir.to_owned(),
    }))
}

fn parse_network(path: &Path) -> Result<Network, CniError> {
    let bad = |message: String| CniError::BadNetwork {
        path: path.to_owned(),
        message,
    };
    let text = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    let mut value: Value = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    if path.extension().is_some_and(|e| e != "conflist") && value.get("plugins").is_none() {
        // One plugin alone: its object has the list's fields as well.
        value["plugins"] = json!([value.clone()]);
    }
    let mut network: Network = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
    let named = |version: &&&str| {
        network.version == **version || network.versions.iter().any(|v| v == **version)
    };
    match VERSIONS.iter().rev().find(named) {
        Some(newest) => (*newest).clone_into(&mut network.version),
        None => {
            return Err(bad(format!(
                "cniVersion {:?} is not known here",
                network.version
            )));
        }
    }
    if network.plugins.is_empty() {
        return Err(bad("it has no plugins".to_owned()));
    }
    match network.plugins.iter().find(|p| type_of(p).is_empty()) {
        Some(_) => Err(bad("a plugin has no type, or one with a slash".to_owned())),
        None => Ok(network),
    }
}

/// The plugin's program, a plain file name.
fn type_of(plugin: &Map<String, Value>) -> &str {
    let name = plugin.get("type").and_then(Value::as_str).unwrap_or("");
    if name.contains('/') { "" } else { name }
}

/// The `hostPort`s of a pod.
pub fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    containers
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            Some(PortMapping {
                host_port: p.host_port.filter(|n| *n > 0)?,
                container_port: p.container_port,
                protocol: p.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                host_ip: p.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// The limits that a pod's annotations ask for. The burst is what containerd sends: the largest number.
pub fn bandwidth(pod: &Pod) -> Result<Option<Bandwidth>, CniError> {
    let annotations = pod.metadata.annotations.as_ref();
    let mut limits = Bandwidth::default();
    for (name, way) in BANDWIDTH {
        let Some(value) = annotations.and_then(|all| all.get(name)) else {
            continue;
        };
        let rate =
            quantity::whole(value).filter(|rate| (1_000..=1_000_000_000_000_000).contains(rate));
        let Some(rate) = rate else {
            let value = value.clone();
            return Err(CniError::BadLimit { name, value });
        };
        let burst = u64::from(u32::MAX);
        match way {
            "ingress" => (limits.ingress_rate, limits.ingress_burst) = (rate, burst),
            _ => (limits.egress_rate, limits.egress_burst) = (rate, burst),
        }
    }
    Ok((limits != Bandwidth::default()).then_some(limits))
}

/// Attaches a pod: returns the last plugin's result. On failure everything is undone.
pub async fn add(network: &Network, at: &Attachment, bin: &Path) -> Result<Value, CniError> {
    let mut result: Option<Value> = None;
    for plugin in &network.plugins {
        let config = configuration(network, plugin, at, result.as_ref());
        match call("ADD", plugin, &config, Some(at), bin).await {
            Ok(Some(value)) => result = Some(value),
            Ok(None) => {}
            Err(error) => {
                let _ = del(network, at, bin, result.as_ref()).await;
                return Err(error);
            }
        }
    }
    Ok(result.unwrap_or_else(|| json!({"cniVersion": network.version})))
}

/// Detaches a pod. All plugins are asked, even after a failure; the first error is returned.
pub async fn del(
    network: &Network,
    at: &Attachment,
    bin: &Path,
    result: Option<&Value>,
) -> Result<(), CniError> {
    let mut first_error = Ok(());
    for plugin in network.plugins.iter().rev() {
        let config = configuration(network, plugin, at, result);
        if let Err(error) = call("DEL", plugin, &config, Some(at), bin).await {
            first_error = first_error.and(Err(error));
        }
    }
    first_error
}

/// Whether the plugins could attach a pod now (STATUS). Older ones always could.
pub async fn status(network: &Network, bin: &Path) -> Result<(), CniError> {
    if network.version.as_str() < WITH_STATUS {
        return Ok(());
    }
    for plugin in &network.plugins {
        call(
            "STATUS",
            plugin,
            &Value::Object(base(network, plugin)),
            None,
            bin,
        )
        .await?;
    }
    Ok(())
}

/// Has everything removed that is not an attachment of one of these containers (GC). All plugins are asked, even after a failure;
/// the first error is returned.
pub async fn collect(network: &Network, containers: &[String], bin: &Path) -> Result<(), CniError> {
    if network.version.as_str() < WITH_STATUS || network.disable_gc {
        return Ok(());
    }
    let valid: Vec<Value> = containers
        .iter()
        .map(|id| json!({"containerID": id, "ifname": "eth0"}))
        .collect();
    let mut first_error = Ok(());
    for plugin in &network.plugins {
        let mut config = base(network, plugin);
        // The specification has two names for it; libcni sends both.
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            config.insert(key.to_owned(), json!(valid));
        }
        if let Err(error) = call("GC", plugin, &Value::Object(config), None, bin).await {
            first_error = first_error.and(Err(error));
        }
    }
    first_error
}

/// Whether pods can have a network: a configuration is there, and its plugins say so. They are not asked at every look.
#[derive(Debug, Default)]
pub struct Readiness {
    asked: Option<(Network, Instant, Result<(), String>)>,
}

impl Readiness {
    const WHEN_READY: Duration = Duration::from_secs(5);
    const WHEN_NOT: Duration = Duration::from_millis(500);

    /// Looks, and asks if it is time or the configuration is another.
    pub async fn look(&mut self, conf: &Path, bin: &Path) -> Result<(), String> {
        let network = match find_network(conf) {
            Ok(network) => network,
            Err(error) => {
                self.asked = None;
                return Err(error.to_string());
            }
        };
        if let Some((asked, at, answer)) = &self.asked {
            let pause = if answer.is_ok() {
                Self::WHEN_READY
            } else {
                Self::WHEN_NOT
            };
            if *asked == network && at.elapsed() < pause {
                return answer.clone();
            }
        }
        let answer = status(&network, bin).await.map_err(|e| e.to_string());
        self.asked = Some((network, Instant::now(), answer.clone()));
        answer
    }
}

/// The addresses of a result, in the plugin's order.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let list = result.get("ips").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok())
        .collect()
}

/// A plugin's standard input: its part of the list with what the runtime adds (section 3 of the specification).
fn configuration(
    network: &Network,
    plugin: &Map<String, Value>,
    at: &Attachment,
    previous: Option<&Value>,
) -> Value {
    let mut config = base(network, plugin);
    let able =
        |name: &str| plugin.get("capabilities").and_then(|c| c.get(name)) == Some(&json!(true));
    let mut runtime = Map::new();
    for (name, given, value) in [
        (
            "portMappings",
            !at.port_mappings.is_empty(),
            json!(at.port_mappings),
        ),
        ("bandwidth", at.bandwidth.is_some(), json!(at.bandwidth)),
        (
            ANNOTATIONS,
            !at.annotations.is_empty(),
            json!(at.annotations),
        ),
    ] {
        if given && able(name) {
            runtime.insert(name.to_owned(), value);
        }
    }
    if !runtime.is_empty() {
        config.insert("runtimeConfig".to_owned(), Value::Object(runtime));
    }
    if let Some(previous) = previous {
        config.insert("prevResult".to_owned(), previous.clone());
    }
    Value::Object(config)
}

/// A plugin's part of the list with what it shares with the others.
fn base(network: &Network, plugin: &Map<String, Value>) -> Map<String, Value> {
    let mut config = plugin.clone();
    config.insert("name".to_owned(), json!(network.name));
    config.insert("cniVersion".to_owned(), json!(network.version));
    config.remove("cniVersions");
    config.remove("capabilities");
    config
}

async fn call(
    command: &'static str,
    plugin: &Map<String, Value>,
    config: &Value,
    at: Option<&Attachment>,
    bin: &Path,
) -> Result<Option<Value>, CniError> {
    let name = type_of(plugin).to_owned();
    let start = |source| CniError::Start {
        plugin: name.clone(),
        command,
        dir: bin.to_owned(),
        source,
    };
    let mut program = Command::new(bin.join(&name));
    if let Some(at) = at {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            at.namespace, at.name, at.container_id, at.uid
        );
        program
            .env("CNI_CONTAINERID", &at.container_id)
            .env("CNI_NETNS", &at.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", args);
    }
    program
        .env("CNI_COMMAND", command)
        .env("CNI_PATH", bin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = start_when_written(&mut program).await.map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that ends without reading is heard by its answer.
        let _ = stdin.write_all(config.to_string().as_bytes()).await;
    }
    let output = tokio::time::timeout(TIMEOUT, child.wait_with_output())
        .await
        .map_err(|_| CniError::Timeout {
            plugin: name.clone(),
            command,
        })?
        .map_err(start)?;
    let answer: Result<Value, _> = serde_json::from_slice(&output.stdout);
    if !output.status.success() {
        return Err(plugin_error(name, command, answer.ok(), &output));
    }
    if output.stdout.trim_ascii().is_empty() {
        return Ok(None);
    }
    answer.map(Some).map_err(|e| CniError::BadResult {
        plugin: name,
        command,
        message: e.to_string(),
    })
}

/// Starts a plugin, waiting a moment for one that somebody has open for writing: an installer that replaces it, or a
/// process forked while it was installed that has not yet executed its program (execve(2), `ETXTBSY`).
async fn start_when_written(program: &mut Command) -> std::io::Result<Child> {
    for _ in 0..50 {
        match program.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result,
        }
    }
    program.spawn()
}

/// The error object on standard output, or what else there is to say.
fn plugin_error(
    plugin: String,
    command: &'static str,
    answer: Option<Value>,
    output: &std::process::Output,
) -> CniError {
    let text = |key: &str| {
        let value = answer.as_ref().and_then(|a| a.get(key));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (message, details) = (text("msg"), text("details"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let message = match (message.is_empty(), details.is_empty()) {
        (false, false) => format!("{message}: {details}"),
        (false, true) => message,
        _ => format!("{}: {}", output.status, stderr.trim()),
    };
    CniError::Plugin {
        plugin,
        command,
        code: answer
            .as_ref()
            .and_then(|a| a.get("code"))
            .and_then(Value::as_u64)
            .unwrap_or(0),
        message,
    }
}

#[cfg(test)]
#[path = "cni_tests.rs"]
mod tests;

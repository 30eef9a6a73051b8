//! Calling CNI plugins, exactly as a container runtime does.
//!
//! A network is a configuration list (`*.conflist`, the first by name in `/etc/cni/net.d`). For ADD its plugins run in
//! order, each with its part of the list and the result of the one before on standard input; for DEL in reverse. What,
//! where and who are in the environment:
//!
//! ```text
//! CNI_COMMAND=ADD CNI_CONTAINERID=… CNI_NETNS=/…/netns CNI_IFNAME=eth0 CNI_PATH=/…/bin
//! CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=…;K8S_POD_UID=…
//! ```
//!
//! Follows the CNI specification 1.1 (sections 2 to 5) and libcni. Left out: CHECK, STATUS and GC verbs,
//! single-plugin `.conf` files and `loadOnlyInlinedPlugins`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// A plugin may wait for others, but not for ever.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A configuration list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub name: String,
    #[serde(rename = "cniVersion", default = "oldest_version")]
    pub version: String,
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
        .filter(|p| p.extension().is_some_and(|e| e == "conflist"))
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
    let network: Network = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
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

/// Attaches a pod: returns the last plugin's result. On failure everything is undone.
pub async fn add(network: &Network, at: &Attachment, bin: &Path) -> Result<Value, CniError> {
    let mut result: Option<Value> = None;
    for plugin in &network.plugins {
        let config = configuration(network, plugin, at, result.as_ref());
        match call("ADD", plugin, &config, at, bin).await {
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
        if let Err(error) = call("DEL", plugin, &config, at, bin).await {
            first_error = first_error.and(Err(error));
        }
    }
    first_error
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
    let mut config = plugin.clone();
    config.insert("name".to_owned(), json!(network.name));
    config.insert("cniVersion".to_owned(), json!(network.version));
    let able =
        |name: &str| plugin.get("capabilities").and_then(|c| c.get(name)) == Some(&json!(true));
    config.remove("capabilities");
    let mut runtime = Map::new();
    if able("portMappings") && !at.port_mappings.is_empty() {
        runtime.insert("portMappings".to_owned(), json!(at.port_mappings));
    }
    if !runtime.is_empty() {
        config.insert("runtimeConfig".to_owned(), Value::Object(runtime));
    }
    if let Some(previous) = previous {
        config.insert("prevResult".to_owned(), previous.clone());
    }
    Value::Object(config)
}

async fn call(
    command: &'static str,
    plugin: &Map<String, Value>,
    config: &Value,
    at: &Attachment,
    bin: &Path,
) -> Result<Option<Value>, CniError> {
    let name = type_of(plugin).to_owned();
    let start = |source| CniError::Start {
        plugin: name.clone(),
        command,
        dir: bin.to_owned(),
        source,
    };
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        at.namespace, at.name, at.container_id, at.uid
    );
    let mut program = Command::new(bin.join(&name));
    program
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &at.container_id)
        .env("CNI_NETNS", &at.netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", args)
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

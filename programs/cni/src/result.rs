//! What the plugin answers, and what others answered before it: the result of ADD (CNI specification 1.1.0, section 5) in
//! each version back to 0.3.1, and the answer to VERSION.
//!
//! | version | differs by |
//! |---|---|
//! | 0.3.1, 0.4.0 | each of `ips` says its family (`version`) |
//! | 1.0.0 | it does not |
//! | 1.1.0 | interfaces have an `mtu` |
//!
//! A plugin that is not the first of its list adds its interface to those of `prevResult`: the lists grow at their ends,
//! and what others wrote, fields unknown here included, is handed on as it is.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use parfait_linux::attachment::pod_gateway;
use parfait_packet::Family;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::attach::Attachment;
use crate::config::{NetworkConfig, VERSIONS, invalid};
use crate::error::{Code, Error};

/// The result of ADD.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    #[serde(default)]
    pub cni_version: String,
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    #[serde(default)]
    pub ips: Vec<Ip>,
    #[serde(default)]
    pub routes: Vec<Route>,
    #[serde(default)]
    pub dns: Value,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Since version 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The namespace's file; none, or empty, is the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ip {
    /// `4` or `6`; until version 0.4.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub address: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Which of the interfaces has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub dst: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Answer {
    /// What the configuration's `prevResult` says; `None` if there is none.
    ///
    /// # Errors
    /// If it is no result of a version that is understood.
    pub fn previous(config: &NetworkConfig) -> Result<Option<Self>, Error> {
        let Some(value) = config.previous() else {
            return Ok(None);
        };
        let answer: Self = Deserialize::deserialize(value)
            .map_err(|error| invalid(format!("prevResult: {error}")))?;
        // Older results have other fields, and what they say would be lost.
        if !answer.cni_version.is_empty() && !VERSIONS.contains(&answer.cni_version.as_str()) {
            let message = format!("prevResult has version {:?}", answer.cni_version);
            return Err(
                Error::new(Code::IncompatibleVersion, message).advise(format!(
                    "Use plugins that speak one of {}.",
                    VERSIONS.join(", ")
                )),
            );
        }
        Ok(Some(answer))
    }

    /// Whether the plugins before this one made an interface of this name in the container.
    pub fn has_interface(&self, name: &str) -> bool {
        let inside = |one: &&Interface| one.sandbox.as_deref().is_some_and(|path| !path.is_empty());
        self.interfaces
            .iter()
            .filter(inside)
            .any(|one| one.name == name)
    }

    /// Adds what was made now, and prints it in the version that the runtime speaks.
    pub fn add(mut self, config: &NetworkConfig, attachment: &Attachment, netns: &Path) -> String {
        let version = config.version;
        let first = self.interfaces.len();
        let mtu = (version == "1.1.0").then(|| attachment.mtu.bytes());
        let (host, pod) = (attachment.host_link(), attachment.pod_link());
        for (link, sandbox) in [(host, None), (pod, Some(netns))] {
            self.interfaces.push(Interface {
                name: link.name.to_string(),
                mac: link.mac.map(|mac| mac.to_string()),
                mtu,
                sandbox: sandbox.map(|path| path.to_string_lossy().into_owned()),
                more: Map::new(),
            });
        }
        self.ips
            .extend(attachment.addresses.iter().map(|address| Ip {
                version: None,
                address: IpNet::from(*address),
                gateway: Some(pod_gateway(Family::of(*address))),
                interface: Some(first + 1),
                more: Map::new(),
            }));
        let routes = attachment.on_pod().routes;
        self.routes.extend(routes.values().map(|item| Route {
            dst: item.value.destination,
            gw: item.value.via,
            more: Map::new(),
        }));
        if let Some(dns) = config.dns() {
            self.dns = dns.clone();
        } else if self.dns.is_null() {
            // A pod's resolv.conf is the kubelet's.
            self.dns = json!({});
        }
        self.print(version)
    }

    fn print(mut self, version: &str) -> String {
        version.clone_into(&mut self.cni_version);
        let old = version.starts_with("0.");
        for ip in &mut self.ips {
            let family = if ip.address.addr().is_ipv4() {
                "4"
            } else {
                "6"
            };
            ip.version = old.then(|| family.to_owned());
        }
        serde_json::to_string(&self).unwrap_or_default()
    }
}

/// The answer to VERSION, in the version it was asked in, if that is one of ours.
pub(crate) fn versions(input: &str) -> String {
    let question: Value = serde_json::from_str(input).unwrap_or_default();
    let asked = question.get("cniVersion").and_then(Value::as_str);
    let version = asked.filter(|version| VERSIONS.contains(version));
    let version = version.unwrap_or(VERSIONS[VERSIONS.len() - 1]);
    json!({"cniVersion": version, "supportedVersions": VERSIONS}).to_string()
}

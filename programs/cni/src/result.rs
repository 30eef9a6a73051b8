//! What the plugin answers: the result of ADD and of VERSION (CNI specification, section 5).

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use parfait_linux::attachment::pod_gateway;
use parfait_packet::Family;
use serde::{Deserialize, Serialize};

use crate::attach::Attachment;
use crate::config::VERSIONS;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Added<'a> {
    cni_version: &'a str,
    interfaces: Vec<Interface<'a>>,
    ips: Vec<Ip>,
    routes: Vec<Route>,
    dns: Dns,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    /// Since version 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a Path>,
}

#[derive(Serialize)]
struct Ip {
    /// `4` or `6`; until version 0.4.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    address: IpNet,
    gateway: IpAddr,
    interface: usize,
}

#[derive(Serialize)]
struct Route {
    dst: IpNet,
    gw: IpAddr,
}

/// The kubelet writes a pod's resolv.conf, not the plugin.
#[derive(Serialize)]
struct Dns {}

/// The result of ADD, in the version the runtime speaks.
pub(crate) fn added(version: &str, attachment: &Attachment, netns: &Path) -> String {
    let mtu = (version == "1.1.0").then(|| attachment.mtu.bytes());
    let old = version.starts_with("0.");
    let host = attachment.host_link();
    let pod = attachment.pod_link();
    let result = Added {
        cni_version: version,
        interfaces: vec![
            Interface {
                name: host.name.as_str(),
                mac: host.mac.map(|mac| mac.to_string()),
                mtu,
                sandbox: None,
            },
            Interface {
                name: pod.name.as_str(),
                mac: pod.mac.map(|mac| mac.to_string()),
                mtu,
                sandbox: Some(netns),
            },
        ],
        ips: attachment
            .addresses
            .iter()
            .map(|address| Ip {
                version: old.then_some(match address {
                    IpAddr::V4(_) => "4",
                    IpAddr::V6(_) => "6",
                }),
                address: IpNet::from(*address),
                gateway: pod_gateway(Family::of(*address)),
                interface: 1,
            })
            .collect(),
        routes: attachment
            .on_pod()
            .routes
            .values()
            .filter_map(|item| {
                Some(Route {
                    dst: item.value.destination,
                    gw: item.value.via?,
                })
            })
            .collect(),
        dns: Dns {},
    };
    serde_json::to_string(&result).unwrap_or_default()
}

/// The answer to VERSION, in the version it was asked in, if that is one of ours.
pub(crate) fn versions(input: &str) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Question {
        cni_version: String,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        cni_version: &'a str,
        supported_versions: [&'static str; VERSIONS.len()],
    }
    let asked = serde_json::from_str::<Question>(input).ok();
    let asked = asked
        .as_ref()
        .map(|question| question.cni_version.as_str())
        .filter(|version| VERSIONS.contains(version));
    let answer = Answer {
        cni_version: asked.unwrap_or(VERSIONS[VERSIONS.len() - 1]),
        supported_versions: VERSIONS,
    };
    serde_json::to_string(&answer).unwrap_or_default()
}

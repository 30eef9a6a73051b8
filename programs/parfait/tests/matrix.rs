//! Every routing mode and IP family, with and without root: the example comes up, every connection that
//! it names works, and a server sees the client pod's own address.
//!
//! Real applications by other people come up unmodified too, where their manifests are at hand.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::Desk;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[test]
fn every_way_as_root() {
    if let Some(desk) = Desk::new("every_way_as_root") {
        every_way(&desk);
    }
}

#[test]
fn every_way_without_root() {
    if let Some(desk) = Desk::without_root("every_way_without_root") {
        every_way(&desk);
    }
}

#[test]
fn real_applications_come_up_unmodified() {
    let folder = std::env::var_os("PARFAIT_SHARED")
        .map_or_else(|| Path::new(REPOSITORY).join("../shared"), PathBuf::from)
        .join("manifests");
    if !folder.is_dir() {
        let text =
            "ABSENT: real applications' manifests; set PARFAIT_SHARED to the folder that has them";
        let stderr = &mut std::io::stderr().lock();
        writeln!(stderr, "{text}: {}", folder.display()).unwrap();
        return;
    }
    let Some(desk) = Desk::new("real_applications_come_up_unmodified") else {
        return;
    };
    for file in ["guestbook.yaml", "online-boutique.yaml"] {
        let file = folder.join(file).display().to_string();
        // It ends well only if every connection works.
        desk.ok(&["lab", "up", "-f", &file]);
        desk.ok(&["lab", "down"]);
    }
    desk.nothing_is_left();
}

fn every_way(desk: &Desk) {
    if std::process::Command::new("kubectl")
        .arg("version")
        .output()
        .is_err()
    {
        let stderr = &mut std::io::stderr().lock();
        writeln!(stderr, "SKIP: every_way: no kubectl in PATH").unwrap();
        return;
    }
    // A copy, as the example may lie where somebody else may not look.
    let shop = std::fs::read_to_string(Path::new(REPOSITORY).join("examples/shop/shop.yaml"));
    let shop = desk.file("shop.yaml", &shop.unwrap());
    for routing in ["auto", "direct", "vxlan"] {
        for family in ["dual", "ipv4", "ipv6"] {
            let way = ["--nodes", "2", "--routing", routing, "--ip-family", family];
            // It ends well only if every connection works.
            desk.ok(&[&["lab", "up", "-f", &shop], &way[..]].concat());
            own_addresses_are_seen(desk, &format!("{routing} {family}"));
            desk.ok(&["lab", "down"]);
        }
    }
    desk.nothing_is_left();
}

/// From each pod of the front to each pod of the api, on every node and over every address.
fn own_addresses_are_seen(desk: &Desk, way: &str) {
    let pods = pods(desk);
    let clients = pods.iter().filter(|pod| pod.name.starts_with("web-"));
    for client in clients {
        for server in pods.iter().filter(|pod| pod.name.starts_with("api-")) {
            for address in &server.addresses {
                let url = match address.contains(':') {
                    true => format!("http://[{address}]:9000/"),
                    false => format!("http://{address}:9000/"),
                };
                let target = format!("pod/{}.shop", client.name);
                let said = desk.ok(&["lab", "exec", &target, "--", "curl", "-sm5", &url]);
                let said: Value = serde_json::from_str(&said).unwrap();
                let seen = said["client"]["address"].as_str().unwrap();
                assert!(
                    client.addresses.iter().any(|own| own == seen),
                    "{way}: {} saw {seen}, not one of {:?}",
                    server.name,
                    client.addresses
                );
            }
        }
    }
}

struct Pod {
    name: String,
    addresses: Vec<String>,
}

fn pods(desk: &Desk) -> Vec<Pod> {
    let kubeconfig = desk.ok(&["lab", "kubeconfig", "--path"]);
    let listed = std::process::Command::new("kubectl")
        .args([
            "--kubeconfig",
            kubeconfig.trim(),
            "get",
            "pods",
            "-n",
            "shop",
            "-o",
            "json",
        ])
        .output()
        .unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let pod = |pod: &Value| Pod {
        name: pod["metadata"]["name"].as_str().unwrap().to_owned(),
        addresses: pod["status"]["podIPs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ip| ip["ip"].as_str().unwrap().to_owned())
            .collect(),
    };
    listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(pod)
        .collect()
}

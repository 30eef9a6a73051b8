//! The program as a container runtime calls it: many processes, a list of plugins, and what goes wrong.
//!
//! [`Runtime`] does what libcni does: it calls each plugin of a list with its part of the configuration and the result of
//! the one before, and on DEL in reverse. Each test makes its own namespaces and lets them go.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use parfait_kernel::NetNs;
use serde_json::{Value, json};

/// A node, and a runtime on it.
struct Runtime {
    node: NetNs,
    folder: tempfile::TempDir,
}

impl Runtime {
    fn new(test: &str) -> Option<Self> {
        let node = match NetNs::create() {
            Ok(node) => node,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "SKIP: {test}: {error}");
                return None;
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "node": "node-1", "addresses": ["192.168.77.11"], "mtu": 1450,
            "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"], "podIsolation": "none",
        });
        std::fs::write(folder.path().join("node.json"), config.to_string()).unwrap();
        let runtime = Self { node, folder };
        for command in [
            "ip link set lo up",
            "ip link add eth0 type veth peer name far0",
            "ip addr add 192.168.77.11/24 dev eth0",
            "ip link set eth0 up",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        ] {
            runtime.shell(command);
        }
        Some(runtime)
    }

    fn shell(&self, command: &str) -> String {
        let mut words = command.split_whitespace();
        let mut program = Command::new(words.next().unwrap());
        program.args(words);
        let output = self.node.run(|| program.output().unwrap()).unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// One plugin, once.
    fn call(
        &self,
        verb: &str,
        mut plugin: Value,
        pod: &Pod,
        previous: Option<&Value>,
    ) -> Result<Value, Value> {
        let name = plugin["type"].as_str().unwrap().to_owned();
        let ours = name == "parfait";
        let path = match ours {
            true => env!("CARGO_BIN_EXE_parfait-cni").to_owned(),
            false => format!("/usr/lib/cni/{name}"),
        };
        if ours {
            plugin["stateDir"] = json!(self.folder.path());
        }
        plugin["name"] = json!("pods");
        if plugin.get("cniVersion").is_none() {
            plugin["cniVersion"] = json!("1.0.0");
        }
        if let Some(previous) = previous {
            plugin["prevResult"] = previous.clone();
        }
        let mut program = Command::new(path);
        program
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs([
                ("CNI_COMMAND", verb),
                ("CNI_PATH", "/usr/lib/cni"),
                ("CNI_IFNAME", "eth0"),
            ])
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", &pod.path)
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}",
                    pod.id
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = self.node.run(|| program.spawn().unwrap()).unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(plugin.to_string().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if output.status.success() {
            Ok(answer)
        } else {
            Err(answer)
        }
    }

    fn add(&self, list: &[Value], pod: &Pod) -> Result<Value, Value> {
        let mut previous = None;
        for plugin in list {
            previous = Some(self.call("ADD", plugin.clone(), pod, previous.as_ref())?);
        }
        Ok(previous.unwrap())
    }

    fn del(&self, list: &[Value], pod: &Pod, previous: Option<&Value>) {
        for plugin in list.iter().rev() {
            let done = self.call("DEL", plugin.clone(), pod, previous);
            assert_eq!(done, Ok(Value::Null), "{plugin}");
        }
    }

    fn interfaces(&self) -> usize {
        let links = self.shell("ip -o link show type veth");
        links.lines().filter(|line| line.contains(": pf")).count()
    }

    fn records(&self) -> usize {
        let folder = self.folder.path().join("ipam/attachments");
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }
}

/// A sandbox.
struct Pod {
    id: String,
    path: String,
    netns: NetNs,
}

impl Pod {
    fn new(id: &str) -> Self {
        let netns = NetNs::create().unwrap();
        // Descriptors of one process are seen by the others through /proc.
        let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        Self {
            id: id.to_owned(),
            path,
            netns,
        }
    }
}

fn ours() -> Value {
    json!({"type": "parfait"})
}

fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_plugin_alone_says_of_which_build_it_is() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parfait-cni"));
    let output = command.arg("--version").env_clear().output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("parfait-cni {}\n", parfait_cni::BUILD));
}

#[test]
fn two_hundred_pods_at_once_lose_and_share_no_address() {
    let Some(runtime) = Runtime::new("two_hundred_pods_at_once_lose_and_share_no_address") else {
        return;
    };
    let pods: Vec<_> = (0..200)
        .map(|number| Pod::new(&format!("c{number}")))
        .collect();
    let given: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .map(|pod| scope.spawn(|| runtime.call("ADD", ours(), pod, None).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let unique: BTreeSet<_> = given.iter().flat_map(addresses).collect();
    assert_eq!(unique.len(), 400);
    assert_eq!((runtime.interfaces(), runtime.records()), (200, 200));
    for (pod, result) in pods.iter().zip(&given).step_by(20) {
        let mut check = ours();
        check["prevResult"] = result.clone();
        assert_eq!(runtime.call("CHECK", check, pod, None), Ok(Value::Null));
    }
    // One half is deleted, the other collected.
    std::thread::scope(|scope| {
        for pod in &pods[..100] {
            scope.spawn(|| runtime.call("DEL", ours(), pod, None).unwrap());
        }
    });
    let collect = json!({"type": "parfait", "cniVersion": "1.1.0", "cni.dev/attachments": [
        {"containerID": "c199", "ifname": "eth0"}]});
    assert_eq!(runtime.call("GC", collect, &pods[0], None), Ok(Value::Null));
    assert_eq!((runtime.interfaces(), runtime.records()), (1, 1));
}

#[test]
fn debians_plugins_come_before_and_after_it() {
    let test = "debians_plugins_come_before_and_after_it";
    if !Path::new("/usr/lib/cni/tuning").exists() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIP: {test}: no /usr/lib/cni (containernetworking-plugins)"
        );
        return;
    }
    let Some(runtime) = Runtime::new(test) else {
        return;
    };
    let pod = Pod::new("c1");
    let list = [
        json!({"type": "loopback"}),
        ours(),
        json!({"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.log_martians": "1"}, "mtu": 1400}),
        json!({"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000,
            "egressRate": 8_000_000, "egressBurst": 800_000}),
    ];
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let list = list.clone().map(|mut plugin| {
            plugin["cniVersion"] = json!(version);
            plugin
        });
        let result = runtime.add(&list, &pod).unwrap();
        assert_eq!(result["cniVersion"], version);
        let names = result["interfaces"].as_array().unwrap().iter();
        let names: Vec<_> = names.map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!((names[0], names[2]), ("lo", "eth0"), "{names:?}");
        let ours = result["ips"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|ip| ip["interface"] == 2);
        assert_eq!(ours.count(), 2, "{result}");
        let set = pod
            .netns
            .run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/log_martians"));
        assert_eq!(set.unwrap().unwrap().trim(), "1");
        runtime.shell("ping -c1 -w10 -s 1300 10.244.1.2");
        if version > "0.3.1" {
            for plugin in &list {
                let checked = runtime.call("CHECK", plugin.clone(), &pod, Some(&result));
                assert_eq!(checked, Ok(Value::Null), "{version} {plugin}");
            }
        }
        runtime.del(&list, &pod, Some(&result));
        runtime.del(&list, &pod, None);
        assert_eq!((runtime.interfaces(), runtime.records()), (0, 0));
        // The same address again, for the next version.
        std::fs::remove_dir_all(runtime.folder.path().join("ipam")).unwrap();
    }
}

#[test]
fn every_command_answers_in_every_version_or_says_why_not() {
    let Some(runtime) = Runtime::new("every_command_answers_in_every_version_or_says_why_not")
    else {
        return;
    };
    let pod = Pod::new("c1");
    let with = |version: &str| json!({"type": "parfait", "cniVersion": version});
    for version in ["0.1.0", "0.2.0", "1.2.0"] {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            let error = runtime.call(verb, with(version), &pod, None).unwrap_err();
            assert_eq!(error["code"], 1, "{verb} {version}");
        }
        let answer = runtime.call("VERSION", with(version), &pod, None).unwrap();
        assert_eq!(
            answer["supportedVersions"],
            json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
    }
    for (version, check, status, first_error) in [
        ("0.3.1", Some(1), Some(1), Some(1)),
        ("0.4.0", None, Some(1), Some(1)),
        ("1.0.0", None, Some(1), Some(1)),
        ("1.1.0", None, None, Some(7)),
    ] {
        let result = runtime.call("ADD", with(version), &pod, None).unwrap();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(
            result["ips"][0].get("version").is_some(),
            version.starts_with("0.")
        );
        assert_eq!(
            result["interfaces"][1].get("mtu").is_some(),
            version == "1.1.0"
        );
        let code = |verb: &str, previous: Option<&Value>| {
            let answer = runtime.call(verb, with(version), &pod, previous);
            answer.err().map(|error| {
                assert_eq!(error["cniVersion"], version);
                error["code"].as_u64().unwrap()
            })
        };
        assert_eq!(code("CHECK", Some(&result)), check, "{version}");
        assert_eq!(code("STATUS", None), status, "{version}");
        // Nothing is removed without a list of what is in use.
        assert_eq!(code("GC", None), first_error, "{version}");
        assert_eq!(code("DANCE", None), Some(4));
        assert_eq!(code("DEL", Some(&result)), None);
    }
}

#[test]
fn del_succeeds_whatever_is_gone() {
    let Some(runtime) = Runtime::new("del_succeeds_whatever_is_gone") else {
        return;
    };
    let mut pod = Pod::new("c1");
    runtime.call("ADD", ours(), &pod, None).unwrap();
    // The network namespace's name, node.json, and whatever sense the configuration made.
    pod.path = "/nowhere".to_owned();
    std::fs::remove_file(runtime.folder.path().join("node.json")).unwrap();
    let odd = json!({"type": "parfait", "unknown": 1, "runtimeConfig": {"bandwidth": 5}});
    let damaged = json!({"cniVersion": "0.2.0", "interfaces": 5});
    assert_eq!(
        runtime.call("DEL", odd, &pod, Some(&damaged)),
        Ok(Value::Null)
    );
    assert_eq!((runtime.interfaces(), runtime.records()), (0, 0));
    // Everything.
    std::fs::remove_dir_all(runtime.folder.path()).unwrap();
    assert_eq!(runtime.call("DEL", ours(), &pod, None), Ok(Value::Null));
    assert_eq!(
        runtime.call("DEL", ours(), &Pod::new("never-added"), None),
        Ok(Value::Null)
    );
    std::fs::create_dir_all(runtime.folder.path()).unwrap();
}

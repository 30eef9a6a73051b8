//! A client as libcni is: it runs the plugins of a list one after the other, each with the result of the
//! one before, keeps the last result, and hands it to CHECK and, from the last plugin to the first, to DEL
//! (CNI specification 1.0.0, section 3).

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::containerd::Containerd;

/// A network of several plugins and what the runtime knows of one pod's attachment.
pub struct Chain<'n> {
    pub node: &'n Containerd,
    plugins: Vec<Value>,
    result: Value,
}

impl<'n> Chain<'n> {
    /// Parfait, and these behind it.
    pub fn new(node: &'n Containerd, behind: &[Value]) -> Self {
        let ours = json!({"type": "parfait", "stateDir": node.path("parfait"), "waitForAgent": 0});
        let plugins = std::iter::once(ours).chain(behind.iter().cloned());
        for plugin in behind {
            let kind = plugin["type"].as_str().unwrap().to_owned();
            let _ = symlink(format!("/usr/lib/cni/{kind}"), node.path("bin").join(&kind));
        }
        Self {
            node,
            plugins: plugins.collect(),
            result: Value::Null,
        }
    }

    pub fn add(&mut self, pod: &str) -> Result<Value, String> {
        self.node.shell(&format!("ip netns add {pod}"))?;
        let mut result = Value::Null;
        for plugin in &self.plugins {
            let answer = self.call("ADD", pod, plugin, &result)?;
            result = serde_json::from_str(&answer).map_err(|e| format!("{e}: {answer}"))?;
        }
        self.result = result.clone();
        Ok(result)
    }

    /// All but `portmap`: of a pod with both families its version 1.1.1 looks for the IPv4 rules among
    /// those of IPv6 ("could not check ipv6 dnat: rule … 10.244.1.2:80").
    pub fn check(&self, pod: &str) -> Result<(), String> {
        let mut each = self
            .plugins
            .iter()
            .filter(|plugin| plugin["type"] != "portmap");
        each.try_for_each(|plugin| self.call("CHECK", pod, plugin, &self.result).map(drop))
    }

    pub fn del(&self, pod: &str) -> Result<(), String> {
        let mut back = self.plugins.iter().rev();
        back.try_for_each(|plugin| self.call("DEL", pod, plugin, &self.result).map(drop))
    }

    fn call(
        &self,
        command: &str,
        pod: &str,
        plugin: &Value,
        previous: &Value,
    ) -> Result<String, String> {
        let mut config = plugin.clone();
        config["cniVersion"] = "1.0.0".into();
        config["name"] = "chain".into();
        if !previous.is_null() {
            config["prevResult"] = previous.clone();
        }
        let kind = config["type"].as_str().unwrap_or_default().to_owned();
        let bin = self.node.path("bin");
        let program = bin.join(&kind).display().to_string();
        let mut child = self
            .node
            .command(&[&program])
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", pod)
            .env("CNI_NETNS", format!("/run/netns/{pod}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &bin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(config.to_string().as_bytes()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!(
                "{kind} {command}: {}{}",
                text(&output.stdout),
                text(&output.stderr)
            )),
        }
    }
}

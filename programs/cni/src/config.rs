//! The network configuration on the standard input (CNI specification 1.1.0, sections 1 and 3).
//!
//! | key | who defines it | here |
//! |---|---|---|
//! | `cniVersion`, `name` | the specification | needed |
//! | `stateDir` | ours | where records are kept; `/var/lib/parfait` |
//! | `waitForAgent` | ours | how many milliseconds ADD waits for the agent's word; 2000 |
//! | `dns` | the specification | goes into the result |
//! | `runtimeConfig`, `args` | the runtime's | read by [`Asked`](crate::Asked); what is unknown in them is ignored |
//! | `prevResult`, `cni.dev/…` | the runtime's | see below |
//! | `type`, `cniVersions`, `capabilities`, `disableCheck`, `disableGC`, `loadOnlyInlinedPlugins`, `ipMasq` | the specification | for the runtime; ignored |
//! | with a `/` in it | somebody's extension | ignored |
//! | `ipam` | the specification | refused: addresses are the node's, from its `podCIDRs` |
//! | any other | nobody | refused, with the key that was perhaps meant |
//!
//! So a misspelled `stateDir` is an error and not a second set of addresses. DEL and GC overlook all that: what was made
//! must go whatever has become of the configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Code, Error};

/// The versions of the specification whose requests are understood, oldest first.
pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The variables of the plugin's environment, by name.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Keys that belong to the runtime or to the specification.
const WELL_KNOWN: [&str; 12] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "dns",
    "ipMasq",
    "disableCheck",
    "disableGC",
];

/// Keys of ours, and those that runtimes and people write beside the plugins.
const OURS: [&str; 3] = ["stateDir", "waitForAgent", "loadOnlyInlinedPlugins"];

/// The network configuration.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The version of the specification that the runtime speaks; one of [`VERSIONS`].
    pub version: &'static str,
    /// The network's name.
    pub name: String,
    /// Where the agent and this plugin keep what must survive.
    pub state_dir: PathBuf,
    /// How long ADD waits until the agent knows the pod.
    pub wait_for_agent: Duration,
    fields: Map<String, Value>,
}

/// What tells attachments apart: a container and the name of its interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentId {
    /// The runtime's name for the container.
    #[serde(rename = "containerID")]
    pub container: String,
    /// The interface's name inside.
    pub ifname: String,
}

impl std::fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.container, self.ifname)
    }
}

impl NetworkConfig {
    /// Parses what every command needs.
    ///
    /// # Errors
    /// If it is not JSON, lacks something, or is of a version that is not understood.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fields: Value = serde_json::from_str(text).map_err(|error| {
            Error::new(Code::Decode, format!("the network configuration: {error}"))
                .advise("It must be a JSON object on the standard input.")
        })?;
        let Value::Object(fields) = fields else {
            return Err(invalid(format!(
                "the network configuration is {fields}, not an object"
            )));
        };
        let version = version(fields.get("cniVersion"))?;
        let name = match fields.get("name") {
            Some(Value::String(name)) if is_name(name) => name.clone(),
            Some(name) => {
                let message = format!("name {name} of the network configuration is no name");
                return Err(invalid(message).advise(
                    "It must be letters, digits, '_', '.' and '-', and start with a letter or digit.",
                ));
            }
            None => return Err(invalid("the network configuration has no name")),
        };
        Ok(Self {
            version,
            name,
            state_dir: state_dir(fields.get("stateDir"))?,
            wait_for_agent: wait_for_agent(fields.get("waitForAgent"))?,
            fields,
        })
    }

    /// Refuses what this plugin cannot act on. Not for DEL and GC, which act on what was made.
    ///
    /// # Errors
    /// Names the first such field, and what may have been meant.
    pub fn refuse_unknown(&self) -> Result<(), Error> {
        let known = |key: &str| WELL_KNOWN.contains(&key) || OURS.contains(&key);
        let unknown = |(key, _): &(&String, &Value)| !known(key) && !key.contains('/');
        let Some((key, value)) = self.fields.iter().find(unknown) else {
            return Ok(());
        };
        let message = format!("the network configuration has an unsupported field {key}: {value}");
        let advice = match (key.as_str(), near(key)) {
            ("ipam", _) => {
                "Remove it: parfait gives addresses itself, from the Node's spec.podCIDRs."
                    .to_owned()
            }
            (_, Some(meant)) => format!("Was {meant} meant?"),
            _ => format!(
                "Remove it. parfait's own fields are stateDir and waitForAgent; limits, ports and addresses come by capabilities ({}).",
                crate::asked::CAPABILITIES.join(", ")
            ),
        };
        Err(Error::new(Code::UnsupportedField, message).advise(advice))
    }

    /// What the runtime filled in for a capability, or `None`.
    #[must_use]
    pub fn runtime(&self, capability: &str) -> Option<&Value> {
        let value = self.fields.get("runtimeConfig")?.get(capability)?;
        (!value.is_null()).then_some(value)
    }

    /// A runtime's argument by the conventions (`args.cni`), or `None`.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&Value> {
        self.fields.get("args")?.get("cni")?.get(name)
    }

    /// What the administrator says about name servers, for the result.
    #[must_use]
    pub fn dns(&self) -> Option<&Value> {
        self.fields.get("dns")
    }

    /// What the plugin before this one, or an earlier ADD, answered.
    #[must_use]
    pub fn previous(&self) -> Option<&Value> {
        self.fields
            .get("prevResult")
            .filter(|value| !value.is_null())
    }

    /// Every attachment that is still in use (GC). The specification has two names for the key; runtimes send both, and
    /// `null` for none. What either lists is in use.
    ///
    /// # Errors
    /// If it is not there or not such a list: nothing may be removed on a guess.
    pub fn valid_attachments(&self) -> Result<BTreeSet<AttachmentId>, Error> {
        let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let mut found = keys
            .iter()
            .filter_map(|key| Some((key, self.fields.get(*key)?)))
            .peekable();
        if found.peek().is_none() {
            return Err(invalid(format!(
                "GC needs {} in the network configuration",
                keys[0]
            )));
        }
        let mut valid = BTreeSet::new();
        for (key, list) in found {
            let listed: Option<BTreeSet<AttachmentId>> = Deserialize::deserialize(list)
                .map_err(|error| invalid(format!("{key}: {error}")))?;
            valid.extend(listed.unwrap_or_default());
        }
        Ok(valid)
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidConfig, message)
}

fn version(value: Option<&Value>) -> Result<&'static str, Error> {
    let asked = value.and_then(Value::as_str).unwrap_or_default();
    let known = VERSIONS.into_iter().find(|version| *version == asked);
    known.ok_or_else(|| {
        let message = match value {
            Some(value) => {
                format!("cniVersion {value} of the network configuration is not supported")
            }
            None => "the network configuration has no cniVersion".to_owned(),
        };
        Error::new(Code::IncompatibleVersion, message)
            .advise(format!("Use one of {}.", VERSIONS.join(", ")))
    })
}

/// As containers are named, too.
pub(crate) fn is_name(text: &str) -> bool {
    let mut letters = text.bytes();
    letters.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && letters.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn state_dir(value: Option<&Value>) -> Result<PathBuf, Error> {
    match value {
        None => Ok(PathBuf::from("/var/lib/parfait")),
        Some(Value::String(path)) if path.starts_with('/') => Ok(PathBuf::from(path)),
        Some(other) => Err(invalid(format!("stateDir {other} is not an absolute path"))
            .advise("It must be the agent's --agent-state-dir, /var/lib/parfait if nobody chose another.")),
    }
}

fn wait_for_agent(value: Option<&Value>) -> Result<Duration, Error> {
    const LONGEST: u64 = 60_000;
    match value {
        None => Ok(Duration::from_secs(2)),
        Some(value) => value
            .as_u64()
            .filter(|wait| *wait <= LONGEST)
            .map(Duration::from_millis)
            .ok_or_else(|| {
                invalid(format!(
                    "waitForAgent {value} is no number of milliseconds up to {LONGEST}"
                ))
            }),
    }
}

/// A known key that differs from this one in case, or in one letter.
fn near(key: &str) -> Option<&'static str> {
    let mut known = WELL_KNOWN.into_iter().chain(OURS);
    known.find(|known| close(&known.to_ascii_lowercase(), &key.to_ascii_lowercase()))
}

/// Whether one letter more, less or other makes them the same, or two that changed places.
fn close(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let start = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[start..], &b[start..]);
    let end = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(x, y)| x == y)
        .count();
    let (a, b) = (&a[..a.len() - end], &b[..b.len() - end]);
    match (a, b) {
        ([x, y], [z, w]) => x == w && y == z,
        _ => a.len() <= 1 && b.len() <= 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NetworkConfig, Code> {
        NetworkConfig::parse(text).map_err(|error| error.code)
    }

    #[test]
    fn configurations_are_parsed_or_refused_with_a_code() {
        let config = parse(r#"{"cniVersion":"1.1.0","name":"n","type":"parfait"}"#).unwrap();
        assert_eq!(config.state_dir, PathBuf::from("/var/lib/parfait"));
        assert_eq!(config.wait_for_agent, Duration::from_secs(2));
        let table = [
            ("", Code::Decode),
            ("{", Code::Decode),
            ("5", Code::InvalidConfig),
            ("{}", Code::IncompatibleVersion),
            (
                r#"{"cniVersion":"0.1.0","name":"n"}"#,
                Code::IncompatibleVersion,
            ),
            (
                r#"{"cniVersion":"0.2.0","name":"n"}"#,
                Code::IncompatibleVersion,
            ),
            (
                r#"{"cniVersion":"2.0.0","name":"n"}"#,
                Code::IncompatibleVersion,
            ),
            (r#"{"cniVersion":1,"name":"n"}"#, Code::IncompatibleVersion),
            (r#"{"cniVersion":"1.1.0"}"#, Code::InvalidConfig),
            (r#"{"cniVersion":"1.1.0","name":""}"#, Code::InvalidConfig),
            (
                r#"{"cniVersion":"1.1.0","name":"a/b"}"#,
                Code::InvalidConfig,
            ),
            (r#"{"cniVersion":"1.1.0","name":5}"#, Code::InvalidConfig),
            (
                r#"{"cniVersion":"1.1.0","name":"n","stateDir":"x"}"#,
                Code::InvalidConfig,
            ),
            (
                r#"{"cniVersion":"1.1.0","name":"n","waitForAgent":-1}"#,
                Code::InvalidConfig,
            ),
            (
                r#"{"cniVersion":"1.1.0","name":"n","waitForAgent":"2s"}"#,
                Code::InvalidConfig,
            ),
        ];
        for (text, code) in table {
            assert_eq!(parse(text).err(), Some(code), "{text}");
        }
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused_and_told_from_a_misspelling() {
        let with = |more: &str| {
            let text = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"parfait"{more}}}"#);
            NetworkConfig::parse(&text).unwrap().refuse_unknown()
        };
        for fine in [
            "",
            r#","stateDir":"/x","waitForAgent":0"#,
            r#","args":{"cni":{"labels":[]}},"capabilities":{"aliases":true},"runtimeConfig":{"aliases":["a"]}"#,
            r#","ipMasq":true,"dns":{"nameservers":["10.0.0.1"]},"cniVersions":["1.0.0"],"disableGC":false"#,
            r#","cni.dev/valid-attachments":[],"example.com/x":1"#,
        ] {
            assert_eq!(with(fine), Ok(()), "{fine}");
        }
        for (field, advice) in [
            (r#","statedir":"/x""#, "Was stateDir meant?"),
            (r#","stateDri":"/x""#, "Was stateDir meant?"),
            (r#","waitForAgents":5"#, "Was waitForAgent meant?"),
            (r#","capability":{}"#, "Remove it. parfait's own"),
            (r#","mtu":1400"#, "Remove it. parfait's own"),
            (r#","ipam":{"type":"host-local"}"#, "spec.podCIDRs"),
        ] {
            let error = with(field).unwrap_err();
            assert_eq!(error.code, Code::UnsupportedField, "{field}");
            assert!(error.details.contains(advice), "{field}: {error}");
            // The specification wants the key and the value in the message.
            assert!(error.message.contains(&field[2..5]), "{error}");
        }
    }

    #[test]
    fn gc_needs_a_list_under_either_name() {
        let valid = |more: &str| {
            let text = format!(r#"{{"cniVersion":"1.1.0","name":"n"{more}}}"#);
            let valid = NetworkConfig::parse(&text).unwrap().valid_attachments();
            valid.map(|all| {
                all.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        let one = r#"[{"containerID":"a","ifname":"eth0"}]"#;
        let two = r#"[{"containerID":"b","ifname":"eth0"}]"#;
        assert_eq!(
            valid(&format!(r#","cni.dev/valid-attachments":{one}"#)).unwrap(),
            "a/eth0"
        );
        assert_eq!(
            valid(&format!(r#","cni.dev/attachments":{one}"#)).unwrap(),
            "a/eth0"
        );
        let both = format!(r#","cni.dev/attachments":{one},"cni.dev/valid-attachments":{two}"#);
        assert_eq!(valid(&both).unwrap(), "a/eth0 b/eth0");
        assert_eq!(valid(r#","cni.dev/valid-attachments":null"#).unwrap(), "");
        for bad in [
            "",
            r#","cni.dev/attachments":5"#,
            r#","cni.dev/attachments":[{}]"#,
        ] {
            assert_eq!(valid(bad).unwrap_err().code, Code::InvalidConfig, "{bad}");
        }
    }
}

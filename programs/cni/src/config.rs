//! What a runtime asks: the network configuration on the standard input and the `CNI_*` variables,
//! parsed (CNI specification 1.1.0, sections 1 and 2).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use parfait_linux::IfName;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

/// The versions of the specification whose requests are understood, oldest first.
pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The variables of the plugin's environment, by name.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The network configuration. Fields of other plugins and of the runtime are ignored, as the
/// specification asks.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    /// The version of the specification that the runtime speaks.
    #[serde(default)]
    pub cni_version: String,
    /// The network's name.
    #[serde(default)]
    pub name: String,
    /// Where the agent and this plugin keep what must survive.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// What an earlier plugin of the chain, or an earlier ADD of this one, made.
    #[serde(default)]
    pub prev_result: Option<PreviousResult>,
    /// Every attachment that is still in use (GC).
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<BTreeSet<AttachmentId>>,
}

fn state_dir() -> PathBuf {
    PathBuf::from("/var/lib/parfait")
}

/// The part of a result that is read back.
#[derive(Clone, Debug, Deserialize)]
pub struct PreviousResult {
    /// The addresses.
    #[serde(default)]
    pub ips: Vec<PreviousIp>,
}

/// One address of a result.
#[derive(Clone, Debug, Deserialize)]
pub struct PreviousIp {
    /// The address and its prefix.
    pub address: IpNet,
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
    /// Parses it.
    ///
    /// # Errors
    /// If it is not JSON, lacks something, or is of a version that is not understood.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let config: Self = serde_json::from_str(text).map_err(|error| {
            let code = match error.classify() {
                serde_json::error::Category::Data => Code::InvalidConfig,
                _ => Code::Decode,
            };
            Error::new(code, format!("the network configuration: {error}"))
        })?;
        if !VERSIONS.contains(&config.cni_version.as_str()) {
            let message = format!(
                "cniVersion {:?} of the network configuration is not supported",
                config.cni_version
            );
            return Err(Error::new(Code::IncompatibleVersion, message)
                .advise(format!("Use one of {}.", VERSIONS.join(", "))));
        }
        if config.name.is_empty() {
            let message = "the network configuration has no name";
            return Err(Error::new(Code::InvalidConfig, message));
        }
        if !config.state_dir.is_absolute() {
            let message = format!(
                "stateDir {} is not an absolute path",
                config.state_dir.display()
            );
            return Err(Error::new(Code::InvalidConfig, message));
        }
        Ok(config)
    }

    /// The addresses that an earlier ADD gave, if the runtime sent its result.
    #[must_use]
    pub fn previous_addresses(&self) -> Option<Vec<IpAddr>> {
        let result = self.prev_result.as_ref()?;
        Some(result.ips.iter().map(|ip| ip.address.addr()).collect())
    }
}

/// Which attachment a command is about.
#[derive(Clone, Debug)]
pub struct Request {
    /// The container and its interface.
    pub id: AttachmentId,
    /// The interface's name, parsed.
    pub ifname: IfName,
    /// The file of the container's network namespace; for DEL it may be gone.
    pub netns: Option<PathBuf>,
    /// The pod's namespace and name, if the runtime is a kubelet's.
    pub pod: Option<(String, String)>,
}

impl Request {
    /// Parses the variables.
    ///
    /// # Errors
    /// If a needed one is missing or malformed.
    pub fn parse(environment: Environment<'_>) -> Result<Self, Error> {
        let needed = |name: &str| {
            environment(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| {
                    Error::new(
                        Code::InvalidEnvironment,
                        format!("the variable {name} is missing"),
                    )
                })
        };
        let invalid = |name: &str, why: String| {
            Error::new(Code::InvalidEnvironment, format!("{name}: {why}"))
        };
        let container = needed("CNI_CONTAINERID")?;
        let mut letters = container.bytes();
        let starts = letters.next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts || !letters.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            let why = format!(
                "{container:?} must be letters, digits, '_', '.' and '-', and start with a letter or digit"
            );
            return Err(invalid("CNI_CONTAINERID", why));
        }
        let ifname = needed("CNI_IFNAME")?;
        let parsed =
            IfName::new(&ifname).map_err(|error| invalid("CNI_IFNAME", error.to_string()))?;
        let arguments = environment("CNI_ARGS").unwrap_or_default();
        let argument = |name: &str| {
            arguments
                .split(';')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, value)| *key == name && !value.is_empty())
                .map(|(_, value)| value.to_owned())
        };
        Ok(Self {
            id: AttachmentId { container, ifname },
            ifname: parsed,
            netns: environment("CNI_NETNS")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            pod: argument("K8S_POD_NAMESPACE").zip(argument("K8S_POD_NAME")),
        })
    }

    /// The network namespace's file, which ADD and CHECK need.
    ///
    /// # Errors
    /// If the runtime did not name one.
    pub fn needed_netns(&self) -> Result<&PathBuf, Error> {
        self.netns.as_ref().ok_or_else(|| {
            Error::new(
                Code::InvalidEnvironment,
                "the variable CNI_NETNS is missing",
            )
        })
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
        let config = parse(r#"{"cniVersion":"1.1.0","name":"n","type":"parfait","x":1}"#).unwrap();
        assert_eq!(config.state_dir, PathBuf::from("/var/lib/parfait"));
        let table = [
            ("", Code::Decode),
            ("{", Code::Decode),
            ("5", Code::InvalidConfig),
            ("{}", Code::IncompatibleVersion),
            (
                r#"{"cniVersion":"2.0.0","name":"n"}"#,
                Code::IncompatibleVersion,
            ),
            (r#"{"cniVersion":"1.1.0"}"#, Code::InvalidConfig),
            (r#"{"cniVersion":"1.1.0","name":5}"#, Code::InvalidConfig),
            (
                r#"{"cniVersion":"1.1.0","name":"n","stateDir":"x"}"#,
                Code::InvalidConfig,
            ),
        ];
        for (text, code) in table {
            assert_eq!(parse(text).err(), Some(code), "{text}");
        }
    }

    #[test]
    fn variables_are_parsed_or_refused() {
        let parse = |container: &str, ifname: &str, arguments: &str| {
            Request::parse(&|name| match name {
                "CNI_CONTAINERID" => Some(container.to_owned()),
                "CNI_IFNAME" => Some(ifname.to_owned()),
                "CNI_ARGS" => Some(arguments.to_owned()),
                _ => None,
            })
        };
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1";
        let request = parse("abc-1", "eth0", arguments).unwrap();
        assert_eq!(
            request.pod,
            Some(("default".to_owned(), "web-1".to_owned()))
        );
        assert!(request.needed_netns().is_err());
        for (container, ifname) in [
            ("", "eth0"),
            ("../x", "eth0"),
            ("a/b", "eth0"),
            ("a", "a/b"),
        ] {
            let error = parse(container, ifname, "").unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment, "{container} {ifname}");
        }
    }
}

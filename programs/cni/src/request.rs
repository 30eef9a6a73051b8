//! The `CNI_*` variables (CNI specification 1.1.0, section 2; CONVENTIONS.md for `CNI_ARGS`).
//!
//! `CNI_ARGS` is `KEY=VALUE;KEY=VALUE`. A key that nobody here knows is an error, unless `IgnoreUnknown` is true among
//! them, which Kubernetes runtimes always say. DEL overlooks what is wrong with them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use parfait_linux::{IfName, Mac};

use crate::config::{AttachmentId, Environment, is_name};
use crate::error::{Code, Error};
use crate::record::PodName;

/// Which attachment a command is about.
#[derive(Clone, Debug)]
pub struct Request {
    /// The container and its interface.
    pub id: AttachmentId,
    /// The interface's name, parsed.
    pub ifname: IfName,
    /// The file of the container's network namespace; for DEL it may be gone.
    pub netns: Option<PathBuf>,
    /// That may be the node's own (`CNI_NETNS_OVERRIDE`).
    pub own_netns: bool,
    /// What is in `CNI_ARGS`.
    pub arguments: Arguments,
}

/// What `CNI_ARGS` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `K8S_POD_NAMESPACE`, `K8S_POD_NAME` and `K8S_POD_UID`, which a kubelet's runtime sets.
    pub pod: Option<PodName>,
    /// `IP`: addresses that are asked for.
    pub ips: Vec<IpAddr>,
    /// `MAC`: the Ethernet address that is asked for.
    pub mac: Option<Mac>,
}

impl Request {
    /// Parses the variables.
    ///
    /// # Errors
    /// If a needed one is missing or malformed.
    pub fn parse(environment: Environment<'_>) -> Result<Self, Error> {
        let arguments = Arguments::parse(&environment("CNI_ARGS").unwrap_or_default())?;
        Self::with(environment, arguments)
    }

    /// Parses what tells which attachment is meant, for a command that cannot afford to fail.
    ///
    /// # Errors
    /// If a needed variable is missing or malformed.
    pub fn parse_leniently(environment: Environment<'_>) -> Result<Self, Error> {
        let arguments = Arguments::parse(&environment("CNI_ARGS").unwrap_or_default());
        Self::with(environment, arguments.unwrap_or_default())
    }

    fn with(environment: Environment<'_>, arguments: Arguments) -> Result<Self, Error> {
        let given = |name: &str| environment(name).filter(|value| !value.is_empty());
        let needed = |name: &str| {
            given(name).ok_or_else(|| invalid(format!("the variable {name} is missing")))
        };
        let container = needed("CNI_CONTAINERID")?;
        if !is_name(&container) {
            return Err(invalid(format!(
                "CNI_CONTAINERID: {container:?} must be letters, digits, '_', '.' and '-', and start with a letter or digit"
            )));
        }
        let ifname = needed("CNI_IFNAME")?;
        let parsed =
            IfName::new(&ifname).map_err(|error| invalid(format!("CNI_IFNAME: {error}")))?;
        // The reference library takes these for true.
        let own = given("CNI_NETNS_OVERRIDE")
            .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"));
        Ok(Self {
            id: AttachmentId { container, ifname },
            ifname: parsed,
            netns: given("CNI_NETNS").map(PathBuf::from),
            own_netns: own,
            arguments,
        })
    }

    /// The network namespace's file, which ADD and CHECK need.
    ///
    /// # Errors
    /// If the runtime did not name one.
    pub fn needed_netns(&self) -> Result<&PathBuf, Error> {
        self.netns
            .as_ref()
            .ok_or_else(|| invalid("the variable CNI_NETNS is missing"))
    }
}

impl Arguments {
    /// Parses `CNI_ARGS`.
    ///
    /// # Errors
    /// If a part is no `KEY=VALUE`, a value makes no sense, or a key is unknown and that is not allowed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut arguments = Self::default();
        let mut pod = PodName {
            namespace: String::new(),
            name: String::new(),
            uid: None,
        };
        let mut ignore_unknown = false;
        let mut unknown = Vec::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                let message = format!("CNI_ARGS: {pair:?} is not KEY=VALUE");
                return Err(invalid(message));
            };
            match key {
                "IgnoreUnknown" => ignore_unknown = boolean(value)?,
                "K8S_POD_NAMESPACE" => value.clone_into(&mut pod.namespace),
                "K8S_POD_NAME" => value.clone_into(&mut pod.name),
                "K8S_POD_UID" => pod.uid = Some(value.to_owned()).filter(|uid| !uid.is_empty()),
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IP" => arguments.ips = addresses(value)?,
                "MAC" if value.is_empty() => {}
                "MAC" => {
                    arguments.mac =
                        Some(mac(value).map_err(|why| invalid(format!("CNI_ARGS: MAC {why}")))?)
                }
                _ => unknown.push(pair),
            }
        }
        if !unknown.is_empty() && !ignore_unknown {
            let message = format!("CNI_ARGS: unknown arguments {}", unknown.join(";"));
            return Err(invalid(message).advise(
                "Remove them, or add IgnoreUnknown=1. Known are IP, MAC, K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_INFRA_CONTAINER_ID and K8S_POD_UID.",
            ));
        }
        if !pod.namespace.is_empty() && !pod.name.is_empty() {
            arguments.pod = Some(pod);
        }
        Ok(arguments)
    }
}

/// An Ethernet address that an interface can have.
pub(crate) fn mac(text: &str) -> Result<Mac, String> {
    let mac = Mac::from_str(&text.to_ascii_lowercase()).map_err(|error| error.to_string())?;
    match mac.bytes() {
        [0, 0, 0, 0, 0, 0] => Err(format!("{text} is nobody's address")),
        [first, ..] if first & 1 == 1 => {
            Err(format!("{text} is a group's address, not an interface's"))
        }
        _ => Ok(mac),
    }
}

/// One address, as `10.244.1.2` or `10.244.1.2/24`: what a pod has is its address alone, so the length says nothing.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some(address)
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, Error> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| {
            address(part).ok_or_else(|| invalid(format!("CNI_ARGS: IP {part:?} is no address")))
        })
        .collect()
}

fn boolean(text: &str) -> Result<bool, Error> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(invalid(format!(
            "CNI_ARGS: IgnoreUnknown {text:?} is neither 1, true, 0 nor false"
        ))),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidEnvironment, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&str, &str)]) -> Result<Request, Error> {
        Request::parse(&|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_are_parsed_or_refused() {
        let good = [("CNI_CONTAINERID", "abc-1"), ("CNI_IFNAME", "eth0")];
        let request_of = request(&good).unwrap();
        assert!(request_of.needed_netns().is_err() && !request_of.own_netns);
        for (name, value) in [
            ("CNI_CONTAINERID", ""),
            ("CNI_CONTAINERID", "../x"),
            ("CNI_CONTAINERID", "a/b"),
            ("CNI_IFNAME", ""),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "sixteen-letters-"),
            ("CNI_ARGS", "X"),
        ] {
            let mut pairs = vec![(name, value)];
            pairs.extend(good.iter().filter(|(other, _)| *other != name));
            let error = request(&pairs).unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment, "{name}={value}");
        }
        for (value, own) in [("1", true), ("TRUE", true), ("0", false), ("yes", false)] {
            let mut pairs = vec![("CNI_NETNS_OVERRIDE", value)];
            pairs.extend(good);
            assert_eq!(request(&pairs).unwrap().own_netns, own, "{value}");
        }
    }

    #[test]
    fn arguments_are_parsed_or_refused() {
        let parse = |text: &str| Arguments::parse(text).map_err(|error| error.message);
        let kubelet = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=;Other=1";
        let pod = parse(kubelet).unwrap().pod.map(|pod| pod.to_string());
        assert_eq!(pod.as_deref(), Some("default/web-1"));
        assert_eq!(parse("").unwrap(), Arguments::default());
        assert_eq!(parse("K8S_POD_NAME=web-1").unwrap().pod, None);
        let asked = parse("IP=10.0.0.9/24,fd00::9;MAC=02:AA:00:00:00:01").unwrap();
        assert_eq!(
            asked.ips,
            [
                "10.0.0.9".parse::<IpAddr>().unwrap(),
                "fd00::9".parse().unwrap()
            ]
        );
        assert_eq!(asked.mac, "02:aa:00:00:00:01".parse().ok());
        assert!(parse("Other=1;IgnoreUnknown=true").is_ok());
        for (text, why) in [
            ("Other=1", "unknown arguments Other=1"),
            ("Other=1;IgnoreUnknown=0", "unknown arguments Other=1"),
            ("IgnoreUnknown=maybe", "IgnoreUnknown"),
            ("IP=10.0.0", "IP \"10.0.0\" is no address"),
            ("IP=10.0.0.1/33", "is no address"),
            ("MAC=1", "MAC"),
            ("MAC=01:00:5e:00:00:01", "a group's address"),
            ("MAC=00:00:00:00:00:00", "nobody's"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}

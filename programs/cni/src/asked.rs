//! [`Asked`]: what is asked for one pod beyond being attached.
//!
//! | what | `runtimeConfig` (a capability) | `args.cni` | `CNI_ARGS` | pod annotation |
//! |---|---|---|---|---|
//! | addresses | `ips` | `ips` | `IP` | `parfait.dev/ips`, with commas |
//! | Ethernet address | `mac` | `mac` | `MAC` | |
//! | ports of the node | `portMappings` | | | |
//! | limits | `bandwidth` | | | |
//!
//! What stands further left counts. Annotations come through the capability `io.kubernetes.cri.pod-annotations`. The keys inside
//! are read in any case: containerd writes `HostPort` where the conventions have `hostPort`, and Go's plugins see no
//! difference. Follows CONVENTIONS.md of the CNI project; limits are checked as the reference plugin `bandwidth` does.

use std::net::IpAddr;

use parfait_linux::Mac;
use serde_json::{Map, Value};

use crate::config::{NetworkConfig, invalid};
use crate::error::{Code, Error};
use crate::record::{Bandwidth, PortMapping};
use crate::request::{Arguments, address, mac};

/// What a configuration may list under `capabilities` for this plugin.
pub const CAPABILITIES: [&str; 5] = [
    "portMappings",
    "ips",
    "mac",
    "bandwidth",
    "io.kubernetes.cri.pod-annotations",
];

/// The annotation by which a pod asks for addresses.
pub const IPS_ANNOTATION: &str = "parfait.dev/ips";

/// What is asked for a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Addresses, each once; empty if any will do.
    pub ips: Vec<IpAddr>,
    /// The Ethernet address of its interface.
    pub mac: Option<Mac>,
    /// Ports of the node that lead to it.
    pub port_mappings: Vec<PortMapping>,
    /// Its limits, if it has any.
    pub bandwidth: Option<Bandwidth>,
}

impl Asked {
    /// Gathers it.
    ///
    /// # Errors
    /// Names the field that makes no sense, or that this plugin cannot act on.
    pub fn parse(config: &NetworkConfig, arguments: &Arguments) -> Result<Self, Error> {
        let mac = match (config.runtime("mac"), config.argument("mac")) {
            (Some(asked), _) => Some(mac_of("runtimeConfig.mac", asked)?),
            (None, Some(asked)) => Some(mac_of("args.cni.mac", asked)?),
            (None, None) => arguments.mac,
        };
        Ok(Self {
            ips: ips(config, arguments)?,
            mac,
            port_mappings: match config.runtime("portMappings") {
                Some(list) => port_mappings(list)?,
                None => Vec::new(),
            },
            bandwidth: match config.runtime("bandwidth") {
                Some(limits) => bandwidth(limits)?,
                None => None,
            },
        })
    }
}

fn ips(config: &NetworkConfig, arguments: &Arguments) -> Result<Vec<IpAddr>, Error> {
    let annotations = config.runtime("io.kubernetes.cri.pod-annotations");
    let annotation = annotations.and_then(|all| all.get(IPS_ANNOTATION));
    let mut ips = if let Some(asked) = config.runtime("ips") {
        ips_of("runtimeConfig.ips", asked)?
    } else if let Some(asked) = config.argument("ips") {
        ips_of("args.cni.ips", asked)?
    } else if arguments.ips.is_empty()
        && let Some(asked) = annotation.and_then(Value::as_str)
    {
        let parts = asked
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let list = parts.map(Value::from).collect();
        ips_of(
            &format!("the pod's annotation {IPS_ANNOTATION}"),
            &Value::Array(list),
        )?
    } else {
        arguments.ips.clone()
    };
    let mut seen = std::collections::BTreeSet::new();
    ips.retain(|ip| seen.insert(*ip));
    Ok(ips)
}

fn ips_of(place: &str, value: &Value) -> Result<Vec<IpAddr>, Error> {
    let wrong = |value: &Value| {
        invalid(format!("{place}: {value} is no address"))
            .advise("Addresses look like 10.244.1.7 or fd00:10:244:1::7, and must be in the Node's spec.podCIDRs.")
    };
    let list = value
        .as_array()
        .ok_or_else(|| invalid(format!("{place}: {value} is no list of addresses")))?;
    let parsed = list
        .iter()
        .map(|ip| ip.as_str().and_then(address).ok_or_else(|| wrong(ip)));
    parsed.collect()
}

fn mac_of(place: &str, value: &Value) -> Result<Mac, Error> {
    let text = value
        .as_str()
        .ok_or_else(|| invalid(format!("{place}: {value} is no Ethernet address")))?;
    mac(text).map_err(|why| invalid(format!("{place}: {why}")))
}

fn port_mappings(value: &Value) -> Result<Vec<PortMapping>, Error> {
    let list = value
        .as_array()
        .ok_or_else(|| invalid(format!("runtimeConfig.portMappings: {value} is no list")))?;
    let mut mappings = Vec::new();
    for entry in list {
        mappings.extend(port_mapping(entry)?);
    }
    Ok(mappings)
}

/// One mapping; none if it has no port on the node, which is how runtimes tell of ports that are not mapped.
fn port_mapping(entry: &Value) -> Result<Option<PortMapping>, Error> {
    let wrong = |why: &str| invalid(format!("runtimeConfig.portMappings: {entry}: {why}"));
    let fields = Fields::of(entry).ok_or_else(|| wrong("it is no object"))?;
    let port = |name: &str| {
        let number = fields.find(name).map_or(Some(0), Value::as_u64);
        let port = number.and_then(|number| u16::try_from(number).ok());
        port.ok_or_else(|| wrong(&format!("{name} must be 1 to 65535")))
    };
    let (host_port, container_port) = (port("hostPort")?, port("containerPort")?);
    if host_port == 0 {
        return Ok(None);
    }
    if container_port == 0 {
        return Err(wrong("containerPort must be 1 to 65535"));
    }
    let text = |name: &str| {
        fields
            .find(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let protocol = match text("protocol").to_ascii_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        _ => return Err(wrong("protocol must be tcp, udp or sctp")),
    };
    let host_ip = match text("hostIP") {
        "" => None,
        ip => Some(ip.parse().map_err(|_| wrong("hostIP is no address"))?),
    };
    Ok(Some(PortMapping {
        host_port,
        container_port,
        protocol,
        host_ip,
    }))
}

fn bandwidth(value: &Value) -> Result<Option<Bandwidth>, Error> {
    let wrong = |why: &str| invalid(format!("runtimeConfig.bandwidth: {why}"));
    let fields = Fields::of(value).ok_or_else(|| wrong("it is no object"))?;
    for name in ["shapedSubnets", "unshapedSubnets"] {
        if let Some(Value::Array(list)) = fields.find(name)
            && !list.is_empty()
        {
            let list = Value::Array(list.clone());
            let message = format!("unsupported field runtimeConfig.bandwidth.{name}: {list}");
            return Err(Error::new(Code::UnsupportedField, message)
                .advise("parfait limits all of a pod's traffic; chain the reference plugin bandwidth for less."));
        }
    }
    let number = |name: &str| match fields.find(name) {
        None => Ok(0),
        Some(value) => value
            .as_u64()
            .ok_or_else(|| wrong(&format!("{name} {value} is no number"))),
    };
    let limits = Bandwidth {
        ingress_rate: number("ingressRate")?,
        ingress_burst: number("ingressBurst")?,
        egress_rate: number("egressRate")?,
        egress_burst: number("egressBurst")?,
    };
    for (way, rate, burst) in [
        ("ingress", limits.ingress_rate, limits.ingress_burst),
        ("egress", limits.egress_rate, limits.egress_burst),
    ] {
        match (rate, burst) {
            (0, 0) => {}
            (1.., 0) => {
                return Err(wrong(&format!(
                    "{way}Rate is set, so {way}Burst must be, too"
                )));
            }
            (0, 1..) => {
                return Err(wrong(&format!(
                    "{way}Burst is set, so {way}Rate must be, too"
                )));
            }
            (1..8, _) => {
                return Err(wrong(&format!(
                    "{way}Rate {rate} is less than a byte a second"
                )));
            }
            _ if burst / 8 >= u64::from(u32::MAX) => {
                return Err(wrong(&format!("{way}Burst cannot be more than 4 GB")));
            }
            _ => {}
        }
    }
    Ok((limits != Bandwidth::default()).then_some(limits))
}

/// An object whose keys are found in any case.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        value.as_object().map(Self)
    }

    fn find(&self, name: &str) -> Option<&'a Value> {
        let exact = self.0.get(name);
        let found = exact.or_else(|| {
            let mut all = self.0.iter();
            all.find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        });
        found.filter(|value| !value.is_null())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(runtime: Value, more: Value, arguments: &str) -> Result<Asked, Error> {
        let mut config = json!({"cniVersion": "1.1.0", "name": "n", "runtimeConfig": runtime});
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let config = NetworkConfig::parse(&config.to_string())?;
        Asked::parse(&config, &Arguments::parse(arguments)?)
    }

    fn runtime(runtime: Value) -> Result<Asked, Error> {
        asked(runtime, json!({}), "")
    }

    #[test]
    fn what_stands_further_left_counts() {
        let annotated =
            json!({"io.kubernetes.cri.pod-annotations": {"parfait.dev/ips": "10.0.0.4, fd00::4"}});
        let mut all = annotated.clone();
        all["ips"] = json!(["10.0.0.1/24", "10.0.0.1"]);
        all["mac"] = json!("02:00:00:00:00:01");
        let arguments = "IP=10.0.0.3;MAC=02:00:00:00:00:03";
        let cni = json!({"args": {"cni": {"ips": ["10.0.0.2"], "mac": "02:00:00:00:00:02", "labels": []}}});
        let table = [
            (all, cni.clone(), arguments, "10.0.0.1", "02:00:00:00:00:01"),
            (
                annotated.clone(),
                cni,
                arguments,
                "10.0.0.2",
                "02:00:00:00:00:02",
            ),
            (
                annotated.clone(),
                json!({}),
                arguments,
                "10.0.0.3",
                "02:00:00:00:00:03",
            ),
            (annotated, json!({}), "", "10.0.0.4,fd00::4", ""),
            (json!({"other": 5, "ips": null}), json!({}), "", "", ""),
        ];
        for (runtime, more, arguments, ips, mac) in table {
            let asked = asked(runtime, more, arguments).unwrap();
            let given: Vec<_> = asked.ips.iter().map(ToString::to_string).collect();
            assert_eq!(given.join(","), ips);
            assert_eq!(
                asked.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                mac
            );
        }
    }

    #[test]
    fn ports_are_read_as_runtimes_write_them() {
        // containerd's library has no names of its own for the fields.
        let list = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"HostPort": 53, "ContainerPort": 5353, "Protocol": "UDP", "HostIP": ""},
            {"HostPort": 0, "ContainerPort": 81, "Protocol": "tcp", "HostIP": ""},
            {"hostPort": 9, "containerPort": 9, "hostIP": "fd00::1"},
        ]);
        let mappings = runtime(json!({ "portMappings": list }))
            .unwrap()
            .port_mappings;
        let mappings: Vec<_> = mappings
            .iter()
            .map(|one| {
                format!(
                    "{:?} {} {} {}",
                    one.host_ip, one.host_port, one.container_port, one.protocol
                )
            })
            .collect();
        assert_eq!(
            mappings,
            [
                "None 8080 80 tcp",
                "None 53 5353 udp",
                "Some(fd00::1) 9 9 tcp"
            ]
        );
    }

    #[test]
    fn limits_need_a_rate_and_a_burst() {
        let limits = |value: Value| runtime(json!({ "bandwidth": value }));
        let both = limits(
            json!({"IngressRate": 8000, "IngressBurst": 80000, "EgressRate": 0, "EgressBurst": 0}),
        );
        let both = both.unwrap().bandwidth.unwrap();
        assert_eq!(
            (both.ingress_rate, both.ingress_burst, both.egress_rate),
            (8000, 80000, 0)
        );
        assert_eq!(limits(json!({})).unwrap().bandwidth, None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_name() {
        let table = [
            (json!({"ips": "10.0.0.1"}), "no list of addresses"),
            (
                json!({"ips": ["10.0.0.256"]}),
                "runtimeConfig.ips: \"10.0.0.256\"",
            ),
            (json!({"ips": [5]}), "5 is no address"),
            (json!({"mac": "33:33:00:00:00:01"}), "a group's"),
            (json!({"mac": 5}), "no Ethernet address"),
            (
                json!({"io.kubernetes.cri.pod-annotations": {"parfait.dev/ips": "x"}}),
                "annotation parfait.dev/ips",
            ),
            (json!({"portMappings": {}}), "no list"),
            (json!({"portMappings": [5]}), "no object"),
            (
                json!({"portMappings": [{"hostPort": 70000, "containerPort": 1}]}),
                "hostPort must be",
            ),
            (
                json!({"portMappings": [{"hostPort": -1, "containerPort": 1}]}),
                "hostPort must be",
            ),
            (
                json!({"portMappings": [{"hostPort": 1}]}),
                "containerPort must be",
            ),
            (
                json!({"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]}),
                "protocol must be",
            ),
            (
                json!({"portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "here"}]}),
                "hostIP is no",
            ),
            (
                json!({"bandwidth": {"ingressRate": 8000}}),
                "ingressBurst must be, too",
            ),
            (
                json!({"bandwidth": {"egressBurst": 8000}}),
                "egressRate must be, too",
            ),
            (
                json!({"bandwidth": {"egressRate": 7, "egressBurst": 8000}}),
                "less than a byte",
            ),
            (
                json!({"bandwidth": {"egressRate": 8000, "egressBurst": u64::MAX}}),
                "4 GB",
            ),
            (
                json!({"bandwidth": {"egressRate": "1M", "egressBurst": 8}}),
                "no number",
            ),
        ];
        for (value, why) in table {
            let error = runtime(value.clone()).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig, "{value}");
            assert!(error.to_string().contains(why), "{value}: {error}");
        }
        let error = runtime(json!({"bandwidth": {"unshapedSubnets": ["10.0.0.0/8"]}})).unwrap_err();
        assert_eq!(error.code, Code::UnsupportedField);
    }
}

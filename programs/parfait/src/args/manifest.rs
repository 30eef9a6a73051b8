//! What may be typed behind `parfait manifest`.

use std::path::PathBuf;
use std::str::FromStr;

use super::Predecessor;

const HELP: &str = "\
Printed are the kinds that Parfait adds, the agents' ServiceAccount with the rights it needs and no
others, the ConfigMap, and the DaemonSet that runs one agent on each node. Nothing is applied.

There is no image to pull: build one that has the programs parfait and parfait-cni side by side on
its PATH, linked statically or for a C library that the nodes have, since the plugin is copied to
the node and runs there.

The agent makes Services work, so it cannot reach the API server through one: --api-server is where
nodes reach it otherwise, one of the addresses or names in its certificate.

Examples:
  parfait manifest --image REGISTRY/parfait:TAG --api-server 192.0.2.10:6443 > parfait.yaml
  kubectl apply --dry-run=server -f parfait.yaml    would the cluster take it?
  kubectl apply -f parfait.yaml

Exit codes: 0 printed, 2 wrong usage.";

/// What an administrator applies to a cluster to run Parfait.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Manifest {
    /// The image that has parfait and parfait-cni
    #[arg(long, value_name = "IMAGE")]
    pub image: String,
    /// Where nodes reach the API server without any Service
    #[arg(long, value_name = "HOST:PORT")]
    pub api_server: ApiServer,
    /// What the key config.yaml of the ConfigMap shall hold [default: routing: auto]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Once its own rules stand, each agent removes those of the program that did this before
    #[arg(long, value_name = "PROGRAM")]
    pub take_over: Option<Predecessor>,
}

/// `192.0.2.10:6443`, `[fd00::10]:6443` or `api.example.org:6443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer {
    /// Its address, without brackets, or its name.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl FromStr for ApiServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no HOST:PORT: write 192.0.2.10:6443 or [fd00::10]:6443");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        let usable = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(is_name),
        };
        match port.parse() {
            Ok(port) if usable && port > 0 => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_has_a_host_and_a_port() {
        for (text, wanted) in [
            ("192.0.2.10:6443", Some(("192.0.2.10", 6443))),
            ("[fd00::10]:6443", Some(("fd00::10", 6443))),
            ("api.example.org:443", Some(("api.example.org", 443))),
            ("fd00::10:6443", None),
            ("[api]:6443", None),
            ("https://192.0.2.10:6443", None),
            ("192.0.2.10", None),
            ("192.0.2.10:0", None),
            ("192.0.2.10:65536", None),
            (":6443", None),
        ] {
            let read = text.parse::<ApiServer>().ok();
            let read = read.as_ref().map(|read| (&*read.host, read.port));
            assert_eq!(read, wanted, "{text}");
        }
    }
}

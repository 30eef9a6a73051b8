//! What a user types on either side of a question.
//!
//! ```text
//!   pod/NAME[.NAMESPACE][:PORT]  node/NAME[:PORT]  svc/NAME[.NAMESPACE][:PORT]  ADDRESS[:PORT]  NAME[:PORT]
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// One side of a question, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// `pod/NAME[.NAMESPACE][:PORT]`.
    Pod(String, Option<u16>),
    /// `node/NAME[:PORT]`.
    Node(String, Option<u16>),
    /// `svc/NAME[.NAMESPACE][:PORT]`; the port may be a name.
    Service(String, Option<String>),
    /// An address, perhaps with a port.
    Address(IpAddr, Option<u16>),
    /// A DNS name, perhaps with a port, as the client would look it up.
    Name(String, Option<u16>),
}

/// Text that is no side of a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?}: {why}; use pod/NAME[.NAMESPACE][:PORT], node/NAME[:PORT], svc/NAME[.NAMESPACE][:PORT], an address or a \
     DNS name, each perhaps with a port"
)]
pub struct InvalidSide {
    text: String,
    why: &'static str,
}

impl FromStr for Side {
    type Err = InvalidSide;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why| InvalidSide {
            text: text.to_owned(),
            why,
        };
        if let Some((kind, name)) = text.split_once('/') {
            if name.is_empty() || name.contains('/') {
                return Err(invalid("the name is missing or contains a '/'"));
            }
            if matches!(kind, "svc" | "service" | "services") {
                return Ok(service(name));
            }
            let (name, port) = with_port(name).ok_or(invalid(NO_PORT))?;
            return match kind {
                "pod" | "pods" | "po" => Ok(Self::Pod(name, port)),
                "node" | "nodes" | "no" => Ok(Self::Node(name, port)),
                _ => Err(invalid("unknown kind")),
            };
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address, None));
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(socket.ip(), Some(socket.port())));
        }
        let (name, port) = with_port(text).ok_or(invalid(NO_PORT))?;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !name
            .strip_suffix('.')
            .unwrap_or(&name)
            .split('.')
            .all(label)
        {
            return Err(invalid("this is not a DNS name"));
        }
        Ok(Self::Name(name, port))
    }
}

const NO_PORT: &str = "the port is not a number from 1 to 65535";

/// `NAME[:PORT]`; `None` if that is no port.
fn with_port(text: &str) -> Option<(String, Option<u16>)> {
    let Some((name, port)) = text.rsplit_once(':') else {
        return Some((text.to_owned(), None));
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((name.to_owned(), Some(port)))
}

fn service(text: &str) -> Side {
    match text.split_once(':') {
        Some((name, port)) => Side::Service(name.to_owned(), Some(port.to_owned())),
        None => Side::Service(text.to_owned(), None),
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name, None) => write!(f, "pod/{name}"),
            Self::Pod(name, Some(port)) => write!(f, "pod/{name}:{port}"),
            Self::Node(name, None) => write!(f, "node/{name}"),
            Self::Node(name, Some(port)) => write!(f, "node/{name}:{port}"),
            Self::Service(name, None) => write!(f, "svc/{name}"),
            Self::Service(name, Some(port)) => write!(f, "svc/{name}:{port}"),
            Self::Address(address, None) => write!(f, "{address}"),
            Self::Address(address, Some(port)) => {
                write!(f, "{}", SocketAddr::new(*address, *port))
            }
            Self::Name(name, None) => f.write_str(name),
            Self::Name(name, Some(port)) => write!(f, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_understood() {
        let table = [
            ("pod/web-1", "Pod(\"web-1\", None)"),
            ("pod/web-1.shop", "Pod(\"web-1.shop\", None)"),
            ("pod/web-1.shop:8080", "Pod(\"web-1.shop\", Some(8080))"),
            ("svc/api:80", "Service(\"api\", Some(\"80\"))"),
            (
                "service/api.shop:http",
                "Service(\"api.shop\", Some(\"http\"))",
            ),
            ("10.244.1.2", "Address(10.244.1.2, None)"),
            ("[fd00::1]:53", "Address(fd00::1, Some(53))"),
            ("fd00::1", "Address(fd00::1, None)"),
            ("api.shop:8080", "Name(\"api.shop\", Some(8080))"),
            ("node/node-2", "Node(\"node-2\", None)"),
            ("node/node-2:30080", "Node(\"node-2\", Some(30080))"),
        ];
        for (text, expected) in table {
            let side: Side = text.parse().unwrap();
            assert_eq!(format!("{side:?}"), expected);
            assert_eq!(side.to_string().parse::<Side>().unwrap(), side);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "pod/",
            "pod/a:http",
            "node/a:0",
            "gadget/x",
            "api:0",
            "api:port",
            "a b",
            "pod/a/b",
            "-/",
        ] {
            assert!(text.parse::<Side>().is_err(), "{text:?}");
        }
    }
}

//! Which `host:port` an environment names.
//!
//! Three shapes, which is what applications use: `host:port` (also several with commas), a URL, and
//! a pair of variables `X_HOST` and `X_PORT`. Addresses to listen on (`0.0.0.0`, `::`, loopback) are
//! nobody to connect to. What is not recognised is not guessed.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A peer that an environment names, and the variable that does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    pub host: String,
    pub port: u16,
    pub variable: String,
}

/// The ports that URLs leave out.
const SCHEMES: [(&str, u16); 14] = [
    ("http", 80),
    ("https", 443),
    ("ws", 80),
    ("wss", 443),
    ("grpc", 80),
    ("tcp", 0),
    ("redis", 6379),
    ("rediss", 6379),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("mysql", 3306),
    ("mongodb", 27017),
    ("amqp", 5672),
    ("nats", 4222),
];

/// Everything that an environment names, each peer once.
pub fn named(environment: &BTreeMap<String, String>) -> Vec<Named> {
    let mut found = Vec::new();
    let mut add = |variable: &str, (host, port): (String, u16)| {
        if !found
            .iter()
            .any(|n: &Named| n.host == host && n.port == port)
        {
            found.push(Named {
                host,
                port,
                variable: variable.to_owned(),
            });
        }
    };
    for (variable, value) in environment {
        for part in value.split(',') {
            if let Some(peer) = url(part.trim()).or_else(|| host_port(part.trim())) {
                add(variable, peer);
            }
        }
        if let Some(prefix) = variable.strip_suffix("_HOST") {
            let port = environment
                .get(&format!("{prefix}_PORT"))
                .and_then(|port| port.trim().parse().ok());
            if let (Some(port), Some(host)) = (port.filter(|port| *port > 0), host(value.trim())) {
                add(variable, (host, port));
            }
        }
    }
    found
}

/// `scheme://user:password@host:port/path`; `jdbc:` in front is Java's habit.
fn url(text: &str) -> Option<(String, u16)> {
    let (scheme, rest) = text
        .strip_prefix("jdbc:")
        .unwrap_or(text)
        .split_once("://")?;
    let (_, usual) = SCHEMES
        .into_iter()
        .find(|(name, _)| scheme.eq_ignore_ascii_case(name))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, after)| after);
    host_port(authority).or_else(|| Some((host(authority)?, usual)).filter(|(_, port)| *port > 0))
}

/// `host:port`, `[::1]:port`.
fn host_port(text: &str) -> Option<(String, u16)> {
    let (name, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    Some((host(name)?, port))
}

/// A name with a letter in it, or an address that can be connected to.
fn host(text: &str) -> Option<String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return (!address.is_unspecified() && !address.is_loopback()).then(|| bare.to_owned());
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let good = name.len() <= 253
        && name.split('.').all(label)
        && name.bytes().any(|b| b.is_ascii_alphabetic());
    (good && name != "localhost").then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> String {
        let environment = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        named(&environment)
            .iter()
            .map(|n| format!("{}:{}", n.host, n.port))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn what_applications_write() {
        for (value, found) in [
            ("cartservice:7070", "cartservice:7070"),
            ("a.shop.svc.cluster.local:80", "a.shop.svc.cluster.local:80"),
            ("http://api:8080/v1?x=y:1", "api:8080"),
            ("https://user:p%40ss@db.example.com/x", "db.example.com:443"),
            ("postgres://u:p@db/shop", "db:5432"),
            ("jdbc:mysql://db/shop", "db:3306"),
            ("a:1,b:2", "a:1 b:2"),
            ("10.0.0.7:53", "10.0.0.7:53"),
            ("[fd00::7]:53", "fd00::7:53"),
            ("http://[fd00::7]:8080/", "fd00::7:8080"),
        ] {
            assert_eq!(of(&[("X", value)]), found, "{value}");
        }
    }

    #[test]
    fn pairs_of_host_and_port() {
        assert_eq!(of(&[("DB_HOST", "db"), ("DB_PORT", "5432")]), "db:5432");
        assert_eq!(of(&[("DB_HOST", "db"), ("PORT", "5432")]), "");
        assert_eq!(
            of(&[("A_HOST", "db"), ("A_PORT", "1"), ("B_ADDR", "db:1")]),
            "db:1"
        );
    }

    #[test]
    fn what_names_nobody() {
        for value in [
            "8080",
            "0.0.0.0:8080",
            ":8080",
            "[::]:8080",
            "127.0.0.1:80",
            "localhost:80",
            "12:30",
            "info",
            "a:b",
            "a:0",
            "a:70000",
            "key=value",
            "urn:x:1 y",
            "file:///etc/x",
            "a b:80",
            "-a:80",
        ] {
            assert_eq!(of(&[("X", value)]), "", "{value}");
        }
    }
}

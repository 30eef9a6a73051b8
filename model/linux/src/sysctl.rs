//! [`Sysctl`]: one of the kernel's settings below `net`, as sysctl(8) spells it.

use std::fmt;

use parfait_packet::Family;
use serde::{Serialize, Serializer};

use crate::{IfName, InvalidName};

/// The name of a setting below `net`: `net.ipv4.ip_forward`. As in sysctl(8), a dot inside of an
/// interface's name is written as a slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlKey(String);

impl SysctlKey {
    /// Parses a name.
    ///
    /// # Errors
    /// If it is not below `net`, or names no file below /proc/sys.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let valid = text.len() < 256
            && text.starts_with("net.")
            && text.split('.').all(|part| {
                !part.is_empty()
                    && part != "/"
                    && part != "//"
                    && !part
                        .bytes()
                        .any(|byte| byte == 0 || byte.is_ascii_whitespace())
            });
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::of(
                "a setting below net, with dots (net.ipv4.ip_forward)",
                text,
            ))
        }
    }

    /// A setting of one interface: `net.ipv4.conf.eth0.rp_filter`.
    #[must_use]
    pub fn conf(family: Family, link: &IfName, setting: &str) -> Self {
        let family = match family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        let link = link.as_str().replace('.', "/");
        Self(format!("net.{family}.conf.{link}.{setting}"))
    }

    /// A setting of a family's neighbour table: `net.ipv4.neigh.default.gc_thresh1`.
    #[must_use]
    pub fn neighbours(family: Family, setting: &str) -> Self {
        let family = match family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        Self(format!("net.{family}.neigh.default.{setting}"))
    }

    /// A setting of all interfaces (`all`) or of those to come (`default`).
    #[must_use]
    pub fn every(family: Family, which: &str, setting: &str) -> Self {
        let family = match family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        Self(format!("net.{family}.conf.{which}.{setting}"))
    }

    /// The interface that it is a setting of, if it is one's own.
    #[must_use]
    pub fn link(&self) -> Option<IfName> {
        let mut parts = self.0.split('.').skip(2);
        let of = (parts.next(), parts.next());
        match of {
            (Some("conf"), Some("all" | "default")) => None,
            (Some("conf"), Some(link)) => IfName::new(&link.replace('/', ".")).ok(),
            _ => None,
        }
    }

    /// Whether the machine forwards packets of this family.
    #[must_use]
    pub fn forwarding(family: Family) -> Self {
        Self(
            match family {
                Family::Ipv4 => "net.ipv4.ip_forward",
                Family::Ipv6 => "net.ipv6.conf.all.forwarding",
            }
            .to_owned(),
        )
    }

    /// The name, as sysctl(8) takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file below `/proc/sys/`.
    #[must_use]
    pub fn path(&self) -> String {
        self.0
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    }
}

impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SysctlKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A setting and its value, without the line's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sysctl {
    /// Which one.
    pub key: SysctlKey,
    /// Its value.
    pub value: String,
    /// In a plan: the smallest and the largest number that will do as well.
    #[serde(skip)]
    pub within: Option<(u64, u64)>,
}

impl Sysctl {
    /// A setting and its value.
    #[must_use]
    pub fn new(key: SysctlKey, value: &str) -> Self {
        Self {
            key,
            value: value.to_owned(),
            within: None,
        }
    }

    /// The same, where any number from the smallest to the largest will do as well.
    #[must_use]
    pub fn or_within(mut self, smallest: u64, largest: u64) -> Self {
        self.within = Some((smallest, largest));
        self
    }

    /// Whether this, which is there, is as planned.
    #[must_use]
    pub fn satisfies(&self, planned: &Self) -> bool {
        let within = |(smallest, largest)| {
            let number = self.value.parse::<u64>();
            number.is_ok_and(|number| (smallest..=largest).contains(&number))
        };
        self.key == planned.key
            && (self.value == planned.value || planned.within.is_some_and(within))
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_files_below_net() {
        let key = SysctlKey::new("net.ipv4.conf.eth0/100.rp_filter").unwrap();
        assert_eq!(key.path(), "net/ipv4/conf/eth0.100/rp_filter");
        for bad in [
            "kernel.hostname",
            "net",
            "net.",
            "net..x",
            "net.//.//.kernel.hostname",
            "net.a b",
        ] {
            assert!(SysctlKey::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dot_in_an_interface_name_is_not_a_level() {
        let key = SysctlKey::conf(Family::Ipv4, &IfName::new("eth0.100").unwrap(), "rp_filter");
        assert_eq!(key.as_str(), "net.ipv4.conf.eth0/100.rp_filter");
        assert_eq!(key.link(), IfName::new("eth0.100").ok());
        for nobodys in [
            "net.ipv4.conf.all.rp_filter",
            "net.ipv4.ip_forward",
            "net.ipv4.neigh.default.gc_thresh1",
        ] {
            assert_eq!(SysctlKey::new(nobodys).unwrap().link(), None, "{nobodys}");
        }
    }

    #[test]
    fn what_will_do_as_well_is_left() {
        let found = |value| Sysctl::new(SysctlKey::neighbours(Family::Ipv4, "gc_thresh3"), value);
        let planned = found("8192").or_within(8192, u64::MAX);
        for (value, wanted) in [
            ("8192", true),
            ("1024", false),
            ("100000", true),
            ("many", false),
        ] {
            assert_eq!(found(value).satisfies(&planned), wanted, "{value}");
        }
        assert!(!found("2").satisfies(&found("1")));
    }
}

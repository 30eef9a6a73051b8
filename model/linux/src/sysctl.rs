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
}

impl Sysctl {
    /// A setting and its value.
    #[must_use]
    pub fn new(key: SysctlKey, value: &str) -> Self {
        Self {
            key,
            value: value.to_owned(),
        }
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
    }
}

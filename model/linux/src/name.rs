//! The small words: interface names, link-layer addresses, tunnel numbers and sizes. Each has one
//! fallible constructor, so that what exists is valid.
//!
//! Limits are the kernel's: `IFNAMSIZ` and `dev_valid_name` (net/core/dev.c), `IFALIASZ`
//! (linux/if.h), 24 bits of VNI (RFC 7348 section 5), and an MTU of at least 68 (RFC 791).

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A text that is no valid interface name, alias, or link-layer address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName {
    what: &'static str,
    text: String,
}

impl InvalidName {
    pub(crate) fn of(what: &'static str, text: &str) -> Self {
        Self {
            what,
            text: text.to_owned(),
        }
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not {}", self.text, self.what)
    }
}

impl std::error::Error for InvalidName {}

/// A number outside of what the kernel accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidNumber {
    what: &'static str,
    number: u32,
}

impl fmt::Display for InvalidNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not {}", self.number, self.what)
    }
}

impl std::error::Error for InvalidNumber {}

/// The name of a network interface: 1 to 15 bytes without slash, colon or white space, and neither
/// `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// The loopback interface that every network namespace has.
    #[must_use]
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// Parses a name.
    ///
    /// # Errors
    /// If the kernel would not accept it.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let valid = (1..=15).contains(&text.len())
            && text != "."
            && text != ".."
            && !text
                .bytes()
                .any(|byte| byte == b'/' || byte == b':' || byte == 0 || is_space(byte));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName {
                what: "an interface name (1 to 15 bytes without '/', ':' or white space)",
                text: text.to_owned(),
            })
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// White space as the kernel's `isspace` sees it.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d | 0xa0)
}

impl FromStr for IfName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for IfName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// What an interface is for, in words: `ip link set dev X alias TEXT`. Parfait writes the
/// [`Origin`](parfait_packet::Origin) of an interface there. At most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alias(String);

impl Alias {
    /// An alias; text that does not fit is cut, as it is only read by people.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text[..end].to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Alias {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// An address of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// A locally administered unicast address (IEEE 802, section 8.2) made of the first 46 bits of
    /// `seed`: the two lowest bits of the first byte say "local" and "one receiver".
    #[must_use]
    pub const fn local(seed: [u8; 6]) -> Self {
        let mut bytes = seed;
        bytes[0] = (bytes[0] & 0b1111_1100) | 0b0000_0010;
        Self(bytes)
    }

    /// The six bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidName {
            what: "an Ethernet address (six hexadecimal bytes joined by ':')",
            text: text.to_owned(),
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(invalid)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(invalid()),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A VXLAN network identifier: 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Vni(u32);

impl Vni {
    /// Parses an identifier.
    ///
    /// # Errors
    /// If it needs more than 24 bits.
    pub const fn new(number: u32) -> Result<Self, InvalidNumber> {
        if number < 1 << 24 {
            Ok(Self(number))
        } else {
            Err(InvalidNumber {
                what: "a VXLAN network identifier (0 to 16777215)",
                number,
            })
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest packet, in bytes from its IP header on, that a link or a path carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Mtu(u32);

impl Mtu {
    /// Ethernet's.
    pub const ETHERNET: Self = Self(1500);

    /// Parses a size.
    ///
    /// # Errors
    /// If it is below IPv4's minimum of 68 (RFC 791), or above the loopback's 65536.
    pub const fn new(number: u32) -> Result<Self, InvalidNumber> {
        if number >= 68 && number <= 65_536 {
            Ok(Self(number))
        } else {
            Err(InvalidNumber {
                what: "an MTU (68 to 65536)",
                number,
            })
        }
    }

    /// What is left when a tunnel adds `bytes` of headers; not below the minimum of 68.
    #[must_use]
    pub const fn less(self, bytes: u32) -> Self {
        let number = self.0.saturating_sub(bytes);
        if number < 68 { Self(68) } else { Self(number) }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn interface_names_are_the_kernels() {
        for good in ["lo", "eth0", "pf0123456789abc", "a.b", "pf-vxlan"] {
            assert!(IfName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\tb",
            "a:b",
            "0123456789abcdef",
        ] {
            assert!(IfName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn numbers_have_their_limits() {
        assert!(Vni::new(16_777_215).is_ok() && Vni::new(16_777_216).is_err());
        assert!(Mtu::new(68).is_ok() && Mtu::new(67).is_err());
        assert_eq!(Mtu::ETHERNET.less(50).bytes(), 1450);
        assert_eq!(Mtu::ETHERNET.less(2000).bytes(), 68);
    }

    #[test]
    fn local_addresses_are_unicast_and_local() {
        let mac = Mac::local([0xff, 1, 2, 3, 4, 5]);
        assert_eq!(mac.to_string(), "fe:01:02:03:04:05");
    }

    proptest! {
        #[test]
        fn a_mac_is_read_back(bytes: [u8; 6]) {
            let mac = Mac::new(bytes);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in ".{0,300}") {
            let _ = (IfName::new(&text), text.parse::<Mac>());
            prop_assert!(Alias::new(&text).as_str().len() <= 255);
        }
    }
}

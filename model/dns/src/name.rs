//! [`Name`]: an absolute domain name, in lower case, as DNS compares names.
//!
//! It is kept the other way round, the root's side first: `local.cluster.svc.default.web`. So names
//! sort with everything below them right behind them, and "does anything exist below?" is one look-up.

use std::borrow::Borrow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The longest label and the longest name, in bytes (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 253;

/// An absolute domain name. Bytes other than letters, digits, `-` and `_` are written `\ddd`, as in
/// RFC 1035 section 5.1, so that a dot always ends a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Text that is no domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or one at the start.
    #[error("{0:?} has an empty label: write names like web.default.svc.cluster.local")]
    EmptyLabel(String),
    /// A label of more than 63 bytes.
    #[error("{0:?} has a label of more than {LONGEST_LABEL} bytes")]
    LongLabel(String),
    /// More than 253 bytes.
    #[error("{0:?} has more than {LONGEST_NAME} bytes")]
    LongName(String),
}

impl Name {
    /// The root, above all names.
    #[must_use]
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// A name of labels as they stand on the wire, the leaf first.
    ///
    /// # Errors
    /// If a label is empty or too long, or the name is too long.
    pub fn from_labels<'a>(
        labels: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Result<Self, NameError> {
        let mut name = Self::root();
        let mut length = 0;
        for label in labels.rev() {
            length += label.len() + 1;
            name = name.append(label)?;
        }
        match length > LONGEST_NAME + 1 {
            true => Err(NameError::LongName(name.to_string())),
            false => Ok(name),
        }
    }

    /// The name one label below.
    ///
    /// # Errors
    /// If the label is empty or too long, or the name becomes too long.
    pub fn child(&self, label: &str) -> Result<Self, NameError> {
        let child = self.clone().append(label.as_bytes())?;
        match child.0.len() > LONGEST_NAME {
            true => Err(NameError::LongName(child.to_string())),
            false => Ok(child),
        }
    }

    /// The name above, or `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        match self.0.rsplit_once('.') {
            Some((parent, _)) => Some(Self(parent.to_owned())),
            None if self.0.is_empty() => None,
            None => Some(Self::root()),
        }
    }

    /// Whether this is `other`, or below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let rest = self.0.strip_prefix(other.0.as_str());
        other.0.is_empty() || rest.is_some_and(|r| r.is_empty() || r.starts_with('.'))
    }

    /// Its labels, the leaf first; a strange byte is still written `\ddd`.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.rsplit('.').filter(|label| !label.is_empty())
    }

    /// The name that asks who has an address (RFC 1035 section 3.5, RFC 3596 section 2.5).
    #[must_use]
    pub fn reverse(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self(format!("arpa.in-addr.{a}.{b}.{c}.{d}"))
            }
            IpAddr::V6(v6) => {
                let nibbles = v6.octets().into_iter().flat_map(|o| [o >> 4, o & 15]);
                let labels: String = nibbles.map(|n| format!(".{n:x}")).collect();
                Self(format!("arpa.ip6{labels}"))
            }
        }
    }

    /// The address that a reverse name asks about, if it is a whole one.
    #[must_use]
    pub fn reversed_address(&self) -> Option<IpAddr> {
        if let Some(octets) = self.0.strip_prefix("arpa.in-addr.") {
            return Ipv4Addr::from_str(octets).ok().map(IpAddr::V4);
        }
        let nibbles = self.0.strip_prefix("arpa.ip6.")?;
        let mut bits = 0u128;
        let mut count = 0;
        for label in nibbles.split('.') {
            let [digit] = label.as_bytes() else {
                return None;
            };
            bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
            count += 1;
        }
        (count == 32).then(|| IpAddr::V6(Ipv6Addr::from_bits(bits)))
    }

    /// How the names below this one begin.
    pub(crate) fn below(&self) -> String {
        match self.0.is_empty() {
            true => String::new(),
            false => format!("{}.", self.0),
        }
    }

    fn append(mut self, label: &[u8]) -> Result<Self, NameError> {
        let shown = || String::from_utf8_lossy(label).into_owned();
        match label.len() {
            0 => return Err(NameError::EmptyLabel(format!(".{self}"))),
            1..=LONGEST_LABEL => {}
            _ => return Err(NameError::LongLabel(shown())),
        }
        if !self.0.is_empty() {
            self.0.push('.');
        }
        for byte in label {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => self.0.push(char::from(*byte)),
                b'A'..=b'Z' => self.0.push(char::from(byte.to_ascii_lowercase())),
                _ => self.0.push_str(&format!("\\{byte:03}")),
            }
        }
        Ok(self)
    }
}

/// Reads `web.default.svc.cluster.local`, with or without the final dot.
impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let relative = text.strip_suffix('.').unwrap_or(text);
        if relative.is_empty() {
            return match text {
                "." => Ok(Self::root()),
                _ => Err(NameError::EmptyLabel(text.to_owned())),
            };
        }
        Self::from_labels(relative.split('.').map(str::as_bytes)).map_err(|error| match error {
            NameError::EmptyLabel(_) => NameError::EmptyLabel(text.to_owned()),
            other => other,
        })
    }
}

/// With the final dot, as `dig` prints names.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.labels() {
            write!(f, "{label}.")?;
        }
        match self.0.is_empty() {
            true => f.write_str("."),
            false => Ok(()),
        }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_prints_as_dig_does() {
        assert_eq!(name("Web.Default.SVC").to_string(), "web.default.svc.");
        assert_eq!(name("web.").to_string(), "web.");
        assert_eq!(Name::root().to_string(), ".");
        assert_eq!(name("a b.c").to_string(), "a\\032b.c.");
        for wrong in ["", "a..b", ".a", "..", &"a".repeat(64), &"a.".repeat(130)] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn knows_what_is_below_what() {
        assert!(name("web.svc").is_within(&name("svc")));
        assert!(name("svc").is_within(&name("svc")));
        assert!(name("svc").is_within(&Name::root()));
        assert!(!name("websvc").is_within(&name("svc")));
        assert!(!name("svc").is_within(&name("web.svc")));
        assert_eq!(name("web.svc").parent(), Some(name("svc")));
        assert_eq!(name("svc").parent(), Some(Name::root()));
        assert_eq!(Name::root().parent(), None);
        assert_eq!(name("svc").child("web").unwrap(), name("web.svc"));
    }

    #[test]
    fn reverse_names() {
        let v4 = Name::reverse("10.96.0.1".parse().unwrap());
        assert_eq!(v4.to_string(), "1.0.96.10.in-addr.arpa.");
        let v6 = Name::reverse("fd00::1".parse().unwrap());
        assert!(v6.to_string().starts_with("1.0.0.0."));
        assert!(v6.to_string().ends_with(".0.0.d.f.ip6.arpa."));
        for other in [
            "0.96.10.in-addr.arpa",
            "x.0.96.10.in-addr.arpa",
            "1.ip6.arpa",
            "web",
            "300.0.0.1.in-addr.arpa",
        ] {
            assert_eq!(name(other).reversed_address(), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn an_address_survives_its_reverse_name(v4 in any::<u32>(), v6 in any::<u128>()) {
            for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                prop_assert_eq!(Name::reverse(address).reversed_address(), Some(address));
            }
        }

        #[test]
        fn any_labels_are_read_without_a_panic(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 0..6)) {
            let read = Name::from_labels(labels.iter().map(Vec::as_slice));
            if let Ok(name) = read {
                prop_assert_eq!(name.labels().count(), labels.len());
            }
        }

        #[test]
        fn what_is_printed_is_read_back(text in "[a-z0-9_-]{1,10}(\\.[a-z0-9_-]{1,10}){0,5}") {
            prop_assert_eq!(name(&name(&text).to_string()), name(&text));
        }
    }
}

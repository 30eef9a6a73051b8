//! [`LabName`]: what a lab is called, on the command line, in paths and in host names.
//!
//! An RFC 1123 label of at most 20 bytes, so that it fits cgroup and host names with a prefix.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a lab: lower-case letters, digits and `-`, at most 20 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

impl LabName {
    /// The longest name allowed, in bytes.
    pub const MAX: usize = 20;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LabName {
    fn default() -> Self {
        Self("lab".to_owned())
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no lab name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name a lab: use lower-case letters, digits and '-', starting and ending with a letter or digit, at most 20 characters"
)]
pub struct BadLabName(String);

impl FromStr for LabName {
    type Err = BadLabName;

    fn from_str(text: &str) -> Result<Self, BadLabName> {
        let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let good = bytes.len() <= Self::MAX
            && bytes.first().copied().is_some_and(alnum)
            && bytes.last().copied().is_some_and(alnum)
            && bytes.iter().all(|&b| alnum(b) || b == b'-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadLabName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for LabName {
    type Error = BadLabName;

    fn try_from(text: String) -> Result<Self, BadLabName> {
        text.parse()
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels() {
        for good in ["lab", "a", "0", "my-lab-2", "abcdefghijklmnopqrst"] {
            assert_eq!(
                good.parse::<LabName>().map(|n| n.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "../etc",
            "a/b",
            "abcdefghijklmnopqrstu",
            "ä",
        ] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
    }
}

//! [`Finding`]: a difference between what the plan says and what was found, with its object.

use std::fmt;

use serde::Serialize;
use serde::ser::SerializeStruct;

use crate::{Fault, Origin};

/// What kind of difference a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// Planned, and not there.
    Missing,
    /// There, ours by its mark, and not planned.
    Extra,
    /// There, but not as planned.
    Different,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
        })
    }
}

/// One difference between plan and reality.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What is wrong, with its code, layer and remedy.
    pub fault: Fault,
    /// What kind of difference.
    pub difference: Difference,
    /// The thing itself, as `ip`, `nft` or `dig` print it.
    pub item: String,
    /// What is there instead, if the difference is [`Difference::Different`]; what it does, of what is
    /// there in excess; else empty.
    pub found: String,
    /// The object it exists for, where that is known.
    pub origin: Option<Origin>,
}

impl fmt::Display for Finding {
    /// `internet layer: missing: 10.244.2.0/24 via … [Node node-2 spec.podCIDRs] (PF251)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} layer: {}: {}",
            self.fault.layer(),
            self.difference,
            self.item
        )?;
        match self.difference {
            _ if self.found.is_empty() => {}
            Difference::Different => write!(f, " (found {})", self.found)?,
            _ => write!(f, " ({})", self.found)?,
        }
        if let Some(origin) = &self.origin {
            write!(f, " [{origin}]")?;
        }
        write!(f, " ({})", self.fault.code())
    }
}

impl Serialize for Finding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Finding", 9)?;
        out.serialize_field("code", self.fault.code())?;
        out.serialize_field("layer", &self.fault.layer())?;
        out.serialize_field("what", self.fault.what())?;
        out.serialize_field("difference", &self.difference)?;
        out.serialize_field("item", &self.item)?;
        out.serialize_field("found", &self.found)?;
        out.serialize_field("origin", &self.origin)?;
        out.serialize_field("cause", self.fault.remedy().cause)?;
        out.serialize_field("remedy", self.fault.remedy().remedy)?;
        out.end()
    }
}

//! [`Finding`]: a difference between what the plan says and what was found, with its object.

use std::fmt;

use serde::Serialize;

use crate::{Layer, Origin};

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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The layer that planned it.
    pub layer: Layer,
    /// What kind of difference.
    pub difference: Difference,
    /// The thing itself, as `ip`, `nft` or `dig` print it.
    pub item: String,
    /// What is there instead; empty unless the difference is [`Difference::Different`].
    pub found: String,
    /// The object it exists for, where that is known.
    pub origin: Option<Origin>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} layer: {}: {}",
            self.layer, self.difference, self.item
        )?;
        if !self.found.is_empty() {
            write!(f, " (found {})", self.found)?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " [{origin}]")?;
        }
        Ok(())
    }
}

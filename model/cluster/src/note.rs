//! [`Note`]: something in an object that could not be used, and what was done instead.

use std::fmt;

use parfait_packet::Origin;
use serde::Serialize;

/// What a parser or planner has to say about one object. Planning never fails; it leaves notes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// The object and field.
    pub origin: Origin,
    /// What is wrong, why, and what was done about it.
    pub message: String,
}

impl Note {
    /// A note about an object.
    #[must_use]
    pub fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self {
            origin,
            message: message.into(),
        }
    }

    /// What it says to who has the object before them: the field and what is wrong.
    #[must_use]
    pub fn in_object(&self) -> String {
        match self.origin.field.as_str() {
            "" => self.message.clone(),
            field => format!("{field}: {}", self.message),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

//! [`Hearing`]: which peers a node hears, as far as its agent knows. No API object says so in time.

use std::collections::BTreeSet;

/// What the agent of one node knows of others that could stand in for it. Whoever plans elsewhere knows nothing, and
/// takes everybody for well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hearing {
    /// Nodes that are not heard, or say that their rules are not in force.
    pub silent: BTreeSet<String>,
    /// Nodes that were heard just now, and say that they do not hear this one.
    pub deaf: BTreeSet<String>,
}

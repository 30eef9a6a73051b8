//! Compares the kernel's maps, sets and chains for Services with the planned ones.

use parfait_linux::nft::{Table, Tables, compare};
use parfait_packet::{Fault, Finding};

use crate::apply::Part;
use crate::host_ports::OWN_ADDRESSES;

/// Every difference, both ways. `desired` is what [`crate::apply()`] returned, `observed` all tables
/// of the node.
#[must_use]
pub fn prove(desired: &[Table], observed: &Tables) -> Vec<Finding> {
    prove_but(desired, observed, &Tables::new())
}

/// The same where other layers have put `others` into the tables that are desired.
#[must_use]
pub fn prove_but<'t>(
    desired: impl IntoIterator<Item = &'t Table>,
    observed: &Tables,
    others: &Tables,
) -> Vec<Finding> {
    let prove = |table: &Table| {
        let key = table.key();
        let others = others.get(&key);
        let is_mine = |name: &str| {
            !others.is_some_and(|other| {
                other.sets.contains_key(name) || other.chains.contains_key(name)
            })
        };
        compare(
            Fault::ServicesDifferent,
            table,
            observed.get(&key),
            is_mine,
            ours,
        )
    };
    desired.into_iter().flat_map(prove).collect()
}

/// The names that only this layer makes: with a number of endpoints in them, or made only where needed.
fn ours(name: &str) -> bool {
    if name.starts_with("host_ports") || [OWN_ADDRESSES, "loopback-guard", "served"].contains(&name)
    {
        return true;
    }
    Part::is_one(name)
}

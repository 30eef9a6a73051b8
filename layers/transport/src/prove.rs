//! Compares the kernel's maps, sets and chains for Services with the planned ones.

use parfait_linux::nft::{Family, Table, Tables, compare};
use parfait_packet::{Fault, Finding};

use crate::apply::Part;
use crate::host_ports::OWN_ADDRESSES;

/// Every difference, both ways. `desired` is what [`crate::apply()`] returned, `observed` all tables
/// of the node.
#[must_use]
pub fn prove(desired: &[Table], observed: &Tables) -> Vec<Finding> {
    let of = |family: Family, name: &str| observed.get(&(family, name.to_owned()));
    desired
        .iter()
        .flat_map(|table| {
            let observed = of(table.family, &table.name);
            compare(Fault::ServicesDifferent, table, observed, ours)
        })
        .collect()
}

/// The names that only this layer makes: with a number of endpoints in them, or made only where needed.
fn ours(name: &str) -> bool {
    if name.starts_with("host_ports") || [OWN_ADDRESSES, "loopback-guard", "served"].contains(&name)
    {
        return true;
    }
    Part::is_one(name)
}

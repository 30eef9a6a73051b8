//! Compares the kernel's links, neighbours and forwarding entries with the planned ones.

use parfait_linux::attachment::is_host_interface;
use parfait_linux::{IfName, Link, State, compare};
use parfait_packet::{Finding, Layer};

use crate::plan::TUNNEL;

/// Every difference, both ways. `desired` is what [`crate::apply()`] returned, `observed` the whole
/// node; what is neither planned nor Parfait's by its name is left out.
#[must_use]
pub fn prove(desired: &State, observed: &State) -> Vec<Finding> {
    let layer = Layer::Link;
    let links = compare(
        layer,
        &desired.links,
        &observed.links,
        Link::satisfies,
        |name, _| ours(name),
    );
    let neighbours = compare(
        layer,
        &desired.neighbours,
        &observed.neighbours,
        PartialEq::eq,
        |key, found| ours(&key.0) && found.permanent,
    );
    let fdb = compare(
        layer,
        &desired.fdb,
        &observed.fdb,
        PartialEq::eq,
        |key, _| ours(&key.0),
    );
    [links, neighbours, fdb].concat()
}

fn ours(link: &IfName) -> bool {
    link.as_str() == TUNNEL || is_host_interface(link.as_str())
}

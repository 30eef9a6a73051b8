//! Compares the kernel's addresses, routes, settings and masquerade rules with the planned ones.

use parfait_linux::attachment::is_host_interface;
use parfait_linux::{RouteProtocol, State, compare, nft};
use parfait_packet::{Finding, Layer};

/// Every difference, both ways. `desired` is what [`crate::apply()`] returned, `observed` the whole
/// node; what is neither planned nor Parfait's by its protocol or link is left out.
#[must_use]
pub fn prove(desired: &State, observed: &State) -> Vec<Finding> {
    let layer = Layer::Internet;
    let addresses = compare(
        layer,
        &desired.addresses,
        &observed.addresses,
        PartialEq::eq,
        |key, _| is_host_interface(key.0.as_str()) && !is_link_local(key.1.addr()),
    );
    let routes = compare(
        layer,
        &desired.routes,
        &observed.routes,
        PartialEq::eq,
        |_, found| [RouteProtocol::PARFAIT, RouteProtocol::PARFAIT_CNI].contains(&found.protocol),
    );
    let sysctls = compare(
        layer,
        &desired.sysctls,
        &observed.sysctls,
        PartialEq::eq,
        |_, _| false,
    );
    let tables = desired
        .tables
        .iter()
        .map(|(key, table)| nft::compare(layer, table, observed.tables.get(key), |_| false));
    [addresses, routes, sysctls]
        .into_iter()
        .chain(tables)
        .flatten()
        .collect()
}

fn is_link_local(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

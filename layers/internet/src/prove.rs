//! Compares the kernel's addresses, routes and settings with the planned ones.
//!
//! The tables are proved as a whole by [`parfait_linux::nft`], since layers share them.

use parfait_linux::attachment::is_host_interface;
use parfait_linux::{RouteProtocol, State, compare};
use parfait_packet::{Finding, Layer};

/// Every difference, both ways. `desired` is what [`crate::apply`] returned, `observed` the whole
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
    [addresses, routes, sysctls].concat()
}

fn is_link_local(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

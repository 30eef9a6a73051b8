//! Compares the kernel's addresses, routes, settings and masquerade rules with the planned ones.

use parfait_linux::attachment::is_host_interface;
use parfait_linux::{Address, Faults, Route, RouteProtocol, State, Sysctl, compare, nft};
use parfait_packet::{Difference, Fault, Finding, Kind, Origin};

/// Every difference, both ways. `desired` is what [`crate::apply()`] returned, `observed` the whole
/// node; what is neither planned nor Parfait's by its protocol or link is left out, unless it takes
/// packets away from what is planned.
#[must_use]
pub fn prove(desired: &State, observed: &State) -> Vec<Finding> {
    let addresses = compare(
        &Faults {
            missing: Fault::AddressMissing,
            different: |_, _| Fault::AddressDifferent,
            extra: Fault::AddressWithoutOwner,
        },
        &desired.addresses,
        &observed.addresses,
        Address::satisfies,
        |key, found| {
            let on_pod = is_host_interface(key.0.as_str()) && !is_link_local(key.1.addr());
            on_pod || found.protocol == Some(RouteProtocol::PARFAIT)
        },
    );
    let routes = compare(
        &Faults {
            missing: Fault::RouteMissing,
            different: |_, _| Fault::RouteDifferent,
            extra: Fault::RouteExtra,
        },
        &desired.routes,
        &observed.routes,
        PartialEq::eq,
        |_, found| is_ours(found),
    );
    let sysctls = compare(
        &Faults {
            missing: Fault::SysctlDifferent,
            different: |_, _| Fault::SysctlDifferent,
            extra: Fault::SysctlDifferent,
        },
        &desired.sysctls,
        &observed.sysctls,
        Sysctl::satisfies,
        |_, _| false,
    );
    let mut findings = [addresses, routes, overridden(desired, observed), sysctls].concat();
    findings.extend(prove_tables(&desired.tables, &observed.tables));
    findings
}

/// The same of tables alone.
#[must_use]
pub fn prove_tables(desired: &nft::Tables, observed: &nft::Tables) -> Vec<Finding> {
    let fault = Fault::MasqueradeDifferent;
    let tables = desired.iter();
    tables
        .flat_map(|(key, table)| nft::compare(fault, table, observed.get(key), |_| true, |_| false))
        .collect()
}

/// Other programs' routes that win over a planned one: narrower, or as wide with a lower metric.
fn overridden(desired: &State, observed: &State) -> Vec<Finding> {
    // What stands in the very place of a planned route is told as different from it.
    let others = observed.routes.iter();
    let others = others.filter(|(key, _)| !desired.routes.contains_key(key));
    let foreign = others
        .map(|(_, item)| &item.value)
        .filter(|route| !is_ours(route) && route.protocol != RouteProtocol::KERNEL);
    let mut findings = Vec::new();
    for route in foreign {
        let wins = |planned: &&parfait_linux::Item<Route>| {
            let planned = &planned.value;
            planned.destination.contains(&route.destination)
                && (planned.destination != route.destination || route.metric < planned.metric)
        };
        // Of several that it overrides, the narrowest is the one that would be taken.
        let planned = desired.routes.values().filter(wins);
        let Some(planned) = planned.max_by_key(|item| item.value.destination.prefix_len()) else {
            continue;
        };
        // Where the plan only says that nobody is known there, a routing daemon may know better, and who refuses too
        // changes nothing. Routes by hand, as VPNs and container engines write them, lead tomorrow's pods astray.
        let configured = |origin: &Origin| origin.kind == Kind::ConfigMap;
        let by_hand = [RouteProtocol::BOOT, RouteProtocol::STATIC].contains(&route.protocol);
        if (!by_hand || route.kind.refuses())
            && planned.value.kind.refuses()
            && planned.origin.as_ref().is_some_and(configured)
        {
            continue;
        }
        findings.push(Finding {
            fault: Fault::RouteOverridden,
            difference: Difference::Extra,
            item: route.to_string(),
            found: format!("wins over {}", planned.value),
            origin: planned.origin.clone(),
        });
    }
    findings
}

fn is_ours(route: &Route) -> bool {
    [RouteProtocol::PARFAIT, RouteProtocol::PARFAIT_CNI].contains(&route.protocol)
}

fn is_link_local(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

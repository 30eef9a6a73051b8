//! Why a port of a Service has no endpoint at all, not even one that is not ready.
//!
//! ```text
//!   spec.selector ──▶ pods ──▶ EndpointSlices ──of the family──▶ with the port's name and protocol ──▶ endpoints
//!     nobody fits      without addresses   none, names, the other's       targetPort names no container's port
//! ```
//!
//! Each of these looks the same to a client, and each is mended elsewhere. What endpoints there are, and why one gets no
//! new connections, is [`crate::Virtual::passed_over`]'s.

use std::collections::BTreeSet;

use parfait_cluster::{
    EndpointSlice, LabelSelector, Pod, Service, ServicePort, Snapshot, TargetPort,
};
use parfait_packet::{Family, Protocol};

/// How many of the ports that there are instead are named.
const NAMED: usize = 5;

/// Why there is none for this port, in words.
#[must_use]
pub fn absent(
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    family: Family,
) -> String {
    let slices = || snapshot.slices_of(&service.name);
    if let Some(slice) = slices().find(|slice| slice.family.is_none()) {
        return format!("those of {} are names, not addresses", slice.origin());
    }
    let listing = slices().filter(|slice| !slice.endpoints.is_empty());
    let (here, other): (Vec<_>, Vec<_>) = listing.partition(|slice| slice.family == Some(family));
    match (here.first(), other.is_empty()) {
        (Some(slice), _) => without_port(snapshot, service, port, slice),
        (None, false) => format!("those that it has are not {family}"),
        (None, true) => unlisted(snapshot, service),
    }
}

/// There are endpoints, but they have another port.
fn without_port(
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    slice: &EndpointSlice,
) -> String {
    let protocol = port.protocol;
    if let (TargetPort::Name(name), false) = (&port.target, service.selector.is_empty()) {
        let pods = slice.endpoints.iter().filter_map(|e| e.pod.as_ref());
        let pods = pods.filter_map(|name| snapshot.pods.get(name));
        let ports = pods.flat_map(|pod| &pod.ports);
        let theirs = named(ports.map(|port| (port.name.as_deref(), port.protocol)));
        return format!(
            "pods match its selector, but none of their containers has a {protocol} port named {name:?}, which is its \
             targetPort; {theirs}"
        );
    }
    let wanted = match &port.name {
        Some(name) => format!("{protocol} port named {name:?}"),
        None => format!("{protocol} port without a name"),
    };
    let ports = slice.ports.iter();
    let theirs = named(ports.map(|port| (port.name.as_deref(), port.protocol)));
    format!(
        "{} lists some, but no {wanted}, as the Service's is; {theirs}",
        slice.origin()
    )
}

/// The ports that there are instead.
fn named<'a>(ports: impl Iterator<Item = (Option<&'a str>, Protocol)>) -> String {
    let ports = ports.map(|(name, protocol)| match name {
        Some(name) => format!("{name:?} ({protocol})"),
        None => format!("one without a name ({protocol})"),
    });
    let ports: BTreeSet<String> = ports.collect();
    let ports: Vec<_> = ports.into_iter().take(NAMED).collect();
    match ports.is_empty() {
        true => "there is none".to_owned(),
        false => format!("there is {}", ports.join(", ")),
    }
}

/// No EndpointSlice lists any.
fn unlisted(snapshot: &Snapshot, service: &Service) -> String {
    if service.selector.is_empty() {
        return "it has no selector, and no EndpointSlice lists any".to_owned();
    }
    let selector = LabelSelector {
        match_labels: service.selector.clone(),
        match_expressions: Vec::new(),
    };
    let fits =
        |pod: &&Pod| pod.name.namespace == service.name.namespace && selector.matches(&pod.labels);
    let matching: Vec<&Pod> = snapshot.pods.values().filter(fits).collect();
    let Some(first) = matching.first() else {
        let selector = service.selector.iter();
        let selector: Vec<_> = selector
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        return format!("no pod matches its selector {}", selector.join(","));
    };
    match matching.iter().any(|pod| pod.has_network()) {
        false => format!(
            "pod {} matches its selector, but has no address",
            first.name
        ),
        true => format!(
            "pod {} matches its selector, but no EndpointSlice lists it",
            first.name
        ),
    }
}

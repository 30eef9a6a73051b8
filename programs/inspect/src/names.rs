//! Looking a name up as the sender's resolver would.

use std::net::IpAddr;

use parfait_application::explain::{Outcome, Said, Step};
use parfait_cluster::{ObjectName, Snapshot};
use parfait_packet::{Hop, Kind, Layer, Origin, Reason, Stage};

/// The dots below which the search list comes first, as the kubelet writes it into resolv.conf.
const NDOTS: usize = 5;

/// What a look-up gives.
pub(crate) struct LookedUp {
    /// The addresses, in the order of the answer.
    pub(crate) addresses: Vec<IpAddr>,
    /// The Service that the name is of, if it is one's.
    pub(crate) service: Option<ObjectName>,
    /// Every name that was tried, and its answer.
    pub(crate) hops: Vec<Hop>,
    /// Why there is no address, if there is none.
    pub(crate) failure: Option<Reason>,
}

/// Looks a name up for a client in a namespace.
pub(crate) fn look_up(snapshot: &Snapshot, namespace: &str, name: &str) -> LookedUp {
    let plan = parfait_application::plan(snapshot);
    let zone = parfait_application::apply(&plan);
    let search = parfait_application::search_list(&plan.domain, namespace);
    let Some(explanation) = parfait_application::explain(&zone, &search, NDOTS, name) else {
        return LookedUp {
            addresses: Vec::new(),
            service: None,
            hops: Vec::new(),
            failure: Some(Reason::NoSuchName),
        };
    };
    let server = server(snapshot);
    let hops = explanation
        .steps
        .iter()
        .map(|step| hop(step, server.as_ref()))
        .collect();
    let (addresses, failure) = match explanation.outcome {
        Outcome::Addresses(addresses) => (addresses, None),
        Outcome::Nothing(reason) => (Vec::new(), Some(reason)),
    };
    LookedUp {
        service: service(&explanation.steps),
        addresses,
        hops,
        failure,
    }
}

/// The Service that answers names on every node.
fn server(snapshot: &Snapshot) -> Option<Origin> {
    let mut served = snapshot
        .services
        .values()
        .filter(|service| service.served_by_node);
    served.next().map(|service| service.origin())
}

fn hop(step: &Step, server: Option<&Origin>) -> Hop {
    let (said, origins) = match &step.said {
        Said::Addresses {
            addresses,
            origins,
            aliases,
        } => {
            let listed: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            let through: String = aliases.iter().map(|alias| format!("{alias} → ")).collect();
            (format!("{through}{}", listed.join(", ")), origins.clone())
        }
        Said::NoAddress(origins) => (
            "exists, but has no address (NODATA)".to_owned(),
            origins.clone(),
        ),
        Said::NoName => ("does not exist (NXDOMAIN)".to_owned(), Vec::new()),
        Said::Outside { name, origins } => (
            format!("is not the cluster's: {name} is asked for outside"),
            origins.clone(),
        ),
    };
    Hop {
        place: server.map_or_else(
            || "cluster DNS".to_owned(),
            |server| format!("cluster DNS ({server})"),
        ),
        stage: Stage::Name,
        layer: Layer::Application,
        what: format!("{} {said}", step.name),
        evidence: String::new(),
        origins,
        packet: None,
    }
}

/// The Service that the last answer comes from: it says which port is meant.
fn service(steps: &[Step]) -> Option<ObjectName> {
    let Said::Addresses { origins, .. } = &steps.last()?.said else {
        return None;
    };
    let origin = origins.iter().find(|origin| origin.kind == Kind::Service)?;
    Some(ObjectName::new(&origin.namespace, &origin.name))
}

//! The application layer: the names of the cluster.
//!
//! ```text
//!   Service default/web ──▶ web.default.svc.cluster.local.            A, AAAA   its clusterIPs
//!                           _http._tcp.web.default.svc.….             SRV       its named ports
//!   headless shop/db    ──▶ db.shop.svc.….                            A, AAAA   its ready endpoints
//!                           db-0.db.shop.svc.….                       A, AAAA   one of them
//!   ExternalName        ──▶ docs.default.svc.….                       CNAME     its externalName
//!   an address          ──▶ 7.0.96.10.in-addr.arpa.                   PTR       the way back
//!   a pod               ──▶ 10-244-1-2.default.pod.….                 A, AAAA   its address
//! ```
//!
//! [`plan()`] decides from the snapshot what each object is called; [`apply()`] lowers that to a
//! [`parfait_dns::Zone`], which the node's server holds; [`explain()`] resolves a name as a pod's
//! resolver does, search list and all; [`prove()`] compares a server's answers with the zone.
//!
//! Follows the Kubernetes DNS specification, version 1.1.0. Deliberately absent: names of nodes,
//! stub domains, names outside of the cluster (the server forwards those), and HTTP, which comes later.

pub mod apply;
pub mod explain;
pub mod plan;
pub mod prove;
#[cfg(test)]
mod tests;

pub use apply::{apply, reapply};
pub use explain::{Explanation, Outcome, Said, Step, explain, search_list};
pub use plan::{Change, Host, NamedPort, Naming, Plan, plan};
pub use prove::{Observation, prove, questions};

//! Where policies deny: each such place counts its packets, and tells the agent of some of them.
//!
//! ```text
//!   chain ingress-shop-3f29c1d04a11 { …                                          the end of the NetworkPolicies of a class
//!     limit rate 1/second burst 5 packets log prefix "ingress-shop-3f29c1d04a11" group 4244 snaplen 128
//!     counter drop }
//!   chain egress-Admin-5d0c…-deny { … the same two }                             a Deny of ClusterNetworkPolicies
//! ```
//!
//! Only packets that are denied meet these rules. A place is called as its chain, which the plan knows: [`places()`]
//! says whose it is. So counts belong to policies, and a sample of a packet can be explained.

use std::collections::{BTreeMap, BTreeSet};

use parfait_cluster::{Direction, PolicyAction};
use parfait_linux::nft::{Limit, Log, Per, Rule, Statement, Verdict};
use parfait_packet::Origin;

use super::class::Step;
use super::plan::Plan;

/// The nfnetlink_log group that the agent listens to.
pub const GROUP: u16 = 4_244;

/// How many packets of one place are told a second; five more at first.
const RATE: u64 = 1;

/// What of a packet is told: the longest IP headers that matter, and ports.
const SNAPLEN: u32 = 128;

/// The longest prefix of a message.
const PREFIX: usize = 127;

/// Where packets are denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The direction, as the pod sees it.
    pub direction: Direction,
    /// The policies that deny: those that isolate, or those with a rule for it.
    pub policies: Vec<Origin>,
    /// The rule, if all that is denied here is by one.
    pub rule: Option<Origin>,
}

/// All places where a plan denies packets, by their chains.
#[must_use]
pub fn places(plan: &Plan) -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    let host = plan.host.iter().map(|host| &host.class);
    for class in plan.classes().into_values().chain(host) {
        let direction = class.direction;
        for tier in &class.tiers {
            if tier.level.denies() {
                let place = Place {
                    direction,
                    policies: tier.policies.clone(),
                    rule: None,
                };
                places.insert(tier.chain.clone(), place);
            }
            let denying = tier.steps.iter();
            for step in denying.filter(|step| step.action == PolicyAction::Deny) {
                let rules: BTreeSet<&Origin> = step.matches.rules().collect();
                let whole = |rule: &&Origin| rule.object();
                let policies: BTreeSet<Origin> = rules.iter().map(whole).collect();
                let place = Place {
                    direction,
                    policies: policies.into_iter().collect(),
                    rule: rules
                        .first()
                        .filter(|_| rules.len() == 1)
                        .map(|rule| (*rule).clone()),
                };
                places.insert(chain(step), place);
            }
        }
    }
    places
}

/// The chain in which a step's packets are denied.
pub(super) fn chain(step: &Step) -> String {
    format!("{}-deny", step.name)
}

/// The end of a chain that denies.
pub(super) fn rules(chain: &str, by: &Origin) -> [Rule; 2] {
    let log = Log {
        group: Some(GROUP),
        prefix: Some(chain.chars().take(PREFIX).collect()),
        snaplen: SNAPLEN,
        queue_threshold: 0,
    };
    let limit = Limit::packets(RATE, Per::Second);
    [
        Rule::new([Statement::Limit(limit), Statement::Log(log)]).origin(by.clone()),
        Rule::new([Statement::Counter, Statement::Verdict(Verdict::Drop)]).origin(by.clone()),
    ]
}

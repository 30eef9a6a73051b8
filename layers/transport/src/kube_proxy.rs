//! What kube-proxy has in a node's kernel: found and explained, and on demand removed.
//!
//! ```text
//!   nftables mode   table ip kube-proxy, table ip6 kube-proxy               the whole tables
//!   iptables mode   KUBE-… chains in tables nat, filter, mangle             these, and the jumps to them
//!   IPVS mode       the same chains, and the interface kube-ipvs0           explained only
//! ```
//!
//! Two programs that translate the same addresses do not add up: whoever's chain comes first has the connection, and
//! what kube-proxy leaves behind when it ends leads to endpoints of that day. So it is a finding, and
//! `--take-over kube-proxy` removes it once the agent's own rules stand.
//!
//! Never touched: what others have in the same tables, the kubelet's `KUBE-FIREWALL`, `KUBE-MARK-DROP` and
//! `KUBE-KUBELET-CANARY`, and the chains of kube-router, which begin alike. Not seen: rules of iptables-legacy, which
//! are not in nf_tables. Names follow kube-proxy's `pkg/proxy/iptables/proxier.go`, `pkg/proxy/ipvs/proxier.go` and
//! `pkg/proxy/nftables/proxier.go`.

use std::collections::BTreeSet;

use parfait_linux::State;
use parfait_linux::nft::diff::Action;
use parfait_linux::nft::{Family, NftStep, Rule, Statement, Table, Tables, Verdict};
use parfait_packet::{Difference, Fault, Finding};

use crate::Handles;

/// The name of its tables in nftables mode.
const TABLE: &str = "kube-proxy";

/// The interface at which IPVS mode keeps the Services' addresses.
const IPVS: &str = "kube-ipvs0";

const CHAINS: [&str; 13] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-LOAD-BALANCER",
    "KUBE-NODE-PORT",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-SOURCE-RANGES-FIREWALL",
];

const PREFIXES: [&str; 6] = [
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-SEP-",
    "KUBE-EXT-",
    "KUBE-FW-",
    "KUBE-XLB-",
];

/// Whether a chain has a name of kube-proxy's.
#[must_use]
pub fn is_its_chain(name: &str) -> bool {
    CHAINS.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// What kube-proxy has in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover<'t> {
    table: &'t Table,
    /// Its chains, or `None` if the whole table is its own.
    chains: Option<BTreeSet<&'t str>>,
}

/// What kube-proxy has in these tables.
#[must_use]
pub fn leftovers(tables: &Tables) -> Vec<Leftover<'_>> {
    let ip = tables
        .values()
        .filter(|table| matches!(table.family, Family::Ip | Family::Ip6));
    let found = ip.filter_map(|table| {
        if table.name == TABLE {
            return Some(Leftover {
                table,
                chains: None,
            });
        }
        let names = table.chains.keys().map(String::as_str);
        let chains: BTreeSet<_> = names.filter(|name| is_its_chain(name)).collect();
        (!chains.is_empty()).then_some(Leftover {
            table,
            chains: Some(chains),
        })
    });
    found.collect()
}

impl Leftover<'_> {
    /// In words: `3 chains of table ip nat (KUBE-SERVICES, …) and 2 rules that lead to them`.
    #[must_use]
    pub fn what(&self) -> String {
        let name = format!("table {} {}", self.table.family, self.table.name);
        let Some(chains) = &self.chains else {
            return name;
        };
        let first = chains.first().copied().unwrap_or_default();
        let more = if chains.len() > 1 { ", …" } else { "" };
        format!(
            "{} of {name} ({first}{more}) and {} to them",
            count(chains.len(), "chain"),
            count(self.jumps().count(), "jump"),
        )
    }

    /// What removes it, and nothing else.
    #[must_use]
    pub fn steps(&self, handles: &Handles) -> Vec<NftStep> {
        let (family, name) = (self.table.family, self.table.name.clone());
        let Some(chains) = &self.chains else {
            return vec![self.step(Action::DeleteTable)];
        };
        let jumps = self.jumps().filter_map(|(chain, index)| {
            let place = (family, name.clone(), chain.to_owned());
            let handle = handles.get(&place)?.get(index)?;
            Some(Action::DeleteRule(chain.to_owned(), *handle))
        });
        // A chain can go when none leads there: all are emptied first.
        let named = |action: fn(String) -> Action| {
            let chains = chains.iter();
            chains.map(move |chain| action((*chain).to_owned()))
        };
        let actions = jumps
            .chain(named(Action::FlushChain))
            .chain(named(Action::DeleteChain));
        actions.map(|action| self.step(action)).collect()
    }

    fn step(&self, action: Action) -> NftStep {
        NftStep {
            family: self.table.family,
            table: self.table.name.clone(),
            action,
        }
    }

    /// The rules of other chains that lead to its own: chain, and place there.
    fn jumps(&self) -> impl Iterator<Item = (&str, usize)> {
        let own = |name: &str| self.chains.as_ref().is_some_and(|own| own.contains(name));
        let others = self.table.chains.iter().filter(move |(name, _)| !own(name));
        others.flat_map(move |(name, chain)| {
            let rules = chain.rules.iter().enumerate();
            let leading = rules.filter(move |(_, rule)| goal(rule).is_some_and(own));
            leading.map(move |(index, _)| (name.as_str(), index))
        })
    }
}

/// The chain that a rule leads to.
fn goal(rule: &Rule) -> Option<&str> {
    rule.statements
        .iter()
        .find_map(|statement| match statement {
            Statement::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain.as_str()),
            _ => None,
        })
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

/// What kube-proxy has in this kernel.
#[must_use]
pub fn found(state: &State) -> Vec<Finding> {
    let finding = |item: String, found: &str| Finding {
        fault: Fault::KubeProxyPresent,
        difference: Difference::Extra,
        item,
        found: found.to_owned(),
        origin: None,
    };
    let translates =
        "kube-proxy translates Services' addresses too: whoever comes first has the connection";
    let tables = leftovers(&state.tables).into_iter();
    let mut findings: Vec<_> = tables
        .map(|leftover| finding(leftover.what(), translates))
        .collect();
    if state.links.keys().any(|link| link.as_str() == IPVS) {
        findings.push(finding(
            format!("interface {IPVS}"),
            "kube-proxy in IPVS mode keeps Services' addresses there, so that packets to them end on this node; \
             --take-over leaves it: ip link del kube-ipvs0, and ipvsadm --clear",
        ));
    }
    findings
}

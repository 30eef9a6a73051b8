//! The tunnel's own packets are of no connection: nobody translates them, and to track them costs as much as what they
//! carry, which is tracked anyway.
//!
//! ```text
//! chain tunnel-prerouting { type filter hook prerouting priority raw; ip daddr 192.168.77.11 udp dport 4789 notrack }
//! chain tunnel-output     { type filter hook output priority raw;     ip saddr 192.168.77.11 udp dport 4789 notrack }
//! ```
//!
//! The address is this node's end of the tunnel; what others exchange at that port is tracked as ever. A firewall of
//! the node sees `ct state untracked` there, which is neither `new` nor `invalid`: `prove` tries its rules so. Nodes
//! without a tunnel have neither chain.

use std::net::IpAddr;

use parfait_linux::Vxlan;
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Field, Hook, Policy, Rule, Statement, Table, Value,
};
use parfait_packet::{Family, Origin, Protocol};

/// Before connections are tracked, which happens at −200.
const RAW: i32 = -300;

/// The table with the two chains, if the tunnel's outer packets are of its family.
pub(crate) fn add(end: Option<&(IpAddr, Origin)>, family: Family, table: Table) -> Table {
    let Some((end, origin)) = end.filter(|(end, _)| Family::of(*end) == family) else {
        return table;
    };
    let chain = |hook, side| {
        let hook = BaseChain {
            kind: ChainType::Filter,
            hook,
            priority: RAW,
            policy: Policy::Accept,
        };
        let rule = Rule::new([
            Statement::is(side, Value::Address(*end)),
            Statement::is(
                Field::L4Proto,
                Value::Protocol(Protocol::Udp.number(family)),
            ),
            Statement::is(Field::Dport, Value::Port(Vxlan::PORT)),
            Statement::Notrack,
        ]);
        Chain::base(hook, [rule.origin(origin.clone())])
    };
    table
        .chain("tunnel-prerouting", chain(Hook::Prerouting, Field::Daddr))
        .chain("tunnel-output", chain(Hook::Output, Field::Saddr))
}

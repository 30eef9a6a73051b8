//! A load balancer's address is no address of the node's own: what arrives at a port that no Service has there is refused.
//!
//! ```text
//! set announced { typeof ip daddr; elements = { 192.168.77.200 } }
//! chain announced-input   { type filter hook input priority filter;
//!   ct state new ip daddr @announced meta l4proto tcp reject with tcp reset
//!   ct state new ip daddr @announced meta l4proto udp reject
//!   ct state new ip daddr @announced meta l4proto sctp reject }
//! chain announced-forward { type filter hook forward priority filter; … }
//! ```
//!
//! Without the first, programs of the node itself would answer there, its SSH server for one; without the second, what a
//! router sends here for an address that is on no link would be asked for on the segment. What a Service has is translated
//! before, and does not come here with that destination. ICMP is left alone: the address can be pinged where it is.

use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, DataType, Element, Field, Hook, Policy, RejectWith, Rule,
    Set, Statement, Table, Value,
};
use parfait_packet::{Family, Origin, Protocol};

use crate::Announcing;

const SET: &str = "announced";

/// The table with the set and chains, if there is an address of its family.
pub(crate) fn add(announcing: &[Announcing], family: Family, table: Table) -> Table {
    let of_family = announcing
        .iter()
        .filter(|one| Family::of(one.address) == family);
    let elements = of_family.map(|one| {
        let element = Element::new(Data::None).origin(one.origin.clone());
        (vec![Value::Address(one.address)], element)
    });
    let set = Set {
        elements: elements.collect(),
        ..Set::new([Field::Daddr], DataType::None)
    };
    if set.elements.is_empty() {
        return table;
    }
    let chain = |hook| {
        let hook = BaseChain {
            kind: ChainType::Filter,
            hook,
            priority: 0,
            policy: Policy::Accept,
        };
        Chain::base(
            hook,
            [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(refusal),
        )
    };
    table
        .set(SET, set)
        .chain("announced-input", chain(Hook::Input))
        .chain("announced-forward", chain(Hook::Forward))
}

fn refusal(protocol: Protocol) -> Rule {
    let number = protocol.number(Family::Ipv4);
    let with = match protocol {
        Protocol::Tcp => RejectWith::TcpReset,
        _ => RejectWith::PortUnreachable,
    };
    Rule::new([
        Statement::any_bit(Field::CtState, 8),
        Statement::in_set([Field::Daddr], SET),
        Statement::is(Field::L4Proto, Value::Protocol(number)),
        Statement::Reject(with),
    ])
    .origin(Origin::parfait("load balancers' addresses"))
}

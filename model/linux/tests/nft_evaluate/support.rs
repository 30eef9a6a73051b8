//! Short words for rulesets and packets.

use std::net::IpAddr;

use parfait_linux::nft::evaluate::{AddressType, Branch, Context, End, evaluate};
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Family, Hook, Policy, Rule, Statement, Table, Tables, Verdict,
};
use parfait_packet::{Packet, Protocol};

pub const CLIENT: [u8; 4] = [10, 244, 1, 5];
pub const VIP: [u8; 4] = [10, 96, 0, 10];
pub const POD: [u8; 4] = [10, 244, 2, 7];

pub fn packet(to: [u8; 4], port: u16) -> Packet {
    Packet::new(CLIENT.into(), to.into(), Protocol::Tcp, port).expect("one family")
}

pub fn elsewhere(_: IpAddr) -> AddressType {
    AddressType::Unicast
}

pub fn base(kind: ChainType, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    let policy = Policy::Accept;
    Chain::base(
        BaseChain {
            kind,
            hook,
            priority,
            policy,
        },
        rules,
    )
}

pub fn filter(rules: Vec<Rule>) -> Chain {
    base(ChainType::Filter, Hook::Forward, 0, rules)
}

pub fn rule(statements: impl IntoIterator<Item = Statement>) -> Rule {
    Rule::new(statements)
}

pub fn verdict(verdict: Verdict) -> Statement {
    Statement::Verdict(verdict)
}

pub fn tables(all: impl IntoIterator<Item = Table>) -> Tables {
    all.into_iter().map(|table| (table.key(), table)).collect()
}

pub fn own(chains: Vec<(&str, Chain)>) -> Tables {
    let table = Table::new(Family::Ip, "parfait");
    let table = chains
        .into_iter()
        .fold(table, |table, (name, chain)| table.chain(name, chain));
    tables([table])
}

pub fn forward(tables: &Tables, packet: Packet) -> Vec<Branch> {
    evaluate(tables, Hook::Forward, &Context::new(packet, &elsewhere))
}

pub fn the_end(tables: &Tables, packet: Packet) -> End {
    let branches = forward(tables, packet);
    assert_eq!(branches.len(), 1, "{branches:?}");
    assert_eq!(branches[0].weight, (1, 1));
    branches[0].end.clone()
}

pub fn steps(branch: &Branch) -> Vec<String> {
    let step = |step: &parfait_linux::nft::evaluate::Trace| match &step.element {
        Some(element) => format!("{}: {} [{element}]", step.chain, step.rule),
        None => format!("{}: {}", step.chain, step.rule),
    };
    branch.steps.iter().map(step).collect()
}

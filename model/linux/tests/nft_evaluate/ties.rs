//! Chains that the kernel calls in an order that nobody knows.

use parfait_linux::nft::evaluate::{Context, End, evaluate};
use parfait_linux::nft::{
    ChainType, Family, Field, Hook, Mark, NewMark, Rule, Statement, Table, Value, Verdict,
};

use crate::support::{POD, VIP, base, elsewhere, filter, packet, rule, tables, the_end, verdict};

#[test]
fn chains_of_one_priority_are_tried_in_every_order() {
    let foreign =
        |name: &str, rules: Vec<Rule>| Table::new(Family::Ip, name).chain("f", filter(rules));
    let mark = |to| rule([Statement::SetMark(Mark::Packet, NewMark::Number(to))]);
    let marked = |is| {
        rule([
            Statement::is(Field::Mark, Value::Number(is)),
            verdict(Verdict::Drop),
        ])
    };
    let end = |all: Vec<Table>| the_end(&tables(all), packet(POD, 80));
    // Whether the mark is there when it is looked at depends on who comes first.
    let apart = vec![foreign("a", vec![mark(1)]), foreign("b", vec![marked(1)])];
    let undecided = End::Unknown("the order of chains: ip a f, ip b f".into());
    assert_eq!(end(apart), undecided);
    // That a packet is dropped does not.
    let drop = || rule([verdict(Verdict::Drop)]);
    let either = vec![foreign("a", vec![drop()]), foreign("b", vec![mark(1)])];
    assert_eq!(end(either), End::Dropped);
    // Three of them: only one order of six does it.
    let three = vec![
        foreign("a", vec![mark(2)]),
        foreign("b", vec![marked(1)]),
        foreign("c", vec![mark(1)]),
    ];
    assert!(matches!(end(three), End::Unknown(_)));
}

#[test]
fn nat_chains_stand_together_among_chains_of_their_priority() {
    let translate = |to: [u8; 4]| vec![rule([Statement::DnatAddress(to.into())])];
    let nat = |name: &str, priority, to| {
        let chain = base(ChainType::Nat, Hook::Prerouting, priority, translate(to));
        Table::new(Family::Ip, name).chain("n", chain)
    };
    let looks = |name: &str, priority, at: [u8; 4]| {
        let is = Statement::is(Field::Daddr, Value::Address(at.into()));
        let rules = vec![rule([is, verdict(Verdict::Drop)])];
        let chain = base(ChainType::Filter, Hook::Prerouting, priority, rules);
        Table::new(Family::Ip, name).chain("f", chain)
    };
    let end = |all: Vec<Table>| {
        let context = Context::new(packet(VIP, 80), &elsewhere);
        let out = evaluate(&tables(all), Hook::Prerouting, &context);
        assert_eq!(out.len(), 1);
        out[0].end.clone()
    };
    // Before or after all nat chains, whatever these have as their own priorities.
    let undecided = End::Unknown("the order of chains: ip a n, ip b f".into());
    for own in [-150, -100, -50] {
        let one = |at| end(vec![nat("a", own, POD), looks("b", -100, at)]);
        assert_eq!(one(POD), undecided, "{own}");
        assert_eq!(one(VIP), undecided, "{own}");
        assert_eq!(one([192, 0, 2, 9]), End::Accepted, "{own}");
    }
    for (priority, at) in [(-101, VIP), (-99, POD)] {
        assert_eq!(
            end(vec![nat("a", -150, POD), looks("b", priority, at)]),
            End::Dropped
        );
    }
    // Never between them: the first of two translates, and what the second would do nobody sees.
    let second = [192, 0, 2, 9];
    let all = |at| {
        vec![
            nat("a", -150, POD),
            looks("b", -100, at),
            nat("c", -50, second),
        ]
    };
    assert_eq!(end(all(second)), End::Accepted);
    // Whose turn it is of two of one priority is unknown too.
    let both = vec![
        nat("a", -50, POD),
        looks("b", -90, second),
        nat("c", -50, second),
    ];
    assert_eq!(
        end(both),
        End::Unknown("the order of chains: ip a n, ip c n".into())
    );
}

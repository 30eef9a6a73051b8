//! What rulesets do to a packet, as tables an operator can read.

use std::net::IpAddr;

use parfait_linux::nft::evaluate::{AddressType, Context, End, ct_state, evaluate};
use parfait_linux::nft::{
    Chain, ChainType, Data, DataType, Dynamic, Element, Family, Field, Hook, Mark, NewData,
    NewMark, NewPriority, Operand, Policy, RejectWith, Rule, Set, Statement, Table, Tables, Update,
    Value, Verdict,
};
use parfait_packet::{Kind, Origin, Packet, Protocol};

mod support;
mod ties;

use support::*;

/// The two look-ups of a Service with this many endpoints.
fn service(endpoints: &[(u32, [u8; 4])]) -> Tables {
    let frontend = vec![Field::Daddr, Field::L4Proto, Field::Dport];
    let key = vec![
        Value::Address(VIP.into()),
        Value::Protocol(6),
        Value::Port(80),
    ];
    let count = u32::try_from(endpoints.len()).expect("few");
    let mut random = frontend.clone();
    random.push(Field::NumgenRandom(count));
    let origin = Origin::new(Kind::Service, "default", "web").field("spec.ports[http]");
    let vip = Element::new(Data::Verdict(Verdict::Goto("n".into()))).origin(origin);
    let services = Set::new(frontend.clone(), DataType::Verdict).element(key.clone(), vip);
    let mut targets = Set::new(random.clone(), DataType::Target);
    for (number, address) in endpoints {
        let mut key = key.clone();
        key.push(Value::Number(*number));
        let element = Element::new(Data::Target((*address).into(), 8080));
        targets.elements.insert(key, element);
    }
    let look_up = Statement::Vmap {
        fields: frontend,
        map: "services".into(),
    };
    let translate = Statement::DnatMap {
        fields: random,
        map: "endpoints".into(),
    };
    let prerouting = base(
        ChainType::Nat,
        Hook::Prerouting,
        -100,
        vec![rule([look_up])],
    );
    let masquerade = base(
        ChainType::Nat,
        Hook::Postrouting,
        100,
        vec![rule([
            Statement::any_bit(Field::CtStatus, 32),
            Statement::Masquerade { fully_random: true },
        ])],
    );
    tables([Table::new(Family::Ip, "parfait")
        .set("services", services)
        .set("endpoints", targets)
        .chain("prerouting", prerouting)
        .chain("postrouting", masquerade)
        .chain("n", Chain::regular([rule([translate])]))])
}

#[test]
fn a_service_splits_into_its_endpoints() {
    let service = service(&[(0, [10, 0, 0, 1]), (1, [10, 0, 0, 2]), (2, [10, 0, 0, 3])]);
    let context = Context::new(packet(VIP, 80), &elsewhere);
    let branches = evaluate(&service, Hook::Prerouting, &context);
    let to: Vec<String> = branches
        .iter()
        .map(|b| {
            format!(
                "{}/{} {} {}",
                b.weight.0, b.weight.1, b.packet.destination, b.packet.destination_port
            )
        })
        .collect();
    assert_eq!(
        to,
        [
            "1/3 10.0.0.1 8080",
            "1/3 10.0.0.2 8080",
            "1/3 10.0.0.3 8080"
        ]
    );
    assert_eq!(
        steps(&branches[1]),
        [
            "prerouting: ip daddr . meta l4proto . th dport vmap @services \
             [10.96.0.10 . tcp . 80 comment \"Service default/web spec.ports[http]\" : goto n]",
            "n: dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints \
             [10.96.0.10 . tcp . 80 . 1 : 10.0.0.2 . 8080]",
        ]
    );
    assert_eq!(branches[0].steps[0].origins[0].name, "web");

    let after = Context {
        packet: branches[0].packet,
        ct_status: branches[0].ct_status,
        ..context
    };
    let out = evaluate(&service, Hook::Postrouting, &after);
    assert!(out[0].masquerade, "dnat shows in ct status");
}

#[test]
fn endpoints_that_are_the_same_are_one_branch_and_a_missing_one_goes_on() {
    let service = service(&[(0, POD), (1, POD), (5, POD), (6, POD)]);
    let context = Context::new(packet(VIP, 80), &elsewhere);
    let branches = evaluate(&service, Hook::Prerouting, &context);
    let ways: Vec<_> = branches
        .iter()
        .map(|b| (b.weight, b.packet.destination))
        .collect();
    assert_eq!(ways, [((1, 2), POD.into()), ((1, 2), VIP.into())]);
}

#[test]
fn only_the_first_packet_of_a_connection_sees_nat() {
    let service = service(&[(0, POD)]);
    let context = Context {
        ct_state: ct_state::ESTABLISHED,
        ..Context::new(packet(VIP, 80), &elsewhere)
    };
    let branches = evaluate(&service, Hook::Prerouting, &context);
    assert_eq!(branches[0].packet, packet(VIP, 80));
}

#[test]
fn accept_ends_only_its_own_base_chain_and_drop_is_final() {
    let ours = Table::new(Family::Ip, "parfait")
        .chain("f", filter(vec![rule([verdict(Verdict::Accept)])]));
    let late = base(
        ChainType::Filter,
        Hook::Forward,
        10,
        vec![rule([verdict(Verdict::Drop)])],
    );
    let foreign = Table::new(Family::Inet, "firewall").chain("late", late.clone());
    let both = tables([ours.clone(), foreign]);
    assert_eq!(the_end(&both, packet(POD, 80)), End::Dropped);
    let other_family = Table::new(Family::Ip6, "firewall").chain("late", late);
    assert_eq!(
        the_end(&tables([ours, other_family]), packet(POD, 80)),
        End::Accepted
    );
}

#[test]
fn the_first_nat_chain_that_sets_nat_up_is_the_last() {
    let nat = |priority, to: [u8; 4]| {
        let rules = vec![rule([Statement::Dnat(to.into(), 1)])];
        base(ChainType::Nat, Hook::Prerouting, priority, rules)
    };
    // The filter chain at −50 sees the packet after all nat chains, even those at priority 0.
    let reject = base(
        ChainType::Filter,
        Hook::Prerouting,
        -50,
        vec![rule([
            Statement::is(Field::Daddr, Value::Address(POD.into())),
            verdict(Verdict::Drop),
        ])],
    );
    let all = own(vec![("b", nat(0, POD)), ("a", nat(10, VIP)), ("f", reject)]);
    let context = Context::new(packet([1, 2, 3, 4], 80), &elsewhere);
    let branches = evaluate(&all, Hook::Prerouting, &context);
    assert_eq!(branches[0].packet.destination, IpAddr::from(POD));
    assert_eq!(branches[0].end, End::Dropped);
}

#[test]
fn jump_comes_back_goto_does_not_and_return_leaves() {
    let to = |name: &str| name.to_owned();
    let chains = |first: Verdict, inner: Verdict| {
        own(vec![
            (
                "f",
                filter(vec![rule([verdict(first)]), rule([verdict(Verdict::Drop)])]),
            ),
            ("c", Chain::regular([rule([verdict(inner)])])),
        ])
    };
    let end = |first, inner| the_end(&chains(first, inner), packet(POD, 80));
    assert_eq!(end(Verdict::Jump(to("c")), Verdict::Continue), End::Dropped);
    assert_eq!(end(Verdict::Jump(to("c")), Verdict::Return), End::Dropped);
    assert_eq!(end(Verdict::Jump(to("c")), Verdict::Accept), End::Accepted);
    assert_eq!(
        end(Verdict::Goto(to("c")), Verdict::Continue),
        End::Accepted
    );
    assert_eq!(end(Verdict::Return, Verdict::Drop), End::Accepted);
    let lost = end(Verdict::Jump(to("nowhere")), Verdict::Drop);
    assert!(matches!(lost, End::Unknown(_)), "{lost:?}");
    let loops = end(Verdict::Goto(to("c")), Verdict::Goto(to("c")));
    assert!(matches!(loops, End::Unknown(_)), "{loops:?}");
}

#[test]
fn a_policy_decides_where_no_rule_does() {
    let mut chain = filter(vec![rule([
        Statement::is(Field::Dport, Value::Ports(80, 90)),
        verdict(Verdict::Accept),
    ])]);
    chain.hook.as_mut().expect("a base chain").policy = Policy::Drop;
    let all = own(vec![("f", chain)]);
    assert_eq!(the_end(&all, packet(POD, 80)), End::Accepted);
    assert_eq!(the_end(&all, packet(POD, 91)), End::Dropped);
    assert_eq!(
        steps(&forward(&all, packet(POD, 91))[0]),
        ["f: policy drop"]
    );
}

#[test]
fn every_field_and_operand_matches_as_it_reads() {
    let name = |name: &str| Value::Ifname(name.into());
    let net = |text: &str| Value::Prefix(text.parse().expect("a prefix"));
    let any = |field, values: &[Value]| Statement::Match {
        fields: vec![field],
        negated: false,
        operand: Operand::Anonymous(values.iter().map(|v| vec![v.clone()]).collect()),
    };
    #[rustfmt::skip]
    let cases = [
        ("ip saddr 10.244.0.0/16", Statement::is(Field::Saddr, net("10.244.0.0/16")), true),
        ("ip daddr != 10.244.0.0/16", Statement::is_not(Field::Daddr, net("10.244.0.0/16")), false),
        ("meta l4proto tcp", Statement::is(Field::L4Proto, Value::Protocol(6)), true),
        ("meta l4proto udp", Statement::is(Field::L4Proto, Value::Protocol(17)), false),
        ("th sport 40000", Statement::is(Field::Sport, Value::Port(40_000)), true),
        ("iifname \"eth*\"", Statement::is(Field::Iifname, name("eth*")), true),
        ("iifname \"eth\"", Statement::is(Field::Iifname, name("eth")), false),
        ("oifname \"wan\"", Statement::is(Field::Oifname, name("wan")), false),
        ("meta mark 0x00000005", Statement::is(Field::Mark, Value::Number(5)), true),
        ("meta mark & 0x00000004 != 0x00000000", Statement::any_bit(Field::Mark, 4), true),
        ("ct state established,new", Statement::any_bit(Field::CtState, 10), true),
        ("ct state == new", Statement::is(Field::CtState, Value::Number(8)), true),
        ("ct status dnat", Statement::any_bit(Field::CtStatus, 32), false),
        ("ct direction reply", Statement::is(Field::CtDirection, Value::Number(1)), false),
        ("fib daddr type local", Statement::is(Field::FibDaddrType, Value::Number(2)), true),
        ("fib saddr type local", Statement::is(Field::FibSaddrType, Value::Number(2)), false),
        ("th dport { 1-5, 80 }", any(Field::Dport, &[Value::Ports(1, 5), Value::Port(80)]), true),
        ("th dport { 1-5, 81 }", any(Field::Dport, &[Value::Ports(1, 5), Value::Port(81)]), false),
    ];
    let address_type = |address: IpAddr| match address {
        address if address == IpAddr::from(POD) => AddressType::Local,
        _ => AddressType::Unicast,
    };
    let context = Context {
        iifname: Some("eth0"),
        mark: 5,
        ..Context::new(packet(POD, 80), &address_type)
    };
    for (text, statement, matches) in cases {
        let rule = rule([statement, verdict(Verdict::Drop)]);
        assert_eq!(rule.to_string(), format!("{text} drop"));
        let all = own(vec![("f", filter(vec![rule]))]);
        let end = evaluate(&all, Hook::Forward, &context)[0].end.clone();
        assert_eq!(end == End::Dropped, matches, "{text}");
    }
}

#[test]
fn a_reject_says_how() {
    let all = own(vec![(
        "f",
        filter(vec![rule([Statement::Reject(RejectWith::TcpReset)])]),
    )]);
    assert_eq!(
        the_end(&all, packet(POD, 80)),
        End::Rejected(RejectWith::TcpReset)
    );
}

#[test]
fn what_is_not_modelled_is_unknown_only_where_it_matters() {
    let opaque = |text: &str| Statement::Opaque(text.into());
    let drop_if = |text: &str| rule([opaque(text), verdict(Verdict::Drop)]);
    let accept = || rule([verdict(Verdict::Accept)]);
    let end = |rules| the_end(&own(vec![("f", filter(rules))]), packet(POD, 80));
    // It decides: unknown.
    assert_eq!(end(vec![drop_if("limit")]), End::Unknown("limit".into()));
    // A log changes nothing.
    assert_eq!(end(vec![drop_if("log")]), End::Dropped);
    // Whether it matches or not comes out the same.
    let both = vec![rule([opaque("limit"), verdict(Verdict::Accept)]), accept()];
    assert_eq!(end(both), End::Accepted);
    // It stands behind a match that fails.
    let never = rule([Statement::is(Field::Dport, Value::Port(1)), opaque("queue")]);
    assert_eq!(end(vec![never, accept()]), End::Accepted);
    // It acts: what comes after does not help.
    let acts = vec![rule([opaque("queue")]), accept()];
    assert_eq!(end(acts), End::Unknown("queue".into()));
    let sets = vec![rule([opaque("meta set key 3")]), accept()];
    assert_eq!(end(sets), End::Unknown("meta set key 3".into()));
}

#[test]
fn probabilities_add_up() {
    let coin = |n| {
        rule([
            Statement::is(Field::NumgenRandom(n), Value::Number(0)),
            verdict(Verdict::Drop),
        ])
    };
    let all = own(vec![("f", filter(vec![coin(2), coin(3), coin(4)]))]);
    let branches = forward(&all, packet(POD, 80));
    let mut ways: Vec<_> = branches.iter().map(|b| (b.weight, b.end.clone())).collect();
    ways.sort_by_key(|(weight, _)| *weight);
    assert_eq!(ways, [((1, 4), End::Accepted), ((3, 4), End::Dropped)]);
}

/// A nat chain in postrouting, and a filter chain after it with these rules.
fn leaving(snat: Statement, after: Vec<Rule>) -> Tables {
    let to = |last: u8| Data::Address([192, 0, 2, last].into());
    let gateways = Set::new([Field::Saddr], DataType::Address)
        .element(vec![Value::Address(CLIENT.into())], Element::new(to(7)))
        .element(vec![Value::Address(POD.into())], Element::new(to(8)));
    let nat = base(ChainType::Nat, Hook::Postrouting, 100, vec![rule([snat])]);
    let filter = base(ChainType::Filter, Hook::Postrouting, 150, after);
    let table = Table::new(Family::Ip, "parfait")
        .set("gateways", gateways)
        .chain("egress", nat)
        .chain("late", filter);
    tables([table])
}

#[test]
fn a_source_is_translated_by_a_map_and_its_port_is_the_kernels_choice() {
    let by_map = || Statement::SnatMap {
        fields: vec![Field::Saddr],
        map: "gateways".into(),
        fully_random: false,
    };
    let leave = |tables: &Tables, packet| {
        let context = Context::new(packet, &elsewhere);
        evaluate(tables, Hook::Postrouting, &context)
    };
    let all = leaving(by_map(), Vec::new());
    let out = leave(&all, packet(POD, 80));
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].packet.source, IpAddr::from([192, 0, 2, 7]));
    assert!(out[0].snat && out[0].ct_status == 16);
    assert_eq!(
        steps(&out[0]),
        ["egress: snat to ip saddr map @gateways [10.244.1.5 : 192.0.2.7]"]
    );
    // Nobody's: the packet goes on as it is.
    let other = Packet::new(VIP.into(), POD.into(), Protocol::Tcp, 80).expect("one family");
    assert_eq!(leave(&all, other)[0].packet, other);
    // What comes after sees the new address; of the port, nobody knows.
    let from = |address: [u8; 4]| Statement::is(Field::Saddr, Value::Address(address.into()));
    let port = Statement::is(Field::Sport, Value::Port(40_000));
    let drop = || verdict(Verdict::Drop);
    let all = leaving(by_map(), vec![rule([from(CLIENT), drop()])]);
    assert_eq!(leave(&all, packet(POD, 80))[0].end, End::Accepted);
    let all = leaving(by_map(), vec![rule([from([192, 0, 2, 7]), drop()])]);
    assert_eq!(leave(&all, packet(POD, 80))[0].end, End::Dropped);
    let all = leaving(by_map(), vec![rule([port, drop()])]);
    let end = leave(&all, packet(POD, 80))[0].end.clone();
    assert!(matches!(end, End::Unknown(_)), "{end:?}");
    let fixed = Statement::Snat {
        address: CLIENT.into(),
        fully_random: true,
    };
    let out = leave(&leaving(fixed, Vec::new()), packet(POD, 80));
    assert_eq!(
        (out[0].packet.source, out[0].ct_status),
        (CLIENT.into(), 16)
    );
}

#[test]
fn marks_are_written_read_and_left_behind() {
    let set = |mark, to| Statement::SetMark(mark, to);
    let bits = NewMark::From {
        mark: Mark::Connection,
        and: 0xff,
        xor: 0x101,
    };
    let rules = vec![
        rule([set(Mark::Packet, NewMark::with_bits(Mark::Packet, 2))]),
        rule([
            Statement::is(Field::Mark, Value::Number(7)),
            set(Mark::Connection, NewMark::copy(Mark::Packet)),
        ]),
        rule([set(Mark::Packet, bits), verdict(Verdict::Accept)]),
    ];
    let all = own(vec![("f", filter(rules))]);
    let mut context = Context {
        mark: 5,
        ct_mark: Some(9),
        ..Context::new(packet(POD, 80), &elsewhere)
    };
    let out = evaluate(&all, Hook::Forward, &context);
    assert_eq!((out[0].ct_mark, out[0].mark), (Some(7), 0x106));
    context.ct_mark = None;
    let out = evaluate(&all, Hook::Forward, &context);
    assert_eq!(out[0].ct_mark, Some(7), "written before it is read");
    context.mark = 0;
    let out = evaluate(&all, Hook::Forward, &context);
    assert_eq!(out[0].end, End::Unknown("ct mark set".into()));
    (context.mark, context.ct_mark) = (5, Some(9));
    context.ct_state = ct_state::UNTRACKED;
    let out = evaluate(&all, Hook::Forward, &context);
    assert_eq!((out[0].ct_mark, out[0].mark), (Some(9), 7), "there is none");
}

#[test]
fn a_priority_that_a_map_gives_chooses_the_chain() {
    let set = |to| Statement::SetPriority(to);
    let choose = Statement::Vmap {
        fields: vec![Field::Priority],
        map: "choices".into(),
    };
    let by_port = NewPriority::Map {
        fields: vec![Field::Dport],
        map: "ports".into(),
    };
    let goto = |chain: &str| Element::new(Data::Verdict(Verdict::Goto(chain.into())));
    let number = |number| vec![Value::Number(number)];
    let choices = Set::new([Field::Priority], DataType::Verdict)
        .element(number(3), goto("drops"))
        .element(number(0x1_0000), goto("reads"));
    let port = |port, to| (vec![Value::Port(port)], Element::new(Data::Priority(to)));
    let ports = [port(80, 3), port(81, 4), port(82, 0x1_0000)];
    let ports = ports.into_iter().fold(
        Set::new([Field::Dport], DataType::Priority),
        |set, (key, element)| set.element(key, element),
    );
    let is = |number| Statement::is(Field::Priority, Value::Number(number));
    let reads = vec![
        rule([set(NewPriority::Number(0))]),
        rule([is(0x1_0000), verdict(Verdict::Drop)]),
    ];
    let chain = filter(vec![rule([set(by_port), choose])]);
    let table = Table::new(Family::Ip, "parfait")
        .set("choices", choices)
        .set("ports", ports)
        .chain("f", chain)
        .chain("drops", Chain::regular([rule([verdict(Verdict::Drop)])]))
        .chain("reads", Chain::regular(reads));
    let all = tables([table]);
    let run = |port| {
        evaluate(
            &all,
            Hook::Forward,
            &Context::new(packet(POD, port), &elsewhere),
        )
    };
    let dropped = run(80);
    assert_eq!(dropped[0].end, End::Dropped);
    assert_eq!(
        steps(&dropped[0])[0],
        "f: meta priority set th dport map @ports meta priority vmap @choices \
         [80 : 0:3, 0:3 : goto drops]"
    );
    for (port, why) in [
        (79, "the map has no such port"),
        (81, "no choice has this priority"),
        (82, "it was written again before it was read"),
    ] {
        assert_eq!(run(port)[0].end, End::Accepted, "{why}");
    }
    let untold = own(vec![(
        "f",
        filter(vec![rule([is(3), verdict(Verdict::Drop)])]),
    )]);
    let context = Context::new(packet(POD, 80), &elsewhere);
    let end = &evaluate(&untold, Hook::Forward, &context)[0].end;
    assert_eq!(
        *end,
        End::Unknown("meta priority".into()),
        "nobody wrote it"
    );
}

#[test]
fn a_client_that_came_before_goes_where_it_went() {
    let dynamic = Dynamic {
        size: 100,
        timeout: Some(std::time::Duration::from_secs(60)),
    };
    let affinity = Set::new([Field::Saddr], DataType::Target).dynamic(dynamic);
    let came = affinity.clone().element(
        vec![Value::Address(CLIENT.into())],
        Element::new(Data::Target(POD.into(), 8080)),
    );
    let dnat = Statement::DnatMap {
        fields: vec![Field::Saddr],
        map: "affinity".into(),
    };
    let add = Statement::Update(Update {
        set: "affinity".into(),
        key: vec![Field::Saddr],
        timeout: None,
        data: NewData::Fields(vec![Field::Daddr, Field::Dport]),
    });
    let at = |set: &Set, rules: Vec<Rule>| {
        let chain = base(ChainType::Nat, Hook::Prerouting, -100, rules);
        let table = Table::new(Family::Ip, "parfait").set("affinity", set.clone());
        let all = tables([table.chain("prerouting", chain)]);
        let context = Context::new(packet(VIP, 80), &elsewhere);
        evaluate(&all, Hook::Prerouting, &context).remove(0)
    };
    let known = at(&came, vec![rule([dnat.clone()])]);
    assert_eq!(known.packet.destination, IpAddr::from(POD));
    assert!(known.missed.is_empty());
    let first = at(&affinity, vec![rule([dnat.clone()])]);
    assert_eq!(first.packet.destination, IpAddr::from(VIP));
    assert!(first.missed.contains("affinity"), "and that is said");
    // Nobody follows what this packet itself has added.
    let own = at(&affinity, vec![rule([add]), rule([dnat.clone()])]);
    assert_eq!(own.end, End::Unknown("lookup @affinity".into()));
    // An element that is there stays what it was.
    let update = Statement::Update(Update {
        set: "affinity".into(),
        key: vec![Field::Saddr],
        timeout: None,
        data: NewData::Fixed(Data::Target([10, 244, 9, 9].into(), 9090)),
    });
    let kept = at(&came, vec![rule([update.clone()]), rule([dnat.clone()])]);
    assert_eq!(kept.packet.destination, IpAddr::from(POD));
    assert!(kept.missed.is_empty());
    let new = at(&affinity, vec![rule([update]), rule([dnat])]);
    assert_eq!(new.packet.destination, IpAddr::from([10, 244, 9, 9]));
}

/// Of a connection whose translation is decided, nat chains see no packet, answered or not.
#[test]
fn nat_chains_see_the_first_packet_alone() {
    let dnat = rule([Statement::Dnat(POD.into(), 8080)]);
    let chain = base(ChainType::Nat, Hook::Prerouting, -100, vec![dnat]);
    let all = tables([Table::new(Family::Ip, "parfait").chain("prerouting", chain)]);
    for (decided, to) in [(false, POD), (true, VIP)] {
        let mut context = Context::new(packet(VIP, 80), &elsewhere);
        context.nat_is_set_up = decided;
        let branch = evaluate(&all, Hook::Prerouting, &context).remove(0);
        assert_eq!(branch.packet.destination, IpAddr::from(to));
    }
}

#[test]
fn rates_logs_and_counters_decide_nothing_by_themselves() {
    let limit = || Statement::NamedLimit("few".into());
    let drop = || verdict(Verdict::Drop);
    let end = |rules| the_end(&own(vec![("f", filter(rules))]), packet(POD, 80));
    let told = rule([limit(), Statement::Log(Default::default())]);
    let counted = Statement::NamedCounter("lost".into());
    assert_eq!(end(vec![told, rule([counted, drop()])]), End::Dropped);
    let limited = vec![rule([limit(), drop()])];
    assert_eq!(end(limited), End::Unknown("limit".into()));
}

#[test]
fn where_the_connection_first_went_is_unknown_unless_told() {
    let original = [
        Statement::is(Field::CtOriginalDaddr, Value::Address(VIP.into())),
        Statement::is(Field::CtOriginalDport, Value::Port(30_080)),
        verdict(Verdict::Drop),
    ];
    let all = own(vec![("f", filter(vec![rule(original)]))]);
    let mut context = Context::new(packet(POD, 80), &elsewhere);
    let end = |context: &Context<'_>| evaluate(&all, Hook::Forward, context)[0].end.clone();
    assert_eq!(end(&context), End::Unknown("ct original".into()));
    context.original = Some(packet(VIP, 30_080));
    assert_eq!(end(&context), End::Dropped);
    context.original = Some(packet(VIP, 80));
    assert_eq!(end(&context), End::Accepted);
}

#[test]
fn pings_have_types_and_nothing_else_has() {
    let is = |field, number| {
        let rules = vec![rule([
            Statement::is(field, Value::Number(number)),
            verdict(Verdict::Drop),
        ])];
        own(vec![("f", filter(rules))])
    };
    let ping = Packet::new(CLIENT.into(), POD.into(), Protocol::Icmp, 0).expect("one family");
    let end = |field, number, packet, reply| {
        let context = Context {
            reply,
            ..Context::new(packet, &elsewhere)
        };
        evaluate(&is(field, number), Hook::Forward, &context)[0].end == End::Dropped
    };
    assert!(end(Field::IcmpType, 8, ping, false));
    assert!(!end(Field::IcmpType, 0, ping, false));
    assert!(end(Field::IcmpType, 0, ping, true));
    assert!(!end(Field::Icmpv6Type, 128, ping, false));
    assert!(!end(Field::IcmpType, 8, packet(POD, 8), false));
}

#[test]
fn a_map_that_cannot_be_asked_is_no_match_that_fails() {
    let verdicts = Set::new([Field::Saddr], DataType::Verdict).element(
        vec![Value::Address(POD.into())],
        Element::new(Data::Verdict(Verdict::Drop)),
    );
    let vmap = Statement::Vmap {
        fields: vec![Field::Saddr],
        map: "sources".into(),
    };
    let masquerade = Statement::Masquerade {
        fully_random: false,
    };
    let nat = base(
        ChainType::Nat,
        Hook::Postrouting,
        100,
        vec![rule([masquerade])],
    );
    let late = base(
        ChainType::Filter,
        Hook::Postrouting,
        150,
        vec![rule([vmap])],
    );
    let table = Table::new(Family::Ip, "parfait")
        .set("sources", verdicts)
        .chain("nat", nat)
        .chain("late", late);
    let context = Context::new(packet(POD, 80), &elsewhere);
    let out = evaluate(&tables([table]), Hook::Postrouting, &context);
    assert!(matches!(out[0].end, End::Unknown(_)), "{:?}", out[0].end);
}

#[test]
fn a_redirect_leads_to_the_node_itself() {
    let all = |hook| {
        own(vec![(
            "r",
            base(
                ChainType::Nat,
                hook,
                -100,
                vec![rule([Statement::Redirect(Some(8080))])],
            ),
        )])
    };
    let mut context = Context::new(packet(VIP, 80), &elsewhere);
    let out = evaluate(&all(Hook::Output), Hook::Output, &context);
    assert_eq!(out[0].packet, packet([127, 0, 0, 1], 8080));
    let lost = evaluate(&all(Hook::Prerouting), Hook::Prerouting, &context);
    assert_eq!(lost[0].end, End::Unknown("redir".into()));
    context.redirected = Some([192, 0, 2, 1].into());
    let out = evaluate(&all(Hook::Prerouting), Hook::Prerouting, &context);
    assert_eq!(out[0].packet, packet([192, 0, 2, 1], 8080));
    let kept = Rule::new([Statement::DnatAddress(POD.into())]);
    let chain = base(ChainType::Nat, Hook::Prerouting, -100, vec![kept]);
    let out = evaluate(&own(vec![("d", chain)]), Hook::Prerouting, &context);
    assert_eq!(out[0].packet, packet(POD, 80));
}

#[test]
fn ranges_are_found_in_large_sets_as_in_small_ones() {
    let net = |text: String| Value::prefix(text.parse().expect("a prefix"));
    let mut large = Set::new([Field::Saddr, Field::Dport], DataType::None).interval();
    for number in 0..20_000_u32 {
        let [_, _, a, b] = number.to_be_bytes();
        let key = vec![net(format!("172.{a}.{b}.0/25")), Value::Ports(80, 90)];
        large.elements.insert(key, Element::new(Data::None));
    }
    let key = vec![net("10.244.0.0/16".to_owned()), Value::Port(443)];
    large.elements.insert(key, Element::new(Data::None));
    let in_set = rule([
        Statement::in_set([Field::Saddr, Field::Dport], "s"),
        verdict(Verdict::Drop),
    ]);
    let table = Table::new(Family::Ip, "parfait").set("s", large);
    let all = tables([table.chain("f", filter(vec![in_set]))]);
    let began = std::time::Instant::now();
    for (from, port, found) in [
        (CLIENT, 443, true),
        (CLIENT, 444, false),
        ([172, 78, 31, 127], 85, true),
        ([172, 78, 31, 128], 85, false),
        ([172, 78, 31, 1], 91, false),
        ([172, 79, 31, 1], 85, false),
    ] {
        let sent = Packet::new(from.into(), POD.into(), Protocol::Tcp, port).expect("one family");
        assert_eq!(
            the_end(&all, sent) == End::Dropped,
            found,
            "{from:?} {port}"
        );
    }
    eprintln!("{:?} for six look-ups among 20,001", began.elapsed());
}

#[test]
fn what_is_not_tracked_on_purpose_is_not_translated_either() {
    let udp = |port| Statement::is(Field::Dport, Value::Port(port));
    let state = |bits| Statement::any_bit(Field::CtState, bits);
    let all = |priority| {
        own(vec![
            (
                "raw",
                base(
                    ChainType::Filter,
                    Hook::Prerouting,
                    priority,
                    vec![rule([udp(80), Statement::Notrack])],
                ),
            ),
            (
                "nat",
                base(
                    ChainType::Nat,
                    Hook::Prerouting,
                    -100,
                    vec![rule([Statement::Dnat(POD.into(), 8080)])],
                ),
            ),
            (
                "later",
                base(
                    ChainType::Filter,
                    Hook::Prerouting,
                    0,
                    vec![
                        rule([
                            state(ct_state::INVALID | ct_state::NEW),
                            verdict(Verdict::Continue),
                        ]),
                        rule([state(ct_state::UNTRACKED), verdict(Verdict::Drop)]),
                    ],
                ),
            ),
        ])
    };
    let at = |priority, port| {
        let all = all(priority);
        let context = Context::new(packet(VIP, port), &elsewhere);
        let out = evaluate(&all, Hook::Prerouting, &context);
        (
            out[0].untracked,
            out[0].end.clone(),
            out[0].packet.destination,
        )
    };
    assert_eq!(at(-300, 80), (true, End::Dropped, VIP.into()));
    assert_eq!(at(-300, 81), (false, End::Accepted, POD.into()));
    // Behind the tracking of connections it is too late.
    assert_eq!(at(-150, 80), (false, End::Accepted, POD.into()));
}

//! Laws of comparing tables: nothing to do between equals; what is done reaches the goal; a step
//! never refers to what is not there.

use std::collections::BTreeMap;
use std::time::Instant;

use parfait_linux::nft::diff::{Action, apply};
use parfait_linux::nft::{
    Chain, Data, DataType, Element, Family, Field, NftStep, Operand, Rule, Set, Statement, Table,
    Tables, Value, Verdict, canonical, diff, phases, render,
};
use parfait_packet::{Kind, Origin};
use proptest::prelude::*;

#[path = "support/nft_tables.rs"]
mod nft_tables;

/// Everything, origins included.
fn whole(tables: &Tables) -> String {
    render::ruleset(tables)
}

/// What would make the kernel refuse this step now, if anything.
fn refusal(tables: &Tables, step: &NftStep) -> Option<String> {
    let table = tables.get(&(step.family, step.table.clone()));
    let Some(table) = table else {
        return (step.action != Action::AddTable).then(|| format!("{step}: no table"));
    };
    let referred = |name: &str| {
        let text = render::ruleset(&BTreeMap::from([(table.key(), table.clone())]));
        let words = [format!("jump {name}"), format!("goto {name}")];
        words.iter().any(|word| {
            text.split(['\n', ',', '}'])
                .any(|part| part.trim().contains(word))
        })
    };
    let looked_up = |name: &str| {
        let rules = table.chains.values().flat_map(|chain| &chain.rules);
        rules
            .flat_map(|rule| &rule.statements)
            .any(|statement| match statement {
                Statement::Match {
                    operand: Operand::Set(set),
                    ..
                } => set == name,
                Statement::Vmap { map, .. }
                | Statement::DnatMap { map, .. }
                | Statement::SnatMap { map, .. } => map == name,
                Statement::Update(update) => update.set == name,
                _ => false,
            })
    };
    let used = |object: &Statement| {
        let mut rules = table.chains.values().flat_map(|chain| &chain.rules);
        rules.any(|rule| rule.statements.contains(object))
    };
    let bad = match &step.action {
        Action::AddCounter(name) => table.counters.contains(name),
        Action::AddLimit(name, _) => table.limits.contains_key(name),
        Action::DeleteCounter(name) => {
            used(&Statement::NamedCounter(name.clone())) || !table.counters.contains(name)
        }
        Action::DeleteLimit(name) => {
            used(&Statement::NamedLimit(name.clone())) || !table.limits.contains_key(name)
        }
        Action::AddTable | Action::DeleteTable => false,
        Action::DeleteRule(..) => true,
        Action::FlushChain(name) | Action::SetPolicy(name, _) => !table.chains.contains_key(name),
        Action::DeleteChain(name) => {
            referred(name) || !table.chains.get(name).is_some_and(|c| c.rules.is_empty())
        }
        Action::DeleteSet(name) => looked_up(name) || !table.sets.contains_key(name),
        Action::AddChain(name, _) => table.chains.contains_key(name),
        Action::AddSet(name, _) => table.sets.contains_key(name),
        Action::DeleteElements(name, _, keys) => {
            let elements = table.sets.get(name).map(|set| &set.elements);
            !elements.is_some_and(|elements| keys.iter().all(|key| elements.contains_key(key)))
        }
        Action::AddElements(name, _, added) => match table.sets.get(name) {
            None => true,
            Some(set) => added.iter().any(|(key, element)| {
                let target = match &element.data {
                    Data::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) => Some(to),
                    _ => None,
                };
                set.elements.contains_key(key)
                    || target.is_some_and(|to| !table.chains.contains_key(to))
            }),
        },
        Action::AddRules(name, _) => !table.chains.contains_key(name),
    };
    bad.then(|| step.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn between_equals_there_is_nothing_to_do(tables in nft_tables::tables()) {
        prop_assert_eq!(diff(&tables, &tables), vec![]);
    }

    #[test]
    fn the_steps_reach_the_goal_and_each_is_possible(
        before in nft_tables::tables(),
        after in nft_tables::tables(),
    ) {
        let mut now = before;
        for step in diff(&now, &after) {
            prop_assert_eq!(refusal(&now, &step), None);
            apply(&mut now, &step);
        }
        prop_assert_eq!(whole(&now), whole(&after));
        prop_assert_eq!(now, after);
    }

    #[test]
    fn in_several_transactions_too(
        before in nft_tables::tables(),
        after in nft_tables::tables(),
    ) {
        let mut now = before;
        for step in phases(diff(&now, &after)).iter().flatten() {
            prop_assert_eq!(refusal(&now, step), None);
            apply(&mut now, step);
        }
        prop_assert_eq!(now, after);
    }

    #[test]
    fn the_canonical_form_is_its_own(table in nft_tables::table(Family::Ip)) {
        let once = canonical(&table).into_owned();
        prop_assert_eq!(canonical(&once).into_owned(), once);
    }
}

fn tables(table: Table) -> Tables {
    Tables::from([(table.key(), table)])
}

fn services(count: u32) -> Tables {
    let fields = [Field::Daddr, Field::L4Proto, Field::Dport];
    let mut set = Set::new(fields, DataType::Verdict);
    for index in 0..count {
        let [_, a, b, c] = index.to_be_bytes();
        let key = vec![
            Value::Address([10, a, b, c].into()),
            Value::Protocol(6),
            Value::Port(80),
        ];
        let origin = Origin::new(Kind::Service, "default", &format!("web-{index}"));
        let element = Element::new(Data::Verdict(Verdict::Goto("n1".to_owned())));
        set.elements.insert(key, element.origin(origin));
    }
    let chain = parfait_linux::nft::Chain::regular([]);
    tables(
        Table::new(Family::Ip, "parfait")
            .set("services", set)
            .chain("n1", chain),
    )
}

#[test]
fn an_origin_that_differs_is_written_anew_once() {
    let before = services(2);
    let mut after = before.clone();
    let origin = Origin::new(Kind::Service, "default", "renamed");
    for table in after.values_mut() {
        for set in table.sets.values_mut() {
            let first = set.elements.first_entry();
            first.expect("an element").get_mut().origin = Some(origin.clone());
        }
    }
    let steps: Vec<String> = diff(&before, &after)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        steps,
        [
            "delete element ip parfait services { 10.0.0.0 . tcp . 80 }",
            "add element ip parfait services { 10.0.0.0 . tcp . 80 comment \"Service default/renamed\" : goto n1 }",
        ]
    );
    assert_eq!(diff(&after, &after), []);
}

#[test]
fn a_comment_too_long_for_the_kernel_does_not_differ_for_ever() {
    let origin = Origin::new(Kind::Service, &"n".repeat(200), &"s".repeat(200));
    let rule = |origin: Origin| {
        let rule = Rule::new([Statement::Counter]).origin(origin);
        let chain = parfait_linux::nft::Chain::regular([rule]);
        tables(Table::new(Family::Ip, "parfait").chain("c", chain))
    };
    let read_back = Origin::parse(&parfait_linux::nft::diff::comment(&origin));
    let read_back = rule(read_back.expect("still an origin"));
    assert_eq!(diff(&read_back, &rule(origin)), []);
}

#[test]
fn a_set_of_another_type_takes_its_rules_with_it() {
    let rule = Rule::new([Statement::in_set([Field::Daddr], "s")]);
    let table = |interval| {
        let mut set = Set::new([Field::Daddr], DataType::None);
        set.interval = interval;
        let chain = parfait_linux::nft::Chain::regular([rule.clone()]);
        tables(
            Table::new(Family::Ip, "parfait")
                .set("s", set)
                .chain("c", chain),
        )
    };
    let steps: Vec<String> = diff(&table(false), &table(true))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        steps,
        [
            "flush chain ip parfait c",
            "delete set ip parfait s",
            "add set ip parfait s",
            "add rule ip parfait c ip daddr @s",
        ]
    );
}

/// A smoke test against quadratic comparing, with a bound far above what it takes (about 85 ms
/// unoptimized).
#[test]
fn many_elements_are_compared_in_linear_time() {
    let (before, mut after) = (services(100_000), services(100_000));
    for table in after.values_mut() {
        for set in table.sets.values_mut() {
            set.elements.pop_first();
        }
    }
    let start = Instant::now();
    let steps = diff(&before, &after);
    let took = start.elapsed();
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert!(took.as_secs() < 5, "{took:?}");
    eprintln!("100,000 elements compared in {took:?}");
}

/// Elements of concatenated intervals are found only some time after the rules of their transaction count.
#[test]
fn a_set_that_is_new_is_whole_before_rules_name_it() {
    let mut before = services(0);
    for table in before.values_mut() {
        table.sets.clear();
    }
    let mut after = services(1);
    for table in after.values_mut() {
        let rule = Rule::new([Statement::in_set([Field::Daddr], "services")]);
        table.chains.insert("n1".to_owned(), Chain::regular([rule]));
    }
    let phases = phases(diff(&before, &after));
    let printed: Vec<Vec<String>> = phases
        .iter()
        .map(|phase| phase.iter().map(ToString::to_string).collect())
        .collect();
    let [first, then] = &*printed else {
        panic!("{printed:#?}");
    };
    assert!(
        first[0].starts_with("add set ip parfait services") && first[1].starts_with("add element"),
        "{first:#?}"
    );
    assert!(
        then.iter().all(|step| step.starts_with("add rule")),
        "{then:#?}"
    );
}

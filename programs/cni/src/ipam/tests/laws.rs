//! The promises, for any sequence of what can happen to a node.

use proptest::prelude::*;

use super::super::*;
use super::model::{Node, ranges};
use crate::file::Moment;

#[derive(Clone, Debug)]
enum Event {
    Add(u8, Option<u8>, Option<Moment>),
    Del(u8, Option<Moment>),
    /// A container ends, and its DEL never comes.
    LostDel(u8),
    Collect(Option<Moment>),
    Reboot,
    Range(usize),
    /// A record is cut short.
    Damage(usize),
    LoseHint,
}

const RANGES: [&[&str]; 4] = [
    &["10.244.1.0/28", "fd00:1::/64"],
    &["10.244.2.0/28"],
    &["10.244.1.0/29", "10.244.2.0/29", "fd00:1::/64"],
    &["fd00:1::/125"],
];

fn event() -> impl Strategy<Value = Event> {
    let moment = || prop::option::weighted(0.4, prop::sample::select(Moment::ALL.to_vec()));
    prop_oneof![
        8 => (0u8..10, prop::option::weighted(0.2, 0u8..16), moment())
            .prop_map(|(number, wish, moment)| Event::Add(number, wish, moment)),
        4 => (0u8..10, moment()).prop_map(|(number, moment)| Event::Del(number, moment)),
        2 => (0u8..10).prop_map(Event::LostDel),
        2 => moment().prop_map(Event::Collect),
        1 => Just(Event::Reboot),
        1 => (0..RANGES.len()).prop_map(Event::Range),
        1 => (0usize..10).prop_map(Event::Damage),
        1 => Just(Event::LoseHint),
    ]
}

fn happen(node: &mut Node, event: Event) -> Result<(), TestCaseError> {
    match event {
        Event::Add(number, wish, moment) => add(node, number, wish, moment)?,
        Event::Del(number, moment) => node.del(number, moment),
        Event::LostDel(number) => {
            let _ = std::fs::remove_file(node.netns(number));
            let interface = node.wanted(number, &[]).interface;
            node.kernel.0.links.retain(|_, link| *link != interface);
            node.kernel.0.routes.retain(|_, link| *link != interface);
            node.live.remove(&number);
        }
        Event::Collect(moment) => node.collect(moment),
        Event::Reboot => node.reboot(),
        Event::Range(which) => node.ranges = ranges(RANGES[which]),
        Event::Damage(which) => {
            if let Some(name) = node.names().get(which) {
                let path = node.store().path(name);
                let text = std::fs::read(&path).unwrap();
                std::fs::write(&path, &text[..text.len() / 2]).unwrap();
            }
        }
        Event::LoseHint => {
            let _ = std::fs::remove_file(node.store().hint());
        }
    }
    Ok(())
}

fn add(
    node: &mut Node,
    number: u8,
    wish: Option<u8>,
    moment: Option<Moment>,
) -> Result<(), TestCaseError> {
    let wished: Vec<IpAddr> = wish
        .map(|last| format!("10.244.1.{last}").parse().unwrap())
        .into_iter()
        .collect();
    let before = node.live.get(&number).cloned();
    match node.add(number, &wished, moment) {
        // The runtime does not know whether it worked. If the container lived, it lives.
        None => {}
        Some(Ok(given)) => {
            let pool = Pool::parse(&node.ranges, &[]).unwrap();
            prop_assert!(pool.fits(&given), "{given:?}");
            prop_assert!(wished.iter().all(|ip| given.contains(ip)));
            if let Some(before) = before.filter(|before| pool.fits(before)) {
                let same = wished.iter().all(|ip| before.contains(ip));
                prop_assert!(!same || before == given, "{before:?} became {given:?}");
            }
        }
        Some(Err(error)) => {
            let refused = [Code::Exhausted, Code::InvalidConfig, Code::TryAgainLater];
            prop_assert!(refused.contains(&error.code), "{error}");
        }
    }
    Ok(())
}

/// No address has two owners, and whoever lives has a record.
fn holds(node: &Node) -> Result<(), TestCaseError> {
    let mut owners = BTreeMap::new();
    for (number, addresses) in &node.live {
        for address in addresses {
            let other = owners.insert(*address, number);
            prop_assert!(other.is_none(), "{address}: {number} and {other:?}");
        }
    }
    let names = node.names();
    for (interface, addresses) in node.kernel.0.others(&BTreeSet::new()) {
        for address in addresses {
            let known = names.iter().any(|name| name.addresses.contains(&address));
            prop_assert!(known, "{address} of {interface} has no record");
        }
    }
    Ok(())
}

use std::collections::BTreeMap;

fn runs() -> u32 {
    let runs = std::env::var("PARFAIT_RUNS").ok();
    runs.and_then(|runs| runs.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(runs()))]
    #[test]
    fn no_address_has_two_owners_and_none_is_lost(events in prop::collection::vec(event(), 1..60)) {
        let mut node = Node::new(RANGES[0]);
        for event in events {
            happen(&mut node, event)?;
            holds(&node)?;
        }
        // Everything ends, and GC leaves nothing.
        node.live.clear();
        node.collect(None);
        prop_assert_eq!(node.names(), []);
        prop_assert_eq!(&node.kernel.0, &Seen::default());
    }
}

//! What other programs, and people, do to a node's kernel behind the agent's back.

use parfait_linux::nft::{Chain, Data, Element, Family, Table};
use parfait_linux::{
    Address, AddressKey, IfName, Link, LinkKind, Mac, Neighbour, NeighbourKey, Object, Route,
    RouteProtocol, State,
};

use crate::Dice;
use crate::world::{Racing, World, name, parse, remove_link};

/// One of them happens.
pub fn act(world: &mut World, dice: &mut Dice, kernel: &mut State, netfilter: &mut Racing) {
    let what = match dice.below(8) {
        0 | 1 => lose_an_object(dice, kernel),
        2 => spoil_an_object(dice, kernel),
        3 | 4 => spoil_a_table(dice, netfilter),
        5 => add_something_foreign(world, dice, kernel),
        6 => add_a_foreign_table(world, netfilter),
        _ => stand_in_the_way(world, dice, kernel),
    };
    world.tell(format!("somebody: {}", what.unwrap_or_default()));
}

/// Whoever stood in the way goes.
pub fn clear_the_way(world: &mut World, kernel: &mut State) {
    for route in world.in_the_way.drain(..) {
        kernel.routes.remove(&route.key());
    }
}

fn is_ours(route: &Route) -> bool {
    [RouteProtocol::PARFAIT, RouteProtocol::PARFAIT_CNI].contains(&route.protocol)
}

/// Parfait's neighbours, and pods'.
fn pinned(kernel: &State) -> Vec<NeighbourKey> {
    let all = kernel.neighbours.keys().cloned();
    all.filter(|(link, _)| *link != name("eth0")).collect()
}

fn lose_an_object(dice: &mut Dice, kernel: &mut State) -> Option<String> {
    match dice.below(6) {
        0 | 1 => {
            let routes = kernel
                .routes
                .iter()
                .filter(|(_, item)| is_ours(&item.value));
            let key = dice.pick(routes.map(|(key, _)| key.clone()))?;
            let lost = kernel.routes.remove(&key)?;
            Some(format!("ip route del {}", lost.value))
        }
        2 => {
            let key = dice.pick(pinned(kernel))?;
            kernel.neighbours.remove(&key);
            Some(format!("ip neigh del {key:?}"))
        }
        3 => {
            let key = dice.pick(kernel.fdb.keys().cloned())?;
            kernel.fdb.remove(&key);
            Some(format!("bridge fdb del {key:?}"))
        }
        4 => {
            let ours =
                |key: &&AddressKey| key.1 == parse("10.96.0.10/32") || key.0 == name("pf-vxlan");
            let key = dice.pick(kernel.addresses.keys().filter(ours).cloned())?;
            kernel.addresses.remove(&key);
            Some(format!("ip address del {key:?}"))
        }
        _ => {
            remove_link(kernel, &name("pf-vxlan"));
            Some("ip link del pf-vxlan".to_owned())
        }
    }
}

fn spoil_an_object(dice: &mut Dice, kernel: &mut State) -> Option<String> {
    match dice.below(5) {
        0 => {
            let ours = kernel.routes.values_mut().map(|item| &mut item.value);
            let mut ours: Vec<_> = ours.filter(|r| is_ours(r) && r.source.is_some()).collect();
            let index = dice.below(ours.len().max(1));
            let route = ours.get_mut(index)?;
            route.source = None;
            Some(format!("ip route replace {route}"))
        }
        1 => {
            let key = dice.pick(pinned(kernel))?;
            let found = kernel.neighbours.get_mut(&key)?;
            found.value = Neighbour::permanent(key.0.clone(), key.1, Mac::local([9; 6]));
            Some(format!("ip neigh replace {}", found.value))
        }
        2 => {
            let key = dice.pick(kernel.sysctls.keys().cloned())?;
            kernel.sysctls.get_mut(&key)?.value.value = "7".to_owned();
            Some(format!("sysctl -w {key}=7"))
        }
        3 => {
            let link = kernel.links.get_mut(&name("pf-vxlan"))?;
            link.value.up = !link.value.up;
            Some("ip link set pf-vxlan down".to_owned())
        }
        _ => {
            let route = Route::unreachable(parse("10.244.99.0/24"));
            kernel.insert(route, None);
            Some("ip route add unreachable 10.244.99.0/24 proto 112".to_owned())
        }
    }
}

fn spoil_a_table(dice: &mut Dice, netfilter: &mut Racing) -> Option<String> {
    let ours = netfilter.fake.tables.keys();
    let ours: Vec<_> = ours
        .filter(|(_, name)| name == "parfait")
        .cloned()
        .collect();
    let key = dice.pick(ours)?;
    netfilter.fake.changed();
    if dice.below(6) == 0 {
        netfilter.fake.tables.remove(&key);
        return Some(format!("nft delete table {} parfait", key.0));
    }
    let table = netfilter.fake.tables.get_mut(&key)?;
    let set_name = dice.pick(table.sets.keys().cloned())?;
    match dice.below(4) {
        0 => {
            let set = table.sets.get_mut(&set_name)?;
            let element = dice.pick(set.elements.keys().cloned())?;
            set.elements.remove(&element);
            Some(format!("nft delete element {set_name} {element:?}"))
        }
        1 => {
            // An element of one set is not of another's type: it is put back under another meaning.
            let set = table.sets.get_mut("cluster_ips")?;
            let extra = vec![parfait_linux::nft::Value::Address(parse("10.96.9.9"))];
            set.elements.insert(extra, Element::new(Data::None));
            Some("nft add element cluster_ips 10.96.9.9".to_owned())
        }
        2 => {
            let chain = dice.pick(table.chains.keys().cloned())?;
            table.chains.get_mut(&chain)?.rules.clear();
            Some(format!("nft flush chain {chain}"))
        }
        _ => {
            let chain = Chain {
                hook: None,
                rules: Vec::new(),
            };
            table.chains.insert("foreign".to_owned(), chain);
            Some("nft add chain parfait foreign".to_owned())
        }
    }
}

fn add_something_foreign(world: &mut World, dice: &mut Dice, kernel: &mut State) -> Option<String> {
    let number = world.foreign.len();
    let object: Object = match dice.below(4) {
        0 => {
            let link = Link::new(name(&format!("veth{number}")), LinkKind::Bridge);
            kernel.insert(link.clone(), None);
            let inside = parse(&format!("10.5.{}.1/24", number % 250));
            let address = Address::new(link.name.clone(), inside);
            kernel.insert(address.clone(), None);
            world.foreign.push(link.into());
            address.into()
        }
        1 => {
            let address = parse(&format!("10.6.0.{}/32", number % 250));
            Address::new(IfName::loopback(), address).into()
        }
        2 => {
            // Inside the pod network, but nobody's slot.
            let destination = parse(&format!("10.244.{}.0/25", 100 + number % 100));
            let mut route = Route::unreachable(destination);
            route.protocol = RouteProtocol::STATIC;
            route.into()
        }
        _ => {
            let address = parse(&format!("192.168.77.{}", 100 + number % 100));
            Neighbour::permanent(name("eth0"), address, Mac::local([7; 6])).into()
        }
    };
    kernel.insert(object.clone(), None);
    let text = format!("adds {object}");
    world.foreign.push(object);
    Some(text)
}

fn add_a_foreign_table(world: &mut World, netfilter: &mut Racing) -> Option<String> {
    let number = world.foreign_tables.len();
    let mut table = Table::new(Family::Inet, &format!("foreign{number}"));
    let chain = Chain {
        hook: None,
        rules: Vec::new(),
    };
    table.chains.insert("mine".to_owned(), chain);
    let key = (table.family, table.name.clone());
    netfilter.fake.tables.insert(key.clone(), table.clone());
    netfilter.fake.changed();
    world.foreign_tables.insert(key, table);
    Some("nft add table".to_owned())
}

/// A route of somebody else's in the place of one of the agent's (or of one that may come).
fn stand_in_the_way(world: &mut World, dice: &mut Dice, kernel: &mut State) -> Option<String> {
    let destination = parse(&format!("10.244.{}.0/24", 2 + dice.below(4)));
    let mut slot = kernel.routes.iter();
    if slot.any(|(_, item)| item.value.destination == destination) {
        kernel
            .routes
            .retain(|key, item| key.destination != destination || !is_ours(&item.value));
        if kernel
            .routes
            .keys()
            .any(|key| key.destination == destination)
        {
            return None;
        }
    }
    let mut route = Route::via(destination, parse("192.168.77.1"), name("eth0"));
    route.protocol = RouteProtocol::STATIC;
    kernel.insert(route.clone(), None);
    let text = format!("ip route replace {route}");
    world.in_the_way.push(route);
    Some(text)
}

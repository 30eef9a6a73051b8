//! Every set and map that Services and host ports fill: an element that is missing, one that leads elsewhere and one too
//! many are found, alone, with the object that they are for; and the agent's next look repairs them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::diff::{Action, SetType};
use parfait_linux::nft::{Data, Element, Family, Key, NftStep, Set, Table, Value, Verdict};
use parfait_packet::{Difference, Finding};

use super::Broken;

/// A Service of each kind, so that no set is empty.
const SERVICES: &str = "
pod web-4 on=node-1 ip=10.244.1.4,fd00:10:244:1::4 ports=8080/TCP hostPorts=8081/TCP>8080,8082/TCP>8080@192.168.77.11
service web ip=10.96.0.20,fd00:10:96::20 ports=http:80/TCP>8080@30080,dns:53/UDP>5353@30053,sigtran:2905/SCTP>2905@30905 balanced=203.0.113.9
slice web-a of=web ports=http:8080/TCP,dns:5353/UDP,sigtran:2905/SCTP endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2
slice web-6 of=web ports=http:8080/TCP,dns:5353/UDP,sigtran:2905/SCTP endpoints=fd00:10:244:1::3@node-1/web-1,fd00:10:244:2::2@node-2/web-2
service local ip=10.96.0.21,fd00:10:96::21 ports=http:80/TCP>8080@30081 balanced=203.0.113.10,2001:db8::10 externalPolicy=Local
slice local-a of=local ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.3.2@node-3/web-3
slice local-6 of=local ports=http:8080/TCP endpoints=fd00:10:244:1::3@node-1/web-1,fd00:10:244:3::2@node-3/web-3
service few ip=10.96.0.22,fd00:10:96::22 ports=http:80/TCP>8080 balanced=203.0.113.11,2001:db8::11 sources=198.51.100.0/24,2001:db8:1::/64
slice few-a of=few ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1
slice few-6 of=few ports=http:8080/TCP endpoints=fd00:10:244:1::3@node-1/web-1
service loyal ip=10.96.0.23,fd00:10:96::23 ports=http:80/TCP>8080 affinity=60
slice loyal-a of=loyal ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1
slice loyal-6 of=loyal ports=http:8080/TCP endpoints=fd00:10:244:1::3@node-1/web-1
service empty ip=10.96.0.24,fd00:10:96::24 ports=http:80/TCP>8080 balanced=203.0.113.12
";

/// What must have been tried, in both families.
const KINDS: [&str; 26] = [
    "local_choices",
    "restricted_choices",
    "service_choices",
    "cluster_ips",
    "endpoints_1",
    "endpoints_2",
    "hairpin",
    "host_ports",
    "inside_services",
    "keep_1",
    "node_addresses",
    "node_ports_sctp",
    "node_ports_tcp",
    "node_ports_udp",
    "node_sources",
    "outside_ips",
    "outside_1",
    "outside_services",
    "refused",
    "restricted_services",
    "service_clients",
    "service_networks",
    "service_pods",
    "services",
    "source_ranges",
    "host_ports_at",
];

#[test]
fn each_difference_in_each_set_of_services_is_found_and_repaired() {
    let test = "each_difference_in_each_set_of_services_is_found_and_repaired";
    let Some(node) = Broken::new(test, SERVICES) else {
        return;
    };
    let mut tried: BTreeSet<String> = BTreeSet::new();
    let tables = node.plan().state().tables;
    for table in tables.values() {
        for (name, set) in &table.sets {
            let wanted = KINDS.contains(&name.as_str()) && set.dynamic.is_none();
            if wanted && Tried::new(&node, table, name, set).each_difference() {
                tried.insert(name.clone());
            }
        }
    }
    assert_eq!(tried, KINDS.map(str::to_owned).into());
}

/// A set of a node whose plan is carried out.
pub(super) struct Tried<'a> {
    node: &'a Broken,
    table: &'a Table,
    name: &'a str,
    set: &'a Set,
}

impl<'a> Tried<'a> {
    pub(super) const fn new(
        node: &'a Broken,
        table: &'a Table,
        name: &'a str,
        set: &'a Set,
    ) -> Self {
        Self {
            node,
            table,
            name,
            set,
        }
    }

    /// Takes the first element away, lets it lead elsewhere and adds one. `false` if there is none.
    pub(super) fn each_difference(&self) -> bool {
        let Some((key, element)) = self.set.elements.first_key_value() else {
            return false;
        };
        let kind = SetType::of(self.set);
        let gone = Action::DeleteElements(self.name.to_owned(), kind, vec![key.clone()]);
        let found = self.after(vec![gone.clone()], Difference::Missing);
        assert_eq!(found.origin, element.origin, "{found}");
        if self.table.family == Family::Ip6 {
            // The rest is one code path over both families.
            return true;
        }
        if let Some(other) = otherwise(&element.data) {
            let found = self.after(vec![gone, self.add(key, other)], Difference::Different);
            assert_eq!(found.origin, element.origin, "{found}");
        }
        let foreign = foreign(key);
        assert!(!self.set.elements.contains_key(&foreign), "{foreign:?}");
        let more = self.add(&foreign, element.data.clone());
        self.after(vec![more], Difference::Extra);
        true
    }

    fn add(&self, key: &Key, data: Data) -> Action {
        let element = (key.clone(), Element::new(data));
        Action::AddElements(self.name.to_owned(), SetType::of(self.set), vec![element])
    }

    /// Breaks something. The only finding, which is of this sort and of this set; it is gone after a repair.
    fn after(&self, broken: Vec<Action>, wanted: Difference) -> Finding {
        let step = |action| NftStep {
            family: self.table.family,
            table: self.table.name.clone(),
            action,
        };
        let steps: Vec<_> = broken.into_iter().map(step).collect();
        let execute = || NftSocket::open().unwrap().execute(&steps);
        self.node.node.run(execute).unwrap().unwrap();
        let found = self.node.found();
        let text: Vec<_> = found.iter().map(ToString::to_string).collect();
        let [finding] = found.as_slice() else {
            panic!("{} {wanted:?}:\n{}", self.name, text.join("\n"));
        };
        assert_eq!(finding.difference, wanted, "{text:?}");
        let place = format!("element @{} ", self.name);
        assert!(finding.item.contains(&place), "{text:?}");
        self.node.repair();
        assert_eq!(self.node.found(), [], "after the repair of {text:?}");
        finding.clone()
    }
}

/// What an element could lead to instead; `None` if it leads nowhere.
fn otherwise(data: &Data) -> Option<Data> {
    match data {
        Data::None => None,
        Data::Verdict(_) => Some(Data::Verdict(Verdict::Drop)),
        Data::Target(address, port) => Some(Data::Target(another(*address), *port)),
        Data::Address(address) => Some(Data::Address(another(*address))),
        Data::Priority(number) => Some(Data::Priority(number + 1)),
    }
}

/// A key like this one that nothing was planned for.
fn foreign(key: &Key) -> Key {
    let mut foreign = key.clone();
    match &mut foreign[0] {
        Value::Address(address) => *address = another(*address),
        Value::Prefix(net) => {
            let address = another(net.addr());
            *net = ipnet::IpNet::from(address);
        }
        Value::Port(port) => *port = 9,
        Value::Protocol(number) => *number = 33,
        Value::Number(number) => *number = 0xf_0009,
        other => panic!("{other:?}"),
    }
    foreign
}

fn another(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => "192.0.2.77".parse().unwrap(),
        IpAddr::V6(_) => "2001:db8:77::77".parse().unwrap(),
    }
}

//! Loads 5,000 Services with 10 endpoints each into a network namespace of its own, and says how long
//! each part takes and how much memory it needs: `cargo run --release -p parfait-kernel --example nft_load`.
//!
//! Needs root. Nothing of the machine's own ruleset is touched.

use std::time::Instant;

use parfait_kernel::NetNs;
use parfait_kernel::nft::{Error, NftSocket};
use parfait_linux::nft::{
    Chain, Data, DataType, Element, Family, Field, Rule, Set, Statement, Table, Tables, Value,
    Verdict, diff,
};
use parfait_packet::{Kind, Origin};

const SERVICES: u16 = 5_000;
const ENDPOINTS: u8 = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(NetNs::create()?.run(measure)??)
}

fn measure() -> Result<(), Error> {
    let mut socket = NftSocket::open()?;
    let start = Instant::now();
    let desired = desired(SERVICES);
    eprintln!(
        "values       {:?}, {} resident",
        start.elapsed(),
        resident()
    );
    let start = Instant::now();
    let steps = diff(&Tables::new(), &desired);
    eprintln!("diff         {:?}", start.elapsed());
    let start = Instant::now();
    socket.execute(&steps)?;
    eprintln!(
        "execute      {:?}, {} resident",
        start.elapsed(),
        resident()
    );
    drop(steps);
    let start = Instant::now();
    let observed = socket.observe_all()?;
    eprintln!(
        "observe      {:?}, {} resident",
        start.elapsed(),
        resident()
    );
    let start = Instant::now();
    let steps = diff(&observed.tables, &desired);
    let none = steps.len();
    eprintln!("diff         {:?}, {none} steps", start.elapsed());
    let mut other = desired.clone();
    for table in other.values_mut() {
        for set in table.sets.values_mut().filter(|set| set.key.len() == 4) {
            for element in set.elements.values_mut().take(usize::from(ENDPOINTS)) {
                element.data = Data::Target([10, 9, 9, 9].into(), 1);
            }
        }
    }
    let start = Instant::now();
    let steps = diff(&desired, &other);
    eprintln!(
        "diff         {:?}, one Service's endpoints",
        start.elapsed()
    );
    let start = Instant::now();
    socket.execute(&steps)?;
    eprintln!(
        "execute      {:?}, one Service's endpoints",
        start.elapsed()
    );
    Ok(())
}

fn desired(services: u16) -> Tables {
    let frontend = vec![Field::Daddr, Field::L4Proto, Field::Dport];
    let mut random = frontend.clone();
    random.push(Field::NumgenRandom(u32::from(ENDPOINTS)));
    let mut vips = Set::new(frontend, DataType::Verdict);
    let mut targets = Set::new(random.clone(), DataType::Target);
    for number in 0..services {
        let [high, low] = number.to_be_bytes();
        let vip = vec![
            Value::Address([10, 96, high, low].into()),
            Value::Protocol(6),
            Value::Port(80),
        ];
        let origin = Origin::new(Kind::Service, "default", &format!("service-{number}"));
        let origin = origin.field("spec.ports[http]");
        let goto = Data::Verdict(Verdict::Goto("n10".to_owned()));
        vips.elements
            .insert(vip.clone(), Element::new(goto).origin(origin.clone()));
        for endpoint in 0..ENDPOINTS {
            let mut key = vip.clone();
            key.push(Value::Number(u32::from(endpoint)));
            let target = Data::Target([10, endpoint, high, low].into(), 8080);
            let origin = origin.clone();
            targets
                .elements
                .insert(key, Element::new(target).origin(origin));
        }
    }
    let map = "endpoints_10".to_owned();
    let choose = Statement::DnatMap {
        fields: random,
        map: map.clone(),
    };
    let table = Table::new(Family::Ip, "parfait")
        .set("services", vips)
        .set(&map, targets)
        .chain("n10", Chain::regular([Rule::new([choose])]));
    Tables::from([(table.key(), table)])
}

/// VmRSS of this process.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

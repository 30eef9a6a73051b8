//! What rules tell of and count: read in a namespace of its own, while a real program sends.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use parfait_kernel::NetNs;
use parfait_kernel::nflog::{Logged, PacketLog};
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Family, Field, Hook, Limit, Log, Per, Policy, Rule, Statement,
    Table, Value, Verdict, diff,
};

const GROUP: u16 = 4_244;

/// The burst of a limit, which nft(8) gives by itself.
const BURST: u64 = 5;

/// `limit rate 1/hour log prefix "here" group 4244 snaplen 64`, and `counter drop`, of UDP to port 9; or without a limit.
fn table(limit: Option<Limit>) -> Table {
    let log = Log {
        group: Some(GROUP),
        prefix: Some("here".to_owned()),
        snaplen: 64,
        queue_threshold: 0,
    };
    let udp = || Statement::is(Field::Dport, Value::Port(9));
    let base = BaseChain {
        kind: ChainType::Filter,
        hook: Hook::Output,
        priority: 0,
        policy: Policy::Accept,
    };
    let limit = limit.map(Statement::Limit);
    let told = [udp()]
        .into_iter()
        .chain(limit)
        .chain([Statement::Log(log)]);
    let rules = [
        Rule::new(told),
        Rule::new([udp(), Statement::Counter, Statement::Verdict(Verdict::Drop)]),
    ];
    Table::new(Family::Ip, "parfait").chain("here", Chain::base(base, rules.to_vec()))
}

/// In a namespace of its own, with these rules.
fn with<T: Send>(table: &Table, test: impl FnOnce(&mut NftSocket, PacketLog) -> T + Send) -> T {
    let netns = NetNs::create().expect("a network namespace (this test needs root)");
    let done = netns.run(|| {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("ip runs").success());
        let mut nft = NftSocket::open().expect("nf_tables");
        let desired = [table.clone()].map(|table| (table.key(), table)).into();
        nft.execute(&diff(&Default::default(), &desired))
            .expect("the rules");
        test(&mut nft, PacketLog::open(GROUP).expect("nfnetlink_log"))
    });
    done.expect("entering")
}

/// Sends datagrams to port 9, each of which is dropped; their source port.
fn send(count: usize) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for _ in 0..count {
        // The sender is told that its packet was dropped: EPERM.
        let sent = socket.send_to(b"x", "127.0.0.1:9");
        assert!(sent.is_err(), "{sent:?}");
    }
    socket.local_addr().expect("bound").port()
}

fn read(log: &mut PacketLog, enough: impl Fn(&[Logged]) -> bool) -> Vec<Logged> {
    let until = Instant::now() + Duration::from_secs(20);
    let mut logged = Vec::new();
    while !enough(&logged) && Instant::now() < until {
        logged.extend(log.read().expect("it can be read"));
        std::thread::sleep(Duration::from_millis(5));
    }
    logged
}

#[test]
fn denied_packets_are_counted_and_some_of_them_told() {
    let table = table(Some(Limit::packets(1, Per::Hour)));
    let (own, logged, counts) = with(&table, |nft, mut log| {
        let own = send(20);
        let logged = read(&mut log, |logged| logged.len() >= BURST as usize);
        assert_eq!(log.overruns(), 0);
        let counts = nft.counts("parfait").expect("counters");
        // What is counted is no difference.
        let observed = nft.observe(|_, name| name == "parfait").expect("tables");
        let desired = [table.clone()].map(|table| (table.key(), table)).into();
        assert_eq!(diff(&observed.tables, &desired), []);
        (own, logged, counts)
    });
    assert_eq!(counts, [((Family::Ip, "here".to_owned()), 20)].into());
    assert_eq!(logged.len() as u64, BURST);
    for one in logged {
        assert_eq!(
            (one.prefix.as_str(), one.hook),
            ("here", Some(Hook::Output))
        );
        let packet = one.packet;
        assert_eq!((packet.source_port, packet.destination_port), (own, 9));
        assert_eq!(packet.source.to_string(), "127.0.0.1");
    }
}

/// Nobody reads while more comes than the socket holds (200 KiB, if nobody has changed it).
#[test]
fn packets_that_are_lost_on_their_way_to_the_reader_are_noticed_and_counted_all_the_same() {
    const MANY: usize = 20_000;
    with(&table(None), |nft, mut log| {
        send(MANY);
        let read_first = read(&mut log, |logged| !logged.is_empty());
        assert!(read_first.len() < MANY, "{}", read_first.len());
        assert!(log.overruns() > 0);
        let counts = nft.counts("parfait").expect("counters");
        assert_eq!(counts.values().sum::<u64>(), MANY as u64);
        // It goes on hearing.
        let own = send(1);
        let later = read(&mut log, |logged| {
            logged.iter().any(|one| one.packet.source_port == own)
        });
        let last = later.last().map(|one| one.packet.source_port);
        assert_eq!(last, Some(own));
    });
}

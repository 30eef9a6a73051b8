//! What rules tell of and count: read in a namespace of its own, while a real program sends.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use parfait_kernel::NetNs;
use parfait_kernel::nflog::PacketLog;
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Family, Field, Hook, Limit, Log, Per, Policy, Rule, Statement,
    Table, Value, Verdict, diff,
};

const GROUP: u16 = 4_244;

/// The burst of a limit, which nft(8) gives by itself.
const BURST: u64 = 5;

/// `limit rate 1/hour log prefix "here" group 4244 snaplen 64`, and `counter drop`, of UDP to port 9.
fn table() -> Table {
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
    let limit = Statement::Limit(Limit::packets(1, Per::Hour));
    let rules = [
        Rule::new([udp(), limit, Statement::Log(log)]),
        Rule::new([udp(), Statement::Counter, Statement::Verdict(Verdict::Drop)]),
    ];
    Table::new(Family::Ip, "parfait").chain("here", Chain::base(base, rules.to_vec()))
}

#[test]
fn denied_packets_are_counted_and_some_of_them_told() {
    let netns = NetNs::create().expect("a network namespace (this test needs root)");
    let told = netns.run(|| {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("ip runs").success());
        let mut nft = NftSocket::open().expect("nf_tables");
        let desired = [table()].map(|table| (table.key(), table)).into();
        nft.execute(&diff(&Default::default(), &desired))
            .expect("the rules");
        let mut log = PacketLog::open(GROUP).expect("nfnetlink_log");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let own = socket.local_addr().expect("bound").port();
        for _ in 0..20 {
            // The sender is told that its packet was dropped: EPERM.
            let sent = socket.send_to(b"x", "127.0.0.1:9");
            assert!(sent.is_err(), "{sent:?}");
        }
        let until = Instant::now() + Duration::from_secs(20);
        let mut logged = Vec::new();
        while logged.len() < BURST as usize && Instant::now() < until {
            logged.extend(log.read().expect("it can be read"));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(log.overruns(), 0);
        let counts = nft.counts("parfait").expect("counters");
        // What is counted is no difference.
        let observed = nft.observe(|_, name| name == "parfait").expect("tables");
        assert_eq!(diff(&observed.tables, &desired), []);
        (own, logged, counts)
    });
    let (own, logged, counts) = told.expect("entering");
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

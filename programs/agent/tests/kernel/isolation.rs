//! Isolated until known: a pod that sends from its first instruction, before the plugin has even made
//! its interface, reaches nobody but its own node until the agent knows it, and then everybody.
//!
//! ```text
//!   new pod ──UDP, TCP, both families──▶ a pod here, a pod on node-2, the world outside, its own node
//!   a pod here ──UDP──▶ the new pod
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parfait_agent::{Machine, attachments};
use parfait_cluster::Snapshot;
use parfait_join::NodePlan;
use parfait_kernel::{Kernel, NetNs, Socket, sysctl};
use parfait_linux::{Address, IfName, Item, Object, Step, Sysctl, SysctlKey};
use parfait_packet::Family;

use crate::fixture;
use crate::machines::{self, Machines};
use crate::random::{Life, OUTSIDE, Pod, Scene};

const PORT: u16 = 8080;

/// Longer than anything here takes; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two nodes with a tunnel between them, and a pod on each.
fn scene() -> Scene {
    let pod = |node| Pod {
        node,
        life: Life::Running,
        host_port: None,
    };
    Scene {
        routing: "vxlan",
        families: vec![4, 6],
        underlay: vec![4, 6],
        nodes: vec![77, 77],
        pods: vec![pod(1), pod(2)],
        services: Vec::new(),
    }
}

fn parse(addresses: &[&str]) -> Vec<IpAddr> {
    let parse = |address: &&str| address.parse().expect("an address");
    addresses.iter().map(parse).collect()
}

/// Who is meant to hear the new pod.
fn targets() -> BTreeMap<&'static str, Vec<IpAddr>> {
    BTreeMap::from([
        ("a pod here", parse(&["10.244.1.2", "fd00:10:244:1::2"])),
        ("a pod there", parse(&["10.244.2.2", "fd00:10:244:2::2"])),
        ("the world outside", parse(&OUTSIDE)),
    ])
}

fn own_node() -> Vec<IpAddr> {
    parse(&["192.168.77.11", "fd00:77::11"])
}

/// Sockets that count who comes.
struct Ears {
    ears: Vec<(SocketAddr, UdpSocket, TcpListener)>,
    /// Which were heard of since the last look, over which protocol.
    heard: BTreeSet<(IpAddr, &'static str)>,
}

impl Ears {
    fn open(netns: &NetNs, addresses: &[IpAddr]) -> Self {
        let open = || -> std::io::Result<Vec<_>> {
            let mut ears = Vec::new();
            for address in addresses {
                let at = SocketAddr::new(*address, PORT);
                let (udp, tcp) = (UdpSocket::bind(at)?, TcpListener::bind(at)?);
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                ears.push((at, udp, tcp));
            }
            Ok(ears)
        };
        let ears = netns.run(open).expect("a namespace").expect("sockets");
        Self {
            ears,
            heard: BTreeSet::new(),
        }
    }

    /// Takes everything that has come.
    fn listen(&mut self) {
        for (at, udp, tcp) in &self.ears {
            let mut buffer = [0; 16];
            while udp.recv_from(&mut buffer).is_ok() {
                self.heard.insert((at.ip(), "UDP"));
            }
            while tcp.accept().is_ok() {
                self.heard.insert((at.ip(), "TCP"));
            }
        }
    }

    fn heard_all(&self) -> bool {
        self.heard.len() == 2 * self.ears.len()
    }
}

/// Sends to all of these over UDP and TCP until it is told to stop. Counts rounds.
fn chatter(to: &[IpAddr], stop: &AtomicBool, rounds: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        for address in to {
            let at = SocketAddr::new(*address, PORT);
            let any = Family::of(*address).unspecified();
            // Without an interface there is no way yet; that is the point of trying so early.
            let udp = UdpSocket::bind(SocketAddr::new(any, 0));
            let _ = udp.and_then(|socket| socket.send_to(b"here", at));
            let _ = TcpStream::connect_timeout(&at, Duration::from_millis(20));
        }
        rounds.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Tries until it is so.
fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the agent does in a turn; the steps it took.
fn turn(machines: &Machines, snapshot: &mut Snapshot) -> usize {
    let (attached, errors) = attachments::read(machines.folder(1));
    assert_eq!(errors, Vec::<String>::new());
    snapshot.attach("node-1", attached);
    let state = NodePlan::new(snapshot, "node-1").state();
    let sync = || Machine::open().and_then(|mut machine| machine.sync(&state));
    machines.nodes[0]
        .run(sync)
        .expect("a namespace")
        .expect("the plan is carried out")
}

/// The new pod's addresses, from the plugin's answer.
fn addresses(result: &str) -> Vec<IpAddr> {
    let words = result.split('"');
    let parsed = words.filter_map(|word| word.parse::<ipnet::IpNet>().ok());
    let own = parsed.filter(|net| net.prefix_len() == net.max_prefix_len());
    own.map(|net| net.addr()).collect()
}

/// A pod that sends from its first instruction, with those who may hear it.
struct Sender<'a> {
    machines: &'a Machines,
    netns: NetNs,
    others: Ears,
    node: Ears,
}

impl<'a> Sender<'a> {
    fn new(machines: &'a Machines) -> Self {
        let targets = targets();
        let mut others = Ears::open(&machines.pods[&0], &targets["a pod here"]);
        let there = Ears::open(&machines.pods[&1], &targets["a pod there"]);
        let outside = Ears::open(&machines.fabric, &targets["the world outside"]);
        others.ears.extend(there.ears);
        others.ears.extend(outside.ears);
        Self {
            machines,
            netns: NetNs::create().expect("a namespace"),
            others,
            node: Ears::open(&machines.nodes[0], &own_node()),
        }
    }

    /// Attaches the pod while it sends. Nobody must hear it but its node, and it nobody, until `known` has
    /// been done; then everybody must.
    fn sends(mut self, name: &str, snapshot: &Snapshot, known: impl FnOnce()) {
        let mut to: Vec<IpAddr> = targets().into_values().flatten().collect();
        to.extend(own_node());
        let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
        let back = AtomicUsize::new(0);
        let netns = &self.netns;
        std::thread::scope(|scope| {
            let end = StopAtEnd(&stop);
            scope.spawn(|| netns.run(|| chatter(&to, &stop, &rounds)));
            wait_for("the pod to send", || rounds.load(Ordering::Relaxed) > 0);
            let result = self
                .machines
                .add(1, snapshot, name, &self.netns)
                .expect("ADD");
            let own = addresses(&result);
            assert_eq!(own.len(), 2, "{result}");
            let mut ears = Ears::open(&self.netns, &own);
            let (machines, stop, back) = (self.machines, &stop, &back);
            scope.spawn(move || machines.pods[&0].run(|| chatter(&own, stop, back)));
            wait_for("its node to hear the pod", || {
                self.node.listen();
                self.node.heard_all()
            });
            let (so_far, back_so_far) =
                (rounds.load(Ordering::Relaxed), back.load(Ordering::Relaxed));
            wait_for("more to be sent", || {
                rounds.load(Ordering::Relaxed) > so_far + 3
                    && back.load(Ordering::Relaxed) > back_so_far + 3
            });
            self.others.listen();
            ears.listen();
            assert_eq!(
                self.others.heard,
                BTreeSet::new(),
                "{name} was heard before it was known"
            );
            assert_eq!(
                ears.heard,
                BTreeSet::new(),
                "{name} heard others before it was known"
            );
            known();
            wait_for("everybody to hear the pod", || {
                self.others.listen();
                ears.listen();
                self.others.heard_all() && ears.heard_all()
            });
            drop(end);
        });
    }
}

/// Ends the threads, also when a test panics.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn skipped(test: &str) -> bool {
    match NetNs::create() {
        Ok(_) => false,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIP: {test}: {error}");
            true
        }
    }
}

#[test]
fn a_pod_that_sends_from_its_first_instruction_is_heard_when_it_is_known() {
    if skipped("a_pod_that_sends_from_its_first_instruction_is_heard_when_it_is_known") {
        return;
    }
    let scene = scene();
    let mut snapshot = fixture::cluster(&scene.to_string());
    let machines = Machines::build(&scene, &snapshot).expect("a cluster");
    machines.plan(&snapshot).expect("the plans are carried out");
    Sender::new(&machines).sends("early", &snapshot.clone(), || {
        // The API server tells of the pod, but not of its address.
        let told = format!("{scene}\npod early on=node-1 phase=Pending");
        snapshot = fixture::cluster(&told);
        assert!(turn(&machines, &mut snapshot) > 0);
    });
    // An agent that starts again changes nothing, and opens nothing to the next pod, of which the API
    // server has not told.
    assert_eq!(turn(&machines, &mut snapshot), 0);
    Sender::new(&machines).sends("late", &snapshot.clone(), || {
        assert_eq!(
            turn(&machines, &mut snapshot),
            0,
            "the API server has not told"
        );
        let told =
            format!("{scene}\npod early on=node-1 phase=Pending\npod late on=node-1 phase=Pending");
        snapshot = fixture::cluster(&told);
        assert!(turn(&machines, &mut snapshot) > 0);
    });
    // A pod that goes is not known any more; the others go on.
    snapshot = fixture::cluster(&format!("{scene}\npod late on=node-1 phase=Pending"));
    assert!(turn(&machines, &mut snapshot) > 0);
    let plan = parfait_internet::isolation::known_pods(&snapshot, "node-1").expect("isolation");
    let known: BTreeSet<_> = plan
        .values()
        .map(|origin| origin.name.to_string())
        .collect();
    assert_eq!(known, ["late".to_owned(), "p0".to_owned()].into());
}

#[test]
fn after_a_reboot_without_an_agent_new_pods_are_isolated_too() {
    if skipped("after_a_reboot_without_an_agent_new_pods_are_isolated_too") {
        return;
    }
    let scene = scene();
    let snapshot = fixture::cluster(&scene.to_string());
    let machines = Machines::build(&scene, &snapshot).expect("a cluster");
    let folder = machines.folder(1);
    // A machine that forwards, with the node's addresses and state, and nothing else yet.
    let node = NetNs::create().expect("a namespace");
    node.run(|| boot(&own_node())).expect("a namespace");
    let (one, other) = (
        NetNs::create().expect("one"),
        NetNs::create().expect("another"),
    );
    let result = machines::add(&node, folder, "other", &other).expect("ADD");
    let others = addresses(&result);
    let mut ears = Ears::open(&other, &others);
    let mut nodes = Ears::open(&node, &own_node());
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let to = [others.clone(), own_node()].concat();
    std::thread::scope(|scope| {
        let end = StopAtEnd(&stop);
        scope.spawn(|| one.run(|| chatter(&to, &stop, &rounds)));
        wait_for("the pod to send", || rounds.load(Ordering::Relaxed) > 0);
        machines::add(&node, folder, "one", &one).expect("ADD");
        wait_for("its node to hear the pod", || {
            nodes.listen();
            nodes.heard_all()
        });
        let so_far = rounds.load(Ordering::Relaxed);
        wait_for("more to be sent", || {
            rounds.load(Ordering::Relaxed) > so_far + 3
        });
        ears.listen();
        assert_eq!(ears.heard, BTreeSet::new());
        // It is the isolation that keeps them apart, and not a lack of routes.
        node.run(open_up).expect("a namespace");
        wait_for("the other pod to hear", || {
            ears.listen();
            ears.heard_all()
        });
        drop(end);
    });
}

fn boot(addresses: &[IpAddr]) {
    let mut socket = Socket::open().expect("netlink");
    socket.set_up(&IfName::loopback()).expect("lo");
    for address in addresses {
        let address = Address::new(IfName::loopback(), ipnet::IpNet::from(*address));
        let step = Step::Create(Item::new(Object::from(address), None));
        socket.execute(&[step]).expect("an address");
    }
    for family in Family::ALL {
        sysctl::write(&Sysctl::new(SysctlKey::forwarding(family), "1")).expect("forwarding");
    }
}

/// What `podIsolation: none` comes to.
fn open_up() {
    let mut socket = parfait_kernel::nft::NftSocket::open().expect("nf_tables");
    let observed = socket.observe(|_, name| name == "parfait").expect("tables");
    assert_eq!(observed.tables.len(), 2, "the plugin has made both tables");
    let steps = parfait_linux::nft::diff(&observed.tables, &parfait_linux::nft::Tables::new());
    socket
        .execute_at(&steps, observed.generation)
        .expect("they go");
}

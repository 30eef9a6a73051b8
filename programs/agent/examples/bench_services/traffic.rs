//! Connections between two network namespaces, one after the other.
//!
//! ```text
//! bench_services traffic ROUNDS COUNT NAME=CLIENT,SERVER,ADDRESS:PORT…
//! ```
//!
//! CLIENT and SERVER are names of namespaces (`ip netns`); all NAMEs take turns in each round. A connection is made,
//! carries one byte there and one back, and is reset, which leaves nothing behind. Then one connection is kept for as many
//! requests. Client and server share one processor, so that what is measured is work and not waiting for another
//! processor to wake up. Printed are, for each round:
//!
//! ```text
//! NAME-connection   milliseconds for one connection, on average
//! NAME-work         of processor time for it, of both ends and the kernel between them
//! NAME-slow         99 of 100 connections took no longer
//! NAME-request, NAME-request-slow   a request on the kept connection: on average, and 99 of 100
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use parfait_kernel::NetNs;
use rustix::net::sockopt::set_socket_linger;
use rustix::thread::{CpuSet, sched_setaffinity};

const PORT: u16 = 8080;

struct Way {
    name: String,
    client: NetNs,
    address: SocketAddr,
}

/// Runs all rounds.
pub fn run(words: &[&str]) {
    let [rounds, count, ways @ ..] = words else {
        panic!("usage: see the top of traffic.rs");
    };
    let (rounds, count) = (crate::told::number(rounds), crate::told::number(count));
    let mut served = Vec::new();
    let ways: Vec<Way> = ways.iter().map(|way| open(way, &mut served)).collect();
    stay();
    for way in &ways {
        connections(way, count / 10 + 1);
    }
    for _ in 0..rounds {
        for way in &ways {
            round(way, count);
        }
    }
}

fn round(way: &Way, count: u32) {
    let (start, work) = (Instant::now(), processor_time());
    let times = connections(way, count);
    let each = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(count);
    println!("{}-connection {:.6}", way.name, each(start.elapsed()));
    println!("{}-work {:.6}", way.name, each(processor_time() - work));
    println!("{}-slow {:.6}", way.name, slow(times));
    let times = requests(way, count);
    let sum: Duration = times.iter().sum();
    println!("{}-request {:.6}", way.name, each(sum));
    println!("{}-request-slow {:.6}", way.name, slow(times));
}

fn slow(mut times: Vec<Duration>) -> f64 {
    times.sort();
    let at = times.len() * 99 / 100;
    times
        .get(at)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

fn open(way: &str, served: &mut Vec<String>) -> Way {
    let (name, rest) = way.split_once('=').expect("NAME=CLIENT,SERVER,ADDRESS");
    let parts: Vec<&str> = rest.split(',').collect();
    let [client, server, address] = parts[..] else {
        panic!("{way}: CLIENT,SERVER,ADDRESS");
    };
    let space = |name: &str| NetNs::open(&Path::new("/run/netns").join(name)).expect("a namespace");
    if !served.iter().any(|known| known == server) {
        served.push(server.to_owned());
        let space = space(server);
        let (ready, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || serve(&space, &ready));
        wait.recv().expect("a server");
    }
    Way {
        name: name.to_owned(),
        client: space(client),
        address: address.parse().expect("ADDRESS:PORT"),
    }
}

/// Answers every byte, one connection at a time.
fn serve(space: &NetNs, ready: &std::sync::mpsc::Sender<()>) {
    space.enter().expect("root");
    let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("a free port");
    ready.send(()).expect("somebody waits");
    stay();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            if stream.write_all(&byte).is_err() {
                break;
            }
        }
    }
}

fn connections(way: &Way, count: u32) -> Vec<Duration> {
    let each = || {
        (0..count).map(|_| {
            let start = Instant::now();
            let mut stream = connect(way);
            exchange(&mut stream);
            start.elapsed()
        })
    };
    way.client
        .run(|| {
            stay();
            each().collect()
        })
        .expect("root")
}

fn requests(way: &Way, count: u32) -> Vec<Duration> {
    let all = || {
        stay();
        let mut stream = connect(way);
        let each = (0..count).map(|_| {
            let start = Instant::now();
            exchange(&mut stream);
            start.elapsed()
        });
        each.collect()
    };
    way.client.run(all).expect("root")
}

fn connect(way: &Way) -> TcpStream {
    let stream = TcpStream::connect(way.address).expect("the way is open");
    set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

fn exchange(stream: &mut TcpStream) {
    let mut byte = [1];
    stream.write_all(&byte).expect("the way stays open");
    stream.read_exact(&mut byte).expect("an answer");
}

/// On the second processor, if there are two: the first has the interrupts.
fn stay() {
    let mut processor = CpuSet::new();
    processor.set(1);
    let _ = sched_setaffinity(None, &processor);
}

/// Of all threads of this process so far, in the kernel and outside.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec of ours, which the call fills.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0, "every Linux has this clock");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

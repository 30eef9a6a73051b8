//! The cluster's DNS server.
//!
//! [`bind()`] opens the sockets, [`run`] answers on them from a [`Names`] whose zone can be swapped at any
//! time, [`Server`] does both and follows the addresses as they change, and [`ask()`] is the client that proves a running server.
//!
//! What it answers, and by which RFC:
//!
//! | question | answer |
//! |---|---|
//! | a name of the cluster | from the zone, authoritative (1034, 2308) |
//! | another name, and recursion desired | what the first upstream server says that says something; SERVFAIL if none does |
//! | another name, and no recursion desired | REFUSED (1035 section 4.1.1) |
//! | another operation than QUERY; a zone transfer; another class than IN | NOTIMP; REFUSED; REFUSED |
//! | several questions, or none; a malformed message | FORMERR |
//! | an answer; less than a header | nothing, so that two servers cannot keep each other busy |
//! | EDNS of another version than 0 | BADVERS (6891) |
//!
//! Without upstream servers other names are SERVFAIL too, not REFUSED: resolvers in the field ignore
//! REFUSED until their timeout (musl), and a resolver that promises recursion has failed, not refused.
//!
//! A UDP answer has at most 512 bytes, or what the client's EDNS says up to 1232, beyond which packets
//! get fragmented (DNS flag day 2020); a longer one loses its additional records and then sets TC, and
//! the client comes back over TCP (7766), where questions may be pipelined. Each socket is bound to one
//! address, so that an answer comes from the address that was asked.

mod answer;
mod ask;
mod bind;
mod counters;
mod forward;
mod server;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod wire;

pub use ask::{AskError, Reply, ask};
pub use bind::{BindError, Sockets, bind};
pub use counters::{Counters, Counts};
pub use server::Server;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use arc_swap::ArcSwap;
use parfait_dns::Zone;
use tokio::sync::Semaphore;

/// Questions that wait for upstream servers at once; more are dropped, and asked again by the client.
const MOST_FORWARDED: usize = 1024;

/// What the server answers from, and what it counts.
pub struct Names {
    zone: ArcSwap<Zone>,
    upstreams: ArcSwap<Vec<SocketAddr>>,
    /// How many questions came, and what became of them.
    pub counters: Counters,
    forwarded: Arc<Semaphore>,
}

impl Names {
    /// A server's names. `upstreams` are asked for other names, in this order; none of them may be an
    /// address that the server itself answers at.
    #[must_use]
    pub fn new(zone: Zone, upstreams: Vec<SocketAddr>) -> Self {
        Self {
            zone: ArcSwap::from_pointee(zone),
            upstreams: ArcSwap::from_pointee(upstreams),
            counters: Counters::default(),
            forwarded: Arc::new(Semaphore::new(MOST_FORWARDED)),
        }
    }

    /// Answers from another zone from now on.
    pub fn swap(&self, zone: Zone) {
        self.zone.store(Arc::new(zone));
    }

    /// Asks other servers from now on.
    pub fn swap_upstreams(&self, upstreams: Vec<SocketAddr>) {
        self.upstreams.store(Arc::new(upstreams));
    }

    /// The zone that is answered from.
    #[must_use]
    pub fn zone(&self) -> Arc<Zone> {
        self.zone.load_full()
    }
}

/// Answers on the sockets for as long as the future is polled. Dropping it closes them at once;
/// connections that were accepted end by themselves, within seconds of silence.
///
/// # Errors
/// If a socket cannot be handed to the runtime. No client can end the server.
pub async fn run(sockets: Sockets, names: Arc<Names>) -> io::Result<()> {
    let connections = Arc::new(Semaphore::new(tcp::MOST_CONNECTIONS));
    let mut all: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
    for socket in sockets.udp {
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        all.push(Box::pin(udp::run(Arc::new(socket), names.clone())));
    }
    for listener in sockets.tcp {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        all.push(Box::pin(tcp::run(
            listener,
            names.clone(),
            connections.clone(),
        )));
    }
    // Not tasks of their own: an aborted task closes its sockets some time later, a dropped future now.
    poll_fn(|cx| {
        all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        match all.is_empty() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}

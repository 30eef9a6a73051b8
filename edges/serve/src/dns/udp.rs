//! Questions over UDP: one task a socket reads and answers, and never waits for anybody.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::sleep;

use super::Names;
use super::answer::{Next, Transport};
use super::counters::count;
use super::forward;

/// The largest question; real ones have some dozens of bytes.
const LARGEST: usize = 4096;

pub async fn run(socket: Arc<UdpSocket>, names: Arc<Names>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error about an earlier answer, or no memory: the next question may do better.
            Err(error) => {
                tracing::debug!(%error, "DNS: recvfrom");
                sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let packet = &buffer[..length];
        match names.next(packet, Transport::Udp) {
            Next::Drop => {}
            Next::Reply(reply) => {
                // A client that is gone, or a full buffer: it asks again.
                let _ = socket.try_send_to(&reply, client);
            }
            slow @ (Next::Forward(_) | Next::Chase(..)) => {
                let Ok(permit) = names.forwarded.clone().try_acquire_owned() else {
                    count(&names.counters.dropped);
                    continue;
                };
                // Weak: a slow upstream server must not keep the address from whoever binds it next.
                let (socket, names) = (Arc::downgrade(&socket), names.clone());
                let packet = packet.to_vec();
                tokio::spawn(async move {
                    let reply = forward::resolve(&names, slow, &packet, Transport::Udp).await;
                    if let (Some(reply), Some(socket)) = (reply, socket.upgrade()) {
                        let _ = socket.send_to(&reply, client).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

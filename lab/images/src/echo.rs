//! Echo over streams and datagrams: what comes in goes out unchanged.
//!
//! One word is not echoed: `parfait:whoami`, as a datagram or as the first line of a connection, is
//! answered with the identity of the server and the address it sees the client at, in JSON.

use crate::conn::Conn;
use crate::http::Called;
use crate::identity::canonical;
use crate::serve::Ends;
use crate::stand_in::Stand;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

/// The question that is answered instead of echoed.
const WHOAMI: &[u8] = b"parfait:whoami";
/// How long a client may refuse to read before its connection is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Echoes a stream until the client closes its side.
pub async fn stream(mut conn: Conn, stand: &Stand, ends: Ends) {
    let mut buffer = vec![0; 16 * 1024];
    let mut first = true;
    while let Ok(length) = conn.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        let said = &buffer[..length];
        let answer = match first && said.trim_ascii() == WHOAMI {
            true => whoami(stand, "TCP", ends),
            false => said.to_vec(),
        };
        first = false;
        match timeout(WRITE_TIMEOUT, conn.write_all(&answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let _ = conn.shutdown().await;
}

/// Echoes datagrams for ever.
pub async fn datagrams(socket: UdpSocket, stand: &Stand) {
    let mut buffer = vec![0; 64 * 1024];
    let Ok(local) = socket.local_addr() else {
        return;
    };
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error of an earlier answer, or no memory: the next datagram may do better.
            Err(_) => {
                sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        let ends = Ends {
            peer: canonical(peer),
            local: canonical(local_for(stand, peer, local)),
        };
        let answer = datagram(stand, &buffer[..length], ends);
        let _ = socket.send_to(&answer, peer).await;
    }
}

fn datagram(stand: &Stand, said: &[u8], ends: Ends) -> Vec<u8> {
    let word = said.trim_ascii();
    if word == WHOAMI {
        return whoami(stand, "UDP", ends);
    }
    if stand.options.agnhost {
        // The commands of agnhost's netexec.
        match word {
            b"hostname" => return stand.identity.hostname.clone().into_bytes(),
            b"clientip" => return ends.peer.to_string().into_bytes(),
            _ => {}
        }
        if let Some(text) = word.strip_prefix(b"echo ") {
            return text.to_vec();
        }
    }
    said.to_vec()
}

fn whoami(stand: &Stand, protocol: &str, ends: Ends) -> Vec<u8> {
    let called = Called::new(stand, ends, protocol);
    let mut json = serde_json::to_vec(&called).unwrap_or_default();
    json.push(b'\n');
    json
}

/// The address a datagram was sent to, as far as it can be known: the socket is bound to all of them.
fn local_for(stand: &Stand, peer: SocketAddr, local: SocketAddr) -> SocketAddr {
    let v4 = peer.ip().to_canonical().is_ipv4();
    let own = stand.identity.addresses.iter().find(|a| a.is_ipv4() == v4);
    SocketAddr::new(own.copied().unwrap_or(local.ip()), local.port())
}

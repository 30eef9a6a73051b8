//! The stand-in: a server for any image, which answers whatever its clients speak.
//!
//! ```text
//!              ┌ HTTP/1 ────── http   ┐
//!   tcp/8080 ──┤ HTTP/2 ────── http   ├ who I am, who you are
//!   (sniff)    │   gRPC ────── grpc   ┘ Health: SERVING
//!              ├ *2␍␊$… ────── redis    a small store
//!              └ other ─────── echo
//!   udp/8080 ───────────────── echo
//! ```
//!
//! It takes no TLS: a TLS client gets an alert at once instead of silence. UDP answers leave by the
//! address that routing prefers, which is the one asked wherever there is one address a family, as in
//! every pod that does not use the node's network.

use crate::catalogue::Protocol;
use crate::conn::Conn;
use crate::console::{complain, say};
use crate::identity::Identity;
use crate::listen::ListenError;
use crate::options::Options;
use crate::redis::Store;
use crate::serve::{Ends, Server, Stop};
use crate::sniff::{Speech, sniff};
use crate::{USAGE, echo, http, listen, redis, serve};
use bytes::{Bytes, BytesMut};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A client that has started to say something and stopped is taken for an echo client.
const SNIFF_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on which nothing moves is closed; HTTP/2 asks for signs of life itself.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// The alert `handshake_failure` (RFC 8446, section 6).
const TLS_ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28];

/// What every connection of a stand-in shares.
pub struct Stand {
    pub identity: Identity,
    pub options: Options,
    pub store: Store,
}

pub fn main(args: Vec<String>) -> ExitCode {
    let options = match Options::parse(args) {
        Ok(options) => options.or_port_of_environment(None),
        Err(error) => {
            complain(&format!("stand-in: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    let stand = Arc::new(Stand {
        identity: Identity::here("stand-in", options.image.clone()),
        options,
        store: Store::default(),
    });
    serve::run("stand-in", |server| start(server, &stand))
}

/// Opens every port. One that is taken is an error; a protocol the kernel lacks is not.
fn start(server: &Server, stand: &Arc<Stand>) -> Result<String, String> {
    let mut open = Vec::new();
    for port in &stand.options.ports {
        match open_port(server, stand, port.protocol, port.number) {
            Ok(()) => open.push(port.to_string()),
            Err(OpenError::Listen(error @ ListenError::Unsupported { .. })) => {
                say(&format!("stand-in: {error}"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    let me = stand.identity.name();
    let image = stand.identity.image.as_deref().unwrap_or("no image");
    let ports = match open.is_empty() {
        true => "no ports".to_owned(),
        false => open.join(", "),
    };
    Ok(format!("{me} stands in for {image}, listening on {ports}"))
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot hand the socket to the runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

fn open_port(
    server: &Server,
    stand: &Arc<Stand>,
    protocol: Protocol,
    number: u16,
) -> Result<(), OpenError> {
    let stand = stand.clone();
    match protocol {
        Protocol::Tcp => server.accept(listen::tcp(number)?, move |stream, ends, stop| {
            connection(stand.clone(), stream, ends, stop)
        })?,
        Protocol::Sctp => server.accept(listen::sctp(number)?, move |stream, ends, _| {
            let (stand, conn) = (stand.clone(), Conn::new(Bytes::new(), stream, IDLE));
            async move { echo::stream(conn, &stand, ends).await }
        })?,
        Protocol::Udp => {
            let socket = tokio::net::UdpSocket::from_std(listen::udp(number)?)?;
            tokio::spawn(async move { echo::datagrams(socket, &stand).await });
        }
    }
    Ok(())
}

async fn connection(stand: Arc<Stand>, mut stream: TcpStream, ends: Ends, stop: Stop) {
    let Some((speech, start)) = opening(&mut stream).await else {
        return;
    };
    let conn = Conn::new(start, stream, IDLE);
    let answer = {
        let stand = stand.clone();
        move |request| {
            let stand = stand.clone();
            async move { http::answer(&stand, ends, request).await }
        }
    };
    match speech {
        Speech::Http1 => serve::http1(conn, stop, answer).await,
        Speech::Http2 => serve::http2(conn, stop, answer).await,
        Speech::Redis => redis::serve(conn, &stand.store).await,
        Speech::Other if stand.options.redis => redis::serve(conn, &stand.store).await,
        Speech::Other => echo::stream(conn, &stand, ends).await,
        Speech::Tls => {
            let mut conn = conn;
            let _ = conn.write_all(&TLS_ALERT).await;
            let _ = conn.shutdown().await;
        }
    }
}

/// Reads until it is clear what the client speaks. `None` if it went away without a word.
pub async fn opening(stream: &mut TcpStream) -> Option<(Speech, Bytes)> {
    let mut start = BytesMut::with_capacity(1024);
    loop {
        // A client may be silent for long before its first word, as an idle pooled connection is.
        let patience = if start.is_empty() {
            IDLE
        } else {
            SNIFF_TIMEOUT
        };
        match timeout(patience, stream.read_buf(&mut start)).await {
            Ok(Ok(0)) | Err(_) if !start.is_empty() => {
                return Some((Speech::Other, start.freeze()));
            }
            Ok(Ok(0) | Err(_)) | Err(_) => return None,
            Ok(Ok(_)) => {}
        }
        if let Some(speech) = sniff(&start) {
            return Some((speech, start.freeze()));
        }
    }
}

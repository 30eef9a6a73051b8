//! Questions over TCP (RFC 7766): each with its length before it, several at once if the client likes.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Names;
use super::answer::{Next, Transport};
use super::forward;

/// Connections at once, on all addresses together; more wait in the kernel's queue.
pub const MOST_CONNECTIONS: usize = 256;
/// Questions of one connection that wait for upstream servers; more wait in the socket.
const MOST_PIPELINED: usize = 32;
/// How long a connection may be silent, or a question take to arrive.
const IDLE: Duration = Duration::from_secs(10);
/// How long a client may refuse to read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

pub async fn run(listener: TcpListener, names: Arc<Names>, connections: Arc<Semaphore>) {
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let names = names.clone();
                tokio::spawn(async move {
                    serve(stream, names).await;
                    drop(permit);
                });
            }
            // Out of descriptors, or the client is gone already.
            Err(error) => {
                tracing::debug!(%error, "DNS: accept");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, names: Arc<Names>) {
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    let (replies, queue) = mpsc::channel(MOST_PIPELINED);
    let writing = tokio::spawn(write_all(write, queue));
    read_all(read, &names, replies).await;
    let _ = writing.await;
}

/// Reads questions until the client closes, is silent for too long, or says what is none.
async fn read_all(mut read: OwnedReadHalf, names: &Arc<Names>, replies: mpsc::Sender<Vec<u8>>) {
    let mut slow = JoinSet::new();
    while let Ok(Some(packet)) = timeout(IDLE, read_one(&mut read)).await {
        match names.next(&packet, Transport::Tcp) {
            Next::Drop => break,
            Next::Reply(reply) => {
                if replies.send(reply).await.is_err() {
                    break;
                }
            }
            next @ (Next::Forward(_) | Next::Chase(..)) => {
                while slow.len() >= MOST_PIPELINED {
                    slow.join_next().await;
                }
                let (names, replies) = (names.clone(), replies.clone());
                slow.spawn(async move {
                    let reply = forward::resolve(&names, next, &packet, Transport::Tcp).await;
                    if let Some(reply) = reply {
                        let _ = replies.send(reply).await;
                    }
                });
            }
        }
    }
    drop(replies);
    while slow.join_next().await.is_some() {}
}

/// A question, or `None` at the end.
pub async fn read_one(read: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let length = read.read_u16().await.ok()?;
    let mut packet = vec![0; length.into()];
    read.read_exact(&mut packet).await.ok()?;
    Some(packet)
}

/// A message with its length before it, in one piece (RFC 7766 section 8).
pub fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    Some([&length.to_be_bytes(), message].concat())
}

async fn write_all(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(reply) = queue.recv().await {
        let Some(reply) = framed(&reply) else {
            continue;
        };
        match timeout(WRITE_TIMEOUT, write.write_all(&reply)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let _ = write.shutdown().await;
}

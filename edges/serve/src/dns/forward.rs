//! Asking upstream servers: the question as it came, under a number and a port nobody can guess.
//!
//! The client's own transport is used: what an upstream server truncates over UDP the client will ask
//! again over TCP, and so do we. Nothing is cached here.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Names;
use super::answer::{Next, Transport, Unfinished};
use super::counters::count;
use super::tcp::{framed, read_one};
use super::wire;

/// How long one server may take. A client's own patience is 5 s (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest answer over UDP, whatever the sender says.
const LARGEST: usize = 65_535;

/// Does what [`Names::next`] left to do. `None` if the client gets no answer.
pub async fn resolve(
    names: &Names,
    next: Next,
    packet: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let next = match next {
        Next::Forward(servers) => {
            count(&names.counters.forwarded);
            match first(&servers, packet, transport).await {
                Some(answer) => Next::Reply(handed_on(answer)),
                None => names.fail(packet),
            }
        }
        Next::Chase(servers, unfinished) => {
            count(&names.counters.forwarded);
            let said = chase(&servers, &unfinished).await;
            if said.is_none() {
                count(&names.counters.failed);
            }
            names.finish_chase(*unfinished, said.as_ref())
        }
        done => done,
    };
    match next {
        Next::Reply(reply) => Some(reply),
        Next::Drop | Next::Forward(_) | Next::Chase(..) => None,
    }
}

/// An answer as it is handed on: not ours by authority, and recursion was available.
fn handed_on(mut answer: Vec<u8>) -> Vec<u8> {
    answer[2] &= !0x04;
    answer[3] |= 0x80;
    answer
}

/// The first answer of a server that is no SERVFAIL or REFUSED; else the last of those.
async fn first(servers: &[SocketAddr], packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let mut last = None;
    for server in servers {
        match timeout(PATIENCE, exchange(*server, packet, transport)).await {
            // 2 is SERVFAIL, 5 is REFUSED.
            Ok(Ok(answer)) if !matches!(answer[3] & 0x0f, 2 | 5) => return Some(answer),
            Ok(Ok(answer)) => last = Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "DNS: upstream"),
            Err(_) => tracing::debug!(%server, "DNS: upstream does not answer"),
        }
    }
    last
}

/// Asks for the target of an alias; over TCP if the answer does not fit.
async fn chase(servers: &[SocketAddr], unfinished: &Unfinished) -> Option<Message> {
    let packet = wire::bytes(&question(unfinished.target.clone()))?;
    let answer = first(servers, &packet, Transport::Udp).await?;
    let mut message = Message::from_vec(&answer).ok()?;
    if message.metadata.truncation {
        let answer = first(servers, &packet, Transport::Tcp).await?;
        message = Message::from_vec(&answer).ok()?;
    }
    Some(message)
}

/// A question that desires recursion.
pub fn question(query: Query) -> Message {
    let mut message = Message::new(unguessable(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message.add_query(query);
    message
}

/// Sends a question under a number of our own, and returns the answer under the question's.
pub async fn exchange(
    server: SocketAddr,
    packet: &[u8],
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let mut question = packet.to_vec();
    let Some(id) = question.get_mut(..2) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    id.copy_from_slice(&unguessable().to_be_bytes());
    let mut answer = match transport {
        Transport::Udp => exchange_udp(server, &question).await?,
        Transport::Tcp => exchange_tcp(server, &question).await?,
    };
    answer[..2].copy_from_slice(&packet[..2]);
    Ok(answer)
}

async fn exchange_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    // A socket for each question: connected, so that strangers are not heard, at a random port.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answers(&answer[..length], question) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn exchange_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let framed = framed(question).ok_or(io::ErrorKind::InvalidInput)?;
    stream.write_all(&framed).await?;
    match read_one(&mut stream).await {
        Some(answer) if answers(&answer, question) => Ok(answer),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Whether a message is the answer to a question: the same number, and the same question again, where
/// there is one. Case counts, since clients vary it to make guessing harder.
fn answers(answer: &[u8], question: &[u8]) -> bool {
    let header = answer.len() >= 12 && answer[..2] == question[..2] && answer[2] & 0x80 != 0;
    if !header {
        return false;
    }
    // The counts of questions: an error may come back without any.
    match answer[4..6] {
        [0, 0] => true,
        _ => question_section(answer)
            .zip(question_section(question))
            .is_some_and(|(a, b)| a == b),
    }
}

/// The bytes of the first question: labels up to the root, type and class.
fn question_section(message: &[u8]) -> Option<&[u8]> {
    let body = message.get(12..)?;
    let mut at = 0;
    while *body.get(at)? != 0 {
        at += usize::from(body[at]) + 1;
    }
    body.get(..at + 5)
}

/// A number nobody outside of this process can foresee: SipHash under a key of the system's randomness.
fn unguessable() -> u16 {
    (RandomState::new().hash_one(0) & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_answer_to_the_question_is_taken() {
        let name = hickory_proto::rr::Name::from_ascii("a.example.org.").unwrap();
        let query = Query::query(name, hickory_proto::rr::RecordType::A);
        let asked = question(query);
        let packet = wire::bytes(&asked).unwrap();
        let mut answer = asked.clone();
        answer.metadata.message_type = MessageType::Response;
        let answer = wire::bytes(&answer).unwrap();
        assert!(answers(&answer, &packet));
        assert!(!answers(&packet, &packet), "a question is no answer");
        let mut forged = answer.clone();
        forged[1] ^= 1;
        assert!(!answers(&forged, &packet), "another number");
        let mut forged = answer.clone();
        forged[13] ^= 1;
        assert!(!answers(&forged, &packet), "another name");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(a in proptest::collection::vec(any::<u8>(), 0..64),
            q in proptest::collection::vec(any::<u8>(), 12..64)) {
            answers(&a, &q);
        }
    }
}

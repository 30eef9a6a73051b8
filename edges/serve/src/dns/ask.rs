//! A client for one question, as `dig` would ask it: for proving what a running server says.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use parfait_dns::{Data, Name, Rcode, RecordType};
use tokio::time::timeout;

use super::answer::Transport;
use super::forward::{exchange, question};
use super::wire;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The outcome; REFUSED and SERVFAIL are [`Rcode::NotOurs`].
    pub rcode: Rcode,
    /// Whether it speaks for the zone itself.
    pub authoritative: bool,
    /// The records of its answer, of the types that a zone here can have.
    pub records: Vec<(Name, Data)>,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing came back.
    #[error(
        "the DNS server at {server} does not answer within {patience:?}: is the agent of that node running?"
    )]
    Silent {
        /// The server.
        server: SocketAddr,
        /// How long we waited.
        patience: Duration,
    },
    /// The kernel said no.
    #[error("the DNS server at {server} cannot be asked: {error}")]
    Io {
        /// The server.
        server: SocketAddr,
        /// The error.
        error: io::Error,
    },
    /// What came back is no DNS message, or a code that no question of ours earns.
    #[error("the DNS server at {server} answers what is not understood: {what}")]
    Strange {
        /// The server.
        server: SocketAddr,
        /// What it is.
        what: String,
    },
}

/// Asks a server one question: over UDP, and over TCP if the answer does not fit there.
///
/// # Errors
/// If there is no answer, or none that can be read.
pub async fn ask(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
    patience: Duration,
) -> Result<Reply, AskError> {
    let strange = |what: String| AskError::Strange { server, what };
    let wire_name = wire::wire_name(name).ok_or_else(|| strange(format!("{name} is too long")))?;
    let query = Query::query(wire_name, kind.code().into());
    let packet = wire::bytes(&question(query)).ok_or_else(|| strange("the question".to_owned()))?;
    let mut transport = Transport::Udp;
    loop {
        let asked = timeout(patience, exchange(server, &packet, transport)).await;
        let answer = asked
            .map_err(|_| AskError::Silent { server, patience })?
            .map_err(|error| AskError::Io { server, error })?;
        let message = Message::from_vec(&answer).map_err(|error| strange(error.to_string()))?;
        if message.metadata.truncation && transport == Transport::Udp {
            transport = Transport::Tcp;
            continue;
        }
        let rcode = match message.metadata.response_code {
            ResponseCode::NoError => Rcode::NoError,
            ResponseCode::NXDomain => Rcode::NxDomain,
            ResponseCode::Refused | ResponseCode::ServFail => Rcode::NotOurs,
            other => return Err(strange(other.to_string())),
        };
        return Ok(Reply {
            rcode,
            authoritative: message.metadata.authoritative,
            records: message.answers.iter().filter_map(wire::record).collect(),
        });
    }
}

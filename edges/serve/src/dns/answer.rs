//! From the bytes of a question to the bytes of its answer, or to the server that has to be asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType as WireType};
use parfait_dns::{Answer, Data, Found, Name, Rcode, RecordType, Zone};

use super::Names;
use super::counters::count;
use super::wire;

/// The largest answer over UDP to a client that says nothing about sizes (RFC 1035 section 4.2.1).
const SMALLEST: u16 = 512;
/// The largest over UDP to any, and what we say we can take (DNS flag day 2020).
const LARGEST: u16 = 1232;
const HEADER: usize = 12;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What to do about a message.
pub enum Next {
    /// Nothing.
    Drop,
    /// Send these bytes back.
    Reply(Vec<u8>),
    /// Ask these servers the same, and send back what they say.
    Forward(Arc<Vec<SocketAddr>>),
    /// Ask these servers for the target of an alias, and add what they say.
    Chase(Arc<Vec<SocketAddr>>, Box<Unfinished>),
}

/// An answer whose last alias leads out of the zone.
pub struct Unfinished {
    pub message: Message,
    pub target: Query,
    limit: usize,
}

impl Names {
    /// Looks at a message and decides.
    pub fn next(&self, packet: &[u8], transport: Transport) -> Next {
        count(match transport {
            Transport::Udp => &self.counters.udp,
            Transport::Tcp => &self.counters.tcp,
        });
        // Below a header there is no identity to answer to; and an answer is not answered.
        if packet.len() < HEADER || packet[2] & 0x80 != 0 {
            count(&self.counters.dropped);
            return Next::Drop;
        }
        match OpCode::from_u8((packet[2] >> 3) & 0x0f) {
            OpCode::Query => {}
            _ => return self.refuse(packet, ResponseCode::NotImp),
        }
        let Ok(message) = Message::from_vec(packet) else {
            count(&self.counters.malformed);
            return self.bare(packet, ResponseCode::FormErr);
        };
        self.next_for(message, packet, transport)
    }

    fn next_for(&self, message: Message, packet: &[u8], transport: Transport) -> Next {
        let limit = limit(&message, transport);
        let mut reply = reply_to(&message);
        if message.edns.as_ref().is_some_and(|e| e.version() > 0) {
            return self.finish(reply, ResponseCode::BADVERS, limit);
        }
        let (query, asked) = match message.queries.as_slice() {
            [query] => match wire::name(query.name()) {
                Ok(asked) => (query, asked),
                Err(_) => return self.bare(packet, ResponseCode::FormErr),
            },
            _ => {
                count(&self.counters.malformed);
                return self.bare(packet, ResponseCode::FormErr);
            }
        };
        let kind = query.query_type();
        let transfer = matches!(kind, WireType::AXFR | WireType::IXFR);
        if transfer || !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
            count(&self.counters.refused);
            return self.finish(reply, ResponseCode::Refused, limit);
        }
        let zone = self.zone.load();
        let answer = zone.answer(&asked, RecordType::from_code(kind.into()));
        let upstreams = self.upstreams.load();
        reply.metadata.recursion_available = !upstreams.is_empty();
        if answer.rcode == Rcode::NotOurs {
            if !message.metadata.recursion_desired {
                count(&self.counters.refused);
                return self.finish(reply, ResponseCode::Refused, limit);
            }
            if upstreams.is_empty() {
                count(&self.counters.failed);
                return self.finish(reply, ResponseCode::ServFail, limit);
            }
            return Next::Forward(upstreams.clone());
        }
        self.add(&mut reply, &zone, &answer, (&asked, query));
        match &answer.outside {
            Some(target) if !upstreams.is_empty() && message.metadata.recursion_desired => {
                let Some(target) = wire::wire_name(target) else {
                    return self.finish(reply, ResponseCode::ServFail, limit);
                };
                let unfinished = Unfinished {
                    message: reply,
                    target: Query::query(target, kind),
                    limit,
                };
                Next::Chase(upstreams.clone(), Box::new(unfinished))
            }
            _ => {
                let code = reply.metadata.response_code;
                self.finish(reply, code, limit)
            }
        }
    }

    /// Puts the zone's answer into the reply.
    fn add(&self, reply: &mut Message, zone: &Zone, answer: &Answer<'_>, asked: (&Name, &Query)) {
        let (name, query) = asked;
        let write = |found: &Vec<Found<'_>>| -> Vec<_> {
            let records = found.iter();
            records
                .filter_map(|f| wire::wire_record(f, zone.ttl(), (name, query.name())))
                .collect()
        };
        // A name without a dot is answered, but by nobody's authority.
        reply.metadata.authoritative = zone.holds(name);
        reply.answers = write(&answer.records);
        reply.authorities = write(&answer.authority);
        reply.additionals = write(&answer.additional);
        self.rotate(reply, &answer.records);
        let counter = match (answer.rcode, answer.records.is_empty()) {
            (Rcode::NxDomain, _) => &self.counters.no_name,
            (_, true) => &self.counters.no_data,
            (_, false) => &self.counters.found,
        };
        count(counter);
        if answer.rcode == Rcode::NxDomain {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
    }

    /// Many clients take the first address. Each question begins with another one, behind the aliases.
    fn rotate(&self, reply: &mut Message, records: &[Found<'_>]) {
        let alias = |f: &&Found<'_>| matches!(f.record.data, Data::Cname(_));
        let aliases = records.iter().take_while(alias).count();
        let Some(rest) = reply.answers.get_mut(aliases..).filter(|r| r.len() > 1) else {
            return;
        };
        let turn = self.counters.found.load(Ordering::Relaxed);
        let by = usize::try_from(turn % rest.len() as u64).unwrap_or(0);
        rest.rotate_left(by);
    }

    /// Adds what upstream servers said about the alias's target.
    pub fn finish_chase(&self, unfinished: Unfinished, said: Option<&Message>) -> Next {
        let Unfinished {
            mut message, limit, ..
        } = unfinished;
        match said {
            Some(said) => {
                message.answers.extend_from_slice(&said.answers);
                let code = said.metadata.response_code;
                self.finish(message, code, limit)
            }
            // The alias itself is known; a resolver that wants more asks for its target.
            None => self.finish(message, ResponseCode::NoError, limit),
        }
    }

    /// SERVFAIL to a question that no upstream server answered.
    pub fn fail(&self, packet: &[u8]) -> Next {
        count(&self.counters.failed);
        self.bare(packet, ResponseCode::ServFail)
    }

    fn refuse(&self, packet: &[u8], code: ResponseCode) -> Next {
        count(&self.counters.refused);
        self.bare(packet, code)
    }

    /// An answer that repeats the question if it can be read, and says nothing but a code.
    fn bare(&self, packet: &[u8], code: ResponseCode) -> Next {
        let operation = OpCode::from_u8((packet[2] >> 3) & 0x0f);
        let id = u16::from_be_bytes([packet[0], packet[1]]);
        let mut reply = match Message::from_vec(packet) {
            Ok(message) if message.queries.len() == 1 => reply_to(&message),
            _ => Message::response(id, operation),
        };
        reply.metadata.recursion_available = !self.upstreams.load().is_empty();
        self.finish(reply, code, SMALLEST.into())
    }

    /// Writes a reply, in at most `limit` bytes.
    fn finish(&self, mut reply: Message, code: ResponseCode, limit: usize) -> Next {
        reply.metadata.response_code = code;
        let mut written = wire::bytes(&reply);
        if written.as_ref().is_some_and(|w| w.len() > limit) {
            // Nobody misses additional records (RFC 2181 section 9).
            reply.additionals.clear();
            written = wire::bytes(&reply);
        }
        if written.as_ref().is_some_and(|w| w.len() > limit) {
            count(&self.counters.truncated);
            reply.metadata.truncation = true;
            reply.authorities.clear();
        }
        while written.as_ref().is_some_and(|w| w.len() > limit) && !reply.answers.is_empty() {
            reply.answers.truncate(reply.answers.len() / 2);
            written = wire::bytes(&reply);
        }
        written.map_or(Next::Drop, Next::Reply)
    }
}

/// How many bytes the answer may have.
fn limit(message: &Message, transport: Transport) -> usize {
    match (transport, &message.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => SMALLEST.into(),
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(SMALLEST, LARGEST).into(),
    }
}

/// The start of a reply: the question again, and EDNS if the client has it.
fn reply_to(message: &Message) -> Message {
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.checking_disabled = message.metadata.checking_disabled;
    reply.queries.clone_from(&message.queries);
    reply.edns = message.edns.as_ref().map(|_| {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST);
        edns
    });
    reply
}

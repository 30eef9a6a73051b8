//! Messages that no honest client sends, and some that it does.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr;
use parfait_dns::{Data, Name, Record, Zone};
use parfait_packet::Origin;
use proptest::prelude::*;

use super::Names;
use super::answer::{Next, Transport};
use super::wire;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A zone with one name of so many addresses.
fn names(addresses: u8) -> Names {
    let record = |data| Record {
        data,
        origin: Origin::parfait("test"),
    };
    let soa = record(Data::Soa {
        primary: name("ns.dns.cluster.local"),
        mailbox: name("hostmaster.cluster.local"),
        negative_ttl: 5,
    });
    let mut zone = Zone::new(name("cluster.local"), soa, 5, Vec::new());
    for last in 0..addresses {
        let address = Data::Address([10, 244, 1, last].into());
        zone.insert(name("db.shop.svc.cluster.local"), record(address));
    }
    Names::new(zone, Vec::new())
}

fn question(text: &str, kind: rr::RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(rr::Name::from_ascii(text).unwrap(), kind));
    message
}

fn reply(next: Next) -> Option<Vec<u8>> {
    match next {
        Next::Reply(reply) => Some(reply),
        _ => None,
    }
}

fn ask(names: &Names, message: &Message, transport: Transport) -> Message {
    let packet = wire::bytes(message).unwrap();
    let reply = reply(names.next(&packet, transport)).expect("a reply");
    Message::from_vec(&reply).expect("a message")
}

#[test]
fn every_address_comes_first_in_its_turn() {
    let names = names(3);
    let question = question("db.shop.svc.cluster.local.", rr::RecordType::A);
    let mut first: Vec<_> = (0..3)
        .map(|_| {
            ask(&names, &question, Transport::Udp).answers[0]
                .data
                .to_string()
        })
        .collect();
    first.sort();
    assert_eq!(first, ["10.244.1.0", "10.244.1.1", "10.244.1.2"]);
}

#[test]
fn the_case_of_the_question_comes_back() {
    let question = question("dB.sHoP.svc.Cluster.local.", rr::RecordType::A);
    let answer = ask(&names(1), &question, Transport::Udp);
    assert_eq!(
        answer.queries[0].name().to_string(),
        "dB.sHoP.svc.Cluster.local."
    );
    assert_eq!(
        answer.answers[0].name.to_string(),
        "dB.sHoP.svc.Cluster.local."
    );
}

#[test]
fn a_long_answer_fits_or_says_that_it_does_not() {
    let names = names(200);
    let mut asked = question("db.shop.svc.cluster.local.", rr::RecordType::A);
    for (payload, most) in [
        (None, 512),
        (Some(100), 512),
        (Some(800), 800),
        (Some(65_000), 1232),
    ] {
        asked.edns = payload.map(|size| {
            let mut edns = hickory_proto::op::Edns::new();
            edns.set_max_payload(size);
            edns
        });
        let packet = wire::bytes(&asked).unwrap();
        let udp = reply(names.next(&packet, Transport::Udp)).unwrap();
        assert!(udp.len() <= most, "{payload:?}: {} bytes", udp.len());
        let udp = Message::from_vec(&udp).unwrap();
        assert!(udp.metadata.truncation, "{payload:?}");
        assert!(!udp.answers.is_empty());
        let tcp = ask(&names, &asked, Transport::Tcp);
        assert!(!tcp.metadata.truncation);
        assert_eq!(tcp.answers.len(), 200);
    }
    assert_eq!(names.counters.read().truncated, 4);
}

#[test]
fn what_is_no_question_is_answered_as_the_table_says() {
    let names = names(1);
    let asked = question("db.shop.svc.cluster.local.", rr::RecordType::A);
    let code = |message: &Message| ask(&names, message, Transport::Udp).metadata.response_code;
    let mut two = asked.clone();
    two.add_query(asked.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    let mut none = asked.clone();
    none.queries.clear();
    assert_eq!(code(&none), ResponseCode::FormErr);
    let mut notify = asked.clone();
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&notify), ResponseCode::NotImp);
    let transfer = question("cluster.local.", rr::RecordType::AXFR);
    assert_eq!(code(&transfer), ResponseCode::Refused);
    let mut chaos = asked.clone();
    chaos.queries[0].set_query_class(rr::DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    let mut outside = question("example.org.", rr::RecordType::A);
    assert_eq!(
        code(&outside),
        ResponseCode::Refused,
        "no recursion desired"
    );
    outside.metadata.recursion_desired = true;
    assert_eq!(code(&outside), ResponseCode::ServFail, "and nobody to ask");
    let mut answer = asked.clone();
    answer.metadata.message_type = MessageType::Response;
    let packet = wire::bytes(&answer).unwrap();
    assert!(matches!(names.next(&packet, Transport::Udp), Next::Drop));
    assert!(matches!(
        names.next(&packet[..11], Transport::Udp),
        Next::Drop
    ));
    let cut = wire::bytes(&asked).unwrap();
    let said = reply(names.next(&cut[..cut.len() - 3], Transport::Udp)).unwrap();
    let said = Message::from_vec(&said).unwrap();
    assert_eq!(said.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(said.metadata.id, 4711);
}

/// Whatever comes in, what goes out is a message that answers it, within the limit.
fn check(names: &Names, packet: &[u8]) -> Result<(), TestCaseError> {
    for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        if let Some(out) = reply(names.next(packet, transport)) {
            prop_assert!(out.len() <= limit);
            prop_assert_eq!(&out[..2], &packet[..2]);
            prop_assert!(out[2] & 0x80 != 0, "a reply has QR set");
            prop_assert!(Message::from_vec(&out).is_ok());
            let echoed = names.next(&out, transport);
            prop_assert!(matches!(echoed, Next::Drop), "a reply is never answered");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn garbage_is_survived(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
        check(&names(3), &packet)?;
    }

    #[test]
    fn spoilt_questions_are_survived(
        label in "[a-zA-Z0-9_]{1,20}", kind in any::<u16>(), edns in any::<bool>(),
        spoil in proptest::collection::vec((0usize..80, any::<u8>()), 0..6), cut in 0usize..90,
    ) {
        let mut message = question(&format!("{label}.db.shop.svc.cluster.local."), kind.into());
        message.edns = edns.then(hickory_proto::op::Edns::new);
        let Some(mut packet) = wire::bytes(&message) else { return Ok(()) };
        for (at, byte) in spoil {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        packet.truncate(cut.max(1));
        check(&names(3), &packet)?;
    }
}

//! Between the zone's words and those of the library that knows the wire format.

use hickory_proto::rr::{self, RData, rdata};
use hickory_proto::serialize::binary::BinEncodable;
use parfait_dns::{Data, Found, Name, NameError};

/// A name from the wire.
pub fn name(from: &rr::Name) -> Result<Name, NameError> {
    Name::from_labels(from.iter())
}

/// A name for the wire. `None` only if the library finds it too long.
pub fn wire_name(name: &Name) -> Option<rr::Name> {
    rr::Name::from_labels(name.labels().map(unescaped)).ok()
}

/// The bytes of a label, in which `\ddd` stands for those that text cannot have.
fn unescaped(label: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(label.len());
    let mut rest = label;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest.get(at + 1..at + 4);
        bytes.extend(code.and_then(|c| c.parse::<u8>().ok()));
        rest = rest.get(at + 4..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// A record for the wire. `asked` is the question's name, whose case clients expect to see again.
pub fn wire_record(found: &Found<'_>, ttl: u32, asked: (&Name, &rr::Name)) -> Option<rr::Record> {
    let owner = match found.name == *asked.0 {
        true => asked.1.clone(),
        false => wire_name(&found.name)?,
    };
    let data = match &found.record.data {
        Data::Address(std::net::IpAddr::V4(v4)) => RData::A(rdata::A(*v4)),
        Data::Address(std::net::IpAddr::V6(v6)) => RData::AAAA(rdata::AAAA(*v6)),
        Data::Cname(target) => RData::CNAME(rdata::CNAME(wire_name(target)?)),
        Data::Ns(target) => RData::NS(rdata::NS(wire_name(target)?)),
        Data::Ptr(target) => RData::PTR(rdata::PTR(wire_name(target)?)),
        Data::Txt(text) => RData::TXT(rdata::TXT::new(vec![text.clone()])),
        Data::Srv {
            priority,
            weight,
            port,
            target,
        } => RData::SRV(rdata::SRV::new(
            *priority,
            *weight,
            *port,
            wire_name(target)?,
        )),
        // The serial number serves zone transfers, which there are none of.
        Data::Soa {
            primary,
            mailbox,
            negative_ttl,
        } => RData::SOA(rdata::SOA::new(
            wire_name(primary)?,
            wire_name(mailbox)?,
            1,
            7200,
            1800,
            86400,
            *negative_ttl,
        )),
    };
    Some(rr::Record::from_rdata(owner, ttl, data))
}

/// A record from the wire, if the zone has a word for it.
pub fn record(from: &rr::Record) -> Option<(Name, Data)> {
    let data = match &from.data {
        RData::A(a) => Data::a(a.0),
        RData::AAAA(aaaa) => Data::aaaa(aaaa.0),
        RData::CNAME(target) => Data::Cname(name(&target.0).ok()?),
        RData::NS(target) => Data::Ns(name(&target.0).ok()?),
        RData::PTR(target) => Data::Ptr(name(&target.0).ok()?),
        RData::SRV(srv) => Data::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: name(&srv.target).ok()?,
        },
        RData::SOA(soa) => Data::Soa {
            primary: name(&soa.mname).ok()?,
            mailbox: name(&soa.rname).ok()?,
            negative_ttl: soa.minimum,
        },
        RData::TXT(txt) => {
            let texts = txt.txt_data.iter().map(|t| String::from_utf8_lossy(t));
            Data::Txt(texts.collect())
        }
        _ => return None,
    };
    Some((name(&from.name).ok()?, data))
}

/// The bytes of a message. `None` if it cannot be written, which the sizes here do not allow.
pub fn bytes(message: &impl BinEncodable) -> Option<Vec<u8>> {
    message.to_bytes().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_goes_there_and_back(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6)) {
            let ours = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
            let wire = wire_name(&ours).unwrap();
            prop_assert!(wire.is_fqdn());
            prop_assert_eq!(name(&wire), Ok(ours));
        }
    }
}

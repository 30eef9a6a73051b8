//! The way back of [`super::super::lower`]'s `acts`: limits, logs, counters, and elements that packets
//! add.

use parfait_linux::nft::{
    Data, DataType, Field, Limit, Log, NewData, Per, RateUnit, Statement, Update,
};

use super::super::attr::find;
use super::super::layout::{self, Part, word};
use super::super::number::{expr, object};
use super::super::set::read_milliseconds;
use super::{Content, Raising, number};

impl Raising<'_> {
    pub(super) fn limit(&mut self, inner: &[u8]) -> Option<()> {
        match read_limit(inner) {
            Some(limit) => self.push(Statement::Limit(limit)),
            None => self.opaque("limit"),
        }
    }

    /// A reference to a named object. Those of conntrack change nothing that rules can see here.
    pub(super) fn object(&mut self, inner: &[u8]) -> Option<()> {
        let Some(kind) = number(inner, expr::OBJREF_TYPE) else {
            return self.opaque("quota of a map");
        };
        let name = find(inner, expr::OBJREF_NAME)?.str();
        match kind {
            object::COUNTER => self.push(Statement::NamedCounter(name)),
            object::LIMIT => self.push(Statement::NamedLimit(name)),
            object::QUOTA => self.opaque(format!("quota {name}")),
            object::SYNPROXY => self.opaque(format!("synproxy {name}")),
            object::CT_HELPER | object::CT_TIMEOUT | object::CT_EXPECT => self.opaque("objref"),
            kind => self.opaque(format!("object {kind} {name}")),
        }
    }

    pub(super) fn log(&mut self, inner: &[u8]) -> Option<()> {
        let plain = number(inner, expr::LOG_FLAGS).unwrap_or(0) == 0
            && number(inner, expr::LOG_LEVEL).is_none_or(|level| level == expr::LOG_WARNING);
        if !plain {
            return self.opaque("log");
        }
        let half = |kind| number(inner, kind).and_then(|number| u16::try_from(number).ok());
        self.push(Statement::Log(Log {
            group: half(expr::LOG_GROUP),
            prefix: find(inner, expr::LOG_PREFIX).map(|prefix| prefix.str()),
            snaplen: number(inner, expr::LOG_SNAPLEN).unwrap_or(0),
            queue_threshold: half(expr::LOG_QTHRESHOLD).unwrap_or(0),
        }))
    }

    pub(super) fn dynset(&mut self, inner: &[u8]) -> Option<()> {
        match self.update(inner) {
            Some(update) => self.push(Statement::Update(update)),
            None => self.opaque("dynset"),
        }
    }

    fn update(&self, inner: &[u8]) -> Option<Update> {
        let plain = number(inner, expr::DYNSET_OP) == Some(expr::DYNSET_UPDATE)
            && number(inner, expr::DYNSET_FLAGS).unwrap_or(0) == 0
            && find(inner, expr::DYNSET_EXPR).is_none()
            && find(inner, expr::DYNSET_EXPRESSIONS).is_none();
        let set = find(inner, expr::DYNSET_SET_NAME)?.str();
        let layout = self.known.named.get(&set).filter(|_| plain)?;
        let key = self.fields_of(layout, word(number(inner, expr::DYNSET_SREG_KEY)?)?)?;
        let data = match number(inner, expr::DYNSET_SREG_DATA) {
            None => NewData::None,
            Some(register) => self.new_data(&layout.data, &layout.data_parts(), word(register)?)?,
        };
        let timeout = find(inner, expr::DYNSET_TIMEOUT);
        Some(Update {
            set,
            key,
            timeout: timeout.and_then(|timeout| read_milliseconds(timeout.value)),
            data,
        })
    }

    fn new_data(&self, kind: &DataType, parts: &[Part], at: usize) -> Option<NewData> {
        let content = self.registers.get(&at)?;
        let Content::Immediate(address) = content else {
            return self.fields_in(parts, at).map(NewData::Fields);
        };
        let address_of = layout::address(address);
        match kind {
            DataType::Address => Some(NewData::Fixed(Data::Address(address_of?))),
            DataType::Priority => {
                let number = u32::from_ne_bytes(address.as_slice().try_into().ok()?);
                Some(NewData::Fixed(Data::Priority(number)))
            }
            DataType::Target => match self.registers.get(&(at + address.len() / 4))? {
                Content::Immediate(port) => {
                    let port = u16::from_be_bytes(port.get(..2)?.try_into().ok()?);
                    Some(NewData::Fixed(Data::Target(address_of?, port)))
                }
                _ => None,
            },
            DataType::None | DataType::Verdict => None,
        }
    }

    /// The fields that lie one after another from this word on, if they are as long as these parts.
    pub(super) fn fields_in(&self, parts: &[Part], mut word: usize) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        for expected in parts {
            match self.registers.get(&word)? {
                Content::Fields(parts, None) => match parts.as_slice() {
                    [(part, length)] if *length == expected.length => fields.push(part.field),
                    _ => return None,
                },
                _ => return None,
            }
            word += expected.padded() / 4;
        }
        Some(fields)
    }
}

/// A limit's attributes, of an expression or of an object.
pub fn read_limit(inner: &[u8]) -> Option<Limit> {
    let long = |kind| {
        let value = find(inner, kind)?.value;
        Some(u64::from_be_bytes(value.try_into().ok()?))
    };
    let seconds = long(expr::LIMIT_UNIT)?;
    let flags = number(inner, expr::LIMIT_FLAGS).unwrap_or(0);
    Some(Limit {
        rate: long(expr::LIMIT_RATE)?,
        unit: match number(inner, expr::LIMIT_TYPE).unwrap_or(0) {
            expr::LIMIT_BYTES => RateUnit::Bytes,
            _ => RateUnit::Packets,
        },
        per: Per::ALL.into_iter().find(|per| per.seconds() == seconds)?,
        burst: number(inner, expr::LIMIT_BURST).unwrap_or(0),
        over: flags & expr::LIMIT_OVER != 0,
    })
}

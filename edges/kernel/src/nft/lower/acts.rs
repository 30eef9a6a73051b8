//! Statements that neither match nor translate: limits, logs, counters, and elements that packets add.

use parfait_linux::nft::{Data, Family, Field, Limit, Log, NewData, RateUnit, Update};

use super::super::attr::Writer;
use super::super::layout::{self, register};
use super::super::number::{expr, object};
use super::super::set::milliseconds;
use super::Lowering;

impl Lowering<'_> {
    pub(super) fn limit(&mut self, limit: &Limit) {
        self.expression("limit", |writer| put_limit(writer, limit));
    }

    /// A reference to a named counter or limit.
    pub(super) fn object(&mut self, kind: u32, name: &str) {
        self.expression("objref", |writer| {
            writer.put_u32(expr::OBJREF_TYPE, kind);
            writer.put_str(expr::OBJREF_NAME, name);
        });
    }

    pub(super) fn log(&mut self, log: &Log) -> Result<(), String> {
        if log.group.is_none() && (log.snaplen, log.queue_threshold) != (0, 0) {
            return Err("snaplen and queue-threshold need a group".to_owned());
        }
        self.expression("log", |writer| {
            if let Some(prefix) = &log.prefix {
                writer.put_str(expr::LOG_PREFIX, prefix);
            }
            if let Some(group) = log.group {
                writer.put(expr::LOG_GROUP, &group.to_be_bytes());
                if log.snaplen > 0 {
                    writer.put_u32(expr::LOG_SNAPLEN, log.snaplen);
                }
                if log.queue_threshold > 0 {
                    writer.put(expr::LOG_QTHRESHOLD, &log.queue_threshold.to_be_bytes());
                }
            }
        });
        Ok(())
    }

    pub(super) fn update(&mut self, update: &Update) -> Result<(), String> {
        let words = self.load_all(&update.key, self.family)?;
        let at = register(words);
        let data = match &update.data {
            NewData::None | NewData::Fixed(Data::None) => None,
            NewData::Fixed(Data::Verdict(_)) => {
                return Err("a packet cannot add a verdict".to_owned());
            }
            NewData::Fixed(Data::Address(address)) => {
                self.immediate(at, &layout::address_bytes(*address));
                Some(at)
            }
            NewData::Fixed(Data::Priority(number)) => {
                self.immediate(at, &number.to_ne_bytes());
                Some(at)
            }
            NewData::Fixed(Data::Target(address, port)) => {
                let bytes = layout::address_bytes(*address);
                let after = register(words + bytes.len() / 4);
                self.immediate(at, &bytes);
                self.immediate(after, &port.to_be_bytes());
                Some(at)
            }
            NewData::Fields(fields) => {
                self.load_from(fields, self.family, words)?;
                Some(at)
            }
        };
        self.expression("dynset", |writer| {
            writer.put_str(expr::DYNSET_SET_NAME, &update.set);
            writer.put_u32(expr::DYNSET_OP, expr::DYNSET_UPDATE);
            writer.put_u32(expr::DYNSET_SREG_KEY, register(0));
            if let Some(data) = data {
                writer.put_u32(expr::DYNSET_SREG_DATA, data);
            }
            if let Some(timeout) = update.timeout {
                writer.put(expr::DYNSET_TIMEOUT, &milliseconds(timeout).to_be_bytes());
            }
        });
        Ok(())
    }

    /// Loads fields one after another, as they lie in a set's key; gives how many words they are.
    pub(super) fn load_all(&mut self, fields: &[Field], family: Family) -> Result<usize, String> {
        self.load_from(fields, family, 0)
    }

    fn load_from(
        &mut self,
        fields: &[Field],
        family: Family,
        mut word: usize,
    ) -> Result<usize, String> {
        for part in layout::parts(fields, family) {
            self.load(&part, word)?;
            word += part.padded() / 4;
        }
        // NFT_DATA_VALUE_MAXLEN is 64 bytes.
        match word {
            0..=16 => Ok(word),
            _ => Err("the fields do not fit the registers".to_owned()),
        }
    }
}

/// The attributes of a limit, as an expression or as an object.
pub fn put_limit(writer: &mut Writer, limit: &Limit) {
    writer.put(expr::LIMIT_RATE, &limit.rate.to_be_bytes());
    writer.put(expr::LIMIT_UNIT, &limit.per.seconds().to_be_bytes());
    writer.put_u32(expr::LIMIT_BURST, limit.burst);
    let kind = match limit.unit {
        RateUnit::Packets => 0,
        RateUnit::Bytes => expr::LIMIT_BYTES,
    };
    writer.put_u32(expr::LIMIT_TYPE, kind);
    let over = if limit.over { expr::LIMIT_OVER } else { 0 };
    writer.put_u32(expr::LIMIT_FLAGS, over);
}

/// A counter, by its number as an object.
pub const COUNTER: u32 = object::COUNTER;
/// A limit.
pub const LIMIT: u32 = object::LIMIT;

//! Elements of sets, written and read.
//!
//! An exact set holds keys. An interval set of one field holds the boundaries of its ranges (an
//! element where one begins, one with the *end* flag at the first value after it); one of several
//! fields holds a first and a last key for each element.

use std::collections::BTreeMap;
use std::time::Duration;

use parfait_linux::nft::{Data, DataType, Element, Key, Value, Verdict, diff};
use parfait_packet::Origin;

use super::attr::{Attribute, Writer};
use super::layout;
use super::number::{LIST_ELEM, data, elem};
use super::observe::Remembered;
use super::set::{self, Layout};

/// Writes one element, as the one or two that the kernel wants; without `element`, only what
/// deleting it takes. `Err` says what of it cannot be written.
pub fn write(
    writer: &mut Writer,
    layout: &Layout,
    key: &[Value],
    element: Option<&Element>,
) -> Result<(), String> {
    let (first, last) = key_bytes(layout, key)?;
    let single = layout.parts.len() == 1;
    let end = (layout.interval && !single).then_some(&last);
    if first != last && !layout.interval {
        return Err("a range needs a set with `flags interval`".to_owned());
    }
    writer.nest(LIST_ELEM, |writer| {
        put_key(writer, elem::KEY, &first);
        if let Some(end) = end {
            put_key(writer, elem::KEY_END, end);
        }
        if let Some(element) = element {
            put_data(writer, &element.data);
            if let Some(origin) = &element.origin {
                writer.put(elem::USERDATA, &set::comment(&diff::comment(origin)));
            }
        }
    });
    if layout.interval
        && single
        && let Some(after) = successor(last)
    {
        writer.nest(LIST_ELEM, |writer| {
            put_key(writer, elem::KEY, &after);
            writer.put_u32(elem::FLAGS, elem::INTERVAL_END);
        });
    }
    Ok(())
}

/// A verdict as data.
pub fn put_verdict(writer: &mut Writer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (data::ACCEPT, None),
        Verdict::Drop => (data::DROP, None),
        Verdict::Continue => (data::CONTINUE, None),
        Verdict::Return => (data::RETURN, None),
        Verdict::Jump(chain) => (data::JUMP, Some(chain)),
        Verdict::Goto(chain) => (data::GOTO, Some(chain)),
    };
    writer.nest(data::VERDICT, |writer| {
        writer.put(data::VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            writer.put_str(data::VERDICT_CHAIN, chain);
        }
    });
}

/// Reads a verdict.
pub fn read_verdict(attribute: &Attribute<'_>) -> Option<Verdict> {
    let mut code = None;
    let mut chain = None;
    for inner in attribute.nested() {
        match inner.kind {
            data::VERDICT_CODE => code = Some(i32::from_be_bytes(inner.value.try_into().ok()?)),
            data::VERDICT_CHAIN => chain = Some(inner.str()),
            _ => {}
        }
    }
    Some(match code? {
        data::ACCEPT => Verdict::Accept,
        data::DROP => Verdict::Drop,
        data::CONTINUE => Verdict::Continue,
        data::RETURN => Verdict::Return,
        data::JUMP => Verdict::Jump(chain?),
        data::GOTO => Verdict::Goto(chain?),
        _ => return None,
    })
}

/// One element as the kernel sends it.
pub struct Raw {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    end: bool,
    element: Option<Element>,
    expires: Option<Duration>,
}

impl Raw {
    /// As something that goes by itself; `None` if it does not.
    pub fn remembered(&self, layout: &Layout) -> Option<Remembered> {
        Some(Remembered {
            key: read_key(layout, &self.key)?,
            data: self.element.as_ref()?.data.clone(),
            expires: self.expires?,
        })
    }
}

/// Origins by their comments: thousands of elements have the same.
#[derive(Default)]
pub struct Origins(BTreeMap<String, Option<Origin>>);

impl Origins {
    fn read(&mut self, userdata: &[u8]) -> Option<Origin> {
        let comment = set::read_comment(userdata)?;
        if let Some(known) = self.0.get(comment) {
            return known.clone();
        }
        let origin = Origin::parse(comment);
        self.0.insert(comment.to_owned(), origin.clone());
        origin
    }
}

/// Reads one element; `None` for what is not modelled, such as a catch-all.
pub fn read(layout: &Layout, origins: &mut Origins, attribute: &Attribute<'_>) -> Option<Raw> {
    let mut raw = Raw {
        key: Vec::new(),
        key_end: None,
        end: false,
        element: None,
        expires: None,
    };
    let mut data = None;
    let mut origin = None;
    for inner in attribute.nested() {
        match inner.kind {
            elem::KEY => raw.key = set::value_of(&inner)?.to_vec(),
            elem::KEY_END => raw.key_end = Some(set::value_of(&inner)?.to_vec()),
            elem::FLAGS if inner.u32() & elem::CATCHALL != 0 => return None,
            elem::FLAGS => raw.end = inner.u32() & elem::INTERVAL_END != 0,
            elem::DATA => data = read_data(layout, &inner),
            elem::EXPIRATION => raw.expires = set::read_milliseconds(inner.value),
            elem::USERDATA => origin = origins.read(inner.value),
            _ => {}
        }
    }
    let data = match layout.data {
        DataType::None => Some(Data::None),
        _ => data,
    };
    if !raw.end {
        let data = data?;
        raw.element = Some(Element { data, origin });
    }
    Some(raw)
}

/// Puts what the kernel sent together: `None` if it holds what is not modelled.
pub fn collect(layout: &Layout, raw: Vec<Raw>) -> Option<BTreeMap<Key, Element>> {
    match (layout.interval, layout.parts.as_slice()) {
        (true, [_]) => ranges(layout, raw),
        (true, _) => boxes(layout, raw),
        (false, _) => raw
            .into_iter()
            .map(|raw| Some((read_key(layout, &raw.key)?, raw.element?)))
            .collect(),
    }
}

/// The bytes of a key of single values.
pub fn exact_key(layout: &Layout, key: &[Value]) -> Result<Vec<u8>, String> {
    let (first, last) = key_bytes(layout, key)?;
    match first == last {
        true => Ok(first),
        false => Err("a range is looked up by one of its values".to_owned()),
    }
}

fn key_bytes(layout: &Layout, key: &[Value]) -> Result<(Vec<u8>, Vec<u8>), String> {
    if key.len() != layout.parts.len() {
        return Err(format!(
            "a key of {} values for {} fields",
            key.len(),
            layout.parts.len()
        ));
    }
    let concat = layout.parts.len() > 1;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (part, value) in layout.parts.iter().zip(key) {
        let (a, b) = part
            .range(value)
            .ok_or_else(|| format!("{value:?} is no value of {:?} here", part.field))?;
        first.extend(a);
        last.extend(b);
        if concat {
            first.resize(first.len().next_multiple_of(4), 0);
            last.resize(last.len().next_multiple_of(4), 0);
        }
    }
    Ok((first, last))
}

/// Writes a key, or data that is no verdict.
pub fn put_key(writer: &mut Writer, kind: u16, bytes: &[u8]) {
    writer.nest(kind, |writer| writer.put(data::VALUE, bytes));
}

fn put_data(writer: &mut Writer, data: &Data) {
    match data {
        Data::None => {}
        Data::Verdict(verdict) => writer.nest(elem::DATA, |w| put_verdict(w, verdict)),
        Data::Target(address, port) => {
            let mut bytes = layout::address_bytes(*address);
            bytes.extend(port.to_be_bytes());
            bytes.extend([0; 2]);
            put_key(writer, elem::DATA, &bytes);
        }
        Data::Address(address) => {
            put_key(writer, elem::DATA, &layout::address_bytes(*address));
        }
        Data::Priority(number) => put_key(writer, elem::DATA, &number.to_ne_bytes()),
    }
}

fn read_data(layout: &Layout, attribute: &Attribute<'_>) -> Option<Data> {
    match layout.data {
        DataType::None => Some(Data::None),
        DataType::Verdict => attribute
            .nested()
            .find(|inner| inner.kind == data::VERDICT)
            .and_then(|verdict| read_verdict(&verdict))
            .map(Data::Verdict),
        DataType::Target => {
            let bytes = set::value_of(attribute)?;
            let (address, port) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
            let port = u16::from_be_bytes(port.get(..2)?.try_into().ok()?);
            Some(Data::Target(layout::address(address)?, port))
        }
        DataType::Address => {
            let bytes = set::value_of(attribute)?;
            layout::address(bytes).map(Data::Address)
        }
        DataType::Priority => {
            let bytes = set::value_of(attribute)?;
            Some(Data::Priority(u32::from_ne_bytes(bytes.try_into().ok()?)))
        }
    }
}

fn read_key(layout: &Layout, bytes: &[u8]) -> Option<Key> {
    let mut rest = bytes;
    layout
        .parts
        .iter()
        .map(|part| {
            let value = part.value(rest)?;
            rest = rest.get(part.padded()..).unwrap_or_default();
            Some(value)
        })
        .collect()
}

/// Elements of an interval set of one field, from its boundaries.
fn ranges(layout: &Layout, mut raw: Vec<Raw>) -> Option<BTreeMap<Key, Element>> {
    let part = layout.parts.first()?;
    // An end at the same value as a beginning belongs to the range before.
    raw.sort_by(|a, b| a.key.cmp(&b.key).then(b.end.cmp(&a.end)));
    let mut elements = BTreeMap::new();
    let mut open: Option<Raw> = None;
    let mut close = |open: Option<Raw>, last: Vec<u8>| {
        let Some(raw) = open else { return Some(()) };
        let element = raw.element?;
        for value in part.values(&raw.key, &last)? {
            elements.insert(vec![value], element.clone());
        }
        Some(())
    };
    for boundary in raw {
        let before = predecessor(boundary.key.clone());
        if let Some(before) = before {
            close(open.take(), before)?;
        }
        open = (!boundary.end).then_some(boundary);
    }
    close(open, vec![0xff; part.length])?;
    Some(elements)
}

/// Elements of an interval set of several fields.
fn boxes(layout: &Layout, raw: Vec<Raw>) -> Option<BTreeMap<Key, Element>> {
    let mut elements = BTreeMap::new();
    for raw in raw {
        let element = raw.element?;
        let last = raw.key_end.as_ref().unwrap_or(&raw.key);
        let mut keys: Vec<Key> = vec![Vec::new()];
        let mut at = 0;
        for part in &layout.parts {
            let values = part.values(raw.key.get(at..)?, last.get(at..)?)?;
            at += part.padded();
            keys = keys
                .iter()
                .flat_map(|key| {
                    values.iter().map(|value| {
                        let mut key = key.clone();
                        key.push(value.clone());
                        key
                    })
                })
                .collect();
        }
        elements.extend(keys.into_iter().map(|key| (key, element.clone())));
    }
    Some(elements)
}

/// The next value; `None` after the last.
fn successor(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(bytes);
        }
    }
    None
}

/// The value before; `None` before the first.
fn predecessor(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    for byte in bytes.iter_mut().rev() {
        let borrow = *byte == 0;
        *byte = byte.wrapping_sub(1);
        if !borrow {
            return Some(bytes);
        }
    }
    None
}

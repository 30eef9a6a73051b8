//! Netlink messages and attributes as bytes: a [`Writer`] and a reader, [`attributes`].
//!
//! ```text
//!   nlmsghdr (16) │ nfgenmsg (4) │ attribute │ attribute │ …
//!                                  len type value, padded to 4
//! ```
//!
//! nf_tables writes its numbers in network byte order. Nothing here panics on what a kernel sends:
//! an attribute that does not fit ends the list. Follows netlink(7) and linux/nfnetlink.h.

/// NLA_F_NESTED.
const NESTED: u16 = 1 << 15;
/// NLA_F_NESTED and NLA_F_NET_BYTEORDER, which are no part of the type.
const TYPE: u16 = !(0b11 << 14);
/// Bytes of nlmsghdr and nfgenmsg.
pub const HEADER: usize = 20;

/// Messages one after another.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All that was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Begins a message, giving what [`Writer::end_message`] wants.
    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
    ) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        start
    }

    /// Ends the message that began there.
    pub fn end_message(&mut self, start: usize) {
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Copies a whole message, with this sequence number and perhaps more flags.
    pub fn copy(&mut self, message: &[u8], sequence: u32, flags: Option<u16>) {
        let start = self.bytes.len();
        self.bytes.extend(message);
        let now = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]);
        let flags = now | flags.unwrap_or(0);
        self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }

    /// One attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
    }

    /// A number, in network byte order.
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A string with its final NUL.
    pub fn put_str(&mut self, kind: u16, value: &str) {
        let length = u16::try_from(value.len() + 5).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// An attribute that holds those which `inner` writes.
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) {
        let start = self.begin_nest(kind);
        inner(self);
        self.end_nest(start);
    }

    /// Begins a nest, giving what [`Writer::end_nest`] wants.
    pub fn begin_nest(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        start
    }

    /// Ends the nest that began there.
    pub fn end_nest(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One attribute that was read.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// Its type, without flags.
    pub kind: u16,
    /// Its value, without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes within it.
    pub fn nested(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        attributes(self.value)
    }

    /// A number in network byte order, of up to 4 bytes; 0 if it is longer.
    pub fn u32(&self) -> u32 {
        u32_of(self.value)
    }

    /// A string, up to its NUL.
    pub fn str(&self) -> String {
        let end = self.value.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&self.value[..end.unwrap_or(self.value.len())]).into_owned()
    }
}

/// A number in network byte order.
pub fn u32_of(bytes: &[u8]) -> u32 {
    match bytes.len() {
        0..=4 => bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
        _ => 0,
    }
}

/// The attributes in these bytes, up to the first that does not fit.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_at_checked(4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind, value })
    })
}

/// The first attribute of this type among these bytes.
pub fn find(bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    attributes(bytes).find(|attribute| attribute.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.put_str(1, "abc");
        writer.nest(2, |inner| {
            inner.put_u32(7, 0x0102_0304);
            inner.put(8, &[9]);
        });
        let read: Vec<_> = attributes(writer.bytes()).collect();
        assert_eq!((read[0].kind, read[0].str().as_str()), (1, "abc"));
        let inner: Vec<_> = read[1].nested().map(|a| (a.kind, a.u32())).collect();
        assert_eq!(inner, [(7, 0x0102_0304), (8, 9)]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(0_u8.., 0..64)) {
            for attribute in attributes(&bytes) {
                attribute.nested().count();
            }
        }
    }
}

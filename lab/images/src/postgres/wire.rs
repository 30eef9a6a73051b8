//! The messages of PostgreSQL's protocol: a type byte, a length that counts itself, a body.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest message read; a question or an answer here is far shorter.
const LONGEST: usize = 1024 * 1024;
/// The longest start-up packet PostgreSQL itself accepts.
const LONGEST_START: usize = 10_000;

/// A message after the start-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

/// Reads a message.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let kind = from.read_u8().await?;
    // All types are letters or digits. Seen at once, garbage is not waited for by its supposed length.
    if !kind.is_ascii_alphanumeric() {
        return Err(wrong());
    }
    let body = read_body(from, LONGEST).await?;
    Ok(Message { kind, body })
}

/// Reads a start-up packet, which has no type byte.
pub async fn read_start(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    read_body(from, LONGEST_START).await
}

async fn read_body(from: &mut (impl AsyncRead + Unpin), longest: usize) -> io::Result<Vec<u8>> {
    let length = usize::try_from(from.read_i32().await?).map_err(|_| wrong())?;
    let length = length
        .checked_sub(4)
        .filter(|l| *l <= longest)
        .ok_or_else(wrong)?;
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(body)
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a PostgreSQL message")
}

/// Messages to be sent together.
#[derive(Debug, Default)]
pub struct Out(pub Vec<u8>);

impl Out {
    /// Adds a message with the parts as its body.
    pub fn message(mut self, kind: u8, parts: &[&[u8]]) -> Out {
        self.0.push(kind);
        self.body(parts)
    }

    /// Adds a body with its length and without a type byte.
    pub fn body(mut self, parts: &[&[u8]]) -> Out {
        let length = 4 + parts.iter().map(|p| p.len()).sum::<usize>();
        self.0.extend((length as i32).to_be_bytes());
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        self
    }
}

/// Reads a body piece by piece; every piece may be missing.
#[derive(Debug, Clone, Copy)]
pub struct Body<'a>(pub &'a [u8]);

impl<'a> Body<'a> {
    /// A text that ends with a zero byte.
    pub fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|b| *b == 0)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        std::str::from_utf8(text).ok()
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|b| b[0])
    }

    pub fn i16(&mut self) -> Option<i16> {
        let bytes = self.bytes(2)?;
        Some(i16::from_be_bytes(bytes.try_into().ok()?))
    }

    pub fn i32(&mut self) -> Option<i32> {
        let bytes = self.bytes(4)?;
        Some(i32::from_be_bytes(bytes.try_into().ok()?))
    }

    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> io::Result<Message> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(read(&mut &bytes[..]))
    }

    #[test]
    fn what_is_written_can_be_read() {
        let out = Out::default().message(b'Q', &[b"SELECT 1", b"\0"]);
        let message = read_all(&out.0).unwrap();
        assert_eq!(message.kind, b'Q');
        assert_eq!(Body(&message.body).text(), Some("SELECT 1"));
    }

    proptest! {
        /// A length from outside never makes us reserve more than the longest message.
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = read_all(&bytes) {
                let mut body = Body(&message.body);
                while body.text().is_some() {}
                body.i32();
                body.byte();
            }
        }
    }
}

//! The bodies of the answers: bytes, a stretch of filler, a gRPC message with its trailers.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What filler is made of: 64 bytes that are easy to read and end a line.
const FILLER: &[u8; 64] = b"parfait-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789-parfai\n";
/// How much filler is sent at a time.
const CHUNK: usize = 16 * 1024;

/// An answer's body.
#[derive(Debug)]
pub enum Body {
    Bytes(Bytes),
    /// So many bytes still to come.
    Filler(u64),
    /// A gRPC answer: at most one message, then the trailers.
    Message {
        message: Option<Bytes>,
        trailers: Option<HeaderMap>,
    },
    /// A gRPC stream: one message, and then it stays open until the client ends it.
    Stream(Option<Bytes>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match &mut *self {
            Body::Bytes(bytes) if bytes.is_empty() => None,
            Body::Bytes(bytes) => Some(Frame::data(std::mem::take(bytes))),
            Body::Filler(0) => None,
            Body::Filler(left) => {
                let length = CHUNK.min(usize::try_from(*left).unwrap_or(CHUNK));
                *left -= length as u64;
                let chunk: Vec<u8> = FILLER.iter().copied().cycle().take(length).collect();
                Some(Frame::data(chunk.into()))
            }
            Body::Message { message, trailers } => message
                .take()
                .map(Frame::data)
                .or_else(|| trailers.take().map(Frame::trailers)),
            Body::Stream(message) => match message.take() {
                Some(message) => Some(Frame::data(message)),
                // Nothing will ever wake this: the stream ends when its connection or the client drops it.
                None => return Poll::Pending,
            },
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Bytes(bytes) => bytes.is_empty(),
            Body::Filler(left) => *left == 0,
            Body::Message { message, trailers } => message.is_none() && trailers.is_none(),
            Body::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Filler(left) => SizeHint::with_exact(*left),
            Body::Message { .. } | Body::Stream(_) => SizeHint::default(),
        }
    }
}

//! The gRPC probe: the health checking protocol (`grpc.health.v1.Health/Check`), written by hand over HTTP/2.
//!
//! The messages have one field each, so no protobuf library is needed:
//!
//! ```text
//! HealthCheckRequest  { string service = 1 }   → 0a LEN BYTES, or nothing
//! HealthCheckResponse { enum status = 1 }      → 08 01 is SERVING
//! ```
//!
//! each behind gRPC's five bytes: not compressed, length.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::net::TcpStream;

/// The longest answer that is looked at.
const MAX_ANSWER: usize = 4 << 10;

/// Asks once. The caller limits the time.
pub async fn ask(to: SocketAddr, service: &str) -> Result<(), String> {
    let stream = TcpStream::connect(to)
        .await
        .map_err(|e| format!("failed to connect service {to}: {e}"))?;
    let failed = |e: h2::Error| format!("health rpc to {to} failed: {e}");
    let (sender, connection) = h2::client::handshake(stream).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    let result = check(sender, to, service).await;
    driver.abort();
    match result {
        Ok(1) => Ok(()),
        Ok(status) => Err(format!(
            "service unhealthy (responded with {:?})",
            name_of(status)
        )),
        Err(Failure::Http2(error)) => Err(failed(error)),
        Err(Failure::Said(message)) => Err(message),
    }
}

enum Failure {
    Http2(h2::Error),
    Said(String),
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Failure {
        Failure::Http2(error)
    }
}

async fn check(
    sender: h2::client::SendRequest<Bytes>,
    to: SocketAddr,
    service: &str,
) -> Result<u64, Failure> {
    let request = http::Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(())
        .map_err(|e| Failure::Said(e.to_string()))?;
    let mut sender = sender.ready().await?;
    let (answer, mut stream) = sender.send_request(request, false)?;
    stream.send_data(encode(service), true)?;
    let answer = answer.await?;
    let refused = |headers: &http::HeaderMap| {
        let code = headers.get("grpc-status")?.to_str().ok()?;
        let text = headers.get("grpc-message").and_then(|m| m.to_str().ok());
        (code != "0").then(|| {
            Failure::Said(match code {
                "12" => "this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned(),
                "5" => "service not found: the server's health service does not know it".to_owned(),
                _ => format!("rpc error: code {code}: {}", text.unwrap_or_default()),
            })
        })
    };
    if let Some(failure) = refused(answer.headers()) {
        return Err(failure);
    }
    if answer.status() != http::StatusCode::OK {
        return Err(Failure::Said(format!(
            "rpc error: HTTP status {}",
            answer.status()
        )));
    }
    let mut body = answer.into_body();
    let mut message = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        let _ = body.flow_control().release_capacity(part.len());
        if message.len() + part.len() > MAX_ANSWER {
            return Err(Failure::Said(
                "rpc error: the answer is too long".to_owned(),
            ));
        }
        message.put(part);
    }
    if let Some(failure) = body.trailers().await?.as_ref().and_then(refused) {
        return Err(failure);
    }
    decode(&message).ok_or_else(|| Failure::Said("rpc error: not a HealthCheckResponse".to_owned()))
}

fn encode(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.unsplit(message);
    frame.freeze()
}

/// The status, 0 (UNKNOWN) if the field is left out.
fn decode(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut rest = message.get(..length).filter(|_| head[0] == 0)?;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let value = take_varint(&mut rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            2 => {
                let skip = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(skip..)?;
            }
            1 => rest = rest.get(8..)?,
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn name_of(status: u64) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_on_the_wire() {
        assert_eq!(&encode("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&encode("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        for (frame, status) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0, 0, 0, 5, 0x12, 1, 9, 8, 2], Some(2)),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 9, 8, 1], None),
            (&[0, 0], None),
            (&[0, 0, 0, 0, 2, 8, 0x80], None),
        ] {
            assert_eq!(decode(frame), status, "{frame:?}");
        }
    }
}

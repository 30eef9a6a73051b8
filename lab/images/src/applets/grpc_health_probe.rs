//! `grpc_health_probe`: asks a gRPC server whether it is healthy, for exec probes.
//!
//! Takes the flags of the program of that name (grpc-ecosystem/grpc-health-probe) and ends with its
//! codes: 0 serving, 1 wrong arguments, 2 no connection, 3 the call failed, 4 not serving. It speaks no
//! TLS: `-tls` is an error, the other `-tls-…` flags are not taken.

use crate::console::{complain, say};
use crate::http::duration;
use bytes::{Bytes, BytesMut};
use hyper::{Method, Request};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest answer that is read; the real one is 7 bytes.
const LONGEST: usize = 4096;

const WRONG_ARGUMENTS: u8 = 1;
const NO_CONNECTION: u8 = 2;
const CALL_FAILED: u8 = 3;
const NOT_SERVING: u8 = 4;

pub fn main(args: Vec<String>) -> ExitCode {
    let asked = match Asked::parse(args) {
        Ok(asked) => asked,
        Err(error) => return fail(WRONG_ARGUMENTS, &error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(CALL_FAILED, &format!("cannot start: {error}")),
    };
    let result = runtime.block_on(probe(&asked));
    runtime.shutdown_background();
    match result {
        Ok(()) => {
            say("status: SERVING");
            ExitCode::SUCCESS
        }
        Err((code, error)) => fail(code, &error),
    }
}

fn fail(code: u8, error: &str) -> ExitCode {
    complain(&format!("grpc_health_probe: {error}"));
    ExitCode::from(code)
}

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    address: String,
    service: String,
    connect_timeout: Duration,
    rpc_timeout: Duration,
}

impl Asked {
    fn parse(args: Vec<String>) -> Result<Asked, String> {
        let mut asked = Asked {
            address: String::new(),
            service: String::new(),
            connect_timeout: Duration::from_secs(1),
            rpc_timeout: Duration::from_secs(1),
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let bare = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
            let bare = bare.ok_or_else(|| format!("unexpected argument {arg:?}"))?;
            let (name, inline) = match bare.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (bare, None),
            };
            if matches!(name, "v" | "gzip") {
                continue;
            }
            let mut value = || {
                let value = inline.clone().or_else(|| args.next());
                value.ok_or_else(|| format!("-{name} needs a value"))
            };
            let time = |text: String| {
                let parsed = duration(&text).filter(|d| !d.is_zero());
                parsed.ok_or_else(|| format!("-{name}: {text:?} is no duration; write 250ms or 2s"))
            };
            match name {
                "addr" => asked.address = value()?,
                "service" => asked.service = value()?,
                "connect-timeout" => asked.connect_timeout = time(value()?)?,
                "rpc-timeout" => asked.rpc_timeout = time(value()?)?,
                "user-agent" | "rpc-header" => drop(value()?),
                "tls" | "spiffe" | "alts" => {
                    return Err(format!(
                        "-{name} is not supported: the built-in probe speaks plain text"
                    ));
                }
                _ => return Err(format!("unknown flag -{name}")),
            }
        }
        match asked.address.is_empty() {
            true => Err("-addr is missing; write -addr=:8080".to_owned()),
            false => Ok(asked),
        }
    }
}

async fn probe(asked: &Asked) -> Result<(), (u8, String)> {
    // `:8080` is this pod, as in Go.
    let address = match asked.address.strip_prefix(':') {
        Some(port) => format!("localhost:{port}"),
        None => asked.address.clone(),
    };
    let connecting = timeout(asked.connect_timeout, TcpStream::connect(&address));
    let stream = match connecting.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err((
                NO_CONNECTION,
                format!("cannot connect to {address}: {error}"),
            ));
        }
        Err(_) => {
            let limit = asked.connect_timeout;
            return Err((
                NO_CONNECTION,
                format!("no connection to {address} within {limit:?}"),
            ));
        }
    };
    let calling = timeout(asked.rpc_timeout, check(stream, &address, &asked.service));
    let status = match calling.await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            return Err((
                CALL_FAILED,
                format!("the health call to {address} failed: {error}"),
            ));
        }
        Err(_) => {
            let limit = asked.rpc_timeout;
            return Err((
                CALL_FAILED,
                format!("no answer from {address} within {limit:?}"),
            ));
        }
    };
    match status {
        1 => Ok(()),
        2 => Err((NOT_SERVING, "the service is NOT_SERVING".to_owned())),
        other => Err((NOT_SERVING, format!("the service's status is {other}"))),
    }
}

/// Calls `grpc.health.v1.Health/Check` and returns the status of the answer.
async fn check(stream: TcpStream, authority: &str, service: &str) -> Result<u64, String> {
    let (mut sender, connection) = h2::client::handshake(stream).await.map_err(text)?;
    let driving = tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "grpc_health_probe (parfait)")
        .body(())
        .map_err(text)?;
    let (response, mut body) = sender.send_request(request, false).map_err(text)?;
    body.send_data(question(service), true).map_err(text)?;
    let (head, mut body) = response.await.map_err(text)?.into_parts();
    if !head.status.is_success() {
        return Err(format!("HTTP status {}", head.status));
    }
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(text)?;
        let _ = body.flow_control().release_capacity(data.len());
        message.extend_from_slice(&data);
        if message.len() > LONGEST {
            return Err("too long an answer".to_owned());
        }
    }
    let trailers = body.trailers().await.map_err(text)?.unwrap_or(head.headers);
    driving.abort();
    let header = |name: &str| trailers.get(name).and_then(|v| v.to_str().ok());
    match header("grpc-status") {
        Some("0") => {
            status(&message).ok_or_else(|| "an answer that is no HealthCheckResponse".to_owned())
        }
        Some(code) => Err(format!(
            "gRPC status {code}: {}",
            header("grpc-message").unwrap_or_default()
        )),
        None => Err("an answer without a gRPC status".to_owned()),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// `HealthCheckRequest { service }`, field 1, with the prefix of a gRPC message.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// Field 1 of a `HealthCheckResponse` behind its prefix; an empty message is 0, UNKNOWN.
fn status(framed: &[u8]) -> Option<u64> {
    let (prefix, mut message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || message.len() != length as usize {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

/// A base-128 number of the protocol buffers encoding.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Asked, String> {
        Asked::parse(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn flags_as_the_real_one_takes_them() {
        let asked =
            parse("-addr=:8080 --service x -rpc-timeout=2s -connect-timeout 250ms -v").unwrap();
        assert_eq!(asked.address, ":8080");
        assert_eq!(asked.service, "x");
        assert_eq!(asked.rpc_timeout, Duration::from_secs(2));
        assert_eq!(asked.connect_timeout, Duration::from_millis(250));
        for wrong in [
            "",
            "-addr",
            "-addr=:1 -tls",
            "-addr=:1 -nosuch",
            "-addr=:1 -rpc-timeout=x",
            "x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn statuses() {
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[0, 0, 0, 0, 9, 8, 1]), None);
        assert_eq!(status(&[1, 0, 0, 0, 2, 8, 1]), None);
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            status(&bytes);
        }
    }
}

//! As much of Redis as an application needs to be content: `PING`, a small store, polite errors.
//!
//! Follows the RESP 2 protocol of the Redis documentation. Keys live in memory, for as long as the
//! process; there is no expiry, no replication, no data type but the string.

use crate::conn::Conn;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const MOST_ARGUMENTS: usize = 1024;
const LONGEST_ARGUMENT: usize = 1024 * 1024;
const LARGEST_COMMAND: usize = 2 * LONGEST_ARGUMENT;
const LARGEST_STORE: usize = 32 * 1024 * 1024;
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the clients of one server have stored.
#[derive(Default)]
pub struct Store(Mutex<BTreeMap<Bytes, Bytes>>);

/// Serves commands until the client ends, or says what is none.
pub async fn serve(mut conn: Conn, store: &Store) {
    let mut input = BytesMut::new();
    loop {
        let (answer, last) = match parse(&mut input) {
            Parsed::Command(arguments) => {
                let quit = arguments[0].eq_ignore_ascii_case(b"QUIT");
                (store.run(&arguments), quit)
            }
            Parsed::Nothing => continue,
            Parsed::Wrong(why) => (format!("-ERR Protocol error: {why}\r\n").into_bytes(), true),
            Parsed::NeedMore => match conn.read_buf(&mut input).await {
                Ok(1..) => continue,
                Ok(0) | Err(_) => return,
            },
        };
        match timeout(WRITE_TIMEOUT, conn.write_all(&answer)).await {
            Ok(Ok(())) if !last => {}
            _ => break,
        }
    }
    let _ = conn.shutdown().await;
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// At least one argument, the command's name.
    Command(Vec<Bytes>),
    /// An empty line or array, which is ignored.
    Nothing,
    NeedMore,
    Wrong(&'static str),
}

/// Takes one command off the input: an array of bulk strings, or a line of words.
fn parse(input: &mut BytesMut) -> Parsed {
    if input.len() > LARGEST_COMMAND {
        return Parsed::Wrong("too big a command");
    }
    match input.first() {
        None => Parsed::NeedMore,
        Some(b'*') => parse_array(input),
        Some(_) => {
            let Some((line, length)) = line(input) else {
                return match input.len() > 64 * 1024 {
                    true => Parsed::Wrong("too big inline request"),
                    false => Parsed::NeedMore,
                };
            };
            let words = line.split(u8::is_ascii_whitespace);
            let words: Vec<Bytes> = words
                .filter(|w| !w.is_empty())
                .map(Bytes::copy_from_slice)
                .collect();
            input.advance(length);
            match words.is_empty() {
                true => Parsed::Nothing,
                false => Parsed::Command(words),
            }
        }
    }
}

fn parse_array(input: &mut BytesMut) -> Parsed {
    let mut rest = &input[1..];
    let Some((count, length)) = number(rest) else {
        return unfinished(rest, "invalid multibulk length");
    };
    if count > MOST_ARGUMENTS {
        return Parsed::Wrong("invalid multibulk length");
    }
    rest = &rest[length..];
    let mut arguments = Vec::new();
    for _ in 0..count {
        match rest.first() {
            None => return Parsed::NeedMore,
            Some(b'$') => rest = &rest[1..],
            Some(_) => return Parsed::Wrong("expected '$'"),
        }
        let Some((size, length)) = number(rest) else {
            return unfinished(rest, "invalid bulk length");
        };
        if size > LONGEST_ARGUMENT {
            return Parsed::Wrong("invalid bulk length");
        }
        rest = &rest[length..];
        if rest.len() < size + 2 {
            return Parsed::NeedMore;
        }
        arguments.push(Bytes::copy_from_slice(&rest[..size]));
        rest = &rest[size + 2..];
    }
    let used = input.len() - rest.len();
    input.advance(used);
    match arguments.is_empty() {
        true => Parsed::Nothing,
        false => Parsed::Command(arguments),
    }
}

/// The first line without its end, and how many bytes it takes with it.
fn line(input: &[u8]) -> Option<(&[u8], usize)> {
    let end = input.iter().position(|b| *b == b'\n')?;
    let line = &input[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

fn number(input: &[u8]) -> Option<(usize, usize)> {
    let (line, length) = line(input.get(..input.len().min(32))?)?;
    let number = std::str::from_utf8(line).ok()?.parse().ok()?;
    Some((number, length))
}

/// A number that could not be read: it may still be on its way.
fn unfinished(rest: &[u8], why: &'static str) -> Parsed {
    match rest.len() < 32 && !rest.contains(&b'\n') {
        true => Parsed::NeedMore,
        false => Parsed::Wrong(why),
    }
}

impl Store {
    /// Runs a command and renders its answer.
    fn run(&self, arguments: &[Bytes]) -> Vec<u8> {
        let name = String::from_utf8_lossy(&arguments[0]).to_ascii_uppercase();
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (name.as_str(), &arguments[1..]) {
            ("PING", []) => simple("PONG"),
            ("PING" | "ECHO", [text]) => bulk(Some(text)),
            ("GET", [key]) => bulk(keys.get(key)),
            ("SET", [key, value, ..]) => {
                let used: usize = keys.iter().map(|(k, v)| k.len() + v.len()).sum();
                if used + key.len() + value.len() > LARGEST_STORE {
                    return error("OOM", "this stand-in for Redis holds no more");
                }
                keys.insert(key.clone(), value.clone());
                simple("OK")
            }
            ("DEL" | "UNLINK", names @ [_, ..]) => {
                integer(names.iter().filter(|k| keys.remove(*k).is_some()).count() as i64)
            }
            ("EXISTS", names @ [_, ..]) => {
                integer(names.iter().filter(|k| keys.contains_key(*k)).count() as i64)
            }
            ("INCR", [key]) => {
                let old = keys.get(key).map_or(Some(0), |v| {
                    std::str::from_utf8(v).ok()?.parse::<i64>().ok()
                });
                let Some(new) = old.and_then(|n| n.checked_add(1)) else {
                    return error("ERR", "value is not an integer or out of range");
                };
                keys.insert(key.clone(), new.to_string().into());
                integer(new)
            }
            ("DBSIZE", _) => integer(keys.len() as i64),
            ("FLUSHALL" | "FLUSHDB", _) => {
                keys.clear();
                simple("OK")
            }
            ("INFO", _) => bulk(Some(&Bytes::from_static(
                b"# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\n# Replication\r\nrole:master\r\n",
            ))),
            ("COMMAND" | "CONFIG", _) => b"*0\r\n".to_vec(),
            ("SELECT" | "CLIENT" | "AUTH" | "QUIT", _) => simple("OK"),
            ("HELLO", _) => error("NOPROTO", "this stand-in for Redis speaks RESP2 only"),
            ("PING" | "ECHO" | "GET" | "SET" | "DEL" | "UNLINK" | "EXISTS" | "INCR", _) => {
                error("ERR", &format!("wrong number of arguments for '{name}' command"))
            }
            _ => {
                let name: String = name.chars().take(64).filter(|c| !c.is_control()).collect();
                error("ERR", &format!("unknown command '{name}'; this is a stand-in for Redis"))
            }
        }
    }
}

fn simple(text: &str) -> Vec<u8> {
    format!("+{text}\r\n").into_bytes()
}

fn error(code: &str, text: &str) -> Vec<u8> {
    format!("-{code} {text}\r\n").into_bytes()
}

fn integer(number: i64) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

fn bulk(bytes: Option<&Bytes>) -> Vec<u8> {
    let Some(bytes) = bytes else {
        return b"$-1\r\n".to_vec();
    };
    let mut out = format!("${}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs all commands of the input, and returns the answers with what stopped it.
    fn talk(store: &Store, said: &[u8]) -> (String, Parsed) {
        let mut input = BytesMut::from(said);
        let mut answers = Vec::new();
        loop {
            match parse(&mut input) {
                Parsed::Command(arguments) => answers.extend(store.run(&arguments)),
                Parsed::Nothing => {}
                end => return (String::from_utf8_lossy(&answers).into_owned(), end),
            }
        }
    }

    #[test]
    fn commands_and_answers() {
        let store = Store::default();
        for (said, answer) in [
            ("PING\r\n", "+PONG\r\n"),
            ("ping\n\r\nping\n", "+PONG\r\n+PONG\r\n"),
            ("*1\r\n$4\r\nPING\r\n", "+PONG\r\n"),
            (
                "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
                "+OK\r\n$2\r\nvv\r\n",
            ),
            ("GET nosuch\r\n", "$-1\r\n"),
            ("INCR n\r\nINCR n\r\n", ":1\r\n:2\r\n"),
            (
                "INCR k\r\n",
                "-ERR value is not an integer or out of range\r\n",
            ),
            ("DEL k nosuch\r\n", ":1\r\n"),
            (
                "GET\r\n",
                "-ERR wrong number of arguments for 'GET' command\r\n",
            ),
            (
                "LPUSH a b\r\n",
                "-ERR unknown command 'LPUSH'; this is a stand-in for Redis\r\n",
            ),
        ] {
            assert_eq!(
                talk(&store, said.as_bytes()),
                (answer.to_owned(), Parsed::NeedMore),
                "{said:?}"
            );
        }
    }

    #[test]
    fn what_is_no_command_ends_the_connection() {
        for said in [
            "*x\r\n",
            "*1\r\n+PING\r\n",
            "*99999\r\n",
            "*1\r\n$9999999999\r\n",
            "*1\r\n$-1\r\n",
        ] {
            let (_, end) = talk(&Store::default(), said.as_bytes());
            assert!(matches!(end, Parsed::Wrong(_)), "{said:?}: {end:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_is_too_strange(said in proptest::collection::vec(any::<u8>(), 0..256)) {
            talk(&Store::default(), &said);
        }

        #[test]
        fn a_command_in_pieces_is_the_command(cut in 0usize..31) {
            let whole = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\n";
            let cut = cut.min(whole.len() - 1);
            let mut input = BytesMut::from(&whole[..cut]);
            prop_assert_eq!(parse(&mut input), Parsed::NeedMore);
            input.extend_from_slice(&whole[cut..]);
            prop_assert!(matches!(parse(&mut input), Parsed::Command(_)));
        }
    }
}

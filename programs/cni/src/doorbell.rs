//! Telling the agent at once, instead of letting it find out: a line on its socket, and the answer when the pod is known.
//!
//! ```text
//!   plugin ── {"attachment":"4f2c…/eth0"} ──▶ <stateDir>/agent.sock   (the record is written, the pod attached)
//!   plugin ◀─ {"known":true} ──────────────── agent                   (the pod may speak)
//! ```
//!
//! A pod that the agent does not know yet reaches nobody but its node, so nothing depends on the answer: without an agent,
//! or when it takes too long, the pod is attached all the same, and may speak when the agent has come so far.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::{Deserialize, Serialize};

use crate::config::AttachmentId;

/// The socket's name in the state directory.
pub const SOCKET: &str = "agent.sock";

/// What the plugin says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// `CONTAINER/INTERFACE`, as [`AttachmentId`] prints itself.
    pub attachment: String,
}

/// What the agent says, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// What is there for this attachment has been carried out.
    pub known: bool,
}

/// Says that an attachment is there or gone, and waits so long for the answer. Whether the agent knows it now.
pub(crate) fn ring(state_dir: &Path, id: &AttachmentId, wait: Duration) -> bool {
    let deadline = Instant::now() + wait;
    let line = Ring {
        attachment: id.to_string(),
    };
    let Ok(mut line) = serde_json::to_string(&line) else {
        return false;
    };
    line.push('\n');
    let told = reach(state_dir).and_then(|mut stream| {
        // An agent that does not read must not hold up its pods.
        stream.set_write_timeout(Some(Duration::from_millis(100)))?;
        stream.write_all(line.as_bytes())?;
        Ok(stream)
    });
    told.is_ok_and(|stream| !wait.is_zero() && answered(stream, deadline))
}

/// Connects, unless that would mean to wait: an agent that is stopped accepts nobody, and there is only so much room before
/// its door.
fn reach(state_dir: &Path) -> std::io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(state_dir.join(SOCKET))?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn answered(stream: UnixStream, deadline: Instant) -> bool {
    let mut reader = BufReader::with_capacity(256, stream);
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || reader.get_ref().set_read_timeout(Some(left)).is_err() {
            return false;
        }
        let Ok(piece) = reader.fill_buf() else {
            return false;
        };
        let (length, end) = match piece.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (piece.len(), piece.is_empty()),
        };
        line.extend_from_slice(&piece[..length]);
        reader.consume(length);
        if end || line.len() > 4096 {
            return serde_json::from_slice(&line).is_ok_and(|heard: Heard| heard.known);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn id() -> AttachmentId {
        AttachmentId {
            container: "c1".to_owned(),
            ifname: "eth0".to_owned(),
        }
    }

    /// An agent that answers this, byte by byte, and what it heard.
    fn agent(folder: &Path, answer: &'static str) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(folder.join(SOCKET)).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap())
                .read_line(&mut line)
                .unwrap();
            for byte in answer.bytes() {
                if stream.write_all(&[byte]).is_err() {
                    break;
                }
            }
            line
        })
    }

    #[test]
    fn the_agents_word_is_awaited() {
        for (answer, known) in [
            ("{\"known\":true}\n", true),
            ("{\"known\":true,\"more\":1}\n", true),
            ("{\"known\":false}\n", false),
            ("nonsense\n", false),
            ("", false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let heard = agent(folder.path(), answer);
            assert_eq!(
                ring(folder.path(), &id(), Duration::from_secs(20)),
                known,
                "{answer}"
            );
            assert_eq!(heard.join().unwrap(), "{\"attachment\":\"c1/eth0\"}\n");
        }
    }

    #[test]
    fn no_agent_and_a_silent_one_are_not_waited_for_longer_than_asked() {
        let folder = tempfile::tempdir().unwrap();
        let start = Instant::now();
        assert!(!ring(folder.path(), &id(), Duration::from_secs(20)));
        // It accepts nothing and says nothing, until there is no more room before it.
        let _listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        assert!(!ring(folder.path(), &id(), Duration::from_millis(50)));
        let mut waiting = Vec::new();
        while let Ok(stream) = reach(folder.path()) {
            waiting.push(stream);
        }
        assert!(!ring(folder.path(), &id(), Duration::ZERO));
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
    }
}

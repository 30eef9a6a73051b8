//! What the supervisor tells `lab up` while it works: one JSON object a line, through a pipe.
//!
//! The pipe is also how each side learns that the other has gone: an end of file before
//! [`Event::Ready`] means that the supervisor died; a broken pipe before it means that the command
//! was interrupted, and the supervisor takes the half-made lab down.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use serde::{Deserialize, Serialize};

/// One line of progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step is done.
    Step {
        /// What, for people.
        what: String,
    },
    /// Something is not as it should be, but the lab goes on.
    Warning {
        /// What, for people.
        what: String,
    },
    /// The lab cannot come up.
    Failed {
        /// What, why and what to do, for people.
        message: String,
    },
    /// The lab runs.
    Ready {
        /// Where the API server listens on the host.
        api: Vec<SocketAddr>,
    },
}

/// Where events go.
#[derive(Debug)]
pub struct Events<W = std::fs::File>(W);

impl<W: Write> Events<W> {
    /// Events written to `out`.
    pub const fn new(out: W) -> Self {
        Self(out)
    }

    /// Writes one event. An error means that nobody listens any more.
    pub fn send(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }

    /// A [`Event::Step`].
    pub fn step(&mut self, what: impl Into<String>) -> io::Result<()> {
        self.send(&Event::Step { what: what.into() })
    }
}

impl Events {
    /// Whether the reader has gone, so that nobody waits for this lab any more.
    #[must_use]
    pub fn abandoned(&self) -> bool {
        let mut fd = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: 0,
            revents: 0,
        };
        // SAFETY: one pollfd is passed with the length one, and outlives the call.
        let ready = unsafe { libc::poll(&raw mut fd, 1, 0) };
        ready == 1 && fd.revents & (libc::POLLERR | libc::POLLNVAL) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_noticed() {
        let (reader, writer) = io::pipe().unwrap();
        let events = Events::new(std::fs::File::from(std::os::fd::OwnedFd::from(writer)));
        assert!(!events.abandoned());
        drop(reader);
        assert!(events.abandoned());
    }

    #[test]
    fn events_are_lines_of_json() {
        let mut out = Vec::new();
        let mut events = Events::new(&mut out);
        events.step("node-1 stands").unwrap();
        events
            .send(&Event::Ready {
                api: vec!["127.0.0.1:6443".parse().unwrap()],
            })
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"event\":\"step\",\"what\":\"node-1 stands\"}\n{\"event\":\"ready\",\"api\":[\"127.0.0.1:6443\"]}\n"
        );
    }
}

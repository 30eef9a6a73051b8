//! [`Doorbell`]: the CNI plugin rings when it has attached or detached a pod, and is told when the
//! agent's rules know it.
//!
//! ```text
//!   plugin ──connect──▶ <stateDir>/agent.sock
//!          ──{"attachment":"4f2c…/eth0"}──▶            one line; on DEL it hangs up here
//!          ◀──────────{"known":true}──────             after a turn that carried the attachment out
//! ```
//!
//! A ring says only that it is time to look: what there is, the agent reads from the plugin's records
//! at every turn, also without a ring. So a ring that gets lost costs time and no more, and many at
//! once make one turn. A pod that the API server has not told of is not known; its ring is kept until it
//! is, or until nobody waits any more.
//!
//! Who rings is not trusted with anything. The socket is for root alone, a line is short, and whoever
//! holds the line keeps nobody else from ringing: each is served by itself, for so long at most.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The socket's name in the state folder.
const NAME: &str = "agent.sock";

/// The longest line that is read, in bytes; a container's name is some hundred at most.
const LONGEST_LINE: u64 = 4096;

/// How many may ring at a time. Those who come later wait in the socket's queue.
const MOST: usize = 512;

/// How long a client may take for its line, and for taking the answer.
const LINE: Duration = Duration::from_secs(5);

/// How long a ring is kept, though nobody may be waiting any more.
const KEEP: Duration = Duration::from_secs(30);

/// Where the CNI plugin rings.
pub(crate) struct Doorbell {
    rings: mpsc::Receiver<Ring>,
    /// Those whose attachment is not known yet.
    waiting: Vec<Ring>,
    server: Option<JoinHandle<()>>,
}

struct Ring {
    attachment: String,
    answer: oneshot::Sender<()>,
}

impl Doorbell {
    /// Listens in the state folder. Where that cannot be, the agent works without: it is said, and the
    /// plugin's records are read at the turns that come anyway.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let (sender, rings) = mpsc::channel(MOST);
        let server = match listen(state_dir) {
            Ok(listener) => Some(tokio::spawn(serve(listener, sender))),
            Err(error) => {
                let path = path(state_dir);
                let path = path.display();
                tracing::warn!("{path}: {error}; new pods wait for the agent's next look");
                None
            }
        };
        Self {
            rings,
            waiting: Vec::new(),
            server,
        }
    }

    /// Waits for a ring. Dropped before it ends, it has lost no ring.
    pub(crate) async fn rung(&mut self) {
        let first = match &self.server {
            Some(_) => self.rings.recv().await,
            None => None,
        };
        match first {
            Some(ring) => self.waiting.push(ring),
            // Nobody will ever ring.
            None => std::future::pending().await,
        }
        while let Ok(ring) = self.rings.try_recv() {
            self.waiting.push(ring);
        }
    }

    /// Tells those whose attachment is among these.
    pub(crate) fn answer(&mut self, known: &BTreeSet<String>) {
        for ring in std::mem::take(&mut self.waiting) {
            if known.contains(&ring.attachment) {
                // Who has hung up meanwhile finds out later.
                let _ = ring.answer.send(());
            } else if !ring.answer.is_closed() {
                self.waiting.push(ring);
            }
        }
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// The socket takes its place when it is ready and closed to others; what an earlier agent left there
/// goes in the same moment.
fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    fs::create_dir_all(state_dir)?;
    let path = path(state_dir);
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, &path)?;
    Ok(listener)
}

async fn serve(listener: UnixListener, rings: mpsc::Sender<Ring>) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let rings = rings.clone();
                tokio::spawn(async move {
                    // Whatever goes wrong, the plugin waits no longer than it wants to.
                    let _ = attend(stream, &rings).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("accepting at {NAME}: {error}");
                // Out of files, perhaps; not to be tried in a circle.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn attend(mut stream: UnixStream, rings: &mpsc::Sender<Ring>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(LONGEST_LINE));
    timeout(LINE, reader.read_line(&mut line)).await??;
    let Some(attachment) = attachment(&line) else {
        return timeout(LINE, write.write_all(b"{\"error\":\"expected {\\\"attachment\\\":\\\"CONTAINER/IFNAME\\\"} and a newline\"}\n")).await?;
    };
    let (answer, known) = oneshot::channel();
    let ring = Ring { attachment, answer };
    if timeout(KEEP, rings.send(ring)).await?.is_err() {
        return Ok(());
    }
    if let Ok(Ok(())) = timeout(KEEP, known).await {
        timeout(LINE, write.write_all(b"{\"known\":true}\n")).await??;
    }
    Ok(())
}

fn attachment(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line.strip_suffix('\n')?).ok()?;
    Some(line.get("attachment")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use super::*;

    async fn ring(folder: &Path, line: &str) -> UnixStream {
        let mut stream = UnixStream::connect(path(folder))
            .await
            .expect("somebody listens");
        stream.write_all(line.as_bytes()).await.expect("a socket");
        stream
    }

    fn of(name: &str) -> String {
        format!("{{\"attachment\":\"{name}/eth0\"}}\n")
    }

    async fn answer(stream: &mut UnixStream) -> String {
        let mut line = String::new();
        let mut reader = BufReader::new(stream);
        let read = timeout(Duration::from_secs(20), reader.read_line(&mut line));
        read.await.expect("an answer in time").expect("a socket");
        line
    }

    fn known(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| format!("{name}/eth0")).collect()
    }

    /// Rings until so many wait.
    async fn gather(bell: &mut Doorbell, count: usize) {
        while bell.waiting.len() < count {
            bell.rung().await;
        }
    }

    #[tokio::test]
    async fn who_rings_is_answered_when_the_attachment_is_known_and_not_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bell = Doorbell::open(folder.path());
        let mut early = ring(folder.path(), &of("a")).await;
        let mut late = ring(folder.path(), &of("b")).await;
        gather(&mut bell, 2).await;
        bell.answer(&known(&["a", "x"]));
        assert_eq!(answer(&mut early).await, "{\"known\":true}\n");
        assert!(
            timeout(Duration::from_millis(50), answer(&mut late))
                .await
                .is_err()
        );
        bell.answer(&known(&["b"]));
        assert_eq!(answer(&mut late).await, "{\"known\":true}\n");
        assert!(bell.waiting.is_empty());
    }

    #[tokio::test]
    async fn many_rings_are_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bell = Doorbell::open(folder.path());
        let names: Vec<String> = (0..100).map(|number| format!("c{number}")).collect();
        let mut clients = Vec::new();
        for name in &names {
            clients.push(ring(folder.path(), &of(name)).await);
        }
        while bell.rings.len() < clients.len() {
            tokio::task::yield_now().await;
        }
        bell.rung().await;
        assert_eq!(bell.waiting.len(), clients.len());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        bell.answer(&known(&names));
        for client in &mut clients {
            assert_eq!(answer(client).await, "{\"known\":true}\n");
        }
    }

    #[tokio::test]
    async fn who_says_nothing_and_who_talks_nonsense_keep_nobody_waiting() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bell = Doorbell::open(folder.path());
        let _silent = ring(folder.path(), "").await;
        let _half = ring(folder.path(), "{\"attach").await;
        let mut nonsense = ring(folder.path(), "ring\n").await;
        assert!(answer(&mut nonsense).await.starts_with("{\"error\":"));
        let endless = "x".repeat(100_000);
        let mut stream = UnixStream::connect(path(folder.path()))
            .await
            .expect("a bell");
        // It may be hung up on in the middle.
        let _ = stream.write_all(endless.as_bytes()).await;
        drop(ring(folder.path(), &of("gone")).await);
        let mut good = ring(folder.path(), &of("a")).await;
        gather(&mut bell, 2).await;
        bell.answer(&known(&["a"]));
        assert_eq!(answer(&mut good).await, "{\"known\":true}\n");
    }

    #[tokio::test]
    async fn what_an_earlier_agent_left_is_replaced_and_the_socket_is_for_root_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Doorbell::open(folder.path()));
        fs::write(path(folder.path()).with_extension("new"), "left over").expect("a file");
        let mut bell = Doorbell::open(folder.path());
        let socket = fs::metadata(path(folder.path())).expect("a socket");
        assert!(socket.file_type().is_socket());
        assert_eq!(socket.permissions().mode() & 0o777, 0o600);
        let mut client = ring(folder.path(), &of("a")).await;
        gather(&mut bell, 1).await;
        bell.answer(&known(&["a"]));
        assert_eq!(answer(&mut client).await, "{\"known\":true}\n");
    }

    #[tokio::test]
    async fn without_a_folder_nobody_rings_and_nothing_else_happens() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut bell = Doorbell::open(file.path());
        assert!(
            timeout(Duration::from_millis(50), bell.rung())
                .await
                .is_err()
        );
    }
}

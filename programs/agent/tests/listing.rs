//! What the API server has not finished listing is never treated as deleted: an API server that stops
//! in the middle of its lists, at the start and later, against the feed that the agent acts on.
//!
//! The server speaks just enough HTTP: each list of Services waits until the test lets it go, and a
//! watch of Services ends with 410 Gone when the test says so, after which clients list anew.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parfait_cluster::Snapshot;
use parfait_kube::Feed;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// Long enough for what should happen, and for what should not.
const SOON: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_listed_yet_is_not_deleted() {
    let server = Arc::new(Server::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.clone().run(listener));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let client = parfait_kube::client(Some(&path)).await.unwrap();
    let mut snapshot = Snapshot::default();
    let mut feed = Feed::start(&client);

    let early = timeout(A_WHILE, feed.next(&mut snapshot)).await;
    assert!(
        early.is_err(),
        "Services are not listed, and the feed says {early:?}"
    );
    server.pages.add_permits(1);
    let early = timeout(A_WHILE, feed.next(&mut snapshot)).await;
    assert!(
        early.is_err(),
        "half of the Services are listed, and the feed says {early:?}"
    );
    server.pages.add_permits(1);
    timeout(SOON, feed.next(&mut snapshot))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(services(&snapshot), ["first", "second"].into());

    // The watch ends, and everything is listed anew; the server stops in the middle.
    server.gone.notify_one();
    server.pages.add_permits(1);
    let _ = timeout(2 * A_WHILE, feed.next(&mut snapshot)).await;
    let _ = timeout(A_WHILE, feed.next(&mut snapshot)).await;
    assert_eq!(
        server.pages.available_permits(),
        0,
        "the first page was fetched"
    );
    assert_eq!(services(&snapshot), ["first", "second"].into());
    server.pages.add_permits(1);
    let listed = async {
        while services(&snapshot) != ["first", "third"].into() {
            feed.next(&mut snapshot).await.unwrap();
        }
    };
    timeout(SOON, listed)
        .await
        .expect("what the whole list does not name is gone");
}

fn services(snapshot: &Snapshot) -> BTreeSet<&str> {
    let names = snapshot.services.keys();
    names.map(|name| name.name.as_str()).collect()
}

/// The API server.
struct Server {
    /// How many pages of Services may still be sent.
    pages: Semaphore,
    /// The next watch of Services ends.
    gone: Notify,
    /// How many times all Services were listed.
    lists: std::sync::atomic::AtomicUsize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            pages: Semaphore::new(0),
            gone: Notify::new(),
            lists: 0.into(),
        }
    }
}

impl Server {
    async fn run(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let server = self.clone();
            tokio::spawn(async move { server.serve(stream).await });
        }
    }

    /// Answers the requests of one connection. `None` when it ends.
    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                if stream.read_line(&mut request).await.ok()? == 0 {
                    return None;
                }
            }
            let path = request.split_whitespace().nth(1)?;
            let services = path.contains("/services?");
            if path.contains("watch=true") {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
                match services {
                    true => self.gone.notified().await,
                    false => std::future::pending().await,
                }
                let gone = json!({"type": "ERROR", "object": {
                    "kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "code": 410, "reason": "Expired", "message": "too old",
                }});
                stream
                    .write_all(format!("{gone}\n").as_bytes())
                    .await
                    .ok()?;
                return None;
            }
            let list = match services {
                true => self.page(path.contains("continue=more")).await,
                false => json!({"metadata": {"resourceVersion": "1"}, "items": []}),
            };
            let body = list.to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).await.ok()?;
        }
    }

    /// One page of Services, when it may be sent. Of the first list's, one has become another later.
    async fn page(&self, last: bool) -> Value {
        use std::sync::atomic::Ordering;
        self.pages.acquire().await.unwrap().forget();
        let service = |name: &str| json!({"metadata": {"name": name, "namespace": "default"}});
        if !last {
            return json!({
                "metadata": {"resourceVersion": "1", "continue": "more"},
                "items": [service("first")],
            });
        }
        let second = match self.lists.fetch_add(1, Ordering::Relaxed) {
            0 => service("second"),
            _ => service("third"),
        };
        json!({"metadata": {"resourceVersion": "1"}, "items": [second]})
    }
}

//! The life of a built-in server: accept, hand over, and end well.
//!
//! On SIGTERM or SIGINT a server stops accepting, lets what is in flight finish for up to a second,
//! and exits with 0. The number of connections is limited; more of them wait in the kernel's queue.

use crate::body::Body;
use crate::conn::Conn;
use crate::console::{complain, say};
use crate::identity::canonical;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Connections served at once, below the usual limit of 1024 descriptors.
const MOST_CONNECTIONS: u32 = 800;
/// How long what is in flight may take after the signal to end.
const GRACE: Duration = Duration::from_secs(1);
/// How long a client may take to send a request's header, and a connection be kept for the next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// An HTTP/2 client that is silent is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const LARGEST_HEADER: u32 = 64 * 1024;

/// The two ends of a connection, as people write them.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// Tells the tasks of a server that it is to end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when the server is to end.
    pub async fn requested(&mut self) {
        // The sender lives as long as the server; without it the answer is the same.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// A server in its making: what accepts, spawned before the signal is awaited.
pub struct Server {
    stop: watch::Sender<bool>,
    permits: Arc<Semaphore>,
    terminate: Signal,
    interrupt: Signal,
}

impl Server {
    /// Listens for signals first: whoever sees an open port may send one.
    fn new() -> std::io::Result<Server> {
        Ok(Server {
            stop: watch::channel(false).0,
            permits: Arc::new(Semaphore::new(MOST_CONNECTIONS as usize)),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub fn stop(&self) -> Stop {
        Stop(self.stop.subscribe())
    }

    /// Accepts connections for ever, each handled by a task of its own.
    pub fn accept<H, F>(&self, listener: std::net::TcpListener, handle: H) -> std::io::Result<()>
    where
        H: Fn(TcpStream, Ends, Stop) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::from_std(listener)?;
        let permits = self.permits.clone();
        let stop = self.stop();
        tokio::spawn(async move {
            let mut stopping = stop.clone();
            loop {
                let Ok(permit) = permits.clone().acquire_owned().await else {
                    return;
                };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stopping.requested() => return,
                };
                match accepted {
                    Ok((stream, peer)) => {
                        let Ok(local) = stream.local_addr() else {
                            continue;
                        };
                        let ends = Ends {
                            peer: canonical(peer),
                            local: canonical(local),
                        };
                        let _ = stream.set_nodelay(true);
                        let handling = handle(stream, ends, stop.clone());
                        tokio::spawn(async move {
                            handling.await;
                            drop(permit);
                        });
                    }
                    // Out of descriptors, or the client is gone already: neither ends the server.
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Ok(())
    }

    /// Waits for the signal to end, and for what is in flight.
    async fn finish(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        self.stop.send_replace(true);
        let all = self.permits.acquire_many(MOST_CONNECTIONS);
        let _ = timeout(GRACE, all).await;
    }
}

/// Runs a program: `start` opens its ports and says what it listens on, or why it cannot.
pub fn run(program: &str, start: impl FnOnce(&Server) -> Result<String, String>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("{program}: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let server = Server::new().map_err(|e| format!("cannot wait for signals: {e}"))?;
        say(&format!("{program}: {}", start(&server)?));
        server.finish().await;
        Ok::<_, String>(())
    });
    // A name being looked up on another thread must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{program}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Serves HTTP/1 on a connection until it ends.
pub async fn http1<S, F>(conn: Conn, mut stop: Stop, answer: S)
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let service = service_fn(|request| {
        let answering = answer(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(LARGEST_HEADER as usize)
        .half_close(true)
        .serve_connection(TokioIo::new(conn), service);
    let mut connection = pin!(connection);
    // A client's fault ends its connection and concerns nobody else.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.requested() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Serves HTTP/2 on a connection until it ends.
pub async fn http2<S, F>(conn: Conn, mut stop: Stop, answer: S)
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(|request| {
        let answering = answer(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_concurrent_streams(128)
        .max_header_list_size(LARGEST_HEADER)
        .serve_connection(TokioIo::new(conn), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.requested() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

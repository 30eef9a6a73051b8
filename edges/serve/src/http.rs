//! HTTP for those who ask a node one thing: load balancers and Prometheus.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header, http};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Clients that are served at the same time at one address; more wait.
const CLIENTS: usize = 64;

/// How long a client may take to ask, and a whole visit may last.
const PATIENCE: Duration = Duration::from_secs(10);
const VISIT: Duration = Duration::from_secs(30);

/// What is answered to one request.
pub(crate) type Answer = http::Result<Response<Full<Bytes>>>;

/// An answer in JSON that says yes (200) or no (503), with the headers that kube-proxy gives it.
pub(crate) fn json(yes: bool) -> http::response::Builder {
    let status = match yes {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header("X-Content-Type-Options", "nosniff")
}

/// Both families at once, or IPv4 where the kernel has no IPv6.
pub(crate) async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
        bound => bound,
    }
}

/// Answers whoever comes, for ever.
pub(crate) async fn serve<A>(listener: TcpListener, answer: A)
where
    A: Fn(&Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
{
    let clients = Arc::new(Semaphore::new(CLIENTS));
    // The semaphore is never closed.
    while let Ok(permit) = clients.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others must end first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            // Who breaks off, or lasts too long, is not answered; that is its own affair.
            let _ = tokio::time::timeout(VISIT, visit(stream, answer)).await;
            drop(permit);
        });
    }
}

async fn visit(stream: TcpStream, answer: impl Fn(&Request<Incoming>) -> Answer) {
    let service = service_fn(async |request| answer(&request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

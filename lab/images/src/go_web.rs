//! The field's running example of an application: a small web server that needs a database.
//!
//! | path | answer |
//! |---|---|
//! | `/` | `Hello` |
//! | `/healthz` | `Healthy` |
//! | `/host` | `NODE: $MY_NODE_NAME, POD IP:$MY_POD_IP` |
//! | `/data` | `Database Connected`, or 500 and the reason |
//!
//! The database is the PostgreSQL at `DB_HOST`, `DB_PORT` (5432), as `DB_USER` (postgres) with
//! `DB_PASSWORD`; `DB_NAME` (postgres) is the database. It listens on the declared ports, else on
//! `$PORT`, else on 8080.

use crate::body::Body;
use crate::catalogue::Protocol;
use crate::conn::Conn;
use crate::console::complain;
use crate::http::plain;
use crate::identity::{Identity, variable};
use crate::options::Options;
use crate::postgres::client::{Target, ping};
use crate::serve::{Ends, Server, Stop};
use crate::sniff::Speech;
use crate::stand_in::opening;
use crate::{USAGE, listen, serve};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpStream;

const IDLE: Duration = Duration::from_secs(120);

pub fn main(args: Vec<String>) -> ExitCode {
    match Options::parse(args) {
        Ok(options) => {
            let options = options.or_port_of_environment(Some(8080));
            serve::run("go-web", |server| start(server, &options))
        }
        Err(error) => {
            complain(&format!("go-web: {error}"));
            ExitCode::from(USAGE)
        }
    }
}

fn start(server: &Server, options: &Options) -> Result<String, String> {
    let mut open = Vec::new();
    for port in &options.ports {
        if port.protocol != Protocol::Tcp {
            continue;
        }
        let listener = listen::tcp(port.number).map_err(|e| e.to_string())?;
        let accepting = server.accept(listener, connection);
        accepting.map_err(|e| format!("cannot serve {port}: {e}"))?;
        open.push(port.to_string());
    }
    let me = Identity::here("go-web", options.image.clone()).name();
    Ok(format!("{me} listens on {}", open.join(", ")))
}

async fn connection(mut stream: TcpStream, _: Ends, stop: Stop) {
    let Some((speech, start)) = opening(&mut stream).await else {
        return;
    };
    let conn = Conn::new(start, stream, IDLE);
    match speech {
        Speech::Http2 => serve::http2(conn, stop, answer).await,
        // What is no HTTP gets HTTP's answer to that: 400.
        _ => serve::http1(conn, stop, answer).await,
    }
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    let var = |name: &str| variable(name).unwrap_or_default();
    match request.uri().path() {
        "/" => plain(StatusCode::OK, "Hello".to_owned()),
        "/healthz" => plain(StatusCode::OK, "Healthy".to_owned()),
        "/host" => {
            let text = format!("NODE: {}, POD IP:{}", var("MY_NODE_NAME"), var("MY_POD_IP"));
            plain(StatusCode::OK, text)
        }
        "/data" => match data().await {
            Ok(()) => plain(StatusCode::OK, "Database Connected".to_owned()),
            Err(reason) => plain(StatusCode::INTERNAL_SERVER_ERROR, reason),
        },
        _ => plain(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

async fn data() -> Result<(), String> {
    let host = variable("DB_HOST").ok_or("DB_HOST is not set, so there is no database to ask")?;
    let port = variable("DB_PORT").unwrap_or_else(|| "5432".to_owned());
    let target = Target {
        host,
        port: port
            .trim()
            .parse()
            .map_err(|_| format!("DB_PORT is {port:?}, which is no port"))?,
        user: variable("DB_USER").unwrap_or_else(|| "postgres".to_owned()),
        password: variable("DB_PASSWORD").unwrap_or_default(),
        database: variable("DB_NAME").unwrap_or_else(|| "postgres".to_owned()),
    };
    ping(&target).await.map_err(|e| e.to_string())
}

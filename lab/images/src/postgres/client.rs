//! A PostgreSQL client that logs in and asks `SELECT 1`.

use super::wire::{self, Body, Message, Out};
use super::{md5, scram};
use std::io;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long finding the server, connecting, logging in and asking may take together.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Protocol version 3.0.
const VERSION: [u8; 4] = [0, 3, 0, 0];

/// Where a server is and who we are to it.
#[derive(Debug, Clone)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
}

/// Why a ping failed, in words for whoever reads the web application's answer.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    #[error(
        "cannot find {host:?}: {error}; is there a Service of this name, and does cluster DNS answer?"
    )]
    Name { host: String, error: io::Error },
    #[error("cannot connect to {host}:{port}: {error}")]
    Connect {
        host: String,
        port: u16,
        error: io::Error,
    },
    #[error("no answer from {host}:{port} within {} s", TIMEOUT.as_secs())]
    Timeout { host: String, port: u16 },
    #[error("the connection to {host}:{port} broke: {error}")]
    Broken {
        host: String,
        port: u16,
        error: io::Error,
    },
    #[error("{host}:{port} does not speak PostgreSQL's protocol: {what}")]
    NotPostgres {
        host: String,
        port: u16,
        what: &'static str,
    },
    #[error("the server says {severity} {code}: {text}")]
    Server {
        severity: String,
        code: String,
        text: String,
    },
    #[error("the server asks for authentication method {0}, which is not known here")]
    Method(i32),
    #[error("the server proved no knowledge of the password (SCRAM)")]
    Impostor,
}

/// Connects, logs in and asks `SELECT 1`.
pub async fn ping(target: &Target) -> Result<(), PingError> {
    match timeout(TIMEOUT, ping_slowly(target)).await {
        Ok(result) => result,
        Err(_) => Err(PingError::Timeout {
            host: target.host.clone(),
            port: target.port,
        }),
    }
}

async fn ping_slowly(target: &Target) -> Result<(), PingError> {
    let mut session = Session {
        target,
        stream: connect(target).await?,
    };
    session.log_in().await?;
    session.select_one().await
}

async fn connect(target: &Target) -> Result<TcpStream, PingError> {
    let host = target.host.clone();
    let found = tokio::net::lookup_host((host.as_str(), target.port)).await;
    let addresses = found.map_err(|error| PingError::Name {
        host: host.clone(),
        error,
    })?;
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(PingError::Connect {
        host,
        port: target.port,
        error: failed,
    })
}

struct Session<'a> {
    target: &'a Target,
    stream: TcpStream,
}

impl Session<'_> {
    async fn log_in(&mut self) -> Result<(), PingError> {
        let Target { user, database, .. } = self.target;
        let parameters =
            format!("user\0{user}\0database\0{database}\0application_name\0go-web\0\0");
        let start = Out::default().body(&[&VERSION, parameters.as_bytes()]);
        self.send(start).await?;
        loop {
            let message = self.receive().await?;
            let mut body = Body(&message.body);
            if message.kind != b'R' {
                return Err(self.strange("it does not ask for authentication"));
            }
            match (body.i32(), body.0) {
                (Some(0), _) => break,
                (Some(3), _) => self.send_password(&self.target.password).await?,
                (Some(5), &[a, b, c, d]) => {
                    let hashed = md5::password(user, &self.target.password, [a, b, c, d]);
                    self.send_password(&hashed).await?;
                }
                (Some(10), methods) => self.log_in_by_scram(methods).await?,
                (Some(method), _) => return Err(PingError::Method(method)),
                (None, _) => return Err(self.strange("a short authentication request")),
            }
        }
        while self.receive().await?.kind != b'Z' {}
        Ok(())
    }

    async fn send_password(&mut self, password: &str) -> Result<(), PingError> {
        let out = Out::default().message(b'p', &[password.as_bytes(), b"\0"]);
        self.send(out).await
    }

    /// The exchange up to AuthenticationSASLFinal; AuthenticationOk follows it.
    async fn log_in_by_scram(&mut self, methods: &[u8]) -> Result<(), PingError> {
        let mut methods = Body(methods);
        loop {
            match methods.text() {
                Some("SCRAM-SHA-256") => break,
                Some(other) if !other.is_empty() => {}
                _ => return Err(self.strange("it offers no SCRAM-SHA-256")),
            }
        }
        let client = scram::Client::new("", nonce());
        let first = client.first();
        let length = (first.len() as i32).to_be_bytes();
        let out = Out::default().message(b'p', &[b"SCRAM-SHA-256\0", &length, first.as_bytes()]);
        self.send(out).await?;
        let challenge = self.receive_sasl(11).await?;
        let (last, finished) = client
            .last(&self.target.password, &challenge)
            .ok_or_else(|| self.strange("a wrong SCRAM challenge"))?;
        self.send(Out::default().message(b'p', &[last.as_bytes()]))
            .await?;
        match finished.server_is_genuine(&self.receive_sasl(12).await?) {
            true => Ok(()),
            false => Err(PingError::Impostor),
        }
    }

    async fn receive_sasl(&mut self, step: i32) -> Result<String, PingError> {
        let message = self.receive().await?;
        let mut body = Body(&message.body);
        match (message.kind, body.i32()) {
            (b'R', Some(found)) if found == step => {
                Ok(String::from_utf8_lossy(body.0).into_owned())
            }
            _ => Err(self.strange("the SCRAM exchange is out of step")),
        }
    }

    async fn select_one(&mut self) -> Result<(), PingError> {
        self.send(Out::default().message(b'Q', &[b"SELECT 1\0"]))
            .await?;
        let mut rows = 0;
        loop {
            match self.receive().await?.kind {
                b'D' => rows += 1,
                b'Z' if rows == 1 => return Ok(()),
                b'Z' => return Err(self.strange("SELECT 1 did not return one row")),
                _ => {}
            }
        }
    }

    async fn send(&mut self, out: Out) -> Result<(), PingError> {
        let sent = self.stream.write_all(&out.0).await;
        sent.map_err(|e| self.broken(e))
    }

    /// The next message that is no notice; the server's errors are ours.
    async fn receive(&mut self) -> Result<Message, PingError> {
        loop {
            let message = match wire::read(&mut self.stream).await {
                Ok(message) => message,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(self.strange("what it sends are no messages"));
                }
                Err(error) => return Err(self.broken(error)),
            };
            match message.kind {
                b'E' => return Err(server_error(&message.body)),
                b'N' => {}
                _ => return Ok(message),
            }
        }
    }

    fn strange(&self, what: &'static str) -> PingError {
        PingError::NotPostgres {
            host: self.target.host.clone(),
            port: self.target.port,
            what,
        }
    }

    fn broken(&self, error: io::Error) -> PingError {
        PingError::Broken {
            host: self.target.host.clone(),
            port: self.target.port,
            error,
        }
    }
}

/// The fields of an ErrorResponse: a letter and a text each.
fn server_error(body: &[u8]) -> PingError {
    let mut body = Body(body);
    let (mut severity, mut code, mut text) = (String::new(), String::new(), String::new());
    while let Some(field) = body.byte().filter(|f| *f != 0) {
        let Some(value) = body.text() else { break };
        match field {
            b'S' => severity = value.to_owned(),
            b'C' => code = value.to_owned(),
            b'M' => text = value.to_owned(),
            _ => {}
        }
    }
    PingError::Server {
        severity,
        code,
        text,
    }
}

/// 18 random bytes in base64.
pub(crate) fn nonce() -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(random::<18>())
}

/// Bytes nobody can foresee.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: the pointer and the length are those of an array we own.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    // getrandom(2): up to 256 bytes are never cut short once the kernel's source is ready, which it is
    // long before there are pods.
    debug_assert_eq!(got, N as isize);
    bytes
}

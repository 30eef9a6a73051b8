//! The stand-in for the `postgres` image: it logs clients in, answers `SELECT 1`, and stores nothing.
//!
//! It reads the image's environment: `POSTGRES_PASSWORD` (or `POSTGRES_PASSWORD_FILE`), `POSTGRES_USER`,
//! `POSTGRES_DB` and `POSTGRES_HOST_AUTH_METHOD` (`scram-sha-256`, `md5`, `password` or `trust`). Without
//! a password it ends with an error, as the image does, unless the method is `trust`.

use super::answers::{Names, Refusal, error, ready, simple};
use super::query::{self, Facts};
use super::wire::{self, Body, Message, Out};
use super::{client, md5, scram};
use crate::catalogue::Protocol;
use crate::conn::Conn;
use crate::console::complain;
use crate::identity::{Identity, variable};
use crate::options::Options;
use crate::serve::Server;
use crate::{USAGE, listen, serve};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(60 * 60);

const SSL_REQUEST: i32 = 80_877_103;
const GSSENC_REQUEST: i32 = 80_877_104;

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Trust,
    Cleartext,
    Md5,
    Scram,
}

/// The database system that clients believe in.
#[derive(Debug)]
struct System {
    user: String,
    password: String,
    database: String,
    method: Method,
}

pub fn main(args: Vec<String>) -> ExitCode {
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(error) => {
            complain(&format!("postgres: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    let system = match System::from_environment(&variable) {
        Ok(system) => Arc::new(system),
        Err(error) => {
            complain(&format!("postgres: {error}"));
            return ExitCode::FAILURE;
        }
    };
    serve::run("postgres", |server| start(server, &options, &system))
}

fn start(server: &Server, options: &Options, system: &Arc<System>) -> Result<String, String> {
    let mut open = Vec::new();
    for port in &options.ports {
        if port.protocol != Protocol::Tcp {
            continue;
        }
        let listener = listen::tcp(port.number).map_err(|e| e.to_string())?;
        let system = system.clone();
        let accepting = server.accept(listener, move |stream, _, mut stop| {
            let session = Session {
                conn: Conn::new(Bytes::new(), stream, IDLE),
                system: system.clone(),
            };
            async move {
                // A client's fault ends its session and concerns nobody else.
                tokio::select! {
                    _ = session.run() => {}
                    () = stop.requested() => {}
                }
            }
        });
        accepting.map_err(|e| format!("cannot serve {port}: {e}"))?;
        open.push(port.to_string());
    }
    let me = Identity::here("postgres", options.image.clone()).name();
    let open = open.join(", ");
    Ok(format!(
        "{me} stands in for a PostgreSQL server and stores nothing, listening on {open}; \
         user {}, database {}",
        system.user, system.database
    ))
}

impl System {
    fn from_environment(var: &dyn Fn(&str) -> Option<String>) -> Result<System, String> {
        let any = |names: &[&str]| names.iter().find_map(|n| var(n));
        let method = match any(&["POSTGRES_HOST_AUTH_METHOD"]).as_deref() {
            None | Some("scram-sha-256") => Method::Scram,
            Some("md5") => Method::Md5,
            Some("password") => Method::Cleartext,
            Some("trust") => Method::Trust,
            Some(other) => {
                return Err(format!(
                    "POSTGRES_HOST_AUTH_METHOD is {other:?}; use scram-sha-256, md5, password or trust"
                ));
            }
        };
        let mut password = any(&["POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD"]);
        if let (None, Some(file)) = (&password, var("POSTGRES_PASSWORD_FILE")) {
            let read = std::fs::read_to_string(&file);
            let text =
                read.map_err(|e| format!("cannot read POSTGRES_PASSWORD_FILE {file}: {e}"))?;
            password = Some(text.trim_end_matches('\n').to_owned());
        }
        if password.is_none() && method != Method::Trust {
            return Err(
                "no superuser password is set, and the image starts only with one: set POSTGRES_PASSWORD \
                 for the container, or POSTGRES_HOST_AUTH_METHOD=trust to let everybody in"
                    .to_owned(),
            );
        }
        let user = any(&["POSTGRES_USER", "POSTGRESQL_USERNAME"]);
        let user = user.unwrap_or_else(|| "postgres".to_owned());
        let database = any(&["POSTGRES_DB", "POSTGRESQL_DATABASE"]);
        Ok(System {
            database: database.unwrap_or_else(|| user.clone()),
            user,
            password: password.unwrap_or_default(),
            method,
        })
    }
}

/// Why a session ends.
enum End {
    Io,
    Refused(Refusal),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Io
    }
}

fn refuse<T>(code: &'static str, message: String) -> Result<T, End> {
    Err(End::Refused(Refusal { code, message }))
}

struct Session {
    conn: Conn,
    system: Arc<System>,
}

impl Session {
    async fn run(mut self) -> io::Result<()> {
        let logged_in = match timeout(LOGIN_TIMEOUT, self.log_in()).await {
            Ok(result) => result,
            Err(_) => return Ok(()),
        };
        let ended = match logged_in {
            Ok(facts) => self.answer_queries(facts).await,
            Err(end) => Err(end),
        };
        if let Err(End::Refused(refusal)) = ended {
            let out = error(Out::default(), "FATAL", refusal.code, &refusal.message);
            self.conn.write_all(&out.0).await?;
        }
        self.conn.shutdown().await
    }

    async fn log_in(&mut self) -> Result<Facts, End> {
        let parameters = loop {
            let packet = wire::read_start(&mut self.conn).await?;
            let mut body = Body(&packet);
            match body.i32() {
                // No TLS and no GSSAPI; the client goes on without, or ends.
                Some(SSL_REQUEST | GSSENC_REQUEST) => self.conn.write_all(b"N").await?,
                Some(version) if version >> 16 == 3 => {
                    let parameters = parameters(body);
                    self.negotiate(version & 0xffff, &parameters).await?;
                    break parameters;
                }
                // A request to cancel, an old protocol, or garbage.
                _ => return Err(End::Io),
            }
        };
        let Some(user) = parameters.get("user").cloned() else {
            return refuse(
                "28000",
                "no PostgreSQL user name specified in startup packet".into(),
            );
        };
        self.authenticate(&user).await?;
        let database = parameters.get("database").cloned();
        let database = database.unwrap_or_else(|| user.clone());
        let known = [self.system.database.as_str(), "postgres", "template1"];
        if !known.contains(&database.as_str()) {
            return refuse("3D000", format!("database \"{database}\" does not exist"));
        }
        let mut out = Out::default().message(b'R', &[&0i32.to_be_bytes()]);
        for (name, value) in [
            ("server_version", query::VERSION),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
            ("TimeZone", "Etc/UTC"),
        ] {
            out = out.message(b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
        }
        // Cancelling is not offered: process 0, key 0.
        let out = ready(out.message(b'K', &[&[0; 8]]));
        self.conn.write_all(&out.0).await?;
        Ok(Facts { user, database })
    }

    /// Tells a client of a newer protocol that this is 3.0, and which options are unknown here.
    async fn negotiate(
        &mut self,
        minor: i32,
        parameters: &BTreeMap<String, String>,
    ) -> io::Result<()> {
        let unknown: Vec<_> = parameters
            .keys()
            .filter(|k| k.starts_with("_pq_."))
            .collect();
        if minor == 0 && unknown.is_empty() {
            return Ok(());
        }
        let mut body = 0i32.to_be_bytes().to_vec();
        body.extend((unknown.len() as i32).to_be_bytes());
        for option in unknown {
            body.extend_from_slice(option.as_bytes());
            body.push(0);
        }
        let out = Out::default().message(b'v', &[&body]);
        self.conn.write_all(&out.0).await
    }

    async fn authenticate(&mut self, user: &str) -> Result<(), End> {
        let system = self.system.clone();
        let genuine = match system.method {
            Method::Trust if user == system.user => true,
            Method::Trust => return refuse("28000", format!("role \"{user}\" does not exist")),
            Method::Cleartext => {
                let request = Out::default().message(b'R', &[&3i32.to_be_bytes()]);
                self.conn.write_all(&request.0).await?;
                self.password().await? == system.password
            }
            Method::Md5 => {
                let salt: [u8; 4] = client::random();
                let request = Out::default().message(b'R', &[&5i32.to_be_bytes(), &salt]);
                self.conn.write_all(&request.0).await?;
                self.password().await? == md5::password(user, &system.password, salt)
            }
            Method::Scram => self.scram(&system.password).await?,
        };
        match genuine && user == system.user {
            true => Ok(()),
            false => refuse(
                "28P01",
                format!("password authentication failed for user \"{user}\""),
            ),
        }
    }

    async fn password(&mut self) -> Result<String, End> {
        let message = self.authentication_message().await?;
        let mut body = Body(&message.body);
        Ok(body.text().unwrap_or_default().to_owned())
    }

    /// Whether the client proves that it knows the password.
    async fn scram(&mut self, password: &str) -> Result<bool, End> {
        let offer = Out::default().message(b'R', &[&10i32.to_be_bytes(), b"SCRAM-SHA-256\0\0"]);
        self.conn.write_all(&offer.0).await?;
        let message = self.authentication_message().await?;
        let mut body = Body(&message.body);
        if body.text() != Some("SCRAM-SHA-256") {
            return refuse(
                "08P01",
                "client selected an invalid SASL authentication mechanism".into(),
            );
        }
        let first = body
            .i32()
            .and_then(|length| body.bytes(usize::try_from(length).ok()?));
        let first = first.and_then(|f| std::str::from_utf8(f).ok());
        let salt: [u8; 16] = client::random();
        let server = first.and_then(|f| scram::Server::new(f, password, &salt, &client::nonce()));
        let Some(server) = server else {
            return refuse("08P01", "malformed SCRAM message".into());
        };
        let challenge = server.challenge().as_bytes();
        let out = Out::default().message(b'R', &[&11i32.to_be_bytes(), challenge]);
        self.conn.write_all(&out.0).await?;
        let message = self.authentication_message().await?;
        let last = std::str::from_utf8(&message.body).ok();
        let Some(proof) = last.and_then(|l| server.last(l)) else {
            return Ok(false);
        };
        let out = Out::default().message(b'R', &[&12i32.to_be_bytes(), proof.as_bytes()]);
        self.conn.write_all(&out.0).await?;
        Ok(true)
    }

    async fn authentication_message(&mut self) -> Result<Message, End> {
        let message = wire::read(&mut self.conn).await?;
        match message.kind {
            b'p' => Ok(message),
            _ => refuse("08P01", "expected a password response".into()),
        }
    }

    /// The simple protocol, and the extended one as far as drivers use it for a question.
    async fn answer_queries(&mut self, facts: Facts) -> Result<(), End> {
        let mut names = Names::default();
        let mut failed = false;
        loop {
            let message = wire::read(&mut self.conn).await?;
            let out = match message.kind {
                b'X' => return Ok(()),
                b'S' => {
                    failed = false;
                    ready(Out::default())
                }
                // After an error everything up to Sync is passed over.
                _ if failed => continue,
                b'Q' => simple(Body(&message.body).text().unwrap_or_default(), &facts),
                b'H' => continue,
                kind => match names.extended(kind, Body(&message.body), &facts) {
                    Ok(out) => out,
                    Err(refusal) => {
                        failed = true;
                        error(Out::default(), "ERROR", refusal.code, &refusal.message)
                    }
                },
            };
            self.conn.write_all(&out.0).await?;
        }
    }
}

fn parameters(mut body: Body<'_>) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    while let Some(name) = body.text().filter(|n| !n.is_empty()) {
        let Some(value) = body.text() else { break };
        parameters.insert(name.to_owned(), value.to_owned());
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_the_image() {
        let system = |vars: &'static [(&str, &str)]| {
            System::from_environment(&move |name: &str| {
                let found = vars.iter().find(|(n, _)| *n == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(system(&[]).unwrap_err().contains("POSTGRES_PASSWORD"));
        let s = system(&[("POSTGRES_PASSWORD", "x"), ("POSTGRES_USER", "shop")]).unwrap();
        assert_eq!(
            (s.user.as_str(), s.database.as_str(), s.method),
            ("shop", "shop", Method::Scram)
        );
        let s = system(&[("POSTGRES_HOST_AUTH_METHOD", "trust"), ("POSTGRES_DB", "d")]).unwrap();
        assert_eq!(
            (s.user.as_str(), s.database.as_str(), s.method),
            ("postgres", "d", Method::Trust)
        );
        assert!(
            system(&[("POSTGRES_HOST_AUTH_METHOD", "ldap")])
                .unwrap_err()
                .contains("ldap")
        );
    }
}

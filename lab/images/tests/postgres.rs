//! Both sides of the PostgreSQL built-ins against the real other side: `go-web` asks a real server,
//! and real psql, pgbench and pg_isready ask the `postgres` built-in.
//!
//! The real server is a throw-away one on loopback, of an unprivileged user. Where this machine has no
//! PostgreSQL these tests are skipped, and say so.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod support;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Image, command, free_port, have, skip, stdout};

/// The user that the server runs as if we are root, since PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;

/// Each user logs in by a method of its own.
const ACCESS: &str = "\
host all user_trust 127.0.0.1/32 trust
host all user_password 127.0.0.1/32 password
host all user_md5 127.0.0.1/32 md5
host all user_scram 127.0.0.1/32 scram-sha-256
host all admin 127.0.0.1/32 trust
";

fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok();
    let mut found: Vec<_> = versions
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    if found.is_empty() {
        skip("this machine has no PostgreSQL server (Debian: apt install postgresql)");
    }
    found.pop()
}

/// A real server, gone when the test ends.
struct RealServer {
    child: Child,
    port: u16,
    _data: tempfile::TempDir,
}

impl RealServer {
    fn start(bin: &Path) -> RealServer {
        let data = tempfile::tempdir().unwrap();
        let directory = data.path().to_str().unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(data.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let run = |program: &str| {
            let mut command = Command::new(bin.join(program));
            if rustix::process::geteuid().is_root() {
                command.uid(NOBODY).gid(NOBODY);
            }
            command
                .current_dir("/")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command
        };
        let made = run("initdb")
            .args([
                "-D",
                directory,
                "-U",
                "admin",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ])
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        std::fs::write(data.path().join("pg_hba.conf"), ACCESS).unwrap();
        let port = free_port();
        let child = run("postgres")
            .args([
                "-D",
                directory,
                "-p",
                &port.to_string(),
                "-h",
                "127.0.0.1",
                "-F",
            ])
            .args(["-c", "unix_socket_directories="])
            .spawn()
            .unwrap();
        let server = RealServer {
            child,
            port,
            _data: data,
        };
        server.create_users();
        server
    }

    fn create_users(&self) {
        let sql = "SET password_encryption = 'md5'; CREATE USER user_md5 PASSWORD 'secret'; \
                   SET password_encryption = 'scram-sha-256'; CREATE USER user_scram PASSWORD 'secret'; \
                   CREATE USER user_password PASSWORD 'secret'; CREATE USER user_trust;";
        let url = format!(
            "host=127.0.0.1 port={} user=admin dbname=postgres",
            self.port
        );
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let tried = Command::new("psql")
                .args([&url, "-c", sql])
                .output()
                .unwrap();
            if tried.status.success() {
                return;
            }
            let error = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert!(Instant::now() < end, "the server does not come up: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown, which also ends its other processes.
        support::run("kill", &["-INT", &self.child.id().to_string()]);
        let _ = self.child.wait();
    }
}

/// Status and text of go-web's answer.
fn get(port: u16, path: &str) -> (String, String) {
    let url = format!("http://127.0.0.1:{port}{path}");
    let out = stdout("curl", &["-sS", "-m", "15", "-w", "\n%{http_code}", &url]);
    let (text, status) = out.rsplit_once('\n').unwrap();
    (status.to_owned(), text.to_owned())
}

/// What `/data` answers with these variables.
fn data(env: &[(&str, &str)]) -> (String, String) {
    let port = free_port();
    let _web = Image::start(&format!("go-web --port tcp/{port}"), env);
    get(port, "/data")
}

#[test]
fn go_web_answers_its_four_paths() {
    if !have("curl") {
        return;
    }
    let port = free_port();
    let text = port.to_string();
    let env = [
        ("MY_NODE_NAME", "node-1"),
        ("MY_POD_IP", "10.244.1.7"),
        ("PORT", text.as_str()),
    ];
    let _web = Image::start("go-web", &env);
    let ok = |text: &str| ("200".to_owned(), text.to_owned());
    assert_eq!(get(port, "/"), ok("Hello"));
    assert_eq!(get(port, "/healthz"), ok("Healthy"));
    assert_eq!(get(port, "/host"), ok("NODE: node-1, POD IP:10.244.1.7"));
    assert_eq!(get(port, "/nosuch").0, "404");
    let (status, reason) = get(port, "/data");
    assert_eq!(status, "500");
    assert!(reason.contains("DB_HOST is not set"), "{reason}");
}

#[test]
fn go_web_says_why_the_database_is_not_there() {
    if !have("curl") {
        return;
    }
    let (status, reason) = data(&[("DB_HOST", "127.0.0.1"), ("DB_PORT", "1")]);
    assert_eq!(status, "500");
    assert!(
        reason.contains("127.0.0.1:1") && reason.contains("refused"),
        "{reason}"
    );
    let (_, reason) = data(&[("DB_HOST", "127.0.0.1"), ("DB_PORT", "x")]);
    assert!(reason.contains("DB_PORT"), "{reason}");
    let (_, reason) = data(&[("DB_HOST", "no-such-host.invalid")]);
    assert!(reason.contains("no-such-host.invalid"), "{reason}");
    // An echo server answers the start-up packet with itself.
    let port = free_port();
    let _echo = Image::start(&format!("stand-in --port tcp/{port}"), &[]);
    let text = port.to_string();
    let (_, reason) = data(&[("DB_HOST", "127.0.0.1"), ("DB_PORT", &text)]);
    assert!(reason.contains("does not speak PostgreSQL"), "{reason}");
}

#[test]
fn go_web_logs_in_to_a_real_server_by_every_method() {
    let Some(bin) = postgres_programs() else {
        return;
    };
    if !have("psql") || !have("curl") {
        return;
    }
    let server = RealServer::start(&bin);
    let port = server.port.to_string();
    let ask = |user: &str, password: &str| {
        let env = [
            ("DB_HOST", "127.0.0.1"),
            ("DB_PORT", port.as_str()),
            ("DB_USER", user),
            ("DB_PASSWORD", password),
        ];
        data(&env)
    };
    for user in ["user_trust", "user_password", "user_md5", "user_scram"] {
        let connected = ("200".to_owned(), "Database Connected".to_owned());
        assert_eq!(ask(user, "secret"), connected, "{user}");
    }
    for user in ["user_password", "user_md5", "user_scram"] {
        let (status, reason) = ask(user, "wrong");
        assert_eq!(status, "500");
        assert!(reason.contains("28P01"), "{user}: {reason}");
        assert!(
            reason.contains("password authentication failed"),
            "{user}: {reason}"
        );
    }
}

/// Runs psql against the built-in; the answer, or what it says went wrong.
fn psql(
    port: u16,
    user: &str,
    database: &str,
    password: &str,
    sql: &str,
) -> Result<String, String> {
    let url =
        format!("host=127.0.0.1 port={port} user={user} dbname={database} connect_timeout=10");
    let output = Command::new("psql")
        .args([&url, "-At", "-c", sql])
        .env("PGPASSWORD", password)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

#[test]
fn real_clients_are_content_with_the_built_in() {
    if !have("psql") {
        return;
    }
    for method in ["scram-sha-256", "md5", "password", "trust"] {
        let port = free_port();
        let env = [
            ("POSTGRES_PASSWORD", "secret"),
            ("POSTGRES_USER", "shop"),
            ("POSTGRES_DB", "orders"),
            ("POSTGRES_HOST_AUTH_METHOD", method),
        ];
        let _server = Image::start(&format!("postgres --port tcp/{port}"), &env);
        let ask = |sql: &str| psql(port, "shop", "orders", "secret", sql);
        assert_eq!(ask("SELECT 1").as_deref(), Ok("1"), "{method}");
        assert_eq!(
            ask("SELECT current_user, 'x' AS y").as_deref(),
            Ok("shop|x")
        );
        assert!(
            ask("SELECT * FROM t")
                .unwrap_err()
                .contains("stores nothing")
        );
        let wrong = psql(port, "shop", "nosuch", "secret", "SELECT 1").unwrap_err();
        assert!(
            wrong.contains("database \"nosuch\" does not exist"),
            "{wrong}"
        );
        let stranger = psql(port, "stranger", "orders", "secret", "SELECT 1").unwrap_err();
        assert!(stranger.contains("stranger"), "{method}: {stranger}");
        if method != "trust" {
            let wrong = psql(port, "shop", "orders", "wrong", "SELECT 1").unwrap_err();
            assert!(
                wrong.contains("password authentication failed"),
                "{method}: {wrong}"
            );
        }
        if have("pg_isready") {
            stdout("pg_isready", &["-h", "127.0.0.1", "-p", &port.to_string()]);
        }
    }
}

/// pgbench prepares and binds, which is what drivers do.
#[test]
fn the_extended_protocol_answers_too() {
    if !have("pgbench") {
        return;
    }
    let port = free_port();
    let _server = Image::start(
        &format!("postgres --port tcp/{port}"),
        &[("POSTGRES_HOST_AUTH_METHOD", "trust")],
    );
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(script.path(), "SELECT 1;\nSELECT 2 AS two;\n").unwrap();
    let (port, script) = (port.to_string(), script.path().to_str().unwrap().to_owned());
    for mode in ["simple", "extended", "prepared"] {
        let args = [
            "-n",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-M",
            mode,
            "-t",
            "5",
            "-c",
            "2",
            "-f",
            &script,
            "postgres",
        ];
        let out = stdout("pgbench", &args);
        assert!(out.contains("10/10"), "{mode}: {out}");
    }
}

#[test]
fn go_web_and_the_built_in_make_the_example_without_postgresql() {
    if !have("curl") {
        return;
    }
    let port = free_port();
    let _server = Image::start(
        &format!("postgres --port tcp/{port}"),
        &[("POSTGRES_PASSWORD", "pa ss")],
    );
    let text = port.to_string();
    let env = |password| {
        [
            ("DB_HOST", "localhost"),
            ("DB_PORT", text.as_str()),
            ("DB_USER", "postgres"),
            ("DB_PASSWORD", password),
        ]
    };
    assert_eq!(data(&env("pa ss")).1, "Database Connected");
    assert!(data(&env("wrong")).1.contains("28P01"));
}

#[test]
fn without_a_password_it_ends_as_the_image_does() {
    let output = command("postgres --port tcp/1", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("POSTGRES_PASSWORD"));
}

#[test]
fn garbage_ends_only_its_own_session() {
    use std::io::{Read, Write};
    if !have("psql") {
        return;
    }
    let port = free_port();
    let _server = Image::start(
        &format!("postgres --port tcp/{port}"),
        &[("POSTGRES_HOST_AUTH_METHOD", "trust")],
    );
    for said in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0, 0, 0, 4],
        &[0, 0, 0, 8, 0, 3, 0, 0],
        &[0, 0, 0, 9, 0, 3, 0, 0, 0],
        b"",
    ] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(said).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
    }
    assert_eq!(
        psql(port, "postgres", "postgres", "", "SELECT 1").as_deref(),
        Ok("1")
    );
}

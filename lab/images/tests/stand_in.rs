//! The stand-in, asked by real clients: curl, and sockets that say what they like.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use support::{Image, command, free_port, have, run, stdout};

const POD: &[(&str, &str)] = &[
    ("PARFAIT_POD", "web-1"),
    ("PARFAIT_NAMESPACE", "shop"),
    ("PARFAIT_NODE", "node-2"),
];

fn stand_in(options: &str) -> (Image, u16) {
    let port = free_port();
    let line =
        format!("stand-in --image team/web {options} --port tcp/{port}=http --port udp/{port}");
    (Image::start(&line, POD), port)
}

/// Says something over TCP, closes that side, and returns all that comes back.
fn talk(port: u16, said: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(said).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    heard
}

#[test]
fn http_says_who_it_is_and_who_called() {
    if !have("curl") {
        return;
    }
    let (_image, port) = stand_in("");
    for (version, expected) in [
        ("--http1.1", "HTTP/1.1"),
        ("--http2-prior-knowledge", "HTTP/2.0"),
    ] {
        for host in ["127.0.0.1", "[::1]"] {
            let url = format!("http://{host}:{port}/any/path?x=1");
            let json = stdout(
                "curl",
                &[
                    "-sS",
                    "-g",
                    "-m",
                    "10",
                    version,
                    "-H",
                    "X-Me: you",
                    "-d",
                    "hi",
                    &url,
                ],
            );
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["server"]["pod"], "web-1");
            assert_eq!(json["server"]["namespace"], "shop");
            assert_eq!(json["server"]["node"], "node-2");
            assert_eq!(json["server"]["image"], "team/web");
            assert_eq!(json["called"]["port"], port);
            assert_eq!(json["called"]["name"], "http");
            assert_eq!(json["client"]["address"], host.trim_matches(['[', ']']));
            assert_eq!(json["request"]["version"], expected);
            assert_eq!(json["request"]["method"], "POST");
            assert_eq!(json["request"]["path"], "/any/path");
            assert_eq!(json["request"]["headers"]["x-me"], "you");
            assert_eq!(json["request"]["body"], "hi");
        }
    }
}

#[test]
fn http_does_as_the_query_asks() {
    if !have("curl") {
        return;
    }
    let (_image, port) = stand_in("");
    let url = |query: &str| format!("http://127.0.0.1:{port}/{query}");
    let figures = |args: &[&str]| {
        let format = [
            "-sS",
            "-m",
            "10",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{size_download} %{num_connects}\n",
        ];
        stdout("curl", &[&format[..], args].concat())
    };
    assert!(figures(&[&url("?status=503")]).starts_with("503 "));
    assert_eq!(figures(&[&url("?size=10k")]), "200 10240 1\n");
    assert_eq!(
        figures(&["--http2-prior-knowledge", &url("?size=3m")]),
        "200 3145728 1\n"
    );
    assert!(figures(&["-I", &url("?size=10k")]).starts_with("200 0 "));
    let before = Instant::now();
    figures(&[&url("?delay=300ms")]);
    assert!(before.elapsed() >= Duration::from_millis(300));
    // The second request uses the first one's connection.
    let both = figures(&[&url("a"), "-o", "/dev/null", &url("b")]);
    assert!(both.lines().nth(1).unwrap().ends_with(" 0"), "{both}");
    let big = "x".repeat(100);
    let args: Vec<String> = (0..90).map(|i| format!("X-{i}: {big}")).collect();
    let mut many = Vec::new();
    args.iter().for_each(|h| many.extend(["-H", h]));
    let here = url("");
    many.push(&here);
    assert!(figures(&many).starts_with("200 "));
}

#[test]
fn too_large_a_body_is_refused_and_the_server_lives() {
    if !have("curl") {
        return;
    }
    let (_image, port) = stand_in("");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![b'x'; 3 * 1024 * 1024]).unwrap();
    let data = format!("@{}", file.path().display());
    let url = format!("http://127.0.0.1:{port}/");
    let out = run(
        "curl",
        &[
            "-sS",
            "-m",
            "10",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            "Expect:",
            "--data-binary",
            &data,
            &url,
        ],
    );
    assert_eq!(String::from_utf8_lossy(&out.stdout), "413");
    stdout("curl", &["-sS", "-m", "10", &url]);
}

#[test]
fn the_same_port_echoes_and_speaks_redis() {
    let (_image, port) = stand_in("");
    assert_eq!(talk(port, b"hello\nworld\n"), b"hello\nworld\n");
    assert_eq!(talk(port, b"GET me a beer\n"), b"GET me a beer\n");
    assert_eq!(talk(port, b"no end of line"), b"no end of line");
    assert_eq!(talk(port, b"GET"), b"GET");
    assert_eq!(talk(port, b""), b"");
    assert_eq!(talk(port, b"*1\r\n$4\r\nPING\r\n"), b"+PONG\r\n");
    assert_eq!(talk(port, b"PING\r\n"), b"PING\r\n");
    assert!(talk(port, b"parfait:whoami\n").starts_with(b"{\"server\":"));
    assert!(talk(port, b"GET / HTTP/1.0\r\n\r\n").starts_with(b"HTTP/1.0 200 OK\r\n"));
    assert_eq!(
        talk(port, b"\x16\x03\x01\x02\x00\x01")[0],
        0x15,
        "a TLS alert"
    );
    let (_redis, port) = stand_in("--redis");
    assert_eq!(talk(port, b"PING\r\n"), b"+PONG\r\n");
}

#[test]
fn udp_echoes_and_says_who_it_is() {
    let (_image, port) = stand_in("");
    for host in ["127.0.0.1", "::1"] {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket.connect((host, port)).unwrap();
        let mut buffer = [0; 4096];
        let mut ask = |said: &[u8]| {
            socket.send(said).unwrap();
            let length = socket.recv(&mut buffer).unwrap();
            buffer[..length].to_vec()
        };
        assert_eq!(ask(b"hello"), b"hello");
        assert_eq!(ask(b""), b"");
        let json: serde_json::Value = serde_json::from_slice(&ask(b"parfait:whoami")).unwrap();
        assert_eq!(json["server"]["pod"], "web-1");
        assert_eq!(json["client"]["address"], host);
        assert_eq!(json["client"]["port"], socket.local_addr().unwrap().port());
    }
}

#[test]
fn pages_texts_and_agnhost() {
    if !have("curl") {
        return;
    }
    let get = |port: u16, path: &str| {
        stdout(
            "curl",
            &["-sS", "-m", "10", &format!("http://127.0.0.1:{port}{path}")],
        )
    };
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a.txt"), "a file").unwrap();
    let (_image, port) = stand_in(&format!("--page --root {}", root.path().display()));
    assert!(get(port, "/").contains("Welcome to team/web"));
    assert!(get(port, "/").contains("Pod shop/web-1 on node-2"));
    assert_eq!(get(port, "/a.txt"), "a file");
    let (_image, port) = stand_in("--text hi");
    assert_eq!(get(port, "/"), "hi\n");
    let (_image, port) = stand_in("--agnhost");
    assert_eq!(get(port, "/echo?msg=a%20b"), "a b");
    assert!(get(port, "/clientip").starts_with("127.0.0.1:"));
}

#[test]
fn garbage_and_silence_harm_nobody() {
    let (_image, port) = stand_in("");
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let silent: Vec<_> = (0..100).map(|_| connect()).collect();
    // A preface and then no frames; half a request; a flood of headers; random bytes.
    let mut half = connect();
    half.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
    let mut preface = connect();
    preface
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    preface.write_all(&[0xff; 1000]).unwrap();
    let mut flood = connect();
    let mut headers = b"GET / HTTP/1.1\r\n".to_vec();
    (0..20_000).for_each(|i| headers.extend(format!("x{i}: y\r\n").bytes()));
    let _ = flood.write_all(&headers);
    let mut reset = connect();
    reset.write_all(b"*3\r\n$999\r\n").unwrap();
    drop(reset);
    let mut state = 1u32;
    for length in 0..200 {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let mut stream = connect();
        let _ = stream.write_all(&bytes);
    }
    assert_eq!(talk(port, b"still here\n"), b"still here\n");
    drop(silent);
}

#[test]
fn a_client_that_does_not_read_blocks_nobody() {
    let (_image, port) = stand_in("");
    let mut greedy = TcpStream::connect(("127.0.0.1", port)).unwrap();
    greedy
        .write_all(b"GET /?size=64m HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut echo = TcpStream::connect(("127.0.0.1", port)).unwrap();
    echo.set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    while echo.write(&[b'x'; 65536]).is_ok() {}
    assert_eq!(talk(port, b"still here\n"), b"still here\n");
}

#[test]
fn sigterm_ends_it_with_0_after_what_is_in_flight() {
    // With nothing in flight it does not wait for the second that it would give: on a busy machine, one of some.
    let at_once = || {
        let (mut image, _) = stand_in("");
        let before = Instant::now();
        assert_eq!(image.terminate(), Some(0));
        before.elapsed() < Duration::from_millis(500)
    };
    assert!((0..20).any(|_| at_once()));

    let (mut image, port) = stand_in("");
    let mut slow = TcpStream::connect(("127.0.0.1", port)).unwrap();
    slow.write_all(b"GET /?delay=500ms HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    // Who comes later is answered: so the slow one is in flight.
    assert_eq!(talk(port, b"later\n"), b"later\n");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(image.terminate(), Some(0));
    let mut heard = Vec::new();
    slow.read_to_end(&mut heard).unwrap();
    assert!(heard.starts_with(b"HTTP/1.1 200 OK"));

    let mut idle = command("idle", &[]).spawn().unwrap();
    while !catches_sigterm(idle.id()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    run("kill", &["-TERM", &idle.id().to_string()]);
    assert_eq!(idle.wait().unwrap().code(), Some(0));
}

/// SigCgt of proc_pid_status(5): the signals that a process has handlers for.
fn catches_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
    caught & 1 << (15 - 1) != 0
}

#[test]
fn a_port_taken_in_the_same_pod_is_named() {
    let (_image, port) = stand_in("");
    let second = command(&format!("stand-in --port tcp/{port}"), &[])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(error.contains(&format!("TCP port {port}")), "{error}");
    assert!(error.contains("another container of this pod"), "{error}");
}

#[test]
fn without_ports_it_takes_the_one_of_the_environment_or_waits() {
    let port = free_port();
    let text = port.to_string();
    let _image = Image::start("stand-in", &[("PORT", &text)]);
    assert_eq!(talk(port, b"hello\n"), b"hello\n");
    let mut waiting = Image::start("stand-in --image team/job", &[]);
    assert_eq!(waiting.child.try_wait().unwrap(), None);
    assert_eq!(waiting.terminate(), Some(0));
}

#[test]
fn an_sctp_port_is_served_or_said_not_to_be() {
    let (sctp, tcp) = (free_port(), free_port());
    let _image = Image::start(
        &format!("stand-in --port sctp/{sctp} --port tcp/{tcp}"),
        &[],
    );
    assert_eq!(talk(tcp, b"hello\n"), b"hello\n");
}

#[test]
fn wrong_arguments_are_named() {
    for (line, named) in [
        ("nosuch", "nosuch"),
        ("stand-in --port x", "\"x\""),
        ("", "stand-in, go-web"),
    ] {
        let output = command(line, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(named), "{line}: {error}");
    }
}

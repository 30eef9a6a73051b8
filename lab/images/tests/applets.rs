//! The small programs, called by their names, and the real nc against the stand-in.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use support::{Image, binary, free_port, have};

/// Runs an applet with something on its standard input.
fn applet(name: &str, line: &str, input: &str) -> Output {
    let mut command = Command::new(binary());
    command.arg0(format!("/run/bin/{name}"));
    speak(command.args(line.split_whitespace()), input)
}

fn speak(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that does not read its input is no fault.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn stand_in() -> (Image, u16) {
    let port = free_port();
    let line = format!("stand-in --text hi --port tcp/{port} --port udp/{port}");
    (Image::start(&line, &[]), port)
}

#[test]
fn wget_shows_pages_and_headers_and_fails_as_busyboxs_does() {
    let (_image, port) = stand_in();
    let at = format!("127.0.0.1:{port}");
    let page = applet("wget", &format!("-qO- http://{at}/"), "");
    assert_eq!(
        (page.status.code(), text(&page.stdout).as_str()),
        (Some(0), "hi\n")
    );
    assert_eq!(text(&page.stderr), "");
    // As an init container asks for the status: no scheme, the header on standard error.
    let headers = applet("wget", &format!("--server-response -O /dev/null {at}"), "");
    assert!(
        text(&headers.stderr).contains("\n  HTTP/1.1 200 OK\n"),
        "{headers:?}"
    );
    assert_eq!(
        applet("wget", &format!("-q --spider -T 2 http://{at}/x"), "")
            .status
            .code(),
        Some(0)
    );
    let posted = applet(
        "wget",
        &format!("-q -O - --header=X-A:b --post-data=x http://{at}/"),
        "",
    );
    assert_eq!(text(&posted.stdout), "hi\n");
    for (line, named) in [
        (
            format!("-q -O- http://{at}/?status=503"),
            "503 Service Unavailable",
        ),
        (format!("-q -T 1 -O- http://{at}/?delay=5s"), "timed out"),
        ("-q -O- http://127.0.0.1:1/".to_owned(), "127.0.0.1:1"),
        ("https://x/".to_owned(), "no TLS"),
        ("--nosuch x".to_owned(), "--nosuch"),
        (String::new(), "missing URL"),
        ("-q -T x http://y".to_owned(), "\"x\""),
    ] {
        let output = applet("wget", &line, "");
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(text(&output.stderr).contains(named), "{line}: {output:?}");
    }
}

#[test]
fn wget_saves_where_it_is_told() {
    let (_image, port) = stand_in();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.arg0("wget").current_dir(folder.path());
    let output = speak(
        command.arg(format!("http://127.0.0.1:{port}/a/page.txt")),
        "",
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        std::fs::read_to_string(folder.path().join("page.txt")).unwrap(),
        "hi\n"
    );
}

#[test]
fn nc_waits_for_ports_and_talks() {
    let (_image, port) = stand_in();
    let code = |line: &str| applet("nc", line, "").status.code();
    assert_eq!(code(&format!("-z 127.0.0.1 {port}")), Some(0));
    assert_eq!(code(&format!("-zvw2 127.0.0.1 {port}")), Some(0));
    assert_eq!(code(&format!("-zw 1 -6 ::1 {port}")), Some(0));
    assert_eq!(code("-z -w 1 127.0.0.1 1"), Some(1));
    assert_eq!(code("-z -u 127.0.0.1 1"), Some(1));
    assert_eq!(code(&format!("-zu 127.0.0.1 {port}")), Some(0));
    assert_eq!(code("127.0.0.1"), Some(1));
    let said = applet("nc", &format!("-w 2 127.0.0.1 {port}"), "hello\n");
    assert_eq!(text(&said.stdout), "hello\n");
    let said = applet("nc", &format!("-u -w 1 127.0.0.1 {port}"), "hello\n");
    assert_eq!(text(&said.stdout), "hello\n");
}

#[test]
fn nc_listens_and_hears() {
    let port = free_port();
    let mut listening = Command::new(binary())
        .arg0("nc")
        .args(["-l", "-p", &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = listening.stdin.take().unwrap();
    let mut hears = BufReader::new(listening.stdout.take().unwrap());
    says.write_all(b"welcome\n").unwrap();
    let calling = std::thread::spawn(move || {
        for _ in 0..200 {
            let said = applet("nc", &format!("-w 30 127.0.0.1 {port}"), "hello\n");
            if said.status.success() {
                return text(&said.stdout);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        String::new()
    });
    let mut heard = String::new();
    hears.read_line(&mut heard).unwrap();
    assert_eq!(heard, "hello\n");
    // Who calls is done when we are: ended before it has spoken, it would not speak any more.
    drop(says);
    assert_eq!(calling.join().unwrap(), "welcome\n");
    assert!(listening.wait().unwrap().success());
}

#[test]
fn the_real_nc_hears_its_echo() {
    if !have("nc") {
        return;
    }
    let (_image, port) = stand_in();
    let nc = |options: &str| {
        let mut command = Command::new("nc");
        command
            .args(options.split_whitespace())
            .args(["127.0.0.1", &port.to_string()]);
        text(&speak(&mut command, "hello\n").stdout)
    };
    assert_eq!(nc("-w 2"), "hello\n");
    assert_eq!(nc("-u -w 1"), "hello\n");
}

//! gRPC against the stand-in: the probe, and a client made of HTTP/2 frames.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod support;

use bytes::Bytes;
use std::os::unix::process::CommandExt;
use std::time::Duration;
use support::{Image, binary, free_port};

fn stand_in() -> (Image, u16) {
    let port = free_port();
    let env = [("PARFAIT_POD", "ads-0"), ("PARFAIT_NAMESPACE", "shop")];
    (
        Image::start(&format!("stand-in --port tcp/{port}"), &env),
        port,
    )
}

fn probe(args: &[&str]) -> (Option<i32>, String) {
    let output = std::process::Command::new(binary())
        .arg0("/bin/grpc_health_probe")
        .args(args)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), error)
}

#[test]
fn the_probe_ends_with_the_real_ones_codes() {
    let (_image, port) = stand_in();
    assert_eq!(probe(&[&format!("-addr=:{port}")]).0, Some(0));
    assert_eq!(
        probe(&[&format!("-addr=127.0.0.1:{port}"), "-service=shop.Ads"]).0,
        Some(0)
    );
    assert_eq!(
        probe(&[&format!("-addr=[::1]:{port}"), "-rpc-timeout=2s"]).0,
        Some(0)
    );
    assert_eq!(probe(&["-addr=127.0.0.1:1"]).0, Some(2));
    assert_eq!(probe(&[]).0, Some(1));
}

#[test]
fn the_probe_says_what_a_server_of_another_kind_does() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (code, error) = probe(&[&format!("-addr={address}"), "-rpc-timeout=200ms"]);
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("within 200ms"), "{error}");
}

/// Calls a method with an empty message. Returns the answer's head and body, which is still open.
async fn call(port: u16, method: &str) -> (http::response::Parts, h2::RecvStream) {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://x{method}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    response.await.unwrap().into_parts()
}

#[tokio::test]
async fn check_answers_serving_with_trailers() {
    let (_image, port) = stand_in();
    let (head, mut body) = call(port, "/grpc.health.v1.Health/Check").await;
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(head.headers["parfait-pod"], "shop/ads-0");
    assert_eq!(
        body.data().await.unwrap().unwrap(),
        &[0, 0, 0, 0, 2, 8, 1][..]
    );
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn watch_says_serving_once_and_stays_open() {
    let (_image, port) = stand_in();
    let (_, mut body) = call(port, "/grpc.health.v1.Health/Watch").await;
    assert_eq!(
        body.data().await.unwrap().unwrap(),
        &[0, 0, 0, 0, 2, 8, 1][..]
    );
    let more = tokio::time::timeout(Duration::from_millis(300), body.data()).await;
    assert!(more.is_err(), "the stream ended or went on");
}

#[tokio::test]
async fn other_methods_are_unimplemented_and_say_by_whom() {
    let (_image, port) = stand_in();
    let (head, _) = call(port, "/hipstershop.AdService/GetAds").await;
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["grpc-status"], "12");
    let message = head.headers["grpc-message"].to_str().unwrap();
    assert!(message.starts_with("shop/ads-0 stands in"), "{message}");
}

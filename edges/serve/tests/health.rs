//! Health checks, asked by curl as a load balancer would.

use std::collections::BTreeMap;
use std::process::Command;

use parfait_serve::health::{Health, Server};
use tokio::net::TcpListener;

fn health(name: &str, local_endpoints: usize) -> Health {
    Health {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        local_endpoints,
        service_proxy_healthy: true,
    }
}

/// A port that was free a moment ago.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("[::]:0").await.expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// The status line, headers and body; `None` if nobody listens.
async fn ask(host: &str, port: u16) -> Option<String> {
    let url = format!("http://{host}:{port}/any/path");
    tokio::task::spawn_blocking(move || {
        let asked = Command::new("curl")
            .args(["-sgi", "-m", "5", &url])
            .output();
        let output = asked.expect("curl runs");
        let said = output.status.success();
        said.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    })
    .await
    .expect("curl ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_balancers_learn_where_the_endpoints_are() {
    let (web, api) = (free_port().await, free_port().await);
    let mut server = Server::default();
    let wanted = BTreeMap::from([(web, health("web", 2)), (api, health("api", 0))]);
    server.listen(wanted).await.expect("free ports");
    for host in ["127.0.0.1", "[::1]"] {
        let said = ask(host, web).await.expect("an answer");
        assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
        assert!(
            said.contains("x-load-balancing-endpoint-weight: 2"),
            "{said}"
        );
        assert!(
            said.contains(r#"{"service":{"namespace":"shop","name":"web"},"localEndpoints":2,"#),
            "{said}"
        );
        let said = ask(host, api).await.expect("an answer");
        assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    }
    let wanted = BTreeMap::from([(web, health("web", 0))]);
    server.listen(wanted).await.expect("its own port");
    let said = ask("127.0.0.1", web).await.expect("an answer");
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert_eq!(ask("127.0.0.1", api).await, None, "no longer asked for");
}

#[tokio::test]
async fn a_port_that_somebody_has_is_told_and_the_others_are_served() {
    let taken = TcpListener::bind("[::]:0").await.expect("a free port");
    let taken = taken.local_addr().map(|address| (taken, address.port()));
    let (_held, port) = taken.expect("bound");
    let other = free_port().await;
    let mut server = Server::default();
    let wanted = BTreeMap::from([(port, health("web", 1)), (other, health("api", 1))]);
    let errors = server.listen(wanted).await.expect_err("it is taken");
    let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert!(
        told.len() == 1 && told[0].starts_with("health checks of Service shop/web"),
        "{told:?}"
    );
    assert_eq!(server.ports().collect::<Vec<_>>(), [other]);
}

//! Whether a node takes packets, asked by curl as a load balancer would.

use std::process::Command;

use parfait_serve::healthz::{Healthz, Proxy};

async fn ask(port: u16, path: &str) -> String {
    let url = format!("http://127.0.0.1:{port}{path}");
    let curl = move || {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-m", "20", "-w", "%{http_code}", &url])
            .output()
    };
    let said = tokio::task::spawn_blocking(curl).await.expect("curl ends");
    String::from_utf8(said.expect("curl runs").stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_is_alive_and_takes_no_more() {
    let well = Proxy {
        healthy: true,
        node_eligible: true,
        last_updated: "2026-11-27T07:00:00Z".parse().expect("a time"),
    };
    let all = "[::]:0".parse().expect("an address");
    let healthz = Healthz::listen(all, well).await.expect("a free port");
    let port = healthz.address().port();
    let leaving = Proxy {
        node_eligible: false,
        ..well
    };
    let broken = Proxy {
        healthy: false,
        ..well
    };
    for (proxy, health, live) in [
        (well, "200", "200"),
        (leaving, "503", "200"),
        (broken, "503", "503"),
    ] {
        healthz.store(proxy);
        for (path, status) in [("/healthz", health), ("/livez", live)] {
            let said = ask(port, path).await;
            assert!(said.ends_with(status), "{proxy:?} {path}: {said}");
            let eligible = format!(r#","nodeEligible":{}}}"#, proxy.node_eligible);
            assert!(said.contains(&eligible), "{said}");
            let old = said.starts_with(r#"{"lastUpdated":"2026-11-27T07:00:00Z","currentTime":""#);
            assert_eq!(old, !proxy.healthy, "{said}");
        }
    }
    assert_eq!(ask(port, "/").await, "look at /healthz or /livez\n404");
}

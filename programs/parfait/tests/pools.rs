//! LoadBalancerPools on paper: `explain -f` gives Services the addresses that agents would give them.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::process::Command;

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: parfait.dev/v1alpha1
kind: LoadBalancerPool
metadata: {name: office}
spec:
  addresses: [192.168.77.200-192.168.77.219, 10.96.0.0/24]
  namespaceSelector: {matchLabels: {team: a}}
---
apiVersion: parfait.dev/v1alpha1
kind: LoadBalancerPool
metadata: {name: wrong}
spec:
  addresses: [192.168.77.199]
  namespaceSelector: {matchExpressions: [{key: team, operator: In}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: default}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, image: web, ports: [{containerPort: 80}]}]}
"#;

#[test]
fn a_folder_has_pools_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pools.yaml");
    std::fs::write(&file, MANIFESTS).unwrap();
    let explain = |to: &str| {
        let answer = Command::new(env!("CARGO_BIN_EXE_parfait"))
            .args(["explain", "198.51.100.1", to, "-f"])
            .arg(&file)
            .output()
            .unwrap();
        String::from_utf8(answer.stdout).unwrap()
    };
    let web = explain("192.168.77.200:80");
    for wanted in [
        "→ Service shop/web port 80/tcp",
        "note: 192.168.77.200 is from LoadBalancerPool office; node-",
        "note: LoadBalancerPool wrong spec.namespaceSelector: In of team needs at least one value; the pool is not used",
        "note: LoadBalancerPool office spec.addresses: 10.96.0.0-10.96.0.255 has addresses of serviceCIDRs (10.96.0.0/16); \
         no Service gets them",
        "\ndelivered",
    ] {
        assert!(web.contains(wanted), "{wanted}\n{web}");
    }
    assert!(!web.contains("no controller"), "{web}");
    // Its namespace has no such label, and the pool that would be for all cannot be used.
    let nobody = explain("192.168.77.199:80");
    assert!(nobody.contains("→ address 192.168.77.199"), "{nobody}");
}

//! Plugins that are shell scripts.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            dir: tempfile::tempdir().expect("temporary directory"),
        }
    }

    /// A plugin that notes its call and input, then runs `script`.
    fn plugin(&self, name: &str, script: &str) {
        let path = self.dir.path().join(name);
        let log = self.dir.path().join("calls");
        let text = format!(
            "#!/bin/sh\necho \"{name} $CNI_COMMAND $CNI_IFNAME $CNI_ARGS $(cat)\" >> {}\n{script}\n",
            log.display()
        );
        std::fs::write(&path, text).expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("chmod");
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn network() -> Network {
    serde_json::from_value(json!({"cniVersion": "1.0.0", "name": "lab", "plugins": [
        {"type": "first", "mtu": 1500},
        {"type": "second", "capabilities": {"portMappings": true, "bandwidth": true}}]}))
    .expect("a network")
}

fn attachment() -> Attachment {
    Attachment {
        container_id: "abc".into(),
        netns: "/x/netns".into(),
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "u-1".into(),
        port_mappings: vec![PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: "tcp".into(),
            host_ip: String::new(),
        }],
        bandwidth: None,
        annotations: BTreeMap::new(),
    }
}

#[tokio::test]
async fn results_are_handed_on_and_undone_in_reverse() {
    let bench = Bench::new();
    bench.plugin(
        "first",
        r#"[ $CNI_COMMAND = DEL ] || echo '{"ips":[{"address":"10.244.1.5/32"}]}'"#,
    );
    bench.plugin(
        "second",
        r#"[ $CNI_COMMAND = DEL ] || echo '{"ips":[{"address":"10.244.1.5/32"},{"address":"fd00::5/128"}]}'"#,
    );
    let result = add(&network(), &attachment(), bench.dir.path())
        .await
        .expect("ADD");
    let expected: Vec<IpAddr> = vec![
        "10.244.1.5".parse().expect("ip"),
        "fd00::5".parse().expect("ip"),
    ];
    assert_eq!(addresses(&result), expected);
    del(&network(), &attachment(), bench.dir.path(), Some(&result))
        .await
        .expect("DEL");
    let calls = bench.calls();
    let heads: Vec<&str> = calls
        .iter()
        .map(|c| &c[..c.find(" eth0").expect("eth0")])
        .collect();
    assert_eq!(
        heads,
        ["first ADD", "second ADD", "second DEL", "first DEL"]
    );
    assert!(calls[0].contains("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1"));
    assert!(calls[0].contains(r#""name":"lab""#) && calls[0].contains(r#""mtu":1500"#));
    assert!(!calls[0].contains("prevResult") && !calls[0].contains("runtimeConfig"));
    assert!(calls[1].contains(r#""prevResult":{"ips":[{"address":"10.244.1.5/32"}]}"#));
    assert!(calls[1].contains(r#""runtimeConfig":{"portMappings":[{"containerPort":80,"hostPort":8080,"protocol":"tcp"}]}"#));
    assert!(!calls[1].contains("capabilities"));
    assert!(calls[2].contains("fd00::5"));
}

#[tokio::test]
async fn a_plugins_error_is_told_and_undone() {
    let bench = Bench::new();
    bench.plugin("first", "true");
    bench.plugin(
        "second",
        r#"[ $CNI_COMMAND = DEL ] || { echo '{"code":11,"msg":"no address left","details":"10.244.1.0/24"}'; exit 1; }"#,
    );
    let error = add(&network(), &attachment(), bench.dir.path())
        .await
        .expect_err("ADD");
    assert_eq!(
        error.to_string(),
        "CNI plugin second ADD: no address left: 10.244.1.0/24 (code 11)"
    );
    assert_eq!(bench.calls().len(), 4);
    let error = add(&network(), &attachment(), Path::new("/nowhere"))
        .await
        .expect_err("ADD");
    assert!(
        error.to_string().contains("cannot be run from /nowhere"),
        "{error}"
    );
}

#[test]
fn the_first_valid_list_counts() {
    let bench = Bench::new();
    let dir = bench.dir.path();
    let error = find_network(dir).expect_err("none yet");
    assert!(
        error.to_string().contains("no CNI configuration"),
        "{error}"
    );
    std::fs::write(dir.join("10-bad.conflist"), "{").expect("write");
    assert!(
        find_network(dir)
            .expect_err("bad")
            .to_string()
            .contains("10-bad.conflist")
    );
    std::fs::write(
        dir.join("20-lab.conflist"),
        serde_json::to_string(&network()).expect("json"),
    )
    .expect("write");
    assert_eq!(find_network(dir).expect("a network"), network());
}

#[tokio::test]
async fn a_plugin_that_is_being_written_is_waited_for() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("plugin");
    std::fs::copy("/bin/true", &path).expect("copy");
    let writer = std::fs::File::options()
        .append(true)
        .open(&path)
        .expect("open");
    let soon = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(writer);
    });
    let mut child = start_when_written(&mut Command::new(&path))
        .await
        .expect("it starts");
    assert!(child.wait().await.expect("it ends").success());
    soon.await.expect("the writer is gone");
}

#[tokio::test]
async fn a_plugin_gets_what_its_capabilities_name() {
    let bench = Bench::new();
    for name in ["first", "second"] {
        bench.plugin(name, "true");
    }
    let pod: Pod = serde_json::from_value(json!({"metadata": {"annotations": {
        "kubernetes.io/ingress-bandwidth": "10M", "parfait.dev/ips": "10.244.1.9"}}}))
    .expect("a pod");
    let attachment = Attachment {
        bandwidth: bandwidth(&pod).expect("limits"),
        annotations: pod.metadata.annotations.clone().expect("annotations"),
        ..attachment()
    };
    let mut network = network();
    network.plugins[0].insert(
        "capabilities".to_owned(),
        json!({ANNOTATIONS: true, "portMappings": false}),
    );
    add(&network, &attachment, bench.dir.path())
        .await
        .expect("ADD");
    let calls = bench.calls();
    assert!(calls[0].contains(r#""runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"#));
    assert!(
        calls[0].contains(r#""parfait.dev/ips":"10.244.1.9""#) && !calls[0].contains("hostPort")
    );
    let limits = r#""bandwidth":{"egressBurst":0,"egressRate":0,"ingressBurst":4294967295,"ingressRate":10000000}"#;
    assert!(calls[1].contains(limits), "{}", calls[1]);
    assert!(calls[1].contains("hostPort") && !calls[1].contains("parfait.dev/ips"));

    let bad: Pod = serde_json::from_value(
        json!({"metadata": {"annotations": {"kubernetes.io/egress-bandwidth": "10"}}}),
    )
    .expect("a pod");
    let error = bandwidth(&bad).expect_err("too little").to_string();
    assert!(error.contains("kubernetes.io/egress-bandwidth"), "{error}");
}

#[tokio::test]
async fn the_newest_version_that_both_speak_is_used_and_has_status_and_gc() {
    let bench = Bench::new();
    let dir = bench.dir.path();
    let sick = dir.join("sick");
    let script = format!(
        r#"[ $CNI_COMMAND != STATUS ] || [ ! -e {} ] || {{ echo '{{"code":50,"msg":"no range yet"}}'; exit 1; }}"#,
        sick.display()
    );
    bench.plugin("first", &script);
    let list = |version: &str, versions: &[&str]| {
        let list = json!({"cniVersion": version, "cniVersions": versions, "name": "lab", "plugins": [{"type": "first"}]});
        std::fs::write(dir.join("10-lab.conflist"), list.to_string()).expect("write");
        find_network(dir)
    };
    let old = list("1.0.0", &[]).expect("a network");
    status(&old, dir).await.expect("no STATUS yet");
    collect(&old, &[], dir).await.expect("no GC yet");
    assert_eq!(bench.calls().len(), 0);
    assert!(list("9.0.0", &[]).is_err());
    assert_eq!(
        list("9.0.0", &["0.4.0", "1.0.0"])
            .expect("a network")
            .version,
        "1.0.0"
    );

    let network = list("1.0.0", &["1.0.0", "1.1.0", "9.9.9"]).expect("a network");
    assert_eq!(network.version, "1.1.0");
    collect(&network, &["abc".to_owned()], dir)
        .await
        .expect("GC");
    let calls = bench.calls();
    assert!(calls[0].starts_with("first GC ") && calls[0].contains(r#""cniVersion":"1.1.0""#));
    let valid = r#"[{"containerID":"abc","ifname":"eth0"}]"#;
    assert!(
        calls[0].contains(&format!(r#""cni.dev/valid-attachments":{valid}"#)),
        "{}",
        calls[0]
    );
    let never = Network {
        disable_gc: true,
        ..network.clone()
    };
    collect(&never, &[], dir).await.expect("none");

    let mut readiness = Readiness::default();
    for _ in 0..3 {
        assert_eq!(readiness.look(dir, dir).await, Ok(()));
    }
    assert_eq!(bench.calls().len(), 2, "it is not asked at every look");
    std::fs::write(&sick, "").expect("write");
    let answer = Readiness::default().look(dir, dir).await;
    assert!(answer.is_err_and(|why| why.contains("no range yet")));
}

#[test]
fn a_single_plugin_is_a_list_of_one() {
    let bench = Bench::new();
    let text = r#"{"cniVersion": "0.4.0", "name": "one", "type": "first", "mtu": 1400}"#;
    std::fs::write(bench.dir.path().join("10-one.conf"), text).expect("write");
    let network = find_network(bench.dir.path()).expect("a network");
    assert_eq!(
        (network.name.as_str(), network.version.as_str()),
        ("one", "0.4.0")
    );
    assert_eq!(network.plugins[0]["mtu"], 1400);
}

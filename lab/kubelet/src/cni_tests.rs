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

//! The real kubectl again: what an operator does on a bad day, and what the server does not serve.

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use support::{Lab, lab_for_kubectl};

const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: node-1}, spec: {podCIDRs: [10.244.1.0/24]}, status: {conditions: [{type: Ready, status: 'True'}]}}";
const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {a: b}}, spec: {nodeName: node-1, containers: [{name: c, image: i}]}}";

fn lab_with_a_pod() -> Option<Lab> {
    let lab = lab_for_kubectl()?;
    lab.kubectl_with(&["create", "-f", "-"], &format!("---\n{NODE}\n---\n{POD}"))
        .good();
    Some(lab)
}

#[test]
fn cordon_taint_and_drain() {
    let Some(lab) = lab_with_a_pod() else { return };
    lab.kubectl("cordon node-1").good();
    assert!(
        lab.kubectl("get nodes")
            .good()
            .contains("Ready,SchedulingDisabled")
    );
    lab.kubectl("taint node node-1 k=v:NoSchedule").good();
    assert_eq!(
        lab.kubectl("get node node-1 -o jsonpath={.spec.taints[0].key}")
            .good(),
        "k"
    );
    // The eviction marks the pod; with no kubelet there it stays, and drain says so.
    let drained = lab.kubectl("drain node-1 --force --timeout=2s");
    assert!(
        drained.out.contains("evicting pod default/p"),
        "{}{}",
        drained.out,
        drained.err
    );
    assert!(lab.kubectl("get pod p").good().contains("Terminating"));
    lab.kubectl("uncordon node-1").good();
    let described = lab.kubectl("describe node node-1").good();
    assert!(
        described.contains("10.244.1.0/24") && described.contains("default"),
        "{described}"
    );
}

#[test]
fn a_watch_prints_rows_as_they_change() {
    let Some(lab) = lab_with_a_pod() else { return };
    let mut watching = lab
        .command()
        .args(["get", "pods", "-w", "-o", "wide"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let rows = BufReader::new(watching.stdout.take().expect("a pipe"));
    let mut rows = rows.lines().map(|row| row.expect("text"));
    let mut status = || {
        rows.next()
            .and_then(|row| Some(row.split_whitespace().nth(2)?.to_owned()))
    };
    assert_eq!(status().as_deref(), Some("STATUS"));
    assert_eq!(status().as_deref(), Some("Pending"));
    lab.kubectl_with(
        &[
            "patch",
            "pod",
            "p",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"phase":"Running"}}"#,
        ],
        "",
    )
    .good();
    assert_eq!(status().as_deref(), Some("Running"));
    lab.kubectl("delete pod p --force --grace-period=0").good();
    watching.kill().expect("it runs");
    watching.wait().expect("it ends");
}

#[test]
fn replace_wait_and_look_around() {
    let Some(lab) = lab_with_a_pod() else { return };
    lab.kubectl("create configmap c --from-literal=a=1").good();
    let with = |text: &str| lab.kubectl_with(&["replace", "-f", "-"], text);
    with("---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: '2'}}").good();
    assert_eq!(lab.kubectl("get cm c -o jsonpath={.data.a}").good(), "2");
    with("---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: none}}").bad();
    let dry = lab
        .kubectl("create configmap dry --from-literal=a=1 --dry-run=server -o name")
        .good();
    assert_eq!(dry, "configmap/dry\n");
    lab.kubectl("get cm dry").bad();
    lab.kubectl("delete pod p --wait=false").good();
    let waiting = lab
        .command()
        .args(["wait", "--for=delete", "pod/p", "--timeout=10s"])
        .stdout(Stdio::null())
        .spawn();
    lab.kubectl("delete pod p --force --grace-period=0").good();
    assert!(
        waiting
            .expect("kubectl starts")
            .wait()
            .expect("it ends")
            .success()
    );
    assert!(lab.kubectl("cluster-info").good().contains("is running at"));
    assert_eq!(lab.kubectl("get --raw /readyz").good(), "ok");
    assert!(
        lab.kubectl("api-versions")
            .good()
            .contains("discovery.k8s.io/v1")
    );
    lab.kubectl("delete configmaps --all").good();
    assert!(lab.kubectl("get configmaps").good().is_empty());
}

#[test]
fn what_is_not_served_says_so() {
    let Some(lab) = lab_with_a_pod() else { return };
    let error = lab.kubectl("logs p").bad();
    assert!(
        error.contains("pods/log is not served by this lab yet"),
        "{error}"
    );
    let error = lab.kubectl("exec p -- true").bad();
    assert!(
        error.contains("501") || error.contains("not served"),
        "{error}"
    );
    lab.kubectl("auth can-i get pods").bad();
    lab.kubectl("create token default").bad();
    let error = lab
        .kubectl("get pods --field-selector=spec.color=red")
        .bad();
    assert!(
        error.contains("field label not supported: spec.color"),
        "{error}"
    );
    let error = lab.kubectl("get pods -l a==b==c").bad();
    assert!(
        error.contains("found '=='") || error.contains("label selector"),
        "{error}"
    );
}

//! The command line against real labs: what a newcomer types, and what goes wrong then.
//!
//! Each test has a state directory of its own. Wrong input must be told with exit code 2, the place
//! and what to do; a lab must be there afterwards only where the help says so.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

mod support;

use support::Desk;

const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: example.com/web
        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  containers:
  - name: client
    image: example.com/client
    command: [sleep, '1000']
    env:
    - {name: WEB, value: 'http://web/'}
    - {name: OTHER, value: 'nothing-like-it:80'}
";

#[test]
fn an_application_comes_up_is_checked_explained_and_goes() {
    let Some(desk) = Desk::new("an_application_comes_up") else {
        return;
    };
    let shop = desk.file("shop.yaml", SHOP);
    let out = desk.ok(&["lab", "up", "--nodes", "2", "-f", &shop]);
    assert!(
        out.contains("parfait explain pod/client.shop web:80"),
        "{out}"
    );
    let table = desk.ok(&["lab", "check"]);
    for line in [
        "pod/client.shop",
        "absent",
        "svc/web.shop:80",
        "none failed",
    ] {
        assert!(table.contains(line), "{line:?} is not in:\n{table}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&desk.ok(&["lab", "check", "-n", "shop", "-o", "json"])).unwrap();
    assert_eq!(json["passed"], true);
    let fetched = desk.ok(&[
        "lab",
        "exec",
        "pod/client.shop",
        "--",
        "curl",
        "-s",
        "http://web/",
    ]);
    assert!(
        fetched.contains("web-"),
        "the stand-in says which pod it is: {fetched}"
    );
    let told = desk.ok(&["explain", "pod/client.shop", "web:80", "-n", "shop"]);
    assert!(told.contains("delivered"), "{told}");
    let status: serde_json::Value =
        serde_json::from_str(&desk.ok(&["lab", "status", "-o", "json"])).unwrap();
    assert_eq!(
        (
            &status["pods"]["Running"],
            &status["nodes"].as_array().unwrap().len()
        ),
        (&3.into(), &2)
    );
    // The same file again changes nothing, and more may come.
    desk.ok(&["lab", "up", "-f", &shop, "--no-check"]);
    desk.ok(&["lab", "down"]);
    desk.nothing_is_left();
    desk.ok(&["lab", "down"]);
}

#[test]
fn without_root_it_is_the_same() {
    let Some(desk) = Desk::without_root("without_root_it_is_the_same") else {
        return;
    };
    let shop = desk.file("shop.yaml", SHOP);
    desk.ok(&[
        "lab",
        "up",
        "--nodes",
        "3",
        "--routing",
        "vxlan",
        "-f",
        &shop,
    ]);
    let status: serde_json::Value =
        serde_json::from_str(&desk.ok(&["lab", "status", "-o", "json"])).unwrap();
    assert_eq!(status["rootless"], true);
    let fetched = desk.ok(&[
        "lab",
        "exec",
        "pod/client.shop",
        "--",
        "curl",
        "-s",
        "http://web/",
    ]);
    assert!(fetched.contains("web-"), "{fetched}");
    desk.ok(&["lab", "down"]);
    desk.nothing_is_left();
}

#[test]
fn wrong_manifests_are_told_with_their_place() {
    let Some(desk) = Desk::new("wrong_manifests_are_told_with_their_place") else {
        return;
    };
    let broken = desk.file(
        "broken.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: [a\n",
    );
    desk.fails(2, &["lab", "up", "-f", &broken], &["broken.yaml:"]);
    desk.fails(
        2,
        &["lab", "up", "-f", "/no/such/file.yaml"],
        &["/no/such/file.yaml: No such file or directory"],
    );
    desk.nothing_is_left();

    desk.ok(&["lab", "up", "--nodes", "1"]);
    let wrong = |name: &str, text: &str, said: &[&str]| {
        let file = desk.file(name, text);
        desk.fails(2, &["lab", "up", "-f", &file], said);
    };
    wrong(
        "kind.yaml",
        "# comment\n---\napiVersion: apps/v1\nkind: Deploymint\nmetadata: {name: a}\n",
        &["kind.yaml:2:1: there is no kind Deploymint in apps/v1: did you mean Deployment?"],
    );
    wrong(
        "version.yaml",
        "apiVersion: v1\nkind: Deployment\nmetadata: {name: a}\n",
        &[
            "version.yaml:1:1: ",
            "this cluster has it as apiVersion apps/v1",
        ],
    );
    wrong(
        "field.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  selektor: {a: b}\n  ports: [{port: 80}]\n",
        &[
            "field.yaml:5:3: Service a: ",
            "unknown field \"spec.selektor\"",
        ],
    );
    wrong(
        "ports.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  selector: {a: b}\n",
        &["ports.yaml:", "Service a", "spec.ports", "Required value"],
    );
}

#[test]
fn wrong_names_are_told_with_the_nearest() {
    let Some(desk) = Desk::new("wrong_names_are_told_with_the_nearest") else {
        return;
    };
    desk.fails(
        1,
        &["lab", "status"],
        &["lab lab is not running", "parfait lab up"],
    );
    desk.fails(
        2,
        &["lab", "up", "--name", "Not-A-Name"],
        &["cannot name a lab"],
    );
    desk.fails(
        2,
        &["explain", "--kubeconfig", "absent.conf", "pod/a", "svc/b"],
        &["absent.conf: No such file"],
    );
    let shop = desk.file("shop.yaml", SHOP);
    desk.ok(&["lab", "up", "--nodes", "1", "-f", &shop, "--no-check"]);
    desk.fails(
        2,
        &["lab", "exec", "pod/cliemt.shop", "--", "true"],
        &[
            "there is no pod cliemt.shop",
            "did you mean pod/client.shop?",
        ],
    );
    desk.fails(
        2,
        &["lab", "exec", "node/7", "--", "true"],
        &["there is no node 7"],
    );
    desk.fails(
        2,
        &["explain", "pod/cliemt.shop", "web.shop:80"],
        &["cliemt", "did you mean"],
    );
    desk.fails(
        2,
        &["lab", "up"],
        &["lab lab is already running", "parfait lab down"],
    );
    desk.fails(
        2,
        &["lab", "up", "--nodes", "2", "-f", &shop],
        &["it has nodes: 1, not 2"],
    );
    desk.fails(
        1,
        &["lab", "check", "--name", "lob"],
        &["lab lob is not running (running: lab)"],
    );
}

#[test]
fn what_does_not_become_available_is_told_with_the_reason() {
    let Some(desk) = Desk::new("what_does_not_become_available_is_told_with_the_reason") else {
        return;
    };
    // The probe: on a busy machine a container that crashes may be looked at twice before it has.
    let never = desk.file(
        "never.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: never}\nspec:\n  containers:\n  - name: c\n    image: x\n    \
         command: [sh, -c, 'exit 3']\n    readinessProbe: {exec: {command: ['false']}}\n",
    );
    desk.fails(
        1,
        &["lab", "up", "--nodes", "1", "-f", &never, "--wait", "3s"],
        &[
            "not available after 3 s",
            "pod/never 0/1: never: container c",
        ],
    );
    desk.ok(&["lab", "exec", "node/1", "--", "true"]);
}

#[test]
fn an_interrupted_start_leaves_nothing_and_later_the_lab_stays() {
    let Some(desk) = Desk::new("an_interrupted_start_leaves_nothing") else {
        return;
    };
    let start = |line: &[&str]| {
        desk.command(line)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut up = start(&["lab", "up", "--nodes", "8"]);
    let end = Instant::now() + Duration::from_secs(60);
    while !desk.0.path().join("labs/lab/lab.json").exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(desk.interrupt(&mut up), Some(1));
    desk.nothing_is_left();

    let never = desk.file("never.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: never}\nspec:\n  nodeSelector: {no: such}\n  containers: [{name: c, image: x}]\n");
    let mut up = start(&["lab", "up", "--nodes", "1", "-f", &never]);
    let end = Instant::now() + Duration::from_secs(60);
    while !desk.0.path().join("labs/lab/ready").exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(desk.interrupt(&mut up), Some(1));
    desk.ok(&["lab", "exec", "node/1", "--", "true"]);
}

#[test]
fn a_killed_lab_with_pods_leaves_nothing() {
    let Some(desk) = Desk::new("a_killed_lab_with_pods_leaves_nothing") else {
        return;
    };
    let shop = desk.file("shop.yaml", SHOP);
    desk.ok(&["lab", "up", "--nodes", "2", "-f", &shop, "--no-check"]);
    let text = fs::read_to_string(desk.0.path().join("labs/lab/lab.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pid = i32::try_from(record["init"]["pid"].as_i64().unwrap()).unwrap();
    let cgroups: Vec<PathBuf> = serde_json::from_value(record["cgroups"].clone()).unwrap();
    // Containers have PID namespaces of their own: they are told by the directory they belong to.
    let ours = desk.0.path().display().to_string();
    let processes = || {
        let mine = |path: &PathBuf| {
            let read = |file: &str| fs::read(path.join(file)).unwrap_or_default();
            let has = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(&ours);
            has(read("cmdline")) || has(read("mountinfo"))
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .filter(mine)
            .count()
    };
    assert!(
        processes() > 6,
        "the supervisor, agents, kubelets and containers"
    );
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while processes() > 0 {
        assert!(Instant::now() < end, "{} processes are left", processes());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        !fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(&ours)
    );
    desk.ok(&["lab", "list"]);
    desk.nothing_is_left();
    for cgroup in cgroups {
        assert!(!cgroup.exists(), "{} is left", cgroup.display());
    }
}

#[test]
fn several_labs_of_different_families() {
    let Some(desk) = Desk::new("several_labs_of_different_families") else {
        return;
    };
    desk.ok(&["lab", "up", "--nodes", "1", "--ip-family", "ipv4"]);
    desk.ok(&[
        "lab",
        "up",
        "--nodes",
        "1",
        "--ip-family",
        "ipv6",
        "--name",
        "six",
    ]);
    let list = desk.ok(&["lab", "list"]);
    assert!(
        list.contains("lab ") && list.contains("six ") && list.contains("ipv6"),
        "{list}"
    );
    let config = desk.ok(&["lab", "kubeconfig", "--name", "six"]);
    assert!(config.contains("server: https://127.0.0.1:"), "{config}");
    desk.ok(&["lab", "down", "--all"]);
    desk.nothing_is_left();
}

#[test]
fn a_folder_is_explained_without_what_would_be_refused() {
    let Some(desk) = Desk::new("a_folder_is_explained") else {
        return;
    };
    let shop = desk.file("shop.yaml", SHOP);
    let faulty = desk.file(
        "faulty.yaml",
        "apiVersion: v1\nkind: Servce\nmetadata: {name: a}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: b}\n\
         spec: {selectr: {app: web}, ports: [{port: 80}]}\n",
    );
    let told = desk.ok(&[
        "explain",
        "-f",
        &shop,
        "-f",
        &faulty,
        "node/1",
        "svc/web.shop",
    ]);
    for text in [
        "faulty.yaml:1:1: there is no kind Servce in v1: did you mean Service?",
        "unknown field \"spec.selectr\"",
        "delivered",
    ] {
        assert!(told.contains(text), "{text:?} is not in:\n{told}");
    }
}

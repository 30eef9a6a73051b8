//! The real kubectl against the server: what a user does in the first hour.

mod support;

use support::{lab_for_kubectl, shared};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, labels: { app: web } }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
      - name: web
        image: nginx:1.27
        ports: [{ containerPort: 80 }]
        env: [{ name: A, value: "1" }, { name: B, value: "2" }]
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  selector: { app: web }
  ports: [{ port: 80 }]
"#;

#[test]
fn apply_says_what_it_did() {
    let Some(lab) = lab_for_kubectl() else { return };
    let both = |what: &str| format!("deployment.apps/web {what}\nservice/web {what}\n");
    assert_eq!(lab.apply(WEB).good(), both("created"));
    assert_eq!(lab.apply(WEB).good(), both("unchanged"));
    let changed = WEB
        .replace("nginx:1.27", "nginx:1.28")
        .replace(", { name: B, value: \"2\" }", "");
    assert_eq!(
        lab.apply(&changed).good(),
        "deployment.apps/web configured\nservice/web unchanged\n"
    );
    let containers = lab
        .kubectl("get deploy web -o jsonpath={.spec.template.spec.containers}")
        .good();
    assert!(
        containers.contains("nginx:1.28") && !containers.contains("\"B\""),
        "{containers}"
    );
    assert_eq!(
        lab.kubectl("get deploy web -o jsonpath={.metadata.generation}")
            .good(),
        "2"
    );
}

/// Real API servers say it since 1.33; here nobody writes any, so that nothing is found either.
#[test]
fn who_reads_endpoints_is_told_where_they_are() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.apply(WEB).good();
    let said =
        "Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
    for read in ["get endpoints", "get ep web"] {
        let answer = lab.kubectl(read);
        assert!(answer.err.contains(said), "{read}: {}", answer.err);
    }
    let slices = lab.kubectl("get endpointslices");
    assert!(!slices.err.contains("Warning"), "{}", slices.err);
}

#[test]
fn change_and_delete() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.apply(WEB).good();
    let replicas = || {
        lab.kubectl("get deploy web -o jsonpath={.spec.replicas}")
            .good()
    };
    lab.kubectl("scale deployment web --replicas=5").good();
    assert_eq!(replicas(), "5");
    lab.kubectl("scale deployment web --replicas=3 --current-replicas=5")
        .good();
    assert_eq!(replicas(), "3");
    lab.kubectl("scale deployment web --replicas=1 --current-replicas=5")
        .bad();
    lab.kubectl("set image deployment/web web=nginx:1.29")
        .good();
    lab.kubectl("label deployment web tier=front").good();
    lab.kubectl("annotate service web note=hello").good();
    assert_eq!(
        lab.kubectl("get deploy,svc -l tier=front -o name").good(),
        "deployment.apps/web\n"
    );
    let described = lab.kubectl("describe deployment web").good();
    assert!(
        described.contains("nginx:1.29") && described.contains("25% max unavailable"),
        "{described}"
    );
    let described = lab.kubectl("describe service web").good();
    assert!(
        described.contains("10.96.1.1") && described.contains("app=web"),
        "{described}"
    );
    lab.kubectl("delete deployment,service web").good();
    let gone = "Error from server (NotFound): deployments.apps \"web\" not found\n";
    assert_eq!(lab.kubectl("get deployment web").bad(), gone);
}

#[test]
fn patches_of_all_three_forms() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.apply(WEB).good();
    let patch = |form: &str, text: &str| {
        lab.kubectl_with(&["patch", "svc", "web", "--type", form, "-p", text], "")
            .good()
    };
    let ports = || {
        lab.kubectl("get svc web -o jsonpath={.spec.ports[*].port}")
            .good()
    };
    patch(
        "strategic",
        r#"{"spec":{"ports":[{"port":81,"name":"b"},{"port":80,"name":"a"}]}}"#,
    );
    assert_eq!(ports(), "81 80");
    patch("json", r#"[{"op":"remove","path":"/spec/ports/1"}]"#);
    assert_eq!(ports(), "81");
    patch("merge", r#"{"spec":{"selector":{"app":"x"}}}"#);
    assert_eq!(
        lab.kubectl("get svc web -o jsonpath={.spec.selector.app}")
            .good(),
        "x"
    );
}

#[test]
fn tables_are_those_of_a_real_cluster() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.apply(WEB).good();
    let header = |arguments: &str| {
        let out = lab.kubectl(arguments).good();
        out.lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        header("get deployments"),
        "NAME READY UP-TO-DATE AVAILABLE AGE"
    );
    assert_eq!(
        header("get deploy -o wide"),
        "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR"
    );
    assert_eq!(
        header("get svc"),
        "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE"
    );
    assert_eq!(header("get ns"), "NAME STATUS AGE");
    assert_eq!(
        header("get deploy -A"),
        "NAMESPACE NAME READY UP-TO-DATE AVAILABLE AGE"
    );
    assert!(
        lab.kubectl("get all")
            .good()
            .contains("deployment.apps/web   0/2")
    );
    assert!(lab.kubectl("get pods").good().is_empty());
    let resources = lab.kubectl("api-resources --no-headers").good();
    for kind in [
        "Pod",
        "EndpointSlice",
        "NetworkPolicy",
        "Lease",
        "ClusterRole",
        "CronJob",
    ] {
        assert!(
            resources.contains(kind),
            "{kind} is missing from:\n{resources}"
        );
    }
    let sorted = lab
        .kubectl("get ns --sort-by=.metadata.name -o name")
        .good();
    assert_eq!(
        sorted,
        "namespace/default\nnamespace/kube-node-lease\nnamespace/kube-public\nnamespace/kube-system\n"
    );
    assert!(
        lab.kubectl("version")
            .good()
            .contains("Server Version: v1.36")
    );
}

#[test]
fn mistakes_are_answered_in_kubernetes_words() {
    let Some(lab) = lab_for_kubectl() else { return };
    let misspelt = WEB.replace("replicas: 2", "replicaz: 2");
    let error = lab.apply(&misspelt).bad();
    assert!(
        error.contains("strict decoding error: unknown field \"spec.replicaz\""),
        "{error}"
    );
    let error = lab
        .apply(&WEB.replace("replicas: 2", "replicas: two"))
        .bad();
    assert!(error.contains("spec.replicas"), "{error}");
    let relaxed = lab.kubectl_with(&["apply", "--validate=warn", "-f", "-"], &misspelt);
    assert!(
        relaxed
            .err
            .contains("Warning: unknown field \"spec.replicaz\""),
        "{}",
        relaxed.err
    );
    relaxed.good();
    let error = lab
        .apply(&WEB.replace("ports: [{ port: 80 }]", "ports: []"))
        .bad();
    assert!(
        error.contains("The Service \"web\" is invalid: spec.ports: Required value"),
        "{error}"
    );
    let error = lab
        .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: nowhere}}")
        .bad();
    assert!(
        error.contains("namespaces \"nowhere\" not found"),
        "{error}"
    );
    let error = lab
        .apply("{apiVersion: v1, kind: Gadget, metadata: {name: a}}")
        .bad();
    assert!(
        error.contains("no matches for kind \"Gadget\" in version \"v1\""),
        "{error}"
    );
    let error = lab
        .kubectl_with(&["apply", "--server-side", "-f", "-"], WEB)
        .bad();
    assert!(error.contains("server-side apply is not served"), "{error}");
    let error = lab.kubectl("delete namespace default").bad();
    assert!(
        error.contains("this namespace may not be deleted"),
        "{error}"
    );
    let error = lab.kubectl("--token=wrong get pods").bad();
    assert!(
        error.contains("You must be logged in to the server"),
        "{error}"
    );
    let error = lab
        .kubectl("create service clusterip late --clusterip=10.97.0.1 --tcp=80")
        .bad();
    assert!(
        error.contains("The range of valid IPs is 10.96.0.0/16"),
        "{error}"
    );
}

#[test]
fn a_pod_waits_for_its_kubelet_and_a_namespace_for_its_controller() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.kubectl("run p --image=nginx").good();
    let shown = lab.kubectl("get pod p").good();
    assert!(
        shown.contains("0/1") && shown.contains("Pending"),
        "{shown}"
    );
    let described = lab.kubectl("describe pod p").good();
    assert!(described.contains("BestEffort"), "{described}");
    let binding = r#"{"apiVersion":"v1","kind":"Binding","metadata":{"name":"p"},"target":{"kind":"Node","name":"node-1"}}"#;
    lab.kubectl_with(
        &[
            "create",
            "--raw",
            "/api/v1/namespaces/default/pods/p/binding",
            "-f",
            "-",
        ],
        binding,
    )
    .good();
    assert_eq!(
        lab.kubectl("get pod p -o jsonpath={.spec.nodeName}").good(),
        "node-1"
    );
    lab.kubectl("delete pod p --wait=false").good();
    assert!(lab.kubectl("get pod p").good().contains("Terminating"));
    lab.kubectl("delete pod p --grace-period=0 --force").good();
    lab.kubectl("get pod p").bad();

    lab.kubectl("create namespace team").good();
    lab.kubectl("create configmap c -n team --from-literal=a=b")
        .good();
    lab.kubectl("delete namespace team --wait=false").good();
    assert!(lab.kubectl("get ns team").good().contains("Terminating"));
    let error = lab
        .kubectl("create configmap d -n team --from-literal=a=b")
        .bad();
    assert!(error.contains("because it is being terminated"), "{error}");
    let empty = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"team"},"spec":{"finalizers":[]}}"#;
    lab.kubectl_with(
        &[
            "replace",
            "--raw",
            "/api/v1/namespaces/team/finalize",
            "-f",
            "-",
        ],
        empty,
    )
    .good();
    lab.kubectl("get ns team").bad();
    let error = lab.kubectl("logs p").bad();
    assert!(error.contains("not found"), "{error}");
}

#[test]
fn kubectl_waits_for_what_others_do() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.apply(WEB).good();
    let waiting = lab
        .command()
        .args(["rollout", "status", "deployment/web", "--timeout=20s"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let status = r#"{"status":{"observedGeneration":1,"replicas":2,"updatedReplicas":2,"readyReplicas":2,"availableReplicas":2,
        "conditions":[{"type":"Available","status":"True"}]}}"#;
    lab.kubectl_with(
        &[
            "patch",
            "deploy",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ],
        "",
    )
    .good();
    let output = waiting.wait_with_output().expect("kubectl ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("successfully rolled out"),
        "{text}"
    );
    lab.kubectl("wait --for=condition=Available deployment/web --timeout=5s")
        .good();
    lab.kubectl("rollout restart deployment/web").good();
    assert_eq!(
        lab.kubectl("get deploy web -o jsonpath={.metadata.generation}")
            .good(),
        "2"
    );
}

#[test]
fn an_application_by_other_people_goes_in_unmodified() {
    let Some(lab) = lab_for_kubectl() else { return };
    for name in ["manifests/online-boutique.yaml", "manifests/guestbook.yaml"] {
        let Some(file) = shared(name) else { continue };
        let path = file.display().to_string();
        let first = lab.kubectl_with(&["apply", "-f", &path], "");
        assert!(!first.err.contains("Warning"), "{}", first.err);
        assert!(first.good().lines().all(|line| line.ends_with("created")));
        let again = lab.kubectl_with(&["apply", "-f", &path], "").good();
        assert!(
            again.lines().all(|line| line.ends_with("unchanged")),
            "{again}"
        );
        lab.kubectl_with(&["diff", "-f", &path], "").good();
        lab.kubectl_with(&["delete", "-f", &path], "").good();
    }
}

#[test]
fn service_addresses_come_from_both_families() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.apply("{apiVersion: v1, kind: Service, metadata: {name: dual}, spec: {ipFamilyPolicy: PreferDualStack, type: NodePort, ports: [{port: 80}]}}").good();
    let found = lab
        .kubectl("get svc dual -o jsonpath={.spec.clusterIPs}{.spec.ports[0].nodePort}")
        .good();
    assert_eq!(found, "[\"10.96.1.1\",\"fd00:10:96::101\"]30086");
    for kind in [
        "LoadBalancer",
        "ClusterIP",
        "ExternalName, externalName: example.com",
        "NodePort",
    ] {
        lab.apply(&format!("{{apiVersion: v1, kind: Service, metadata: {{name: dual}}, spec: {{type: {kind}, ports: [{{port: 80}}]}}}}")).good();
        let shown = lab.kubectl("get svc dual").good();
        assert!(
            shown.contains(kind.split(',').next().unwrap_or_default()),
            "{shown}"
        );
    }
    lab.kubectl("delete svc dual").good();
    lab.kubectl("create service clusterip again --clusterip=10.96.1.1 --tcp=80")
        .good();
    lab.kubectl("expose service again --name=more --port=81")
        .good();
}

/// kubectl's imperative commands send protobuf; what it would have sent as JSON is the measure.
#[test]
fn imperative_commands_arrive_as_they_were_meant() {
    let Some(lab) = lab_for_kubectl() else { return };
    for command in [
        "create namespace n",
        "create configmap c --from-literal=a=b --from-literal=empty=",
        "create secret generic s --from-literal=k=v",
        "create serviceaccount sa",
        "create deployment d --image=nginx:1 --replicas=3 --port=80 -- serve --fast",
        "create service clusterip cip --tcp=80:8080",
        "create service nodeport np --tcp=80:http --node-port=30123",
        "create service externalname en --external-name=example.com",
        "create service loadbalancer lb --tcp=443",
        "create job j --image=busybox -- sleep 1",
        "create cronjob cj --image=busybox --schedule=0/5_*_*_*_* -- date",
        "create role r --verb=get,list --resource=pods --resource-name=p",
        "create clusterrole cr --verb=get --non-resource-url=/x",
        "create rolebinding rb --role=r --user=u --serviceaccount=default:sa",
        "create clusterrolebinding crb --clusterrole=cr --group=g",
        "create ingress i --class=c --rule=a.example/x*=web:80,tls=t",
        "create quota q --hard=pods=5,cpu=1",
        "create poddisruptionbudget pdb --selector=a=b --min-available=50%",
        "create priorityclass pc --value=7",
    ] {
        let split: Vec<String> = command.split(' ').map(|a| a.replace('_', " ")).collect();
        let (head, tail) = match split.iter().position(|a| a == "--") {
            Some(at) => split.split_at(at),
            None => (split.as_slice(), &[][..]),
        };
        let run = |extra: &[&str]| {
            let arguments = head.iter().map(String::as_str).chain(extra.iter().copied());
            lab.kubectl_with(
                &arguments
                    .chain(tail.iter().map(String::as_str))
                    .collect::<Vec<_>>(),
                "",
            )
            .good()
        };
        let meant: serde_json::Value =
            serde_json::from_str(&run(&["--dry-run=client", "-o", "json"])).expect("JSON");
        let found: serde_json::Value = serde_json::from_str(&run(&["-o", "json"])).expect("JSON");
        contains(&found, &meant, command);
    }
}

/// Whether everything of `meant` is in `found`; empties and nulls aside.
fn contains(found: &serde_json::Value, meant: &serde_json::Value, command: &str) {
    use serde_json::Value;
    match meant {
        Value::Null => {}
        Value::Object(fields) => {
            for (key, value) in fields.iter().filter(|(key, _)| *key != "status") {
                if !value.as_object().is_some_and(serde_json::Map::is_empty) {
                    contains(&found[key], value, &format!("{command}: {key}"));
                }
            }
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(i, v)| contains(&found[i], v, command)),
        meant => assert_eq!(found, meant, "{command}"),
    }
}

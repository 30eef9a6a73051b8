//! Defaults of Pods and of the pod templates in workloads.

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec, Probe,
    ResourceRequirements, Toleration, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{or, or_text};

/// A Pod, with what admission adds.
pub fn pod(pod: &mut Pod) {
    let Some(spec) = pod.spec.as_mut() else {
        return;
    };
    pod_spec(spec);
    or_text(&mut spec.service_account_name, "default");
    spec.service_account.clone_from(&spec.service_account_name);
    if spec.priority_class_name.is_none() {
        or(&mut spec.priority, 0);
    }
    or_text(&mut spec.preemption_policy, "PreemptLowerPriority");
    tolerate_node_trouble(spec);
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        requests_from_limits(container.resources.get_or_insert_default());
    }
    let class = qos_class(spec);
    or_text(&mut pod.status.get_or_insert_default().qos_class, class);
}

/// The spec, alone or in a template.
pub fn pod_spec(spec: &mut PodSpec) {
    or_text(&mut spec.restart_policy, "Always");
    or_text(&mut spec.dns_policy, "ClusterFirst");
    or_text(&mut spec.scheduler_name, "default-scheduler");
    or(&mut spec.termination_grace_period_seconds, 30);
    or(&mut spec.security_context, PodSecurityContext::default());
    or(&mut spec.enable_service_links, true);
    let host_network = spec.host_network == Some(true);
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        self::container(container, host_network);
    }
    for ephemeral in spec.ephemeral_containers.iter_mut().flatten() {
        or_text(
            &mut ephemeral.image_pull_policy,
            pull_policy(ephemeral.image.as_deref()),
        );
        or_text(
            &mut ephemeral.termination_message_path,
            "/dev/termination-log",
        );
        or_text(&mut ephemeral.termination_message_policy, "File");
    }
    spec.volumes.iter_mut().flatten().for_each(volume);
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        or_text(&mut constraint.node_affinity_policy, "Honor");
        or_text(&mut constraint.node_taints_policy, "Ignore");
    }
}

fn container(container: &mut Container, host_network: bool) {
    or_text(
        &mut container.image_pull_policy,
        pull_policy(container.image.as_deref()),
    );
    or_text(
        &mut container.termination_message_path,
        "/dev/termination-log",
    );
    or_text(&mut container.termination_message_policy, "File");
    or(&mut container.resources, ResourceRequirements::default());
    for port in container.ports.iter_mut().flatten() {
        or_text(&mut port.protocol, "TCP");
        if host_network {
            or(&mut port.host_port, port.container_port);
        }
    }
    for env in container.env.iter_mut().flatten() {
        if let Some(field) = env.value_from.as_mut().and_then(|v| v.field_ref.as_mut()) {
            field_ref(field);
        }
    }
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(probe);
    if let Some(lifecycle) = &mut container.lifecycle {
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop]
            .into_iter()
            .flatten()
        {
            if let Some(get) = &mut handler.http_get {
                or_text(&mut get.path, "/");
                or_text(&mut get.scheme, "HTTP");
            }
        }
    }
}

/// `Always` for `:latest` and for no tag, `IfNotPresent` for the rest.
fn pull_policy(image: Option<&str>) -> &'static str {
    let image = image.unwrap_or_default();
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn probe(probe: &mut Probe) {
    or(&mut probe.timeout_seconds, 1);
    or(&mut probe.period_seconds, 10);
    or(&mut probe.success_threshold, 1);
    or(&mut probe.failure_threshold, 3);
    if let Some(get) = &mut probe.http_get {
        or_text(&mut get.path, "/");
        or_text(&mut get.scheme, "HTTP");
    }
    if let Some(grpc) = &mut probe.grpc {
        or(&mut grpc.service, String::new());
    }
}

fn field_ref(field: &mut ObjectFieldSelector) {
    or_text(&mut field.api_version, "v1");
}

fn volume(volume: &mut Volume) {
    const MODE: i32 = 0o644;
    let named_only = Volume {
        name: volume.name.clone(),
        ..Volume::default()
    };
    if *volume == named_only {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(secret) = &mut volume.secret {
        or(&mut secret.default_mode, MODE);
    }
    if let Some(config_map) = &mut volume.config_map {
        or(&mut config_map.default_mode, MODE);
    }
    if let Some(projected) = &mut volume.projected {
        or(&mut projected.default_mode, MODE);
    }
    if let Some(downward) = &mut volume.downward_api {
        or(&mut downward.default_mode, MODE);
        let fields = downward
            .items
            .iter_mut()
            .flatten()
            .filter_map(|i| i.field_ref.as_mut());
        fields.for_each(field_ref);
    }
    if let Some(host_path) = &mut volume.host_path {
        or(&mut host_path.type_, String::new());
    }
}

fn tolerate_node_trouble(spec: &mut PodSpec) {
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerations = spec.tolerations.get_or_insert_default();
        let covers = |t: &Toleration| {
            t.key.as_deref().is_none_or(|k| k.is_empty() || k == key)
                && t.effect
                    .as_deref()
                    .is_none_or(|e| e.is_empty() || e == "NoExecute")
        };
        if !tolerations.iter().any(covers) {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(300),
                value: None,
            });
        }
    }
}

fn requests_from_limits(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        resources
            .requests
            .get_or_insert_default()
            .entry(name.clone())
            .or_insert_with(|| limit.clone());
    }
}

fn qos_class(spec: &PodSpec) -> &'static str {
    let containers = || {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    };
    let named = |r: &Option<std::collections::BTreeMap<String, Quantity>>, name: &str| {
        r.as_ref().and_then(|m| m.get(name)).cloned()
    };
    let asks = containers().any(|c| {
        c.resources.as_ref().is_some_and(|r| {
            ["cpu", "memory"].iter().any(|n| {
                named(&r.requests, n)
                    .or_else(|| named(&r.limits, n))
                    .is_some()
            })
        })
    });
    if !asks {
        return "BestEffort";
    }
    let guaranteed = containers().all(|c| {
        c.resources.as_ref().is_some_and(|r| {
            ["cpu", "memory"].iter().all(|n| {
                let limit = named(&r.limits, n);
                limit.is_some() && limit == named(&r.requests, n)
            })
        })
    });
    if guaranteed {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn defaulted(spec: Value) -> Value {
        let value = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec });
        let mut object: Pod = serde_json::from_value(value).expect("a Pod");
        pod(&mut object);
        serde_json::to_value(object).expect("a Pod prints")
    }

    #[test]
    fn what_kubectl_shows_of_a_bare_pod() {
        let found = defaulted(json!({ "containers": [{
            "name": "a", "image": "nginx", "ports": [{ "containerPort": 80 }],
            "readinessProbe": { "httpGet": { "port": 80 } },
        }] }));
        let spec = &found["spec"];
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["dnsPolicy"], "ClusterFirst");
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        assert_eq!(spec["enableServiceLinks"], true);
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
        let container = &spec["containers"][0];
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        let probe = &container["readinessProbe"];
        assert_eq!(
            (
                &probe["periodSeconds"],
                &probe["timeoutSeconds"],
                &probe["successThreshold"],
                &probe["failureThreshold"]
            ),
            (&json!(10), &json!(1), &json!(1), &json!(3))
        );
        assert_eq!(
            (&probe["httpGet"]["path"], &probe["httpGet"]["scheme"]),
            (&json!("/"), &json!("HTTP"))
        );
        assert_eq!(found["status"]["qosClass"], "BestEffort");
    }

    #[test]
    fn pull_policies_and_quality_of_service() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:2", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(Some(image)), policy, "{image}");
        }
        let class = |resources: Value| {
            defaulted(json!({ "containers": [{ "name": "a", "resources": resources }] }))["status"]
                ["qosClass"]
                .clone()
        };
        assert_eq!(
            class(json!({ "limits": { "cpu": "1", "memory": "1Gi" } })),
            "Guaranteed"
        );
        assert_eq!(class(json!({ "requests": { "cpu": "1" } })), "Burstable");
    }

    #[test]
    fn defaulting_twice_changes_nothing() {
        let once = defaulted(
            json!({ "hostNetwork": true, "containers": [{ "name": "a", "ports": [{ "containerPort": 80 }] }] }),
        );
        assert_eq!(once["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
        let mut again: Pod = serde_json::from_value(once.clone()).expect("a Pod");
        pod(&mut again);
        assert_eq!(serde_json::to_value(again).expect("a Pod prints"), once);
    }
}

//! Pods and pod templates: `ValidatePodSpec` as far as a network's user meets it.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec, Probe};

use super::names::{label1123_complaint, qualified_name_complaint};
use super::{metadata, ports};
use crate::status::FieldErrors;

/// A Pod.
pub fn pod(pod: &Pod, errors: &mut FieldErrors) {
    match &pod.spec {
        Some(spec) => pod_spec(spec, "spec", errors),
        None => errors.required("spec.containers", ""),
    }
}

/// The template of a workload that keeps its pods running.
pub fn template(template: &PodTemplateSpec, field: &str, errors: &mut FieldErrors) {
    let Some(spec) = &template.spec else {
        return errors.required(format!("{field}.spec.containers"), "");
    };
    pod_spec(spec, &format!("{field}.spec"), errors);
    for (key, value) in template
        .metadata
        .iter()
        .flat_map(|m| m.labels.iter().flatten())
    {
        metadata::label(key, value, &format!("{field}.metadata.labels"), errors);
    }
    if let Some(policy) = spec.restart_policy.as_deref().filter(|p| *p != "Always") {
        errors.not_supported(format!("{field}.spec.restartPolicy"), policy, &["Always"]);
    }
}

/// A running pod is what it was made as, but for a few fields.
pub fn pod_update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    let (Some(mut new), Some(mut old)) = (new.spec.clone(), old.spec.clone()) else {
        return;
    };
    for spec in [&mut new, &mut old] {
        spec.containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten())
            .for_each(|c| c.image = None);
        spec.active_deadline_seconds = None;
        spec.termination_grace_period_seconds = None;
        spec.tolerations = None;
        spec.scheduling_gates = None;
        spec.ephemeral_containers = None;
    }
    if old.node_name.as_deref().is_none_or(str::is_empty) {
        // The way of the binding subresource; a plain update that places a pod is let through as well.
        old.node_name.clone_from(&new.node_name);
    }
    if new != old {
        errors.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        );
    }
}

/// A pod's spec, found at `field`.
pub fn pod_spec(spec: &PodSpec, field: &str, errors: &mut FieldErrors) {
    let volumes = volume_names(spec, field, errors);
    if spec.containers.is_empty() {
        errors.required(format!("{field}.containers"), "");
    }
    let mut seen = Seen {
        volumes,
        ..Seen::default()
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (list, containers) in [
        ("containers", spec.containers.as_slice()),
        ("initContainers", init),
    ] {
        for (i, container) in containers.iter().enumerate() {
            // Init containers run before the others: their host ports may be the same.
            seen.host_ports_count = list == "containers";
            self::container(
                container,
                &format!("{field}.{list}[{i}]"),
                spec,
                &mut seen,
                errors,
            );
        }
    }
    one_of(
        spec.restart_policy.as_deref(),
        &["Always", "Never", "OnFailure"],
        &format!("{field}.restartPolicy"),
        errors,
    );
    one_of(
        spec.dns_policy.as_deref(),
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        &format!("{field}.dnsPolicy"),
        errors,
    );
    let nameservers = spec
        .dns_config
        .as_ref()
        .and_then(|d| d.nameservers.as_ref());
    if spec.dns_policy.as_deref() == Some("None") && nameservers.is_none_or(Vec::is_empty) {
        errors.required(
            format!("{field}.dnsConfig.nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    seconds(spec, field, errors);
    for (key, value) in spec.node_selector.iter().flatten() {
        metadata::label(key, value, &format!("{field}.nodeSelector"), errors);
    }
    for (name, text) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(text) = text.as_deref().filter(|t| !t.is_empty())
            && let Some(complaint) = label1123_complaint(text)
        {
            errors.invalid(format!("{field}.{name}"), text, complaint);
        }
    }
}

/// How long a pod may be active, and take to end.
fn seconds(spec: &PodSpec, field: &str, errors: &mut FieldErrors) {
    if let Some(seconds) = spec
        .active_deadline_seconds
        .filter(|s| !(1..=i64::from(i32::MAX)).contains(s))
    {
        errors.invalid(
            format!("{field}.activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    if let Some(seconds) = spec.termination_grace_period_seconds.filter(|s| *s < 0) {
        errors.invalid(
            format!("{field}.terminationGracePeriodSeconds"),
            seconds,
            "must be greater than or equal to 0",
        );
    }
}

#[derive(Default)]
struct Seen {
    volumes: HashSet<String>,
    names: HashSet<String>,
    host_ports: HashSet<String>,
    host_ports_count: bool,
}

fn volume_names(spec: &PodSpec, field: &str, errors: &mut FieldErrors) -> HashSet<String> {
    let mut names = HashSet::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let field = format!("{field}.volumes[{i}].name");
        if volume.name.is_empty() {
            errors.required(field, "");
        } else if let Some(complaint) = label1123_complaint(&volume.name) {
            errors.invalid(field, volume.name.as_str(), complaint);
        } else if !names.insert(volume.name.clone()) {
            errors.duplicate(field, volume.name.as_str());
        }
    }
    names
}

fn container(
    container: &Container,
    field: &str,
    spec: &PodSpec,
    seen: &mut Seen,
    errors: &mut FieldErrors,
) {
    let name = container.name.as_str();
    if name.is_empty() {
        errors.required(format!("{field}.name"), "");
    } else if let Some(complaint) = label1123_complaint(name) {
        errors.invalid(format!("{field}.name"), name, complaint);
    } else if !seen.names.insert(name.to_owned()) {
        errors.duplicate(format!("{field}.name"), name);
    }
    match container.image.as_deref() {
        None | Some("") => errors.required(format!("{field}.image"), ""),
        Some(image) if image.trim() != image => {
            errors.invalid(
                format!("{field}.image"),
                image,
                "must not have leading or trailing whitespace",
            );
        }
        Some(_) => {}
    }
    one_of(
        container.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
        &format!("{field}.imagePullPolicy"),
        errors,
    );
    container_ports(container, field, spec, seen, errors);
    environment(container, field, errors);
    volume_mounts(container, field, &seen.volumes, errors);
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (name, probe) in probes {
        if let Some(probe) = probe {
            self::probe(
                probe,
                &format!("{field}.{name}"),
                name != "readinessProbe",
                errors,
            );
        }
    }
    limits(container, field, errors);
}

fn limits(container: &Container, field: &str, errors: &mut FieldErrors) {
    for (name, quantity) in container
        .resources
        .iter()
        .flat_map(|r| r.limits.iter().flatten())
    {
        if quantity.0.trim_start().starts_with('-') {
            errors.invalid(
                format!("{field}.resources.limits[{name}]"),
                quantity.0.as_str(),
                "must be greater than or equal to 0",
            );
        }
        if let Some(complaint) = qualified_name_complaint(name) {
            errors.invalid(
                format!("{field}.resources.limits[{name}]"),
                name.as_str(),
                complaint,
            );
        }
    }
}

fn environment(container: &Container, field: &str, errors: &mut FieldErrors) {
    for (i, env) in container.env.iter().flatten().enumerate() {
        let field = format!("{field}.env[{i}]");
        if env.name.is_empty() {
            errors.required(format!("{field}.name"), "");
        } else if env.name.contains('=') {
            errors.invalid(format!("{field}.name"), env.name.as_str(), "a valid environment variable name must consist only of printable ASCII characters other than '='");
        }
        if env.value_from.is_some() && env.value.as_deref().is_some_and(|v| !v.is_empty()) {
            errors.invalid(
                format!("{field}.valueFrom"),
                "",
                "may not be specified when `value` is not empty",
            );
        }
    }
}

fn volume_mounts(
    container: &Container,
    field: &str,
    volumes: &HashSet<String>,
    errors: &mut FieldErrors,
) {
    let mut mounts = HashSet::new();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let field = format!("{field}.volumeMounts[{i}]");
        if mount.name.is_empty() {
            errors.required(format!("{field}.name"), "");
        } else if !volumes.contains(&mount.name) {
            errors.not_found(format!("{field}.name"), mount.name.as_str());
        }
        if mount.mount_path.is_empty() {
            errors.required(format!("{field}.mountPath"), "");
        } else if !mounts.insert(mount.mount_path.as_str()) {
            errors.invalid(
                format!("{field}.mountPath"),
                mount.mount_path.as_str(),
                "must be unique",
            );
        }
    }
}

fn container_ports(
    container: &Container,
    field: &str,
    spec: &PodSpec,
    seen: &mut Seen,
    errors: &mut FieldErrors,
) {
    let mut names = HashSet::new();
    for (i, port) in container.ports.iter().flatten().enumerate() {
        let field = format!("{field}.ports[{i}]");
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            ports::name(name, &format!("{field}.name"), errors);
            if !names.insert(name) {
                errors.duplicate(format!("{field}.name"), name);
            }
        }
        if port.container_port == 0 {
            errors.required(format!("{field}.containerPort"), "");
        } else {
            ports::number(
                port.container_port,
                &format!("{field}.containerPort"),
                errors,
            );
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        ports::protocol(protocol, &format!("{field}.protocol"), errors);
        let Some(host_port) = port.host_port.filter(|p| *p != 0) else {
            continue;
        };
        ports::number(host_port, &format!("{field}.hostPort"), errors);
        if spec.host_network == Some(true) && host_port != port.container_port {
            errors.invalid(
                format!("{field}.hostPort"),
                host_port,
                "must match `containerPort` when `hostNetwork` is true",
            );
        }
        let claim = format!(
            "{protocol}/{}/{host_port}",
            port.host_ip.as_deref().unwrap_or_default()
        );
        if seen.host_ports_count && !seen.host_ports.insert(claim.clone()) {
            errors.duplicate(format!("{field}.hostPort"), claim);
        }
    }
}

fn probe(probe: &Probe, field: &str, once: bool, errors: &mut FieldErrors) {
    let handlers = [
        probe.exec.is_some(),
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.grpc.is_some(),
    ];
    match handlers.iter().filter(|h| **h).count() {
        0 => errors.required(field, "must specify a handler type"),
        1 => {}
        _ => errors.forbidden(field, "may not specify more than 1 handler type"),
    }
    if let Some(get) = &probe.http_get {
        ports::number_or_name(&get.port, &format!("{field}.httpGet.port"), errors);
        one_of(
            get.scheme.as_deref(),
            &["HTTP", "HTTPS"],
            &format!("{field}.httpGet.scheme"),
            errors,
        );
    }
    if let Some(tcp) = &probe.tcp_socket {
        ports::number_or_name(&tcp.port, &format!("{field}.tcpSocket.port"), errors);
    }
    if let Some(grpc) = &probe.grpc {
        ports::number(grpc.port, &format!("{field}.grpc.port"), errors);
    }
    if probe
        .exec
        .as_ref()
        .is_some_and(|e| e.command.as_ref().is_none_or(Vec::is_empty))
    {
        errors.required(format!("{field}.exec.command"), "");
    }
    let counts = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, count) in counts {
        if let Some(count) = count.filter(|c| *c < 0) {
            errors.invalid(
                format!("{field}.{name}"),
                count,
                "must be greater than or equal to 0",
            );
        }
    }
    if let Some(count) = probe.success_threshold.filter(|c| once && *c != 1) {
        errors.invalid(format!("{field}.successThreshold"), count, "must be 1");
    }
}

fn one_of(value: Option<&str>, allowed: &[&str], field: &str, errors: &mut FieldErrors) {
    if let Some(value) = value.filter(|v| !allowed.contains(v)) {
        errors.not_supported(field, value, allowed);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn complaints(spec: Value) -> Vec<String> {
        let spec: PodSpec = serde_json::from_value(spec).expect("a PodSpec");
        let mut errors = FieldErrors::default();
        pod_spec(&spec, "spec", &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    fn with_container(container: Value) -> Vec<String> {
        let mut full = json!({ "name": "a", "image": "i" });
        for (key, value) in container.as_object().expect("fields") {
            full[key] = value.clone();
        }
        complaints(json!({ "containers": [full] }))
    }

    #[test]
    fn containers() {
        assert_eq!(
            complaints(json!({ "containers": [] })),
            ["spec.containers: Required value"]
        );
        assert_eq!(
            complaints(json!({ "containers": [{ "name": "a" }, { "name": "a", "image": "i" }] })),
            [
                "spec.containers[0].image: Required value",
                "spec.containers[1].name: Duplicate value: \"a\""
            ]
        );
        assert_eq!(
            with_container(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/x" }] })),
            ["spec.containers[0].volumeMounts[0].name: Not found: \"v\""]
        );
    }

    #[test]
    fn no_container_has_less_than_nothing() {
        assert_eq!(
            with_container(json!({ "resources": { "limits": { "cpu": "-1" } } })),
            [
                "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"
            ]
        );
    }

    #[test]
    fn deadlines_are_of_this_world() {
        let with = |seconds: i64| {
            let container = json!({ "name": "a", "image": "i" });
            complaints(json!({ "containers": [container], "activeDeadlineSeconds": seconds }))
        };
        assert_eq!(with(1), Vec::<String>::new());
        for seconds in [0, -1, 2_147_483_648, i64::MAX] {
            assert_eq!(
                with(seconds),
                [format!(
                    "spec.activeDeadlineSeconds: Invalid value: {seconds}: must be between 1 and 2147483647, inclusive"
                )]
            );
        }
    }

    #[test]
    fn container_ports_may_repeat_and_host_ports_may_not() {
        let port = |container: i32, host: i32| json!({ "containerPort": container, "hostPort": host, "protocol": "TCP" });
        let pod = |a: Value, b: Value| {
            complaints(json!({ "containers": [
                { "name": "a", "image": "i", "ports": [a] }, { "name": "b", "image": "i", "ports": [b] } ] }))
        };
        assert!(
            pod(
                json!({ "containerPort": 80 }),
                json!({ "containerPort": 80 })
            )
            .is_empty()
        );
        assert_eq!(
            pod(port(80, 8080), port(81, 8080)),
            ["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//8080\""]
        );
        assert_eq!(
            with_container(
                json!({ "ports": [{ "containerPort": 70000 }, { "containerPort": 1, "protocol": "tcp" }] })
            ),
            [
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[0].ports[1].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ]
        );
    }

    #[test]
    fn probes() {
        assert_eq!(
            with_container(json!({ "livenessProbe": {} })),
            ["spec.containers[0].livenessProbe: Required value: must specify a handler type"]
        );
        assert_eq!(
            with_container(
                json!({ "livenessProbe": { "tcpSocket": { "port": 1 }, "successThreshold": 2 } })
            ),
            ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"]
        );
    }

    #[test]
    fn a_pod_stays_what_it_is_but_for_its_image() {
        let pod = |image: &str, args: &str| -> Pod {
            serde_json::from_value(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": {},
                "spec": { "containers": [{ "name": "a", "image": image, "args": [args] }] } }))
            .expect("a Pod")
        };
        let check = |new: &Pod| {
            let mut errors = FieldErrors::default();
            pod_update(new, &pod("1", "x"), &mut errors);
            errors.is_empty()
        };
        assert!(check(&pod("2", "x")));
        assert!(!check(&pod("1", "y")));
    }
}

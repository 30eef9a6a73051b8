//! Field numbers of the messages that kubectl's imperative commands send.
//!
//! One message a line: `Name field:numberType …`. The types:
//!
//! | code | type | | code | type |
//! |---|---|---|---|---|
//! | `s` `S` | text; `S` keeps the empty one | | `T` | Time |
//! | `i` `I` | number; `I` keeps 0 | | `Q` | Quantity |
//! | `b` `B` | flag; `B` keeps false | | `N` | IntOrString |
//! | `y` | bytes, base64 in JSON | | `-` | not read (status, which a client does not set) |
//! | `[t]` | list | | `{t}` | map from text |
//! | `<Name>` | message | | `=<Name>` | embedded message |
//!
//! Capital letters are pointers in the Go types: absent and zero differ.

use std::collections::HashMap;
use std::sync::LazyLock;

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: String,
    /// Its number on the wire.
    pub number: u64,
    /// How to read it.
    pub kind: Type,
}

/// How to read a field.
#[derive(Debug)]
pub enum Type {
    /// A string.
    Text {
        /// Whether the empty string counts.
        keep_empty: bool,
    },
    /// An integer.
    Number {
        /// Whether 0 counts.
        keep_zero: bool,
    },
    /// A boolean.
    Flag {
        /// Whether false counts.
        keep_false: bool,
    },
    /// Bytes.
    Blob,
    /// `metav1.Time`.
    Time,
    /// `resource.Quantity`.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// Another message.
    Message(String),
    /// Another message whose fields are its owner's.
    Inline(String),
    /// A repeated field.
    List(Box<Type>),
    /// A map from strings.
    Map(Box<Type>),
    /// Not read.
    Skip,
}

/// The fields of a message, if it is in the table.
pub fn message(name: &str) -> Option<&'static [Field]> {
    TABLE.get(name).map(Vec::as_slice)
}

static TABLE: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let line = |line: &'static str| {
        let (name, fields) = line.split_once(' ')?;
        Some((
            name,
            fields.split_whitespace().filter_map(parse_field).collect(),
        ))
    };
    SCHEMA.lines().filter_map(line).collect()
});

fn parse_field(text: &str) -> Option<Field> {
    let (name, rest) = text.split_once(':')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let (number, kind) = rest.split_at(digits);
    Some(Field {
        name: name.to_owned(),
        number: number.parse().ok()?,
        kind: parse_type(kind)?,
    })
}

fn parse_type(code: &str) -> Option<Type> {
    let inner =
        |open: &str, close: &str| code.strip_prefix(open).and_then(|c| c.strip_suffix(close));
    if let Some(item) = inner("[", "]") {
        return Some(Type::List(Box::new(parse_type(item)?)));
    }
    if let Some(value) = inner("{", "}") {
        return Some(Type::Map(Box::new(parse_type(value)?)));
    }
    if let Some(name) = inner("=<", ">") {
        return Some(Type::Inline(name.to_owned()));
    }
    if let Some(name) = inner("<", ">") {
        return Some(Type::Message(name.to_owned()));
    }
    Some(match code {
        "s" | "S" => Type::Text {
            keep_empty: code == "S",
        },
        "i" | "I" => Type::Number {
            keep_zero: code == "I",
        },
        "b" | "B" => Type::Flag {
            keep_false: code == "B",
        },
        "y" => Type::Blob,
        "T" => Type::Time,
        "Q" => Type::Quantity,
        "N" => Type::IntOrString,
        "-" => Type::Skip,
        _ => return None,
    })
}

const SCHEMA: &str = "\
ObjectMeta name:1s generateName:2s namespace:3s selfLink:4s uid:5s resourceVersion:6s generation:7i creationTimestamp:8T deletionTimestamp:9T deletionGracePeriodSeconds:10I labels:11{s} annotations:12{s} ownerReferences:13[<OwnerReference>] finalizers:14[s] managedFields:17-
OwnerReference kind:1s name:3s uid:4s apiVersion:5s controller:6B blockOwnerDeletion:7B
LabelSelector matchLabels:1{s} matchExpressions:2[<LabelSelectorRequirement>]
LabelSelectorRequirement key:1s operator:2s values:3[s]
ObjectReference kind:1s namespace:2s name:3s uid:4s apiVersion:5s resourceVersion:6s fieldPath:7s
LocalObjectReference name:1s
DeleteOptions gracePeriodSeconds:1I preconditions:2<Preconditions> orphanDependents:3B propagationPolicy:4s dryRun:5[s]
Preconditions uid:1s resourceVersion:2s
Namespace metadata:1<ObjectMeta> spec:2<NamespaceSpec> status:3-
NamespaceSpec finalizers:1[s]
ConfigMap metadata:1<ObjectMeta> data:2{s} binaryData:3{y} immutable:4B
Secret metadata:1<ObjectMeta> data:2{y} type:3s stringData:4{s} immutable:5B
ServiceAccount metadata:1<ObjectMeta> secrets:2[<ObjectReference>] imagePullSecrets:3[<LocalObjectReference>] automountServiceAccountToken:4B
Service metadata:1<ObjectMeta> spec:2<ServiceSpec> status:3-
ServiceSpec ports:1[<ServicePort>] selector:2{s} clusterIP:3s type:4s externalIPs:5[s] sessionAffinity:7s loadBalancerIP:8s loadBalancerSourceRanges:9[s] externalName:10s externalTrafficPolicy:11s healthCheckNodePort:12i publishNotReadyAddresses:13b sessionAffinityConfig:14<SessionAffinityConfig> ipFamilyPolicy:17s clusterIPs:18[s] ipFamilies:19[s] allocateLoadBalancerNodePorts:20B loadBalancerClass:21s internalTrafficPolicy:22s trafficDistribution:23s
ServicePort name:1s protocol:2s port:3i targetPort:4N nodePort:5i appProtocol:6s
SessionAffinityConfig clientIP:1<ClientIPConfig>
ClientIPConfig timeoutSeconds:1I
Pod metadata:1<ObjectMeta> spec:2<PodSpec> status:3-
PodTemplateSpec metadata:1<ObjectMeta> spec:2<PodSpec>
PodSpec containers:2[<Container>] restartPolicy:3s terminationGracePeriodSeconds:4I activeDeadlineSeconds:5I dnsPolicy:6s nodeSelector:7{s} serviceAccountName:8s serviceAccount:9s nodeName:10s hostNetwork:11b hostPID:12b hostIPC:13b securityContext:14<PodSecurityContext> imagePullSecrets:15[<LocalObjectReference>] hostname:16s subdomain:17s schedulerName:19s initContainers:20[<Container>] automountServiceAccountToken:21B tolerations:22[<Toleration>] priorityClassName:24s priority:25I shareProcessNamespace:27B enableServiceLinks:30B preemptionPolicy:31s
PodSecurityContext runAsUser:2I runAsNonRoot:3B runAsGroup:6I
Toleration key:1s operator:2s value:3s effect:4s tolerationSeconds:5I
Container name:1s image:2s command:3[s] args:4[s] workingDir:5s ports:6[<ContainerPort>] env:7[<EnvVar>] resources:8<ResourceRequirements> terminationMessagePath:13s imagePullPolicy:14s stdin:16b stdinOnce:17b tty:18b terminationMessagePolicy:20s
ContainerPort name:1s hostPort:2i containerPort:3i protocol:4s hostIP:5s
EnvVar name:1s value:2s
ResourceRequirements limits:1{Q} requests:2{Q}
Binding metadata:1<ObjectMeta> target:2<ObjectReference>
ResourceQuota metadata:1<ObjectMeta> spec:2<ResourceQuotaSpec> status:3-
ResourceQuotaSpec hard:1{Q} scopes:2[s]
Deployment metadata:1<ObjectMeta> spec:2<DeploymentSpec> status:3-
DeploymentSpec replicas:1I selector:2<LabelSelector> template:3<PodTemplateSpec> strategy:4<DeploymentStrategy> minReadySeconds:5i revisionHistoryLimit:6I paused:7b progressDeadlineSeconds:9I
DeploymentStrategy type:1s rollingUpdate:2<RollingUpdateDeployment>
RollingUpdateDeployment maxUnavailable:1N maxSurge:2N
Job metadata:1<ObjectMeta> spec:2<JobSpec> status:3-
JobSpec parallelism:1I completions:2I activeDeadlineSeconds:3I selector:4<LabelSelector> manualSelector:5B template:6<PodTemplateSpec> backoffLimit:7I ttlSecondsAfterFinished:8I completionMode:9s suspend:10B
CronJob metadata:1<ObjectMeta> spec:2<CronJobSpec> status:3-
CronJobSpec schedule:1s startingDeadlineSeconds:2I concurrencyPolicy:3s suspend:4B jobTemplate:5<JobTemplateSpec> successfulJobsHistoryLimit:6I failedJobsHistoryLimit:7I timeZone:8s
JobTemplateSpec metadata:1<ObjectMeta> spec:2<JobSpec>
Role metadata:1<ObjectMeta> rules:2[<PolicyRule>]
ClusterRole metadata:1<ObjectMeta> rules:2[<PolicyRule>] aggregationRule:3<AggregationRule>
AggregationRule clusterRoleSelectors:1[<LabelSelector>]
PolicyRule verbs:1[s] apiGroups:2[s] resources:3[s] resourceNames:4[s] nonResourceURLs:5[s]
RoleBinding metadata:1<ObjectMeta> subjects:2[<Subject>] roleRef:3<RoleRef>
ClusterRoleBinding metadata:1<ObjectMeta> subjects:2[<Subject>] roleRef:3<RoleRef>
Subject kind:1s apiGroup:2s name:3s namespace:4s
RoleRef apiGroup:1s kind:2s name:3s
Ingress metadata:1<ObjectMeta> spec:2<IngressSpec> status:3-
IngressSpec defaultBackend:1<IngressBackend> tls:2[<IngressTLS>] rules:3[<IngressRule>] ingressClassName:4s
IngressTLS hosts:1[s] secretName:2s
IngressRule host:1s value:2=<IngressRuleValue>
IngressRuleValue http:1<HTTPIngressRuleValue>
HTTPIngressRuleValue paths:1[<HTTPIngressPath>]
HTTPIngressPath path:1s backend:2<IngressBackend> pathType:3s
IngressBackend service:4<IngressServiceBackend>
IngressServiceBackend name:1s port:2<ServiceBackendPort>
ServiceBackendPort name:1s number:2i
PodDisruptionBudget metadata:1<ObjectMeta> spec:2<PodDisruptionBudgetSpec> status:3-
PodDisruptionBudgetSpec minAvailable:1N selector:2<LabelSelector> maxUnavailable:3N unhealthyPodEvictionPolicy:4s
Eviction metadata:1<ObjectMeta> deleteOptions:2<DeleteOptions>
PriorityClass metadata:1<ObjectMeta> value:2i globalDefault:3b description:4s preemptionPolicy:5s
Scale metadata:1<ObjectMeta> spec:2<ScaleSpec> status:3-
ScaleSpec replicas:1i
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_parses_and_every_message_named_is_there() {
        for line in SCHEMA.lines() {
            let (name, fields) = line.split_once(' ').expect("a name and fields");
            assert_eq!(
                message(name).map(<[Field]>::len),
                Some(fields.split_whitespace().count()),
                "{name}"
            );
        }
        for field in TABLE.values().flatten() {
            let inner = match &field.kind {
                Type::List(inner) | Type::Map(inner) => inner,
                other => other,
            };
            if let Type::Message(name) | Type::Inline(name) = inner {
                assert!(message(name).is_some(), "{name} of {}", field.name);
            }
        }
    }
}

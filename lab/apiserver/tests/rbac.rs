//! What ServiceAccounts may do, asked by a real kubectl with their tokens.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod support;

use support::{Lab, lab_for_kubectl};

const RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [""], resources: [services], verbs: [get, list]}
- {apiGroups: [""], resources: [services/status], verbs: [get, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: agent, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: one, namespace: kube-system}
rules:
- {apiGroups: [""], resources: [configmaps], resourceNames: [mine], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [configmaps], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: one, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: one}
subjects: [{kind: Group, name: "system:serviceaccounts:kube-system"}]
"#;

/// The lab's own credentials are in kubectl's home; a token on the command line comes before them.
fn asks(lab: &Lab, token: &str, line: &str) -> support::Answer {
    lab.kubectl(&format!("--token={token} {line}"))
}

#[test]
fn an_account_may_do_what_its_roles_say_and_nothing_else() {
    let Some(lab) = lab_for_kubectl() else {
        return;
    };
    lab.apply(RIGHTS).good();
    lab.kubectl("create service clusterip web --tcp=80").good();
    lab.kubectl("-n kube-system create configmap mine").good();
    lab.kubectl("-n kube-system create configmap other").good();
    let agent = lab.server.account_token("kube-system", "agent");
    for line in [
        "get services -A",
        "get service web",
        "patch service web --subresource=status --type=merge -p {\"status\":{\"loadBalancer\":{}}}",
        "-n kube-system get configmap mine",
        "-n kube-system get configmaps --field-selector=metadata.name=mine",
        "-n kube-system create configmap new",
    ] {
        asks(&lab, &agent, line).good();
    }
    for (line, said) in [
        (
            "get pods",
            "pods is forbidden: User \"system:serviceaccount:kube-system:agent\" cannot list resource \"pods\" in API \
             group \"\" in the namespace \"default\"",
        ),
        ("get nodes", "at the cluster scope"),
        ("delete service web", "cannot delete resource \"services\""),
        (
            "label service web a=b",
            "cannot patch resource \"services\"",
        ),
        (
            "-n kube-system get configmap other",
            "configmaps \"other\" is forbidden",
        ),
        (
            "-n kube-system get configmaps",
            "cannot list resource \"configmaps\"",
        ),
        ("get configmap mine", "in the namespace \"default\""),
        ("get configmaps -A", "at the cluster scope"),
    ] {
        let answer = asks(&lab, &agent, line).bad();
        assert!(answer.contains(said), "{line}: {answer}");
    }
    // Of the same namespace, and of another.
    let neighbour = lab.server.account_token("kube-system", "neighbour");
    asks(&lab, &neighbour, "-n kube-system get configmap mine").good();
    asks(&lab, &neighbour, "get services").bad();
    let stranger = lab.server.account_token("default", "agent");
    asks(&lab, &stranger, "-n kube-system get configmap mine").bad();
    asks(&lab, &stranger, "get services").bad();
    let used = lab.server.used_rights();
    let has = |verb: &str, resource: &str| {
        let mut all = used.iter();
        all.any(|right| right.verb == verb && right.resource == resource)
    };
    assert!(has("patch", "services/status") && has("create", "configmaps"));
    assert!(
        !has("watch", "configmaps") && !has("delete", "services"),
        "{used:?}"
    );
}

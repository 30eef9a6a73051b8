//! CustomResourceDefinitions with the real kubectl: as any operator's manifests bring them.

mod support;

use support::lab_for_kubectl;

const POOLS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: pools.example.org }
spec:
  group: example.org
  scope: Cluster
  names: { plural: pools, kind: Pool, shortNames: [pl], categories: [all] }
  versions:
  - name: v1alpha1
    served: true
    storage: false
    schema: &schema
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [addresses]
            properties:
              addresses: { type: array, minItems: 1, items: { type: string, format: cidr } }
              announce: { type: string, enum: [arp, bgp], default: arp }
          status:
            type: object
            properties: { free: { type: integer } }
  - name: v1
    served: true
    storage: true
    subresources: { status: {} }
    schema: *schema
    additionalPrinterColumns:
    - { name: Addresses, type: string, jsonPath: ".spec.addresses[*]" }
    - { name: Announce, type: string, jsonPath: .spec.announce }
    - { name: Free, type: integer, jsonPath: .status.free, priority: 1 }
"#;

fn pool(spec: &str) -> String {
    format!(
        "apiVersion: example.org/v1\nkind: Pool\nmetadata: {{ name: blue }}\nspec: {{ {spec} }}\n"
    )
}

#[test]
fn a_definition_serves_its_kind_in_every_version() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.kubectl("get pools").bad();
    lab.apply(POOLS).good();
    lab.kubectl("wait --for=condition=Established crd/pools.example.org --timeout=5s")
        .good();
    let applied = lab.apply(&pool("addresses: [192.0.2.0/28]")).good();
    assert_eq!(applied, "pool.example.org/blue created\n");
    let again = lab.apply(&pool("addresses: [192.0.2.0/28]")).good();
    assert_eq!(again, "pool.example.org/blue unchanged\n");
    let table = lab.kubectl("get pl").good();
    let cells: Vec<&str> = table.split_whitespace().collect();
    let expected = [
        "NAME",
        "ADDRESSES",
        "ANNOUNCE",
        "blue",
        "192.0.2.0/28",
        "arp",
    ];
    assert_eq!(cells, expected);
    let old = lab.kubectl("get pools.v1alpha1.example.org blue -o jsonpath={.apiVersion}");
    assert_eq!(old.good(), "example.org/v1alpha1");
    let all = lab.kubectl("get all -o name").good();
    assert!(all.contains("pool.example.org/blue"), "{all}");
    lab.kubectl(r#"patch pool blue --type=merge --subresource=status -p {"status":{"free":14}}"#)
        .good();
    lab.kubectl(
        r#"patch pool blue --type=merge -p {"spec":{"announce":"bgp"},"status":{"free":1}}"#,
    )
    .good();
    let both = lab.kubectl("get pool blue -o jsonpath={.spec.announce}/{.status.free}");
    assert_eq!(both.good(), "bgp/14", "status has a path of its own");
}

#[test]
fn what_the_schema_forbids_is_refused_with_the_field() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.apply(POOLS).good();
    for (spec, expected) in [
        ("addresses: []", "spec.addresses"),
        ("addresses: [192.0.2.0/99]", "spec.addresses[0]"),
        (
            "addresses: [192.0.2.0/28], announce: rip",
            "supported values",
        ),
        ("announce: arp", "spec.addresses: Required value"),
        ("addresses: [192.0.2.0/28], anounce: arp", "unknown field"),
    ] {
        let refusal = lab.apply(&pool(spec)).bad();
        assert!(refusal.contains(expected), "{spec}: {refusal}");
    }
    let wrong = POOLS.replace("name: pools.example.org", "name: ponds.example.org");
    let refusal = lab.apply(&wrong).bad();
    assert!(refusal.contains("spec.names.plural"), "{refusal}");
}

#[test]
fn with_the_definition_goes_what_it_defined() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.apply(POOLS).good();
    lab.apply(&pool("addresses: [192.0.2.0/28]")).good();
    lab.kubectl("delete crd pools.example.org").good();
    lab.kubectl("get pools").bad();
    lab.apply(POOLS).good();
    assert_eq!(lab.kubectl("get pools -o name").good(), "");
}

const POLICIES: &str = include_str!("../../../examples/cluster-network-policy/crd.yaml");
const EXAMPLE: &str = include_str!("../../../examples/cluster-network-policy/policy.yaml");

/// Rules of the definition, and what is refused by each.
const REFUSED: [(&str, &str); 7] = [
    (
        "ingress: [{action: Log, from: [{namespaces: {}}]}]",
        "supported values: \"Accept\", \"Deny\", \"Pass\"",
    ),
    (
        "ingress: [{action: Deny, from: [{networks: [10.0.0.0/8]}]}]",
        "unknown field \"spec.ingress[0].from[0].networks\"",
    ),
    (
        "egress: [{action: Deny, to: [{networks: [10.0.0.0/33]}]}]",
        "Invalid CIDR format provided",
    ),
    // Every name there is.
    (
        "egress: [{action: Accept, to: [{domainNames: ['*']}]}]",
        "spec.egress[0].to[0].domainNames[0]",
    ),
    (
        "egress: [{action: Deny, to: [{nodes: {}}], protocols: [{destinationNamedPort: http}]}]",
        "peer cannot be set with namedPorts",
    ),
    (
        "egress: [{action: Deny, to: [{nodes: {}}], protocols: [{tcp: {destinationPort: {range: {start: 9, end: 9}}}}]}]",
        "Start port must be less than End port",
    ),
    (
        "ingress: [{action: Deny, from: [{namespaces: {}, pods: {podSelector: {}}}]}]",
        "should have at most 1 properties",
    ),
];

#[test]
fn cluster_network_policies_are_validated_as_published() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.apply(POLICIES).good();
    let applied = lab.apply(EXAMPLE).good();
    assert!(applied.contains("/no-credentials created"), "{applied}");
    let columns = lab.kubectl("get cnp tenants-keep-apart").good();
    assert!(
        columns.starts_with("NAME                 TIER       PRIORITY   AGE\n"),
        "{columns}"
    );
    let described = lab.kubectl("describe cnp no-credentials").good();
    assert!(described.contains("169.254.169.254/32"), "{described}");
    for (rules, wanted) in REFUSED {
        let policy = format!(
            "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: p}}\n\
             spec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, {rules}}}\n"
        );
        let said = lab.apply(&policy).bad();
        assert!(said.contains(wanted), "{rules}: {said}");
    }
}

const OF_NODES: &str = include_str!("../../../examples/node-network-policy/crd.yaml");
const DOOR: &str = include_str!("../../../examples/node-network-policy/policy.yaml");

#[test]
fn node_network_policies_are_validated() {
    let Some(lab) = lab_for_kubectl() else { return };
    lab.apply(OF_NODES).good();
    lab.apply(DOOR).good();
    assert!(
        lab.kubectl("get nnp")
            .good()
            .starts_with("NAME    PRIORITY   AGE\n")
    );
    for (rules, wanted) in [
        (
            "[{action: Pass, from: [{nodes: {}}]}]",
            "\"Accept\", \"Deny\"",
        ),
        (
            "[{action: Deny, from: [{networks: [10.0.0.0/33]}]}]",
            "Invalid CIDR format provided",
        ),
        ("[{action: Deny, from: []}]", "should have at least 1 items"),
    ] {
        let policy = format!(
            "apiVersion: parfait.dev/v1alpha1\nkind: NodeNetworkPolicy\nmetadata: {{name: p}}\n\
             spec: {{priority: 1, ingress: {rules}}}\n"
        );
        let said = lab.apply(&policy).bad();
        assert!(said.contains(wanted), "{rules}: {said}");
    }
}

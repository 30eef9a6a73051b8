//! Whatever the body, a write is stored or refused: it neither panics nor leaves something half done.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Checks, Core, Warnings, create_object};
use crate::allocate::{Addresses, Family};
use crate::body::Decoded;
use crate::patch::{self, PatchForm};
use crate::registry;
use crate::request::FieldValidation;
use crate::store::{Key, Store};
use crate::{prepare, table};

fn core() -> Core {
    let v4 = "10.96.0.0/24".parse().expect("a network");
    let v6 = "fd00::/120".parse().expect("a network");
    let addresses = Addresses::new(Some(v4), Some(v6), vec![Family::Ipv4, Family::Ipv6]);
    let core = Core {
        store: Store::new(registry::slots(), addresses, 1),
        stop: CancellationToken::new(),
        customs: crate::custom::Customs::default(),
        accounts: crate::authorize::Accounts::default(),
    };
    crate::seed::seed(&core).expect("an empty store takes the first objects");
    core
}

const KEYS: &str = "metadata name namespace labels annotations spec status ports port containers selector template \
    type clusterIP clusterIPs ipFamilies ipFamilyPolicy nodePort protocol image matchLabels replicas finalizers \
    generateName data volumes resources limits hostPort endpoints addresses addressType ingress from ipBlock cidr \
    ownerReferences kind";

const WORDS: &str = "a web None 10.96.0.9 fd00::9 IPv4 IPv6 PreferDualStack TCP ExternalName NodePort LoadBalancer \
    kubernetes.io/x 10.0.0.0/8 é/\u{0} 25%";

fn any_json() -> impl Strategy<Value = Value> {
    let keys: Vec<&str> = KEYS.split_whitespace().collect();
    let words: Vec<&str> = WORDS.split_whitespace().chain([""]).collect();
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![-1i64, 0, 1, 80, 30080, 70000, i64::MAX]).prop_map(Value::from),
        prop::sample::select(words).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        let key = prop::sample::select(keys.clone()).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_body_panics(spec in any_json(), metadata in any_json(), root in any_json()) {
        let core = core();
        let checks = Checks { validation: FieldValidation::Warn, dry_run: false };
        let named = json!({ "metadata": { "name": "x", "labels": metadata }, "spec": spec });
        let mut data = named.clone();
        data["data"] = spec;
        for resource in registry::all() {
            for value in [&named, &data, &root, &json!({ "metadata": metadata })] {
                let decoded = Decoded { value: value.clone(), duplicates: Vec::new() };
                let namespace = if resource.namespaced { "default" } else { "" };
                let made = create_object(&core, resource, namespace, decoded, checks, &mut Warnings::default());
                if let Ok(object) = made {
                    let key = Key::new(namespace, prepare::name_of(&object.value));
                    prop_assert!(core.store.read(resource.slot, &key).is_some());
                    table::table(&resource.columns, &[&object.value], true, &Value::Null, |_| Value::Null);
                    for form in [PatchForm::Merge, PatchForm::Json, PatchForm::Strategic] {
                        let _ = patch::apply(form, resource.schema, &object.value, &root);
                    }
                }
            }
        }
    }
}

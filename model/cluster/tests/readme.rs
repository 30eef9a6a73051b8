//! The README's table of the configuration names every field that there is, and no other.

use std::collections::BTreeSet;

use parfait_cluster::{Config, Egress};
use serde_json::{Value, json};

const README: &str = include_str!("../../../README.md");

/// The fields, in the words of the table: `egress.addresses[].namespace`.
fn fields(of: &Value, at: &str, found: &mut BTreeSet<String>) {
    match of {
        Value::Object(map) if at != "egress.addresses[].podSelector" => {
            for (key, value) in map {
                let path = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                fields(value, &path, found);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            found.insert(at.to_owned());
            for value in list {
                fields(value, &format!("{at}[]"), found);
            }
        }
        _ => drop(found.insert(at.to_owned())),
    }
}

#[test]
fn every_field_of_the_configuration_has_a_row() {
    let egress =
        json!({"addresses": [{"namespace": "a", "podSelector": {}, "addresses": ["192.0.2.1"]}]});
    let egress: Egress = serde_json::from_value(egress).expect("a configuration");
    let config = Config {
        egress,
        ..Config::default()
    };
    let mut wanted = BTreeSet::new();
    let value = serde_json::to_value(&config).expect("plain data");
    fields(&value, "", &mut wanted);
    let (_, table) = README.split_once("| field | values |").expect("the table");
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let rows = rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let rows: BTreeSet<String> = rows.map(str::to_owned).collect();
    assert_eq!(rows, wanted);
}

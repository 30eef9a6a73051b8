//! Contents of volumes; mounting them is tried in the container tests.

use serde_json::json;

use super::*;

fn content_of(volume: serde_json::Value) -> Result<Content, String> {
    let volume: Volume = serde_json::from_value(volume).expect("a volume");
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n",
        "labels": {"a": "1"}}, "spec": {"containers": [{"name": "c"}]}}))
    .expect("a pod");
    let mut sources = Sources::new();
    let entries = [("a.conf", "A"), ("b.conf", "B")];
    let entries = entries
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()))
        .collect();
    sources.insert(Source::ConfigMap("conf".into()), entries);
    let makings = Makings {
        pod: &pod,
        addresses: &Addresses::default(),
        machine: Machine { cpus: 1, memory: 1 },
        sources: &sources,
    };
    content(&volume, &makings).map_err(|e| e.to_string())
}

fn files(list: &[(&str, u32, &str)]) -> Content {
    Content::Files(
        list.iter()
            .map(|(path, mode, data)| VolumeFile {
                path: path.into(),
                mode: *mode,
                data: data.as_bytes().to_vec(),
            })
            .collect(),
    )
}

#[test]
fn files_come_from_maps_and_fields() {
    let all = content_of(json!({"name": "v", "configMap": {"name": "conf"}}));
    assert_eq!(
        all,
        Ok(files(&[("a.conf", 0o644, "A"), ("b.conf", 0o644, "B")]))
    );
    let one = content_of(
        json!({"name": "v", "projected": {"defaultMode": 0o400, "sources": [
        {"configMap": {"name": "conf", "items": [{"key": "b.conf", "path": "deep/b", "mode": 0o600}]}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"serviceAccountToken": {"path": "token"}}]}}),
    );
    assert_eq!(
        one,
        Ok(files(&[
            ("deep/b", 0o600, "B"),
            ("labels", 0o400, "a=\"1\"")
        ]))
    );
    let optional =
        content_of(json!({"name": "v", "secret": {"secretName": "gone", "optional": true}}));
    assert_eq!(optional, Ok(files(&[])));
}

#[test]
fn what_cannot_be_is_said() {
    for (volume, word) in [
        (
            json!({"hostPath": {"path": "/etc"}}),
            "hostPath \"/etc\" is refused",
        ),
        (
            json!({"nfs": {"server": "s", "path": "/"}}),
            "no such storage",
        ),
        (
            json!({"configMap": {"name": "gone"}}),
            "configmap \"gone\" not found",
        ),
        (
            json!({"configMap": {"name": "conf", "items": [{"key": "x", "path": "x"}]}}),
            "no key \"x\"",
        ),
        (
            json!({"configMap": {"name": "conf", "items": [{"key": "a.conf", "path": "../../etc/passwd"}]}}),
            "without '..'",
        ),
    ] {
        let mut volume = volume;
        volume["name"] = json!("v");
        let error = content_of(volume).expect_err("refused");
        assert!(error.contains(word), "{error}");
    }
    let claim = content_of(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}));
    assert!(matches!(
        claim,
        Ok(Content::Empty {
            warning: Some(_),
            ..
        })
    ));
}

//! The four arrows: which tier of the house may use which, decided from the paths of the crates alone.
//!
//! ```text
//!        programs/  lab/        join
//!        /            \
//!   layers/         edges/      decide | touch      never know each other
//!        \            /
//!           model/              the words they share
//! ```
//!
//! Why a test and not a habit: the day a layer can reach the kernel, explain is no longer the same
//! program as the one that was executed, and nobody notices until the two differ.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::manifest::{Dependency, Linked, Manifest};
use super::tree::Tree;

/// What every crate takes from the workspace, so that there is one version and one edition.
const INHERITED: [&str; 4] = ["version", "edition", "rust-version", "license"];

/// Crates by which a pure crate would stop being pure.
const IMPURE: [&str; 7] = [
    "tokio",
    "rand",
    "getrandom",
    "fastrand",
    "libc",
    "rustix",
    "kube",
];

/// Checks every member's manifest.
pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    let members: BTreeMap<&str, Manifest> = tree
        .crates()
        .into_iter()
        .filter_map(|folder| Some((folder, scan(tree, folder)?)))
        .collect();
    let folders: BTreeMap<&str, &str> = members
        .iter()
        .filter_map(|(folder, manifest)| Some((manifest.name()?, *folder)))
        .collect();
    for (folder, manifest) in &members {
        inherits(folder, manifest, found);
        for dependency in manifest.dependencies() {
            arrow(folder, &dependency, &folders, found);
        }
    }
    for folder in ["programs/agent", "programs/cni", "programs/inspect"] {
        no_lab_inside(folder, &members, &folders, found);
    }
}

fn scan(tree: &Tree, folder: &str) -> Option<Manifest> {
    let file = tree.file(&format!("{folder}/Cargo.toml"))?;
    Some(Manifest::scan(&file.text))
}

fn inherits(folder: &str, manifest: &Manifest, found: &mut Vec<Violation>) {
    for key in INHERITED {
        let dotted = manifest.value("package", &format!("{key}.workspace")) == Some("true");
        let inline = manifest
            .value("package", key)
            .is_some_and(|value| value.contains("workspace"));
        if !dotted && !inline {
            found.push(Violation {
                path: format!("{folder}/Cargo.toml"),
                line: 1,
                rule: "manifest",
                text: format!(
                    "`{key}` is not the workspace's, so crates can drift apart; write `{key}.workspace = true`"
                ),
            });
        }
    }
    if manifest.value("lints", "workspace") != Some("true") {
        found.push(Violation {
            path: format!("{folder}/Cargo.toml"),
            line: 1,
            rule: "manifest",
            text: "without the workspace's lints clippy checks less here than elsewhere; \
                   add `[lints]` with `workspace = true`"
                .to_string(),
        });
    }
}

fn arrow(
    folder: &str,
    dependency: &Dependency,
    folders: &BTreeMap<&str, &str>,
    found: &mut Vec<Violation>,
) {
    let tier = tier(folder);
    let name = &dependency.name;
    let path = format!("{folder}/Cargo.toml");
    let line = dependency.line;
    if let Some(target) = folders.get(name.as_str()) {
        if !may_use(folder, target, dependency.linked) {
            found.push(Violation {
                path,
                line,
                rule: "arrows",
                text: format!("`{folder}` may not use `{target}`: {}", law(tier)),
            });
        }
    } else if matches!(tier, "model" | "layers")
        && dependency.linked == Linked::Yes
        && IMPURE.contains(&name.as_str())
    {
        found.push(Violation {
            path,
            line,
            rule: "pure",
            text: format!(
                "`{name}` in a crate that only decides: a plan must be a function of its snapshot; \
                 do this in edges/ or programs/ and pass the result in as a value"
            ),
        });
    }
}

fn tier(folder: &str) -> &str {
    folder.split('/').next().unwrap_or(folder)
}

/// The table of arrows.
fn may_use(folder: &str, target: &str, linked: Linked) -> bool {
    match (tier(folder), tier(target)) {
        ("model", "model") => target == "model/packet" && folder != "model/packet",
        ("layers" | "edges", "model") => true,
        ("programs", "model" | "layers" | "edges" | "programs") => true,
        ("programs", "lab") => folder == "programs/parfait" || linked == Linked::TestsOnly,
        ("lab", "model" | "edges" | "lab") => true,
        _ => false,
    }
}

/// The reason behind each row of the table, and the way out.
fn law(tier: &str) -> &'static str {
    match tier {
        "model" => {
            "the model is the words all others share; `packet` knows nobody, the others know only `packet`. \
             Move what is shared down into `model/packet`"
        }
        "layers" => {
            "a layer knows the model only, so that it can be planned and explained anywhere. \
             Pass the other layer's result in as a model value; programs/ join them"
        }
        "edges" => {
            "an edge touches the world and decides nothing, so it knows the model only. \
             Put the common words into model/, or join the two in programs/"
        }
        "programs" => {
            "only programs/parfait carries the lab: what runs in a real cluster must not contain it"
        }
        "lab" => {
            "the lab supplies machines and an API to unchanged programs; start the program as a process instead"
        }
        _ => "this crate works on the project from outside; run the built program instead",
    }
}

/// Follows linked dependencies from `folder`; finding a lab crate is a violation with its way in.
fn no_lab_inside(
    folder: &str,
    members: &BTreeMap<&str, Manifest>,
    folders: &BTreeMap<&str, &str>,
    found: &mut Vec<Violation>,
) {
    let mut seen = BTreeSet::new();
    let mut todo = vec![vec![folder]];
    while let Some(way) = todo.pop() {
        let Some(manifest) = way.last().and_then(|last| members.get(last)) else {
            continue;
        };
        for dependency in manifest.dependencies() {
            let Some(target) = folders.get(dependency.name.as_str()) else {
                continue;
            };
            if dependency.linked != Linked::Yes || !seen.insert(*target) {
                continue;
            }
            let mut next = way.clone();
            next.push(target);
            // A direct use is reported by the table already.
            if tier(target) == "lab" && next.len() > 2 {
                found.push(Violation {
                    path: format!("{folder}/Cargo.toml"),
                    line: 1,
                    rule: "arrows",
                    text: format!(
                        "the lab is linked in by {}: {}",
                        next.join(" → "),
                        law("programs")
                    ),
                });
            }
            todo.push(next);
        }
    }
}

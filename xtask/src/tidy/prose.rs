//! Words and links: what must not be written down anywhere, and links that must lead somewhere.

use std::path::Path;

use super::Violation;
use super::source::is_whole_word;
use super::tree::{File, Tree};

/// Forbidden words, matched whole and with the case as written; each with the reason.
///
/// They are put together from pieces, so that this file does not break its own rule.
fn forbidden() -> Vec<(String, &'static str)> {
    let marks = ["TO DO", "FIX ME", "X XX"];
    let authors = [
        "Clau de",
        "clau de",
        "Anthro pic",
        "AI-gene rated",
        "ai-gene rated",
        "AI-assi sted",
        "L LM",
        "co pilot",
        "Co pilot",
        "chat gpt",
        "Chat GPT",
        "language mo del",
        "session of wo rk",
    ];
    let hosts = [
        "index.cra tes.io",
        "static.cra tes.io",
        "pypi.o rg",
        "proxy.go lang.org",
        "registry.n pmjs.org",
    ];
    let mut words = Vec::new();
    let mut add = |list: &[&str], why| {
        words.extend(list.iter().map(|pieces| (joined(pieces), why)));
    };
    add(
        &marks,
        "a note that nobody owns is never done; do it now, or name its owner: `(name)` right after it",
    );
    add(
        &authors,
        "the text speaks for itself, and its author is who commits it; take it out",
    );
    add(
        &hosts,
        "where packages come from is each machine's own setting; take it out",
    );
    words
}

/// Takes out the last blank, which only hides the word from the rule.
fn joined(pieces: &str) -> String {
    match pieces.rsplit_once(' ') {
        Some((head, tail)) => format!("{head}{tail}"),
        None => pieces.to_string(),
    }
}

/// Checks every text file.
pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    let words = forbidden();
    let machine = machine_paths(&tree.root);
    for file in &tree.files {
        if file.path == "Cargo.lock" {
            continue;
        }
        forbidden_words(file, &words, found);
        host_paths(file, &machine, found);
        if file.path.ends_with(".md") {
            links(tree, file, found);
        }
    }
}

fn forbidden_words(file: &File, words: &[(String, &'static str)], found: &mut Vec<Violation>) {
    for (number, line) in file.text.lines().enumerate() {
        for (word, why) in words {
            for (at, _) in line.match_indices(word.as_str()) {
                let owned = line[at + word.len()..].starts_with('(');
                if is_whole_word(line, at, word.len()) && !owned {
                    found.push(Violation {
                        path: file.path.clone(),
                        line: number + 1,
                        rule: "words",
                        text: format!("`{word}`: {why}"),
                    });
                }
            }
        }
    }
}

/// The folders of this machine that have no place in the project: the checkout, what lies beside it,
/// and the user's home below `/home`. A checkout directly in a folder that every machine has says
/// nothing about its neighbours.
fn machine_paths(root: &Path) -> Vec<String> {
    let mut paths = vec![root.display().to_string()];
    if let Some(parent) = root.parent()
        && ![
            "/", "/tmp", "/home", "/root", "/src", "/usr/src", "/opt", "/srv", "/app", "/mnt",
        ]
        .iter()
        .any(|common| Path::new(common) == parent)
    {
        let beside = std::fs::read_dir(parent).into_iter().flatten().flatten();
        paths.extend(beside.map(|entry| entry.path().display().to_string()));
    }
    if let Ok(home) = std::env::var("HOME")
        && home.starts_with("/home/")
    {
        paths.push(home);
    }
    paths
}

fn host_paths(file: &File, machine: &[String], found: &mut Vec<Violation>) {
    for (number, line) in file.text.lines().enumerate() {
        let hit = machine.iter().find(|path| {
            line.match_indices(path.as_str()).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + path.len()..].chars().next();
                let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
                !before.is_some_and(inside)
                    && !after.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
            })
        });
        if let Some(path) = hit {
            found.push(Violation {
                path: file.path.clone(),
                line: number + 1,
                rule: "host-path",
                text: format!(
                    "`{path}` is a folder of this machine, and no reader has it; write it relative to the checkout"
                ),
            });
        }
    }
}

fn links(tree: &Tree, file: &File, found: &mut Vec<Violation>) {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut fenced = false;
    for (number, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for (name, path) in functions(line) {
            let text = std::fs::read_to_string(tree.root.join(folder).join(path));
            if text.is_ok_and(|text| !text.contains(&format!("fn {name}("))) {
                found.push(Violation {
                    path: file.path.clone(),
                    line: number + 1,
                    rule: "links",
                    text: format!("`{name}` is no function of {path}; name what is there now"),
                });
            }
        }
        for target in targets(&without_code(line)) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !elsewhere && !tree.root.join(folder).join(path).exists() {
                found.push(Violation {
                    path: file.path.clone(),
                    line: number + 1,
                    rule: "links",
                    text: format!(
                        "`{target}` leads nowhere; correct the path or take the link out"
                    ),
                });
            }
        }
    }
}

/// The functions, such as tests, that are linked to by their names: [`name`](file.rs).
fn functions(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split("[`").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once("`](")?;
        let (path, _) = rest.split_once(')')?;
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (is_name && path.ends_with(".rs")).then_some((name, path))
    })
}

/// Blanks out `inline code`, where brackets are not links.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// The targets of `[text](target)`, `[text](target "title")` and `[name]: target`.
fn targets(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("](") {
        let rest = &line[at + 2..];
        if let Some(end) = rest.find(')') {
            found.extend(rest[..end].split_whitespace().next().map(str::to_string));
        }
    }
    if line.starts_with('[')
        && let Some((_, rest)) = line.split_once("]: ")
    {
        found.extend(rest.split_whitespace().next().map(str::to_string));
    }
    found
}

//! The shape of files: module documentation, sizes, names, and the four files that all layers share.

use super::Violation;
use super::source::Source;
use super::tree::Tree;

/// No file is longer: beyond this it holds more than one idea.
pub const FILE_LINES: usize = 800;

/// No function is longer: it fits a screen.
pub const FUNCTION_LINES: usize = 70;

/// Names that say nothing: what they hold has not found its place yet.
const EMPTY_NAMES: [&str; 3] = ["Manager", "Helper", "Util"];

/// Each layer has these files, and in each a public function of the same name.
const VERBS: [&str; 4] = ["plan", "apply", "explain", "prove"];

/// Checks all files and layers.
pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    for (file, source) in tree.rust() {
        opens_with_docs(&file.path, &file.text, found);
        says_something(&file.path, source, found);
        let lines = file.text.lines().count();
        if lines > FILE_LINES {
            found.push(Violation {
                path: file.path.clone(),
                line: FILE_LINES + 1,
                rule: "file-size",
                text: format!(
                    "{lines} lines, of {FILE_LINES} at most: a file holds one idea; \
                     move one out, or the tests into a sibling `tests.rs`"
                ),
            });
        }
        for function in source.functions() {
            if function.lines() > FUNCTION_LINES {
                found.push(Violation {
                    path: file.path.clone(),
                    line: function.first,
                    rule: "function-size",
                    text: format!(
                        "`{}` has {} lines, of {FUNCTION_LINES} at most: it should fit a screen; \
                         name its steps and call them, or move a table out into a `const`",
                        function.name,
                        function.lines()
                    ),
                });
            }
        }
    }
    for folder in tree.crates() {
        if folder.starts_with("layers/") {
            layer(tree, folder, found);
        }
    }
}

fn opens_with_docs(path: &str, text: &str, found: &mut Vec<Violation>) {
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("//! ") {
        found.push(Violation {
            path: path.to_string(),
            line: 1,
            rule: "module-docs",
            text: "the first line is not `//! …`: say what this file is, what it promises, \
                   what it leaves out and who does that"
                .to_string(),
        });
    }
}

fn says_something(path: &str, source: &Source, found: &mut Vec<Violation>) {
    let mut report = |line: usize, name: &str, why: &str| {
        found.push(Violation {
            path: path.to_string(),
            line,
            rule: "names",
            text: format!("`{name}`: {why}"),
        });
    };
    for function in source.functions() {
        if function.name.starts_with("get_") {
            let why = "getting is not worth a word; name what is returned, or the verb: read, find, fetch, parse";
            report(function.first, &function.name, why);
        }
    }
    for keyword in ["struct", "enum", "trait", "type", "mod"] {
        for at in source.words(keyword) {
            let rest = source.code[at + keyword.len()..].trim_start();
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = &rest[..end.unwrap_or(rest.len())];
            let empty = EMPTY_NAMES.iter().any(|empty| name.contains(empty));
            if empty || matches!(name, "util" | "utils" | "helper" | "helpers" | "manager") {
                let why = "this name fits everything; name the one thing that it is";
                report(source.line(at), name, why);
            }
        }
    }
}

fn layer(tree: &Tree, folder: &str, found: &mut Vec<Violation>) {
    if tree.file(&format!("{folder}/README.md")).is_none() {
        found.push(Violation {
            path: format!("{folder}/README.md"),
            line: 1,
            rule: "layer-shape",
            text: "missing: each layer explains itself on one page with a picture".to_string(),
        });
    }
    for verb in VERBS {
        let path = format!("{folder}/src/{verb}.rs");
        let text = match tree.file(&path).and_then(|file| file.source.as_ref()) {
            Some(source) if has_public(&source.code, verb) => continue,
            Some(_) => format!("no `pub fn {verb}`: all layers share file and function names"),
            None => format!("missing: each layer has `{verb}.rs` with a `pub fn {verb}`"),
        };
        found.push(Violation {
            path,
            line: 1,
            rule: "layer-shape",
            text,
        });
    }
}

fn has_public(code: &str, verb: &str) -> bool {
    let declared = format!("pub fn {verb}");
    code.match_indices(&declared)
        .any(|(at, _)| code[at + declared.len()..].starts_with(['(', '<']))
}

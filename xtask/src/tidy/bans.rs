//! Banned calls: what the model and the layers must not do, what no product code does by shelling
//! out, and skips that nobody sees. From the first two test code is exempt: a layer's test may read a
//! file or run `nft --check`.

use super::Violation;
use super::source::{Source, is_whole_word};
use super::tree::{File, Tree};

/// Why a pure crate must not do this, and what to do instead.
const TOUCHES: &str = "the world is touched in edges/; take the result as an argument";
const CLOCK: &str =
    "the same snapshot must give the same plan today and tomorrow; take the time as an argument";
const CHANCE: &str = "the same snapshot must give the same plan; derive it from names and UIDs";
const ORDER: &str =
    "the same snapshot must print the same bytes; use BTreeMap, BTreeSet or an ordered Vec";
const WAITS: &str = "planning is a function, not a task; let programs/ do the waiting";
const PRINTS: &str = "return the value and let programs/ print it";

/// Banned by path, in a `use` or written out.
const PATHS: [(&str, &str); 12] = [
    ("std::fs", TOUCHES),
    ("std::env", TOUCHES),
    ("std::process", TOUCHES),
    ("std::thread", TOUCHES),
    ("std::net::TcpStream", TOUCHES),
    ("std::net::TcpListener", TOUCHES),
    ("std::net::UdpSocket", TOUCHES),
    ("std::os::unix::net", TOUCHES),
    ("std::time::SystemTime", CLOCK),
    ("std::time::Instant", CLOCK),
    ("tokio", WAITS),
    ("rand", CHANCE),
];

/// Banned as a word, whatever it was imported from.
const WORDS: [(&str, &str); 12] = [
    ("TcpStream", TOUCHES),
    ("TcpListener", TOUCHES),
    ("UdpSocket", TOUCHES),
    ("SystemTime", CLOCK),
    ("HashMap", ORDER),
    ("HashSet", ORDER),
    ("async", WAITS),
    ("println!", PRINTS),
    ("eprintln!", PRINTS),
    ("print!", PRINTS),
    ("eprint!", PRINTS),
    (
        "unsafe",
        "only a system call needs it, and those are in edges/",
    ),
];

/// Banned wherever it stands: every clock is read by a function of this name.
const CALLS: [(&str, &str); 1] = [("::now(", CLOCK)];

/// Programs whose work product code does itself, over netlink.
const PROGRAMS: [&str; 10] = [
    "nft",
    "ip",
    "iptables",
    "ip6tables",
    "conntrack",
    "bridge",
    "brctl",
    "tc",
    "ipset",
    "sysctl",
];

/// Checks the sources.
pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    for (file, source) in tree.rust() {
        let tier = file.path.split('/').next().unwrap_or_default();
        if matches!(tier, "model" | "layers") {
            pure(file, source, found);
        }
        if matches!(tier, "model" | "layers" | "edges" | "programs") {
            no_shelling_out(file, source, found);
        }
        let folder = file.path.split("/tests/").next().unwrap_or_default();
        let manifest = tree.file(&format!("{folder}/Cargo.toml"));
        // A test program without libtest shows what it prints.
        if !manifest.is_some_and(|manifest| manifest.text.contains("harness = false")) {
            no_quiet_skip(file, source, found);
        }
    }
}

fn pure(file: &File, source: &Source, found: &mut Vec<Violation>) {
    let mut report = |offset: usize, what: &str, why: &str| {
        if !source.is_test(offset) {
            found.push(Violation {
                path: file.path.clone(),
                line: source.line(offset),
                rule: "pure",
                text: format!("`{what}` in a crate that only decides: {why}"),
            });
        }
    };
    for (offset, used) in source.uses() {
        for (path, why) in PATHS {
            if used == path || used.strip_prefix(path).is_some_and(|r| r.starts_with("::")) {
                report(offset, path, why);
            }
        }
    }
    for (path, why) in PATHS {
        let written = format!("{path}::");
        for (at, _) in source.code.match_indices(&written) {
            if begins_path(&source.code[..at]) {
                report(at, path, why);
            }
        }
    }
    for (word, why) in WORDS {
        let name = word.trim_end_matches('!');
        for at in source.words(name) {
            let is_macro = source.code[at + name.len()..].starts_with('!');
            if is_macro || !word.ends_with('!') {
                report(at, word, why);
            }
        }
    }
    for (call, why) in CALLS {
        for (at, _) in source.code.match_indices(call) {
            report(at, call, why);
        }
    }
}

/// Whether a path may begin after this text: `crate::rand::` is not the crate `rand`, `::rand::` is.
fn begins_path(before: &str) -> bool {
    let before = before.strip_suffix("::").unwrap_or(before);
    let last = before.chars().next_back();
    !last.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '>'))
}

fn no_quiet_skip(file: &File, source: &Source, found: &mut Vec<Violation>) {
    for name in ["println", "eprintln", "print", "eprint"] {
        for at in source.words(name) {
            let Some(rest) = file.text[at + name.len()..].strip_prefix("!(") else {
                continue;
            };
            let argument = rest.trim_start();
            if source.is_test(at) && argument.to_lowercase().starts_with("\"skip") {
                found.push(Violation {
                    path: file.path.clone(),
                    line: source.line(at),
                    rule: "quiet-skip",
                    text: format!(
                        "libtest swallows `{name}!(…)` of a test that passes, so nobody sees this skip; \
                         `writeln!(std::io::stderr(), \"SKIP: test: why\")` is shown and counted"
                    ),
                });
            }
        }
    }
}

fn no_shelling_out(file: &File, source: &Source, found: &mut Vec<Violation>) {
    let call = "Command::new(";
    for (at, _) in source.code.match_indices(call) {
        if !is_whole_word(&source.code, at, "Command".len()) || source.is_test(at) {
            continue;
        }
        // The scan keeps offsets, so the literal stands at the same place in the text.
        let argument = file.text[at + call.len()..].trim_start();
        let Some(literal) = argument.strip_prefix('"').and_then(|s| s.split('"').next()) else {
            continue;
        };
        let program = literal.rsplit('/').next().unwrap_or(literal);
        if PROGRAMS.contains(&program) {
            found.push(Violation {
                path: file.path.clone(),
                line: source.line(at),
                rule: "shell-out",
                text: format!(
                    "runs `{program}`: it may be missing or of another version, and its errors are prose; \
                     speak netlink through edges/kernel"
                ),
            });
        }
    }
}

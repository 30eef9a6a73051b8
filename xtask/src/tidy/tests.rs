//! Tests of the rules: each must fire on a small tree made for it, and stay silent on the same tree
//! put right. Last, the project's own tree must be clean: that is how `cargo test` runs tidy.

use std::fs;
use std::path::Path;

use super::source::Source;
use super::{check, shape};

/// A tree of files in a temporary folder, checked.
fn tidy(files: &[(&str, &str)]) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(root.path(), path, text);
    }
    let found = check(root.path()).unwrap();
    found.iter().map(ToString::to_string).collect()
}

fn write(root: &Path, path: &str, text: &str) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// A manifest that breaks no rule.
fn manifest(name: &str, rest: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion.workspace = true\nedition.workspace = true\n\
         rust-version.workspace = true\nlicense.workspace = true\n\n[lints]\nworkspace = true\n\n{rest}"
    )
}

/// What tidy says about one source file.
fn source(path: &str, text: &str) -> Vec<String> {
    tidy(&[(path, text)])
}

#[track_caller]
fn one(found: Vec<String>, start: &str) {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with(start), "{found:#?}");
}

#[track_caller]
fn clean(found: Vec<String>) {
    assert!(found.is_empty(), "{found:#?}");
}

// The scanner.

#[test]
fn the_scan_keeps_code_and_blanks_everything_else() {
    let cases = [
        ("a // b {\nc", "a       \nc"),
        ("a /* { /* } */ { */ b", "a                   b"),
        (r#"f("{", x)"#, "f(   , x)"),
        (r#"f("\"{", x)"#, "f(     , x)"),
        (r##"f(r#"" { "#, x)"##, "f(         , x)"),
        (r#"f(b"{", c"}", br"{")"#, "f(    ,     ,      )"),
        (
            "match c { '{' => '\\'', '\\u{7b}' => b'}' }",
            "match c {     =>     ,          =>      }",
        ),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("let r#fn = 1; rb { br }", "let r#fn = 1; rb { br }"),
        ("'é' {", "     {"),
    ];
    for (text, code) in cases {
        let scanned = Source::scan("a.rs", text).code;
        assert_eq!(scanned.trim_end(), code.trim_end(), "{text}");
        assert_eq!(scanned.len(), text.len(), "{text}");
    }
}

#[test]
fn literals_that_never_end_do_not_stop_the_scan() {
    for text in [
        "\"abc", "r#\"abc", "'\\", "b'", "b'\\", "/* /* */", "\"\\", "'", "r", "br##",
    ] {
        assert_eq!(Source::scan("a.rs", text).code.len(), text.len(), "{text}");
    }
}

#[test]
fn functions_are_found_with_their_lines() {
    let text = "fn a() -> [u8; 2] {\n  \"}\";\n}\nconst F: fn(u8) = b;\ntrait T { fn c(); }\npub async fn d<T>(x: T)\nwhere\n T: X\n{ if x { } }\n";
    let source = Source::scan("a.rs", text);
    let found: Vec<_> = source
        .functions()
        .iter()
        .map(|f| (f.name.clone(), f.first, f.last))
        .collect();
    assert_eq!(found, [("a".to_string(), 1, 3), ("d".to_string(), 6, 9)]);
}

#[test]
fn groups_of_imports_are_spelled_out() {
    let text = "use std::{fs, net::{IpAddr, TcpStream as T}, io::{self, Read}};\nuse a::b;";
    let found: Vec<_> = Source::scan("a.rs", text)
        .uses()
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    assert_eq!(
        found,
        [
            "std::fs",
            "std::net::IpAddr",
            "std::net::TcpStream",
            "std::io",
            "std::io::Read",
            "a::b"
        ]
    );
}

#[test]
fn code_under_test_attributes_is_test_code() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nuse x::y;\n#[cfg(test)]\nmod fakes;\n";
    let source = Source::scan("a.rs", text);
    let at = |word: &str| source.is_test(text.find(word).unwrap());
    assert!(!at("fn a") && at("fn b") && !at("fn c") && at("x::y"));
    assert_eq!(source.test_modules(), ["fakes"]);
    assert!(Source::scan("a/tests.rs", text).is_test(0));
    assert!(Source::scan("a/tests/b.rs", text).is_test(0));
}

// Shape.

#[test]
fn a_file_without_module_docs() {
    one(
        source("edges/a/src/lib.rs", "fn a() {}\n"),
        "edges/a/src/lib.rs:1: module-docs: ",
    );
    one(
        source("edges/a/src/lib.rs", "// A comment.\n//! Docs.\n"),
        "edges/a/src/lib.rs:1: module-docs: ",
    );
    clean(source("edges/a/src/lib.rs", "//! Docs.\nfn a() {}\n"));
}

#[test]
fn a_file_that_is_too_long() {
    let lines = |n: usize| format!("//! Docs.\n{}", "const A: u8 = 1;\n".repeat(n - 1));
    clean(source("xtask/src/a.rs", &lines(shape::FILE_LINES)));
    one(
        source("xtask/src/a.rs", &lines(shape::FILE_LINES + 1)),
        "xtask/src/a.rs:801: file-size: ",
    );
}

#[test]
fn a_function_that_is_too_long_even_in_tests() {
    let function = |n: usize| format!("//! Docs.\nfn a() {{\n{}}}\n", "b();\n".repeat(n - 2));
    clean(source("lab/a/src/lib.rs", &function(shape::FUNCTION_LINES)));
    let long = function(shape::FUNCTION_LINES + 1);
    one(
        source("lab/a/src/lib.rs", &long),
        "lab/a/src/lib.rs:2: function-size: `a` has 71 lines",
    );
    one(
        source("lab/a/tests/a.rs", &long),
        "lab/a/tests/a.rs:2: function-size: ",
    );
}

#[test]
fn a_layer_without_its_four_files() {
    let mut files = vec![
        ("layers/link/Cargo.toml", manifest("l", "")),
        ("layers/link/README.md", "# Link\n".to_string()),
        (
            "layers/link/src/plan.rs",
            "//! P.\npub fn plan(x: X) {}\n".to_string(),
        ),
        (
            "layers/link/src/apply.rs",
            "//! A.\npub fn apply<T>() {}\n".to_string(),
        ),
        (
            "layers/link/src/explain.rs",
            "//! E.\n// pub fn explain()\nfn explain() {}\n".to_string(),
        ),
    ];
    let run = |files: &[(&str, String)]| {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (*path, text.as_str()))
            .collect();
        tidy(&files)
    };
    let found = run(&files);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("layers/link/src/explain.rs:1: layer-shape: no `pub fn explain`"));
    assert!(found[1].starts_with("layers/link/src/prove.rs:1: layer-shape: missing"));
    files.remove(1);
    assert!(run(&files)[0].starts_with("layers/link/README.md:1: layer-shape: missing"));
}

#[test]
fn names_that_say_nothing() {
    for item in [
        "struct LinkManager;",
        "enum Utility {}",
        "trait PodHelper {}",
        "mod utils;",
        "fn get_link() {}",
    ] {
        one(
            source("edges/a/src/lib.rs", &format!("//! Docs.\n{item}\n")),
            "edges/a/src/lib.rs:2: names: ",
        );
    }
    clean(source(
        "edges/a/src/lib.rs",
        "//! Docs.\nstruct Link;\nfn get() {}\nfn f(a: QueueManager) { b.get_ref() }\n",
    ));
}

// Banned calls.

#[test]
fn every_banned_call_in_a_pure_crate() {
    let calls = [
        "use std::fs;",
        "use std::{io, fs::File};",
        "fn f() { std::fs::read(x) }",
        "use std::net::{IpAddr, TcpStream};",
        "fn f(x: UdpSocket) {}",
        "fn f() { std::env::var(x) }",
        "use std::process::Command;",
        "fn f() { ::std::thread::spawn(x) }",
        "use std::time::{Duration, Instant};",
        "fn f(x: SystemTime) {}",
        "fn f() { Timestamp::now() }",
        "use tokio::sync::mpsc;",
        "async fn f() {}",
        "use rand::Rng;",
        "fn f() { unsafe { g() } }",
        "fn f() { println!() }",
        "fn f() { eprintln!() }",
        "type A = HashMap<u8, u8>;",
        "type A = HashSet<u8>;",
    ];
    for call in calls {
        let text = format!("//! Docs.\n{call}\n");
        for path in ["model/a/src/lib.rs", "layers/a/src/b.rs"] {
            let found = source(path, &text);
            assert!(!found.is_empty(), "not seen: {call}");
            assert!(
                found[0].starts_with(&format!("{path}:2: pure: ")),
                "{found:#?}"
            );
        }
        clean(source("edges/a/src/lib.rs", &text));
        clean(source("model/a/tests/b.rs", &text));
        clean(source(
            "model/a/src/lib.rs",
            &format!("//! Docs.\n#[cfg(test)]\nmod tests {{\n{call}\n}}\n"),
        ));
    }
}

#[test]
fn what_only_looks_like_a_banned_call() {
    for call in [
        "// std::fs::read and unsafe",
        "const A: &str = \"println! HashMap\";",
        "use std::net::IpAddr;",
        "use std::time::Duration;",
        "use crate::operand::Thing;",
        "fn unsafely() { x.operand::<u8>() }",
        "#![forbid(unsafe_code)]",
        "fn println() {}",
    ] {
        clean(source(
            "model/a/src/lib.rs",
            &format!("//! Docs.\n{call}\n"),
        ));
    }
}

#[test]
fn shelling_out_to_what_netlink_can_do() {
    let call = "//! Docs.\nfn f() {\n  Command::new( \"/usr/sbin/nft\");\n}\n";
    for path in ["edges/a/src/lib.rs", "programs/a/src/b.rs"] {
        one(
            source(path, call),
            &format!("{path}:3: shell-out: runs `nft`"),
        );
    }
    clean(source("edges/a/tests/b.rs", call));
    clean(source("lab/a/src/lib.rs", call));
    clean(source(
        "edges/a/src/lib.rs",
        "//! D.\nfn f() { Command::new(\"sleep\"); Command::new(nft); }\n",
    ));
}

#[test]
fn a_skip_that_libtest_swallows() {
    let skip = "//! Docs.\nfn f() {\n  eprintln!(\n\"SKIPPED: {why}\");\n}\n";
    one(
        source("edges/a/tests/b.rs", skip),
        "edges/a/tests/b.rs:3: quiet-skip: ",
    );
    clean(source("edges/a/src/lib.rs", skip));
    let own = manifest("a", "[[test]]\nname = \"b\"\nharness = false\n");
    clean(tidy(&[
        ("edges/a/Cargo.toml", &own),
        ("edges/a/tests/b.rs", skip),
    ]));
    clean(source(
        "edges/a/tests/b.rs",
        "//! Docs.\nfn f() { writeln!(std::io::stderr(), \"SKIP: f: why\"); }\n",
    ));
}

// Arrows.

/// A house with one crate per folder; `user` depends on `used` in the given section.
fn arrow(user: &str, used: &str, section: &str) -> Vec<String> {
    let name = |folder: &str| format!("crate-{}", folder.replace('/', "-"));
    let mut files = Vec::new();
    for folder in [
        "model/packet",
        "model/cluster",
        "model/linux",
        "layers/link",
        "layers/transport",
        "edges/kernel",
        "edges/kube",
        "programs/parfait",
        "programs/agent",
        "lab/kubelet",
        "lab/fabric",
        "stories",
        "xtask",
    ] {
        let rest = match folder == user {
            true => format!("[{section}]\n{} = {{ path = \"..\" }}\n", name(used)),
            false => String::new(),
        };
        files.push((
            format!("{folder}/Cargo.toml"),
            manifest(&name(folder), &rest),
        ));
    }
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let found = tidy(&files);
    found
        .into_iter()
        .filter(|line| !line.contains("layer-shape"))
        .collect()
}

#[test]
fn arrows_that_the_house_allows() {
    for (user, used) in [
        ("model/cluster", "model/packet"),
        ("model/linux", "model/packet"),
        ("layers/link", "model/linux"),
        ("edges/kernel", "model/linux"),
        ("programs/agent", "layers/link"),
        ("programs/agent", "edges/kube"),
        ("programs/parfait", "programs/agent"),
        ("programs/parfait", "lab/fabric"),
        ("lab/fabric", "edges/kernel"),
        ("lab/kubelet", "lab/fabric"),
    ] {
        clean(arrow(user, used, "dependencies"));
    }
    clean(arrow("programs/agent", "lab/fabric", "dev-dependencies"));
}

#[test]
fn arrows_that_the_house_forbids() {
    for (user, used) in [
        ("model/packet", "model/linux"),
        ("model/linux", "model/cluster"),
        ("model/linux", "edges/kernel"),
        ("layers/link", "layers/transport"),
        ("layers/link", "edges/kernel"),
        ("edges/kernel", "layers/link"),
        ("edges/kernel", "edges/kube"),
        ("programs/agent", "lab/fabric"),
        ("lab/fabric", "programs/agent"),
        ("lab/fabric", "layers/link"),
        ("stories", "model/packet"),
        ("xtask", "model/packet"),
    ] {
        for section in [
            "dependencies",
            "build-dependencies",
            "target.'cfg(unix)'.dependencies",
        ] {
            one(
                arrow(user, used, section),
                &format!("{user}/Cargo.toml:12: arrows: `{user}` may not use `{used}`"),
            );
        }
    }
    one(
        arrow("layers/link", "edges/kernel", "dev-dependencies"),
        "layers/link/Cargo.toml:12: arrows: ",
    );
}

#[test]
fn the_lab_does_not_come_into_the_agent_by_a_detour() {
    let found = tidy(&[
        (
            "programs/agent/Cargo.toml",
            &manifest("agent", "[dependencies]\nparfait.workspace = true\n"),
        ),
        (
            "programs/parfait/Cargo.toml",
            &manifest("parfait", "[dependencies]\nfabric.workspace = true\n"),
        ),
        ("lab/fabric/Cargo.toml", &manifest("fabric", "")),
    ]);
    one(
        found,
        "programs/agent/Cargo.toml:1: arrows: the lab is linked in by programs/agent → programs/parfait → lab/fabric",
    );
}

#[test]
fn a_manifest_that_goes_its_own_way() {
    let own = manifest("a", "").replace("\nversion.workspace = true", "\nversion = \"1.0.0\"");
    let found = tidy(&[("lab/a/Cargo.toml", &own)]);
    assert!(found[0].starts_with("lab/a/Cargo.toml:1: manifest: `version` is not the workspace's"));
    let bare = manifest("a", "").replace("[lints]\nworkspace = true\n", "");
    one(
        tidy(&[("lab/a/Cargo.toml", &bare)]),
        "lab/a/Cargo.toml:1: manifest: without the workspace's lints",
    );
}

#[test]
fn an_impure_library_in_a_pure_crate() {
    let uses = manifest("a", "[dependencies]\ntokio = { version = \"1\" }\n");
    one(
        tidy(&[("model/a/Cargo.toml", &uses)]),
        "model/a/Cargo.toml:12: pure: `tokio`",
    );
    clean(tidy(&[("edges/a/Cargo.toml", &uses)]));
    let renamed = manifest(
        "a",
        "[dependencies]\nt = { package = \"tokio\", version = \"1\" }\n",
    );
    one(
        tidy(&[("model/a/Cargo.toml", &renamed)]),
        "model/a/Cargo.toml:12: pure: `tokio`",
    );
    let table = manifest("a", "[dependencies.libc]\nworkspace = true\n");
    one(
        tidy(&[("model/a/Cargo.toml", &table)]),
        "model/a/Cargo.toml:11: pure: `libc`",
    );
}

// Words and links.

#[test]
fn forbidden_words() {
    for word in [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("Clau", "de"),
        concat!("AI-", "generated"),
        concat!("L", "LM"),
        concat!("chat", "gpt"),
        concat!("co", "pilot"),
        concat!("session of", " work"),
    ] {
        one(
            tidy(&[("a.md", &format!("One.\nTwo {word}: three.\n"))]),
            "a.md:2: words: ",
        );
        one(
            source("lab/a/src/b.rs", &format!("//! Docs.\n// {word}\n")),
            "lab/a/src/b.rs:2: words: ",
        );
    }
    clean(tidy(&[(
        "a.md",
        &format!(
            "{}(ada): soon. mktemp {}{}\n",
            concat!("TO", "DO"),
            "XX",
            "XXXX"
        ),
    )]));
    clean(tidy(&[(
        "a.md",
        "ClientIP session affinity, a TCP session.\n",
    )]));
}

#[test]
fn a_path_of_this_machine() {
    let root = tempfile::tempdir().unwrap();
    let checkout = root.path().join("checkout");
    fs::create_dir_all(root.path().join("shared")).unwrap();
    let here = checkout.display().to_string();
    let beside = root.path().join("shared").display().to_string();
    write(
        &checkout,
        "a.md",
        &format!("One `{here}/x`.\nTwo {beside}.\nThree x{here} {beside}-old /etc/hosts.\n"),
    );
    let found = check(&checkout).unwrap();
    let lines: Vec<_> = found.iter().map(|v| (v.line, v.rule)).collect();
    assert_eq!(lines, [(1, "host-path"), (2, "host-path")], "{found:#?}");
}

#[test]
fn links_that_lead_nowhere() {
    let text = "[a](b.md) [c](missing.md) `[x](y)` [w](https://example.org) [h](#here) [f](b.md#part \"t\")\n\
                ```\n[in code](nowhere)\n```\n\n[ref]: gone.md\n";
    let found = tidy(&[("docs/a.md", text), ("docs/b.md", "# B\n")]);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("docs/a.md:1: links: `missing.md`"));
    assert!(found[1].starts_with("docs/a.md:6: links: `gone.md`"));
}

#[test]
fn links_to_tests_that_are_gone() {
    let text = "[`holds`](../model/a/tests/laws.rs) and [`is_gone`](../model/a/tests/laws.rs), [`word`](b.md)\n";
    let found = tidy(&[
        ("docs/a.md", text),
        ("docs/b.md", "# B\n"),
        ("model/a/Cargo.toml", &manifest("a", "")),
        (
            "model/a/tests/laws.rs",
            "//! Laws.\n\n#[test]\nfn holds() {}\n",
        ),
    ]);
    one(
        found,
        "docs/a.md:1: links: `is_gone` is no function of ../model/a/tests/laws.rs",
    );
}

#[test]
fn what_is_not_the_projects_is_not_read() {
    clean(tidy(&[
        ("target/debug/a.rs", "fn a() {}\n"),
        (".git/a.rs", "fn a() {}\n"),
        ("lab/.cache/a.rs", "fn a() {}\n"),
    ]));
    one(
        tidy(&[(".ci/a.rs", "fn a() {}\n")]),
        ".ci/a.rs:1: module-docs: ",
    );
}

/// The rules hold in the project itself.
#[test]
fn the_tree_is_tidy() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = check(here.parent().unwrap()).unwrap();
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

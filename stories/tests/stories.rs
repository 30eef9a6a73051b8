//! Plays every story of this folder, one test each, and reports as libtest does, so that cargo and
//! `cargo xtask test` read it like any other test program.
//!
//! It has no libtest inside because the tests are files: adding a story must not need Rust. It knows
//! words to choose stories by, `--exact`, `--skip` and `--list`; libtest's other options are accepted
//! and mean nothing here. With `PARFAIT_STORIES=later` it plays none: `cargo xtask` runs them by themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use parfait_stories::{Outcome, Stage, Story, play};

/// Options of libtest that are followed by a value.
const WITH_VALUE: [&str; 5] = ["--test-threads", "--format", "--color", "--logfile", "-Z"];

/// What the command line asks for.
#[derive(Default)]
struct Choice {
    words: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
}

fn main() -> ExitCode {
    let choice = Choice::parse(std::env::args().skip(1));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = match stories(folder) {
        Ok(all) => all,
        Err(error) => {
            eprintln!("error: cannot read {}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    };
    let count = all.len();
    let chosen: Vec<_> = all
        .into_iter()
        .filter(|(name, _)| choice.takes(name))
        .collect();
    if choice.list {
        for (name, _) in &chosen {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let later = std::env::var("PARFAIT_STORIES").is_ok_and(|value| value == "later");
    if chosen.is_empty() || later {
        println!("\nrunning 0 tests");
        println!(
            "\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; {count} filtered out; finished in 0.00s"
        );
        return ExitCode::SUCCESS;
    }
    match binary() {
        Ok(binary) => run(&chosen, &binary, count - chosen.len()),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Choice {
    fn parse(mut args: impl Iterator<Item = String>) -> Choice {
        let mut choice = Choice::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--exact" => choice.exact = true,
                "--list" => choice.list = true,
                "--skip" => choice.skip.extend(args.next()),
                option if WITH_VALUE.contains(&option) => drop(args.next()),
                option if option.starts_with('-') => {}
                _ => choice.words.push(arg),
            }
        }
        choice
    }

    fn takes(&self, name: &str) -> bool {
        let fits = |word: &String| match self.exact {
            true => name == word,
            false => name.contains(word.as_str()),
        };
        (self.words.is_empty() || self.words.iter().any(fits)) && !self.skip.iter().any(fits)
    }
}

/// The story files, `NN-name.md`, in order.
fn stories(folder: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let numbered = name.starts_with(|c: char| c.is_ascii_digit());
        if numbered && path.extension().is_some_and(|ending| ending == "md") {
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The binary to play with: the one named by `PARFAIT_BIN`, or one built now beside this program.
fn binary() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("PARFAIT_BIN") {
        let path = PathBuf::from(named);
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!("PARFAIT_BIN: no file {}", path.display())),
        };
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package", "parfait"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    if !built.is_ok_and(|status| status.success()) {
        return Err("`cargo build --package parfait` failed".to_string());
    }
    // target/debug/deps/stories-… is ours.
    let ours = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = ours
        .parent()
        .and_then(Path::parent)
        .map(|dir| dir.join("parfait"));
    beside
        .filter(|path| path.is_file())
        .ok_or_else(|| "no parfait beside the tests; name it in PARFAIT_BIN".to_string())
}

fn run(chosen: &[(String, PathBuf)], binary: &Path, filtered: usize) -> ExitCode {
    let strict = std::env::var("PARFAIT_REQUIRE_ALL").is_ok_and(|value| value == "1");
    let start = Instant::now();
    let (mut passed, mut ignored) = (0, 0);
    let mut failures = Vec::new();
    println!("\nrunning {} tests", chosen.len());
    for (name, path) in chosen {
        let began = Instant::now();
        let outcome = one(name, path, binary);
        let time = began.elapsed().as_secs_f64();
        match outcome {
            Outcome::Passed => {
                passed += 1;
                println!("test {name} ... ok ({time:.1} s)");
            }
            Outcome::Skipped(why) if !strict => {
                ignored += 1;
                println!("test {name} ... ignored, {why}");
            }
            Outcome::Skipped(why) => {
                println!("test {name} ... FAILED");
                failures.push((path, format!("{why}, and PARFAIT_REQUIRE_ALL=1\n")));
            }
            Outcome::Failed(report) => {
                println!("test {name} ... FAILED ({time:.1} s)");
                failures.push((path, report));
            }
        }
    }
    for (path, report) in &failures {
        println!("\n---- {} ----\n{report}", path.display());
    }
    let word = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; {ignored} ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        failures.len(),
        start.elapsed().as_secs_f64()
    );
    match failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn one(name: &str, path: &Path, binary: &Path) -> Outcome {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Outcome::Failed(format!("cannot read it: {error}\n")),
    };
    let story = match Story::parse(name, &text) {
        Ok(story) => story,
        Err(error) => return Outcome::Failed(format!("not a story: {error}\n")),
    };
    let stage = match Stage::set(name, binary) {
        Ok(stage) => stage,
        Err(error) => return Outcome::Failed(format!("cannot prepare its folder: {error}\n")),
    };
    let update = std::env::var("UPDATE_STORIES").is_ok_and(|value| value == "1");
    if update && play::missing(&story).is_none() {
        let written = stage.rewrite(&story).and_then(|edits| {
            if edits.is_empty() {
                return Ok(());
            }
            fs::write(path, play::apply(&text, edits))
        });
        return match written {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(format!("cannot rewrite it: {error}\n")),
        };
    }
    stage.play(&story)
}

//! Says in [`BUILD`](src/lib.rs) which sources the plugin is made of: two builds of one version can differ.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// What the plugin is made of, beside this file.
const SOURCES: [&str; 4] = [
    "src",
    "../../model",
    "../../edges/kernel/src",
    "../../layers/internet/src",
];

fn main() {
    let mut files = Vec::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        list(Path::new(source), &mut files);
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        let content = fs::read(&file).unwrap_or_default();
        (file, content).hash(&mut hasher);
    }
    println!(
        "cargo::rustc-env=PARFAIT_CNI_SOURCES={:016x}",
        hasher.finish()
    );
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => list(&path, files),
            false => files.push(path),
        }
    }
}

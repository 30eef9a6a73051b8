//! The text files of the workspace, read once and shared by all rules.
//!
//! It walks folders rather than asking git, so that it works on an unpacked archive, too. It leaves
//! out `target/` and hidden folders, except the two that belong to the project: `.ci` and `.cargo`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::source::Source;

/// One file.
#[derive(Debug)]
pub struct File {
    /// Path below the root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
    /// For `.rs` files, the text with comments and literals told apart from code.
    pub source: Option<Source>,
}

/// All files, ordered by path.
#[derive(Debug)]
pub struct Tree {
    /// The folder of the workspace.
    pub root: PathBuf,
    /// The files.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads every text file below `root`. A file that is not UTF-8 is not text, and is left out.
    pub fn read(root: &Path) -> io::Result<Tree> {
        let mut files = Vec::new();
        walk(root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        mark_test_modules(&mut files);
        Ok(Tree {
            root: root.to_path_buf(),
            files,
        })
    }

    /// The file of this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files
            .binary_search_by(|file| file.path.as_str().cmp(path))
            .ok()
            .map(|at| &self.files[at])
    }

    /// The `.rs` files with their scanned source.
    pub fn rust(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files
            .iter()
            .filter_map(|file| file.source.as_ref().map(|source| (file, source)))
    }

    /// The folders of the workspace's members, `model/packet`, `xtask`, …, ordered.
    pub fn crates(&self) -> Vec<&str> {
        self.files
            .iter()
            .filter_map(|file| file.path.strip_suffix("/Cargo.toml"))
            .collect()
    }
}

fn walk(root: &Path, below: &str, files: &mut Vec<File>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = match below {
            "" => name.clone(),
            _ => format!("{below}/{name}"),
        };
        let kind = entry.file_type()?;
        let ours = !name.starts_with('.') || name == ".ci" || name == ".cargo";
        if kind.is_dir() && ours && path != "target" {
            walk(root, &path, files)?;
        } else if kind.is_file()
            && ours
            && let Some(file) = read(root, path)?
        {
            files.push(file);
        }
    }
    Ok(())
}

/// A file declared by `#[cfg(test)] mod fixtures;` is test code, and so is all below it.
fn mark_test_modules(files: &mut [File]) {
    let mut modules = Vec::new();
    for file in &*files {
        let Some(source) = &file.source else { continue };
        let stem = file.path.trim_end_matches(".rs");
        let folder = match stem.rsplit_once('/') {
            Some((folder, "lib" | "main" | "mod")) => folder,
            _ => stem,
        };
        let names = source.test_modules();
        modules.extend(names.into_iter().map(|name| format!("{folder}/{name}")));
    }
    for file in files {
        let below = |module: &String| {
            file.path
                .strip_prefix(module.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        if modules.iter().any(below)
            && let Some(source) = &mut file.source
        {
            source.mark_as_test();
        }
    }
}

fn read(root: &Path, path: String) -> io::Result<Option<File>> {
    let bytes = match fs::read(root.join(&path)) {
        Ok(bytes) => bytes,
        // An editor's temporary file may be gone again.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(None);
    };
    let source = path.ends_with(".rs").then(|| Source::scan(&path, &text));
    Ok(Some(File { path, text, source }))
}

//! A `Cargo.toml` as far as the rules need it: sections, keys, and the dependencies of each kind.
//!
//! It reads lines, not TOML: a value that goes over several lines keeps its first line only, which is
//! enough to know a dependency's name. `cargo` itself rejects what is not TOML.

/// Whether the built program contains a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// `[dependencies]` and `[build-dependencies]`.
    Yes,
    /// `[dev-dependencies]`: only in tests.
    TestsOnly,
}

/// One line of a dependency section.
#[derive(Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The name of the crate.
    pub name: String,
    /// Whether it is linked.
    pub linked: Linked,
    /// Its line.
    pub line: usize,
}

/// One `key = value` line.
#[derive(Debug)]
struct Entry {
    section: String,
    key: String,
    value: String,
    line: usize,
}

/// One scanned manifest.
#[derive(Debug)]
pub struct Manifest {
    entries: Vec<Entry>,
}

impl Manifest {
    /// Scans the text of a `Cargo.toml`.
    pub fn scan(text: &str) -> Manifest {
        let mut section = String::new();
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_end_matches(']').replace(['[', ']'], "");
                // `[dependencies.name]` is a dependency, too.
                if let Some((kind, name)) = section.rsplit_once("dependencies.") {
                    entries.push(Entry {
                        section: format!("{kind}dependencies"),
                        key: name.to_string(),
                        value: String::new(),
                        line: number + 1,
                    });
                }
            } else if let Some((key, value)) = line.split_once('=')
                && !line.starts_with('#')
            {
                entries.push(Entry {
                    section: section.clone(),
                    key: key.trim().to_string(),
                    value: value.trim().to_string(),
                    line: number + 1,
                });
            }
        }
        Manifest { entries }
    }

    /// The crate's name.
    pub fn name(&self) -> Option<&str> {
        self.value("package", "name")
            .map(|value| value.trim_matches('"'))
    }

    /// The first line of a value, as written.
    pub fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|entry| entry.section == section && entry.key == key)
            .map(|entry| entry.value.as_str())
    }

    /// Every dependency, whatever the target it is limited to.
    pub fn dependencies(&self) -> Vec<Dependency> {
        let mut found = Vec::new();
        for entry in &self.entries {
            let kind = entry.section.rsplit('.').next().unwrap_or_default();
            let linked = match kind {
                "dependencies" | "build-dependencies" if entry.section.contains("workspace") => {
                    continue;
                }
                "dependencies" | "build-dependencies" => Linked::Yes,
                "dev-dependencies" => Linked::TestsOnly,
                _ => continue,
            };
            let name = entry.key.split('.').next().unwrap_or(&entry.key);
            found.push(Dependency {
                name: renamed(&entry.value).unwrap_or(name).to_string(),
                linked,
                line: entry.line,
            });
        }
        found
    }
}

/// The real name in `short = { package = "long-name", … }`.
fn renamed(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("package")?;
    rest.split('"').nth(1)
}

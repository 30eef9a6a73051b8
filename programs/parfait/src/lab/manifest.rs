//! Reading manifests: files, directories and standard input into objects that know where they stand.
//!
//! A file is split into YAML documents at lines that begin with `---`, so that each keeps its own
//! line numbers; a `List` is taken apart into its items. What cannot be understood is reported with
//! file, line and column, all faults of all files at once, and before anything is applied.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

/// The most that is read of one file.
const LIMIT: u64 = 16 << 20;

/// Where a document stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The number of the document in it, from 1.
    pub document: usize,
    /// The line on which it begins, from 1.
    pub line: u64,
    /// Its text, to find fields in.
    text: Arc<str>,
}

/// An object to apply.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Where it stands.
    pub place: Place,
    /// `v1`, `apps/v1`, …
    pub api_version: String,
    /// `Deployment`, …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace, where it says one.
    pub namespace: Option<String>,
    /// All of it.
    pub object: Value,
}

/// Something wrong with a manifest, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    file: String,
    position: Option<(u64, u64)>,
    message: String,
}

impl fmt::Display for Fault {
    /// `shop.yaml:12:5: message`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl Place {
    /// A fault in this document as a whole.
    pub fn fault(&self, message: impl Into<String>) -> Fault {
        self.fault_at((self.line, 1), message)
    }

    /// A fault that the API server found. It names fields by path (`unknown field "spec.replica"`):
    /// the last part of it is looked up in the text.
    pub fn fault_of_field(&self, message: impl Into<String>) -> Fault {
        let message = message.into();
        let position = field_in(&message).and_then(|field| self.position_of(&field));
        self.fault_at(position.unwrap_or((self.line, 1)), message)
    }

    fn fault_at(&self, position: (u64, u64), message: impl Into<String>) -> Fault {
        let message = format!("{} (document {})", message.into(), self.document);
        Fault {
            file: self.file.to_string(),
            position: Some(position),
            message,
        }
    }

    /// Line and column of the first `field:` in the document.
    fn position_of(&self, field: &str) -> Option<(u64, u64)> {
        for (number, line) in (self.line..).zip(self.text.lines()) {
            let key = line.trim_start_matches([' ', '-']);
            let after = key.strip_prefix(field).or_else(|| {
                key.strip_prefix('"')?
                    .strip_prefix(field)?
                    .strip_prefix('"')
            });
            if after.is_some_and(|rest| rest.trim_start().starts_with(':')) {
                return Some((number, (line.len() - key.len()) as u64 + 1));
            }
        }
        None
    }
}

/// `spec.template.spec.containers[0].imag` in quotes or after `Invalid value`: its last key.
fn field_in(message: &str) -> Option<String> {
    let quoted = message
        .split("unknown field \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let path = quoted.or_else(|| {
        message
            .split([' ', ','])
            .find(|word| word.starts_with("spec.") || word.starts_with("metadata."))
    })?;
    let last = path.trim_end_matches(':').rsplit('.').next()?;
    let key = last.split('[').next()?.trim_matches('"');
    (!key.is_empty()).then(|| key.to_owned())
}

/// Reads everything that was named, in that order; files of a directory by name.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Manifest>, Vec<Fault>> {
    let (mut manifests, mut faults) = (Vec::new(), Vec::new());
    for path in paths {
        match texts(path) {
            Ok(texts) => {
                for (name, text) in texts {
                    parse(&name, &text, &mut manifests, &mut faults);
                }
            }
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() {
        Ok(manifests)
    } else {
        Err(faults)
    }
}

/// Parses one file's text.
fn parse(file: &str, text: &str, manifests: &mut Vec<Manifest>, faults: &mut Vec<Fault>) {
    let file: Arc<str> = file.into();
    for (index, (line, document)) in documents(text).into_iter().enumerate() {
        let place = Place {
            file: Arc::clone(&file),
            document: index + 1,
            line,
            text: document.into(),
        };
        match serde_saphyr::from_str::<Value>(document) {
            Ok(Value::Null) => {}
            Ok(value) => take_apart(&place, value, manifests, faults),
            Err(error) => {
                let position = error
                    .location()
                    .filter(|at| at.line() > 0)
                    .map_or((line, 1), |at| (line + at.line() - 1, at.column()));
                // The position is told before, and the snippet's line numbers are the document's own.
                let message = error.without_snippet().to_string();
                let message = message
                    .split(" at line ")
                    .next()
                    .unwrap_or_default()
                    .lines()
                    .next()
                    .unwrap_or_default();
                faults.push(place.fault_at(position, message));
            }
        }
    }
}

/// The documents of a file with the line on which each begins. A document of comments and blank
/// lines alone is none.
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut found = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (number, line) in (1_u64..).zip(text.split_inclusive('\n')) {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker {
            found.push((start_line, &text[start..at]));
            // The marker's own line may carry a comment or content: it stays part of the document.
            (start, start_line) = (at, number);
        }
        at += line.len();
    }
    found.push((start_line, &text[start..]));
    let blank = |line: &str| {
        let line = line.trim_start_matches("---").trim();
        line.is_empty() || line.starts_with('#') || line == "..."
    };
    found.retain(|(_, document)| !document.lines().all(blank));
    found
}

fn take_apart(place: &Place, value: Value, manifests: &mut Vec<Manifest>, faults: &mut Vec<Fault>) {
    let text = |value: &Value, path: &str| {
        value
            .pointer(path)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    if !value.is_object() {
        faults.push(place.fault("this is no object: a manifest has apiVersion, kind and metadata"));
        return;
    }
    let (Some(api_version), Some(kind)) = (text(&value, "/apiVersion"), text(&value, "/kind"))
    else {
        faults.push(place.fault("apiVersion or kind is missing, or no text"));
        return;
    };
    if let (true, Some(Value::Array(items))) = (kind.ends_with("List"), value.get("items")) {
        for item in items.clone() {
            take_apart(place, item, manifests, faults);
        }
        return;
    }
    match text(&value, "/metadata/name").filter(|name| !name.is_empty()) {
        Some(name) => manifests.push(Manifest {
            place: place.clone(),
            api_version,
            kind,
            name,
            namespace: text(&value, "/metadata/namespace"),
            object: value,
        }),
        None => faults.push(place.fault(format!("{kind}: metadata.name is missing, or no text"))),
    }
}

fn texts(path: &Path) -> Result<Vec<(String, String)>, Fault> {
    let fault = |path: &Path, error: std::io::Error| Fault {
        file: path.display().to_string(),
        position: None,
        message: error.to_string(),
    };
    if path == Path::new("-") {
        let text = read_text(std::io::stdin().lock())
            .map_err(|e| fault(Path::new("standard input"), e))?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|e| fault(path, e))?;
        files = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|p| is_manifest(p))
            .collect();
        files.sort();
        if files.is_empty() {
            let error =
                std::io::Error::other("there is no .yaml, .yml or .json file in this directory");
            return Err(fault(path, error));
        }
    }
    let read = |file: PathBuf| {
        let text = fs::File::open(&file)
            .and_then(read_text)
            .map_err(|e| fault(&file, e))?;
        Ok((file.display().to_string(), text))
    };
    files.into_iter().map(read).collect()
}

fn is_manifest(path: &Path) -> bool {
    let known = path
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| matches!(e, "yaml" | "yml" | "json"));
    known && path.is_file()
}

fn read_text(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    if from.take(LIMIT + 1).read_to_string(&mut text)? as u64 > LIMIT {
        return Err(std::io::Error::other("larger than 16 MiB: no manifest is"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Vec<Manifest>, Vec<String>) {
        let (mut manifests, mut faults) = (Vec::new(), Vec::new());
        parse("f.yaml", text, &mut manifests, &mut faults);
        (manifests, faults.iter().map(ToString::to_string).collect())
    }

    const TWO: &str = "# a comment\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n--- # b\napiVersion: v1\nkind: Pod\nmetadata:\n  name: b\n  namespace: shop\nspec:\n  - container: x\n---\n";

    #[test]
    fn documents_know_their_lines() {
        let (manifests, faults) = parsed(TWO);
        assert!(faults.is_empty(), "{faults:?}");
        let seen: Vec<_> = manifests
            .iter()
            .map(|m| {
                (
                    m.kind.as_str(),
                    m.name.as_str(),
                    m.place.line,
                    m.place.document,
                )
            })
            .collect();
        assert_eq!(seen, [("Service", "a", 2, 1), ("Pod", "b", 6, 2)]);
        assert_eq!(manifests[1].namespace.as_deref(), Some("shop"));
        let fault = manifests[1]
            .place
            .fault_of_field("strict decoding error: unknown field \"spec.container\"");
        assert_eq!(
            fault.to_string(),
            "f.yaml:13:5: strict decoding error: unknown field \"spec.container\" (document 2)"
        );
    }

    #[test]
    fn malformed_yaml_is_told_with_line_and_column() {
        let (_, faults) = parsed(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: [Pod\nmetadata:\n  name: b\n",
        );
        assert_eq!(faults.len(), 1, "{faults:?}");
        let (file, rest) = faults[0].split_once(':').unwrap();
        let mut numbers = rest.split(':');
        let line: u64 = numbers.next().unwrap().parse().unwrap();
        assert!(
            file == "f.yaml"
                && (6..=8).contains(&line)
                && numbers.next().unwrap().parse::<u64>().is_ok(),
            "{faults:?}"
        );
        for (text, said) in [
            ("- a\n- b\n", "f.yaml:1:1: this is no object"),
            ("kind: Pod\n", "f.yaml:1:1: apiVersion or kind is missing"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {}\n",
                "f.yaml:1:1: Pod: metadata.name is missing",
            ),
            ("a: 1\na: 2\n", "f.yaml:2:"),
            ("a:\n\tb: 1\n", "f.yaml:2:"),
        ] {
            let (_, faults) = parsed(text);
            assert!(
                faults.first().is_some_and(|f| f.starts_with(said)),
                "{text:?}: {faults:?}"
            );
        }
    }

    #[test]
    fn a_list_is_its_items_and_emptiness_is_nothing() {
        let (manifests, faults) = parsed(
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: b}\n",
        );
        assert!(faults.is_empty());
        assert_eq!(
            manifests
                .iter()
                .map(|m| m.name.as_str())
                .collect::<String>(),
            "ab"
        );
        assert!(parsed("").0.is_empty() && parsed("---\n---\n# x\n").1.is_empty());
    }

    #[test]
    fn files_are_read_by_name_and_what_is_missing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for (file, name) in [("b.yml", "b"), ("a.yaml", "a"), ("c.txt", "c")] {
            fs::write(
                dir.path().join(file),
                format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n"),
            )
            .unwrap();
        }
        let names: String = read(&[dir.path().to_owned()])
            .unwrap()
            .into_iter()
            .map(|m| m.name)
            .collect();
        assert_eq!(names, "ab");
        let faults = read(&[dir.path().join("none.yaml"), "/dev/zero".into()]).unwrap_err();
        assert!(
            faults[0]
                .to_string()
                .ends_with("none.yaml: No such file or directory (os error 2)"),
            "{faults:?}"
        );
        assert!(faults[1].to_string().contains("16 MiB"), "{faults:?}");
    }
}

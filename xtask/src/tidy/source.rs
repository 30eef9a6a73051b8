//! A scanner for Rust source that knows just enough: what is code, what is a comment, what is a
//! literal, where functions begin and end, and which part is only compiled for tests.
//!
//! It is not a parser. It keeps the *shape* of the text: the scanned copy has as many bytes and lines
//! as the original, and everything that is not code is replaced by blanks, so that a brace in a string
//! or an `unsafe` in a comment is never mistaken for code, and an offset means the same in both.
//!
//! It follows the lexical structure of the Rust Reference: nested block comments, raw strings with any
//! number of `#`, byte and C strings, character literals against lifetimes.

use std::ops::Range;

/// A function's name and the lines it takes, both ends included.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its `fn`.
    pub first: usize,
    /// The line of its closing brace.
    pub last: usize,
}

impl Function {
    /// How many lines it takes.
    pub fn lines(&self) -> usize {
        self.last - self.first + 1
    }
}

/// One scanned file.
#[derive(Debug)]
pub struct Source {
    /// The code: comments and the contents of literals are blank.
    pub code: String,
    /// The ranges of `code` that only tests compile.
    tests: Vec<Range<usize>>,
    /// The offset at which each line begins.
    lines: Vec<usize>,
}

impl Source {
    /// Scans the text of the file at `path`. A file named `tests.rs` or `…_tests.rs`, and any file below a folder named
    /// `tests` or `benches`, is test code from end to end.
    pub fn scan(path: &str, text: &str) -> Source {
        let code = blank(text);
        let lines = std::iter::once(0)
            .chain(code.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let tests = if is_test_path(path) {
            std::iter::once(0..code.len()).collect()
        } else {
            test_items(&code)
        };
        Source { code, tests, lines }
    }

    /// The line, counted from 1, of an offset.
    pub fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// The names of the files' modules that only tests compile: `#[cfg(test)] mod fixtures;`.
    pub fn test_modules(&self) -> Vec<String> {
        let items = self.tests.iter().map(|range| &self.code[range.clone()]);
        let declared = items.filter_map(|item| item.strip_suffix(';')?.rsplit_once("mod "));
        declared.map(|(_, name)| name.trim().to_string()).collect()
    }

    /// Declares the whole file to be compiled for tests only.
    pub fn mark_as_test(&mut self) {
        self.tests = std::iter::once(0..self.code.len()).collect();
    }

    /// Whether only tests compile what is at this offset.
    pub fn is_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Every function with a body.
    pub fn functions(&self) -> Vec<Function> {
        self.words("fn")
            .filter_map(|at| self.function(at))
            .collect()
    }

    /// The offsets at which `word` stands in the code as a whole word.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code
            .match_indices(word)
            .filter(move |(at, _)| is_whole_word(&self.code, *at, word.len()))
            .map(|(at, _)| at)
    }

    /// Every path that a `use` brings in, groups spelled out, with the offset of the `use`.
    pub fn uses(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for at in self.words("use") {
            let body = &self.code[at + 3..];
            let Some(end) = body.find(';') else { continue };
            let tree: String = body[..end].split_whitespace().collect::<Vec<_>>().join(" ");
            let mut paths = Vec::new();
            spell_out("", tree.trim(), &mut paths);
            found.extend(paths.into_iter().map(|path| (at, path)));
        }
        found
    }

    fn function(&self, at: usize) -> Option<Function> {
        let rest = self.code[at + 2..].trim_start();
        let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
        if name.is_empty() {
            return None; // A pointer type, `fn(u8) -> u8`.
        }
        let open = body_start(&self.code, at)?;
        let close = matching_brace(&self.code, open);
        Some(Function {
            name,
            first: self.line(at),
            last: self.line(close),
        })
    }
}

/// Whether the `len` bytes at `at` are not a part of a longer word.
pub fn is_whole_word(text: &str, at: usize, len: usize) -> bool {
    let before = text[..at].chars().next_back();
    let after = text[at + len..].chars().next();
    !before.is_some_and(is_word) && !after.is_some_and(is_word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_test_path(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
        || path
            .split('/')
            .any(|part| part == "tests" || part == "benches")
}

/// The opening brace of the item that begins at `from`, unless it ends with `;` before.
fn body_start(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn matching_brace(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len().saturating_sub(1)
}

/// The items under `#[cfg(test)]` and `#[test]`.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for mark in ["#[cfg(test)]", "#[cfg(all(test", "#[test]"] {
        for (at, _) in code.match_indices(mark) {
            let end = match body_start(code, at) {
                Some(open) => matching_brace(code, open),
                None => code[at..].find(';').map_or(code.len(), |semi| at + semi),
            };
            found.push(at..end + 1);
        }
    }
    found
}

/// `std::{fs, net::{TcpStream as T, IpAddr}}` becomes `std::fs`, `std::net::TcpStream`, `std::net::IpAddr`.
fn spell_out(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let name = tree.split(" as ").next().unwrap_or(tree).trim();
        let path = format!("{prefix}{name}");
        paths.push(path.trim_end_matches("::self").to_string());
        return;
    };
    let prefix = format!("{prefix}{}", tree[..open].trim());
    let inner = tree[open + 1..].trim_end().trim_end_matches('}');
    // Only the brace that closes this group may be taken off: put the others back.
    let opened = inner.matches('{').count();
    let closed = inner.matches('}').count();
    let inner = format!("{inner}{}", "}".repeat(opened.saturating_sub(closed)));
    let mut depth = 0usize;
    let mut start = 0;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                spell_out(&prefix, &inner[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        spell_out(&prefix, &inner[start..], paths);
    }
}

/// A copy of `text` of the same length in which everything but code is blank.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at + 1..].first() == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes[at + 1..].first() == Some(&b'*') => comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' | b'b' | b'c' if starts_word(bytes, at) => match prefixed_end(bytes, at) {
                Some(end) => end,
                None => at,
            },
            b'\'' => char_end(text, at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    // Only whole characters were replaced, by ASCII.
    String::from_utf8_lossy(&out).into_owned()
}

fn starts_word(bytes: &[u8], at: usize) -> bool {
    at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes[at..].iter().position(|b| *b == b'\n');
    rest.map_or(bytes.len(), |n| at + n)
}

fn comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_end(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a literal that begins with letters: `b"…"`, `c"…"`, `r#"…"#`, `br"…"`, `b'…'`.
fn prefixed_end(bytes: &[u8], at: usize) -> Option<usize> {
    let letters = bytes[at..]
        .iter()
        .take_while(|b| matches!(b, b'r' | b'b' | b'c'))
        .count();
    if letters > 2 {
        return None;
    }
    let prefix = &bytes[at..at + letters];
    let rest = at + letters;
    if prefix.ends_with(b"r") {
        let hashes = bytes[rest..].iter().take_while(|b| **b == b'#').count();
        if bytes.get(rest + hashes) != Some(&b'"') {
            return None; // A raw identifier, or a word.
        }
        let mut close = vec![b'"'];
        close.extend(std::iter::repeat_n(b'#', hashes));
        let body = rest + hashes + 1;
        let found = bytes[body..]
            .windows(close.len())
            .position(|window| window == close);
        return Some(found.map_or(bytes.len(), |n| body + n + close.len()));
    }
    match bytes.get(rest) {
        Some(b'"') => Some(string_end(bytes, rest)),
        Some(b'\'') if prefix == b"b" => {
            let skip = if bytes.get(rest + 1) == Some(&b'\\') {
                3
            } else {
                2
            };
            let close = bytes[(rest + skip).min(bytes.len())..]
                .iter()
                .position(|b| *b == b'\'');
            Some(close.map_or(bytes.len(), |n| rest + skip + n + 1))
        }
        _ => None,
    }
}

/// The end of a character literal; `at` itself if this quote begins a lifetime.
fn char_end(text: &str, at: usize) -> usize {
    let mut chars = text[at + 1..].char_indices();
    match chars.next() {
        Some((_, '\\')) => {
            let escaped = at + 3;
            let close = text.as_bytes()[escaped.min(text.len())..]
                .iter()
                .position(|b| *b == b'\'');
            close.map_or(text.len(), |n| escaped + n + 1)
        }
        Some((_, c)) if c != '\'' && text[at + 1 + c.len_utf8()..].starts_with('\'') => {
            at + 1 + c.len_utf8() + 1
        }
        _ => at,
    }
}

//! The container's log file, in the format that container runtimes share (KEP-1753, the CRI's):
//!
//! ```text
//! 2026-11-23T07:17:02.123456789Z stdout F a whole line
//! 2026-11-23T07:17:02.123456789Z stderr P the beginning of a long one
//! ```
//!
//! At most two files of [`LogSpec::max_bytes`] each are kept: `0.log` and, before it, `0.log.1`. What cannot be
//! written (a full disk) is lost; the container runs on.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use super::spec::LogSpec;

/// The longest line in one piece, as in the CRI.
const MAX_LINE: usize = 16 << 10;

/// The file being written.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
    written: u64,
    max_bytes: u64,
}

/// One of the two streams, with its unfinished line.
#[derive(Debug)]
pub struct Stream {
    name: &'static str,
    rest: Vec<u8>,
}

impl LogFile {
    pub fn open(spec: &LogSpec) -> LogFile {
        if let Some(dir) = spec.path.parent() {
            let _ = std::fs::create_dir_all(dir);
        }
        let mut log = LogFile {
            path: spec.path.clone(),
            file: None,
            written: 0,
            max_bytes: spec.max_bytes.max(64 << 10),
        };
        log.begin();
        log
    }

    fn begin(&mut self) {
        self.file = File::create(&self.path).ok();
        self.written = 0;
    }

    fn line(&mut self, stream: &str, tag: char, text: &[u8]) {
        let mut line = format!("{} {stream} {tag} ", jiff::Timestamp::now()).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        if self.written + line.len() as u64 > self.max_bytes {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            let _ = std::fs::rename(&self.path, old);
            self.begin();
        }
        self.written += line.len() as u64;
        if let Some(file) = &mut self.file {
            let _ = file.write_all(&line);
        }
    }
}

impl Stream {
    pub fn new(name: &'static str) -> Stream {
        Stream {
            name,
            rest: Vec::new(),
        }
    }

    /// Takes bytes as they come and writes the lines that are complete.
    pub fn push(&mut self, bytes: &[u8], log: &mut LogFile) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            log.line(self.name, 'F', &self.rest[..end]);
            self.rest.drain(..=end);
        }
        while self.rest.len() > MAX_LINE {
            log.line(self.name, 'P', &self.rest[..MAX_LINE]);
            self.rest.drain(..MAX_LINE);
        }
    }

    /// The stream has ended; what is left is a line too.
    pub fn finish(&mut self, log: &mut LogFile) {
        if !self.rest.is_empty() {
            log.line(self.name, 'F', &self.rest);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(path: &std::path::Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).expect("log");
        text.lines()
            .map(|l| l.split_once(' ').expect("a time").1.to_owned())
            .collect()
    }

    #[test]
    fn lines_are_whole_and_the_file_is_bounded() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("main/0.log");
        let spec = LogSpec {
            path: path.clone(),
            max_bytes: 64 << 10,
        };
        let mut log = LogFile::open(&spec);
        let mut out = Stream::new("stdout");
        out.push(b"one\ntw", &mut log);
        out.push(b"o\n\nend", &mut log);
        out.finish(&mut log);
        assert_eq!(
            texts(&path),
            ["stdout F one", "stdout F two", "stdout F ", "stdout F end"]
        );
        for _ in 0..20 {
            out.push(&[b'x'; 20 << 10], &mut log);
        }
        let size = |p: &std::path::Path| std::fs::metadata(p).expect("file").len();
        assert!(size(&path) <= 64 << 10);
        assert!(size(&dir.path().join("main/0.log.1")) <= 64 << 10);
        assert!(texts(&path)[0].starts_with("stdout P xxx"));
    }
}

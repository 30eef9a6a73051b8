//! The sum over all test programs: read from what they print, because that is all that libtest,
//! rustdoc and the story runner have in common.
//!
//! These lines count:
//!
//! ```text
//! test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.03s
//! SKIP: <test>: <why>        from a test that found out while running that it cannot run here
//! skipped: …                 the same
//! test name ... ignored, run by …        no skip: it is a part of another test, which runs it
//! ```
//!
//! libtest knows no skip at run time: such a test counts as passed there. So it must write its line
//! past libtest's capture, straight to `std::io::stderr()`, and here it moves from passed to skipped.

use std::fmt;

/// How many tests passed, failed and were skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    passed: usize,
    /// How many failed.
    pub failed: usize,
    ignored: usize,
    /// Ignored tests that other tests run.
    parts: usize,
    /// The lines of tests that could not run.
    skips: Vec<String>,
}

impl Tally {
    /// Counts what a line of output says, if it says anything.
    pub fn read(&mut self, line: &str) {
        let line = without_colour(line);
        if let Some(figures) = line.trim().strip_prefix("test result: ") {
            for part in figures.split([';', '.']) {
                let mut words = part.split_whitespace();
                let Some(Ok(n)) = words.next().map(str::parse::<usize>) else {
                    continue;
                };
                match words.next() {
                    Some("passed") => self.passed += n,
                    Some("failed") => self.failed += n,
                    Some("ignored") => self.ignored += n,
                    _ => {}
                }
            }
        } else if line.starts_with("test ") && line.contains(" ... ignored, run by ") {
            self.parts += 1;
        } else if let Some(at) = skip_mark(&line) {
            self.skips.push(line[at..].trim().to_string());
        }
    }

    /// Counts a failure that no test program reported: a crash, or code that does not build.
    pub fn fail(&mut self) {
        self.failed += 1;
    }

    /// Whether nothing was counted at all.
    pub fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skipped() == 0
    }

    /// How many could not run.
    pub fn skipped(&self) -> usize {
        self.ignored.saturating_sub(self.parts) + self.skips.len()
    }

    /// What the skipped tests said.
    pub fn reasons(&self) -> &[String] {
        &self.skips
    }

    /// Adds the figures of another run.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.parts += other.parts;
        self.skips.extend(other.skips);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.passed.saturating_sub(self.skips.len());
        let (failed, skipped) = (self.failed, self.skipped());
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Where a skip line begins: at the start, or after the `test name ... ` that libtest left open.
fn skip_mark(line: &str) -> Option<usize> {
    let start = match line.starts_with("test ") {
        true => line.find(" ... ")? + 5,
        false => 0,
    };
    // Indented lines are a report's quotation of what a command printed.
    let rest = &line[start..];
    let marks = ["SKIP: ", "SKIP ", "SKIPPED", "skipped: "];
    marks
        .iter()
        .any(|mark| rest.starts_with(mark))
        .then_some(start)
}

fn without_colour(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // `ESC [ … m`
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.read(line);
        }
        tally
    }

    #[test]
    fn figures_of_several_programs_add_up() {
        let sum = tally(&[
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: \u{1b}[31mFAILED\u{1b}[m. 4 passed; 3 failed; 0 ignored; 0 measured; 9 filtered out",
        ]);
        assert_eq!(sum.to_string(), "6 passed, 3 failed, 1 skipped");
    }

    #[test]
    fn a_skip_at_run_time_is_not_a_pass() {
        let sum = tally(&[
            "SKIP: kernel::tests::links: no permission to make a network namespace",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!(sum.to_string(), "1 passed, 0 failed, 1 skipped");
        assert_eq!(sum.reasons().len(), 1);
    }

    #[test]
    fn a_skip_on_a_line_that_libtest_left_open_counts() {
        let sum = tally(&["test kernel::links ... SKIP: kernel::links: why"]);
        assert_eq!(sum.reasons(), ["SKIP: kernel::links: why"]);
    }

    #[test]
    fn other_lines_count_nothing() {
        let sum = tally(&[
            "test skipped_frames ... ok",
            "no SKIP: here",
            "  SKIP: quoted",
            "test result",
        ]);
        assert_eq!(sum, Tally::default());
    }

    #[test]
    fn sums_of_two_runs() {
        let mut sum = tally(&["test result: ok. 2 passed; 0 failed; 0 ignored"]);
        let mut other = tally(&["test result: ok. 3 passed; 0 failed; 1 ignored"]);
        other.fail();
        sum.add(other);
        assert_eq!(sum.to_string(), "5 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_part_of_another_test_is_no_skip() {
        let sum = tally(&[
            "test the_client ... ignored, run by the other tests, in a pod",
            "test slow ... ignored",
            "test result: ok. 2 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1s",
        ]);
        assert_eq!(sum.to_string(), "2 passed, 0 failed, 1 skipped");
    }
}

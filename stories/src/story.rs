//! Reading a story: from Markdown to the commands to type and the files to write.
//!
//! Only two kinds of fenced block mean something: `console`, and any language followed by a file name.
//! Everything else is for the reader. A block that cannot be understood is an error with its line: a
//! story that silently tests less than it shows would be worse than none.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// How long a command may take if its story says nothing else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A story that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Story {
    /// The name of its file without `.md`.
    pub name: String,
    /// What it needs from the machine: programs, or `namespaces`.
    pub needs: Vec<String>,
    /// What to do, in order.
    pub steps: Vec<Step>,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a file.
    File {
        /// Its name in the story's folder.
        name: String,
        /// Its content.
        text: String,
    },
    /// Type a command.
    Command(Command),
}

/// A command and what should come of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// Its line in the file, from 1.
    pub line: usize,
    /// What bash is to run.
    pub text: String,
    /// The exit code it must end with.
    pub code: i32,
    /// What it must print.
    pub expected: Vec<String>,
    /// The lines of the file, from 0, that hold the exit code and the output.
    pub answer: Range<usize>,
    /// How long to try again.
    pub eventually: Option<Duration>,
    /// How long one try may take.
    pub within: Duration,
}

/// Why a file is not a story.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAStory {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there, and how to write it.
    pub text: String,
}

impl fmt::Display for NotAStory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl Story {
    /// Reads the text of `NAME.md`.
    pub fn parse(name: &str, text: &str) -> Result<Story, NotAStory> {
        let lines: Vec<&str> = text.lines().collect();
        let mut story = Story {
            name: name.to_string(),
            needs: Vec::new(),
            steps: Vec::new(),
        };
        let mut at = 0;
        while at < lines.len() {
            let line = lines[at];
            if let Some(list) = line.strip_prefix("Needs:") {
                story.needs.extend(needs(list));
            } else if let Some(fence) = Fence::open(line) {
                let end = fence.end(&lines, at)?;
                story.block(&fence, &lines, at + 1..end)?;
                at = end;
            }
            at += 1;
        }
        let commands = |step: &Step| matches!(step, Step::Command(_));
        if !story.steps.iter().any(commands) {
            return Err(NotAStory {
                line: 1,
                text: "no command: write them as `$ command` in a fenced `console` block"
                    .to_string(),
            });
        }
        Ok(story)
    }

    /// Whether some command brings up a lab, which must be taken down again.
    pub fn has_lab(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Command(command) => command.text.contains("lab up"),
            Step::File { text, .. } => text.contains("lab up"),
        })
    }

    fn block(
        &mut self,
        fence: &Fence,
        lines: &[&str],
        body: Range<usize>,
    ) -> Result<(), NotAStory> {
        match (fence.language.as_str(), &fence.file) {
            ("console", None) => self.console(lines, body),
            ("console", Some(_)) => Err(NotAStory {
                line: body.start,
                text: "a `console` block has no file name".to_string(),
            }),
            (_, Some(name)) if name.starts_with('/') || name.contains("..") => Err(NotAStory {
                line: body.start,
                text: format!("`{name}` is outside of the story's folder; use a plain file name"),
            }),
            (_, Some(name)) => {
                let mut text = lines[body].join("\n");
                text.push('\n');
                self.steps.push(Step::File {
                    name: name.clone(),
                    text,
                });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn console(&mut self, lines: &[&str], body: Range<usize>) -> Result<(), NotAStory> {
        let mut at = body.start;
        while at < body.end && lines[at].trim().is_empty() {
            at += 1;
        }
        while at < body.end {
            let Some(first) = lines[at].strip_prefix("$ ") else {
                return Err(NotAStory {
                    line: at + 1,
                    text: "output before any command: a command begins with `$ `".to_string(),
                });
            };
            let line = at + 1;
            let mut text = first.to_string();
            at += 1;
            while at < body.end
                && let Some(more) = lines[at].strip_prefix('>')
            {
                text.push('\n');
                text.push_str(more.strip_prefix(' ').unwrap_or(more));
                at += 1;
            }
            let start = at;
            while at < body.end && !lines[at].starts_with("$ ") {
                at += 1;
            }
            let command = command(line, text, lines, start..at)?;
            self.steps.push(Step::Command(command));
        }
        Ok(())
    }
}

fn command(
    line: usize,
    mut text: String,
    lines: &[&str],
    mut answer: Range<usize>,
) -> Result<Command, NotAStory> {
    let wrong = |line, text| NotAStory { line, text };
    let (mut eventually, mut within) = (None, PATIENCE);
    while let Some((head, note)) = text.rsplit_once(" # ") {
        let (kind, time) = note.split_once(' ').unwrap_or((note, ""));
        let slot = match kind {
            "eventually" => eventually.insert(PATIENCE),
            "within" => &mut within,
            _ => break,
        };
        *slot = seconds(time)
            .ok_or_else(|| wrong(line, format!("`{note}`: write the time as `30s` or `2m`")))?;
        text = head.trim_end().to_string();
    }
    // Empty lines between commands are for the reader, and stay when the answer is rewritten.
    while answer.end > answer.start && lines[answer.end - 1].trim().is_empty() {
        answer.end -= 1;
    }
    let mut code = 0;
    let mut expected: Vec<String> = lines[answer.clone()]
        .iter()
        .map(|l| l.to_string())
        .collect();
    if let Some(number) = expected.first().and_then(|line| line.strip_prefix("? ")) {
        code = number.trim().parse().map_err(|_| {
            wrong(
                answer.start + 1,
                format!("`? {number}` is not an exit code; write `? 1`"),
            )
        })?;
        expected.remove(0);
    }
    Ok(Command {
        line,
        text,
        code,
        expected,
        answer,
        eventually,
        within,
    })
}

/// A fence that opens a block.
struct Fence {
    ticks: usize,
    language: String,
    file: Option<String>,
}

impl Fence {
    fn open(line: &str) -> Option<Fence> {
        let ticks = line.bytes().take_while(|b| *b == b'`').count();
        if ticks < 3 {
            return None;
        }
        let mut words = line[ticks..].split_whitespace();
        Some(Fence {
            ticks,
            language: words.next().unwrap_or_default().to_string(),
            file: words.next().map(str::to_string),
        })
    }

    /// The line that closes the block opened at `at`.
    fn end(&self, lines: &[&str], at: usize) -> Result<usize, NotAStory> {
        let closes = |line: &&str| {
            let line = line.trim_end();
            line.len() >= self.ticks && line.bytes().all(|b| b == b'`')
        };
        match lines[at + 1..].iter().position(closes) {
            Some(n) => Ok(at + 1 + n),
            None => Err(NotAStory {
                line: at + 1,
                text: format!(
                    "this block is never closed; end it with {}",
                    "`".repeat(self.ticks)
                ),
            }),
        }
    }
}

/// The words of ``Needs: `kubectl`, `dig`.``
fn needs(list: &str) -> impl Iterator<Item = String> + '_ {
    list.split([',', ' '])
        .map(|word| word.trim_matches(['`', '.']).to_string())
        .filter(|word| !word.is_empty() && word != "and")
}

/// `30s`, `2m`.
fn seconds(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number * 60)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<Command> {
        let steps = Story::parse("a", text).unwrap().steps;
        let commands = steps.into_iter().filter_map(|step| match step {
            Step::Command(command) => Some(command),
            Step::File { .. } => None,
        });
        commands.collect()
    }

    #[test]
    fn a_story_with_everything() {
        let text = "# Title\n\nNeeds: `namespaces`, `kubectl` and `dig`.\n\n```yaml a.yaml\nkind: Pod\n```\n\
                    \n```yaml\nnot: a file\n```\n```console\n$ one\nout\n\n$ two # eventually 30s\n? 3\n...\n```\n";
        let story = Story::parse("01-a", text).unwrap();
        assert_eq!(story.needs, ["namespaces", "kubectl", "dig"]);
        assert_eq!(story.steps.len(), 3);
        let file = Step::File {
            name: "a.yaml".to_string(),
            text: "kind: Pod\n".to_string(),
        };
        assert_eq!(story.steps[0], file);
        let found = commands(text);
        assert_eq!(
            (found[0].text.as_str(), found[0].code, found[0].line),
            ("one", 0, 13)
        );
        assert_eq!(
            (found[0].expected.clone(), found[0].answer.clone()),
            (vec!["out".to_string()], 13..14)
        );
        assert_eq!((found[1].text.as_str(), found[1].code), ("two", 3));
        assert_eq!(found[1].expected, ["..."]);
        assert_eq!(found[1].eventually, Some(Duration::from_secs(30)));
        assert_eq!(found[1].within, PATIENCE);
    }

    #[test]
    fn a_command_over_several_lines() {
        let found = commands("```console\n$ cat <<END\n> one\n>\n> END\none\n```\n");
        assert_eq!(found[0].text, "cat <<END\none\n\nEND");
        assert_eq!(found[0].expected, ["one"]);
    }

    #[test]
    fn notes_about_time() {
        let found = commands(
            "```console\n$ a # within 2m\n$ b # eventually 5s # within 9s\n$ echo # not a note\n```\n",
        );
        assert_eq!(
            (found[0].within.as_secs(), found[0].eventually),
            (120, None)
        );
        assert_eq!(
            (
                found[1].within.as_secs(),
                found[1].eventually.unwrap().as_secs()
            ),
            (9, 5)
        );
        assert_eq!(found[2].text, "echo # not a note");
    }

    #[test]
    fn a_longer_fence_holds_a_shorter_one() {
        let found =
            commands("````text\n```console\n$ not run\n```\n````\n```console\n$ run\n```\n");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].text, "run");
    }

    #[test]
    fn what_is_not_a_story_says_where_and_why() {
        for (text, line, why) in [
            ("# Nothing\n", 1, "no command"),
            ("a\n```console\n$ b\n", 2, "never closed"),
            (
                "```console\nout\n$ a\n```\n",
                2,
                "output before any command",
            ),
            (
                "```console\n$ a # eventually soon\n```\n",
                2,
                "write the time as",
            ),
            ("```console\n$ a\n? one\n```\n", 3, "not an exit code"),
            ("```yaml ../a.yaml\n```\n", 1, "outside"),
            ("```console a.txt\n$ a\n```\n", 1, "no file name"),
        ] {
            let error = Story::parse("a", text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.text.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_story_with_a_lab_is_known() {
        let with = Story::parse("a", "```console\n$ parfait lab up --nodes 2\n...\n```\n").unwrap();
        let without = Story::parse("a", "```console\n$ parfait --help\n...\n```\n").unwrap();
        assert!(with.has_lab() && !without.has_lab());
    }
}

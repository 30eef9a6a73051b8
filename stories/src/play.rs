//! Playing a story: type each command, compare, stop at the first that differs, clean up.
//!
//! Every command is a bash of its own in a process group of its own, so that one that hangs can be
//! ended with all it started; exported variables and the working directory are handed from one to the
//! next through files. Output goes to a file, not a pipe: a background program that keeps it open
//! must not keep the story waiting.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use super::pattern;
use super::story::{Command, Step, Story};

/// Between two looks at a running command.
const GLANCE: Duration = Duration::from_millis(10);

/// Between two tries of a command that is to succeed eventually.
const PAUSE: Duration = Duration::from_millis(250);

/// Reads back what the last command left, and leaves the same for the next, however this one ends.
const PROLOGUE: &str = r#"trap 'code=$?; export -p >"$STORY_STATE/env"; pwd >"$STORY_STATE/cwd"; exit $code' EXIT
. "$STORY_STATE/env"
cd -- "$(cat "$STORY_STATE/cwd")"
"#;

/// How a story ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every command did what the story says.
    Passed,
    /// Something that it needs is not there.
    Skipped(String),
    /// A command did something else: the report.
    Failed(String),
}

/// A new answer for the lines of a story's file.
#[derive(Debug, PartialEq, Eq)]
pub struct Edit {
    /// The lines, from 0, to replace.
    pub lines: std::ops::Range<usize>,
    /// What to write there.
    pub text: Vec<String>,
}

/// The place where one story plays: a temporary folder that is removed in the end.
#[derive(Debug)]
pub struct Stage {
    folder: PathBuf,
    lab: String,
    /// Process groups that still ran when their command had ended.
    left_behind: Vec<u32>,
}

/// What came of one command.
struct Ending {
    /// None if it was ended because its time was over.
    code: Option<i32>,
    printed: String,
}

impl Stage {
    /// Prepares the folder: the binary on the PATH under its own name, an empty home, a folder to work
    /// in with nothing but the project's examples.
    pub fn set(name: &str, binary: &Path) -> io::Result<Stage> {
        let number = std::process::id();
        let folder = std::env::temp_dir().join(format!("parfait-story-{name}-{number}"));
        for part in ["bin", "home", "state", "work"] {
            fs::create_dir_all(folder.join(part))?;
        }
        symlink(binary, folder.join("bin/parfait"))?;
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples");
        symlink(examples, folder.join("work/examples"))?;
        fs::write(folder.join("state/env"), "")?;
        let work = folder.join("work").display().to_string();
        fs::write(folder.join("state/cwd"), work)?;
        // A lab's name has room for 20 characters.
        let short: String = name.chars().take(12).collect();
        Ok(Stage {
            folder,
            lab: format!("{}-{number}", short.trim_end_matches('-')),
            left_behind: Vec::new(),
        })
    }

    /// Plays the whole story and cleans up.
    pub fn play(mut self, story: &Story) -> Outcome {
        if let Some(need) = missing(story) {
            return Outcome::Skipped(format!("needs {need}"));
        }
        let mut outcome = Outcome::Passed;
        for step in &story.steps {
            let done = match step {
                Step::File { name, text } => self.write(name, text),
                Step::Command(command) => self.perform(command),
            };
            if let Err(report) = done {
                outcome = Outcome::Failed(report);
                break;
            }
        }
        match (self.tidy_up(story), outcome) {
            (Err(report), Outcome::Passed) => Outcome::Failed(report),
            (Err(report), Outcome::Failed(first)) => Outcome::Failed(format!("{first}\n{report}")),
            (_, outcome) => outcome,
        }
    }

    /// Plays the story and gives, for each command that differs, the lines it should have had.
    pub fn rewrite(mut self, story: &Story) -> io::Result<Vec<Edit>> {
        let mut edits = Vec::new();
        for step in &story.steps {
            match step {
                Step::File { name, text } => fs::write(self.folder.join("work").join(name), text)?,
                Step::Command(command) => {
                    let ending = self.insist(command)?;
                    if verdict(command, &ending).is_err() {
                        edits.push(edit(command, &ending));
                    }
                }
            }
        }
        self.tidy_up(story).map_err(io::Error::other)?;
        Ok(edits)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.folder.join("work").join(name);
        fs::write(path, text).map_err(|error| format!("cannot write {name}: {error}"))
    }

    fn perform(&mut self, command: &Command) -> Result<(), String> {
        let ending = self
            .insist(command)
            .map_err(|error| format!("line {}: cannot run bash: {error}", command.line))?;
        verdict(command, &ending)
    }

    /// Runs the command; if it is to succeed eventually, again and again until it does.
    fn insist(&mut self, command: &Command) -> io::Result<Ending> {
        let end = Instant::now() + command.eventually.unwrap_or_default();
        loop {
            let ending = self.run(&command.text, command.within)?;
            if verdict(command, &ending).is_ok() || Instant::now() >= end {
                return Ok(ending);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn run(&mut self, text: &str, within: Duration) -> io::Result<Ending> {
        let state = self.folder.join("state");
        let script = state.join("command.sh");
        fs::write(&script, format!("{PROLOGUE}{text}\n"))?;
        let output = state.join("output");
        let out = File::create(&output)?;
        let mut child = Process::new("bash")
            .args(["--noprofile", "--norc"])
            .arg(&script)
            .env("STORY_STATE", &state)
            .env("PATH", self.path())
            .env("HOME", self.folder.join("home"))
            .env("PARFAIT_LAB", &self.lab)
            .env("LC_ALL", "C.UTF-8")
            .env("NO_COLOR", "1")
            .env("TERM", "dumb")
            .env_remove("KUBECONFIG")
            .env_remove("RUST_BACKTRACE")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()?;
        let group = child.id();
        let end = Instant::now() + within;
        let code = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status.code().unwrap_or(-1));
            }
            if Instant::now() >= end {
                signal(group, "KILL");
                child.wait()?;
                break None;
            }
            std::thread::sleep(GLANCE);
        };
        // While a member lives, the kernel gives the group's number to nobody else.
        if signal(group, "0") {
            self.left_behind.push(group);
        }
        let printed = fs::read(&output)?;
        Ok(Ending {
            code,
            printed: String::from_utf8_lossy(&printed).into_owned(),
        })
    }

    fn path(&self) -> String {
        let own = self.folder.join("bin").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{own}:{path}:/usr/local/sbin:/usr/sbin:/sbin")
    }

    /// Takes the lab down, ends what commands left running, and removes the folder.
    fn tidy_up(&mut self, story: &Story) -> Result<(), String> {
        let mut done = Ok(());
        if story.has_lab() {
            // A story that took its lab down itself makes this fail, which is as well.
            let ending = self.run("cd / && parfait lab down", Duration::from_secs(60));
            if let Ok(Ending {
                code: None,
                printed,
            }) = ending
            {
                done = Err(format!(
                    "`parfait lab down` did not end within 60 s:\n{printed}"
                ));
            }
        }
        for group in self.left_behind.drain(..) {
            signal(group, "KILL");
        }
        done
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Puts new answers into the text of a story's file.
pub fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    edits.sort_by_key(|edit| edit.lines.start);
    for edit in edits.into_iter().rev() {
        lines.splice(edit.lines, edit.text);
    }
    lines.join("\n") + "\n"
}

/// The first thing that a story needs and this machine has not.
pub fn missing(story: &Story) -> Option<&str> {
    let missing = story.needs.iter().find(|need| !available(need));
    missing.map(String::as_str)
}

/// Whether the machine has what a story needs: a program, or the right to make namespaces.
fn available(need: &str) -> bool {
    let probe = match need {
        "namespaces" => "unshare -nm true || unshare -Urnm true".to_string(),
        program => format!("command -v -- '{program}'"),
    };
    let path = std::env::var("PATH").unwrap_or_default();
    Process::new("bash")
        .args(["-c", &probe])
        .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Nothing, if the command did what the story says; a report otherwise.
fn verdict(command: &Command, ending: &Ending) -> Result<(), String> {
    let difference = pattern::compare(&command.expected, &ending.printed).err();
    if ending.code == Some(command.code) && difference.is_none() {
        return Ok(());
    }
    let mut report = format!("line {}: $ {}\n", command.line, command.text);
    // Writing to a String cannot fail.
    let _ = match ending.code {
        None => writeln!(
            report,
            "  did not end within {} s",
            command.within.as_secs()
        ),
        Some(code) if code != command.code => {
            writeln!(report, "  ended with {code}, expected {}", command.code)
        }
        Some(_) => Ok(()),
    };
    if let Some(pattern::Difference { expected, printed }) = difference {
        let _ = writeln!(
            report,
            "  expected: {}",
            expected.unwrap_or("(the end of the output)")
        );
        let _ = writeln!(
            report,
            "  printed:  {}",
            printed.unwrap_or("(the end of the output)")
        );
    }
    let _ = writeln!(report, "  all that it printed:");
    for line in ending.printed.lines() {
        let _ = writeln!(report, "    {line}");
    }
    Err(report)
}

fn edit(command: &Command, ending: &Ending) -> Edit {
    let mut text = Vec::new();
    if let Some(code) = ending.code.filter(|code| *code != 0) {
        text.push(format!("? {code}"));
    }
    text.extend(
        ending
            .printed
            .trim_end()
            .lines()
            .map(|line| line.trim_end().to_string()),
    );
    Edit {
        lines: command.answer.clone(),
        text,
    }
}

/// Sends a signal to a process group; `0` asks whether it has a member.
fn signal(group: u32, name: &str) -> bool {
    Process::new("bash")
        .args(["-c", &format!("kill -{name} -- -{group}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a story in which `parfait` is the given script.
    fn play(parfait: &str, text: &str) -> Outcome {
        let (_folder, stage, story) = prepare(parfait, text);
        stage.play(&story)
    }

    fn prepare(parfait: &str, text: &str) -> (tempfile::TempDir, Stage, Story) {
        use std::os::unix::fs::PermissionsExt;
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);

        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("parfait");
        fs::write(&binary, format!("#!/bin/bash\n{parfait}\n")).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let name = format!("unit-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let story = Story::parse(&name, text).unwrap();
        let stage = Stage::set(&name, &binary).unwrap();
        (folder, stage, story)
    }

    #[track_caller]
    fn passes(outcome: Outcome) {
        assert!(matches!(outcome, Outcome::Passed), "{outcome:?}");
    }

    #[track_caller]
    fn fails(outcome: Outcome, with: &str) {
        match outcome {
            Outcome::Failed(report) if report.contains(with) => {}
            outcome => panic!("no `{with}` in {outcome:?}"),
        }
    }

    #[test]
    fn the_binary_is_on_the_path_and_both_outputs_count() {
        passes(play(
            "echo out $1; echo err >&2",
            "```console\n$ parfait one\nout one\nerr\n```\n",
        ));
    }

    #[test]
    fn variables_and_the_working_directory_live_on() {
        passes(play(
            "",
            "```console\n$ export A='x y'; mkdir d; cd d\n$ echo \"$A\"; basename \"$PWD\"\nx y\nd\n$ exit 3\n? 3\n$ basename \"$PWD\"\nd\n```\n",
        ));
    }

    #[test]
    fn files_are_written_before_the_commands_after_them() {
        passes(play(
            "",
            "```yaml a.yaml\nkind: Pod\n```\n```console\n$ cat a.yaml\nkind: Pod\n```\n",
        ));
    }

    #[test]
    fn a_wrong_exit_code_and_a_wrong_output_are_reported() {
        fails(
            play("", "```console\n$ false\n```\n"),
            "line 2: $ false\n  ended with 1, expected 0",
        );
        fails(
            play("", "```console\n$ true\n? 1\n```\n"),
            "ended with 0, expected 1",
        );
        fails(
            play("", "```console\n$ echo a\nb\n```\n"),
            "  expected: b\n  printed:  a\n",
        );
        fails(
            play("", "```console\n$ echo a\n```\n"),
            "expected: (the end of the output)",
        );
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_all_it_started() {
        let start = Instant::now();
        let outcome = play("", "```console\n$ sleep 97 & sleep 98 # within 1s\n```\n");
        fails(outcome, "did not end within 1 s");
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_program_left_in_the_background_does_not_hold_the_story_up() {
        let start = Instant::now();
        passes(play("", "```console\n$ sleep 99 &\n$ echo on\non\n```\n"));
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn eventually_tries_again() {
        let text = "```console\n$ echo x >>n; wc -l <n # eventually 30s\n3\n```\n";
        passes(play("", text));
        let never = "```console\n$ echo a # eventually 1s\nb\n```\n";
        fails(play("", never), "printed:  a");
    }

    #[test]
    fn the_lab_is_taken_down_even_after_a_failure() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let parfait = format!("echo \"$PARFAIT_LAB: $*\" >>{}", log.path().display());
        fails(
            play(&parfait, "```console\n$ parfait lab up\n$ false\n```\n"),
            "ended with 1",
        );
        let seen = fs::read_to_string(log.path()).unwrap();
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines.len(), 2, "{seen}");
        assert!(
            lines[0].starts_with("unit-") && lines[0].ends_with(": lab up"),
            "{seen}"
        );
        assert!(lines[1].ends_with(": lab down"), "{seen}");
    }

    #[test]
    fn the_folder_is_removed() {
        let (_folder, stage, story) = prepare("", "```console\n$ touch a; mkdir b\n```\n");
        let place = stage.folder.clone();
        assert!(place.is_dir());
        passes(stage.play(&story));
        assert!(!place.exists());
    }

    #[test]
    fn what_is_needed_and_missing_skips() {
        let outcome = play("", "Needs: `no-such-program`\n```console\n$ false\n```\n");
        assert!(matches!(outcome, Outcome::Skipped(why) if why == "needs no-such-program"));
    }

    #[test]
    fn rewriting_replaces_only_answers_that_differ() {
        let text = "```console\n$ echo a1\na[N]\n\n$ echo b; false\nold\n\n$ echo c\n```\nEnd.\n";
        let (_folder, stage, story) = prepare("", text);
        let edits = stage.rewrite(&story).unwrap();
        let new =
            "```console\n$ echo a1\na[N]\n\n$ echo b; false\n? 1\nb\n\n$ echo c\nc\n```\nEnd.\n";
        assert_eq!(apply(text, edits), new);
    }
}

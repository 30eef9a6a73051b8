//! Running a program of a step and saying what it came to: its output goes through as it comes, each
//! line is shown to whoever counts, and times are printed as people say them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Says which step begins, so that a long run shows where it is.
pub fn heading(text: &str) {
    println!("\n==> {text}");
    let _ = io::stdout().flush();
}

/// Runs the command and lets its output through untouched.
pub fn run(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("error: cannot run {}: {error}", name(command));
            false
        }
    }
}

/// Runs the command, copies what it prints to `out` and `err`, and shows every line to `each`.
pub fn run_watched(
    command: &mut Command,
    (out, err): (impl Write + Send, impl Write + Send),
    each: impl FnMut(&str) + Send,
) -> io::Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", name(command))))?;
    let each = Mutex::new(each);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| pass_on(stdout, out, &each));
        scope.spawn(|| pass_on(stderr, err, &each));
    });
    child.wait()
}

/// `1 m 05 s`, `12.3 s`, `240 ms`.
pub fn spell(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 {
        format!("{} m {:02} s", seconds / 60, seconds % 60)
    } else if seconds >= 1 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} ms", time.as_millis())
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn pass_on<W: FnMut(&str)>(from: Option<impl Read>, mut to: impl Write, each: &Mutex<W>) {
    let Some(from) = from else { return };
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        // Whoever reads our output may have gone away; the counting goes on.
        let _ = to.write_all(&line);
        let _ = to.flush();
        if let Ok(mut each) = each.lock() {
            each(String::from_utf8_lossy(&line).trim_end());
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_are_watched_and_the_exit_code_is_kept() {
        let (mut lines, mut out) = (Vec::new(), Vec::new());
        let status = run_watched(
            Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]),
            (&mut out, io::sink()),
            |line| lines.push(line.to_string()),
        );
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
        assert_eq!(out, b"out\n");
        assert_eq!(status.unwrap().code(), Some(3));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run_watched(
            &mut Command::new("no-such-program"),
            (io::sink(), io::sink()),
            |_| {},
        )
        .unwrap_err();
        assert!(error.to_string().starts_with("no-such-program: "));
    }

    #[test]
    fn times_as_people_say_them() {
        assert_eq!(spell(Duration::from_millis(240)), "240 ms");
        assert_eq!(spell(Duration::from_millis(12_345)), "12.3 s");
        assert_eq!(spell(Duration::from_secs(125)), "2 m 05 s");
    }
}

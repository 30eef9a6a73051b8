//! Starting the container program, and keeping a hand on what it started.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;

use crate::container::spec::EXEC_FAILED;
use crate::container::{ExecSpec, Report, Request, RunSpec};

/// How much of an exec probe's output is of interest.
const MAX_OUTPUT: usize = 10 << 10;

/// A hand on a running container. When all are gone, the container is killed.
#[derive(Debug, Clone)]
pub struct Hand {
    pub pid: i32,
    stdin: Arc<Mutex<ChildStdin>>,
}

impl Hand {
    /// Delivers a signal to the container's first process. If it has ended already there is nothing to do.
    pub async fn signal(&self, number: i32) {
        let byte = [u8::try_from(number).unwrap_or(libc::SIGKILL as u8)];
        let mut stdin = self.stdin.lock().await;
        let _ = stdin.write_all(&byte).await;
        let _ = stdin.flush().await;
    }
}

/// Starts a container. Gives a hand on it and notes about what could not be done as asked; `at_end` is called with the
/// last report.
pub async fn start(
    program: &Path,
    spec: RunSpec,
    at_end: impl FnOnce(Report) + Send + 'static,
) -> Result<(Hand, Vec<String>), String> {
    let mut child = spawn(program, &Request::Run(Box::new(spec)), Stdio::inherit())
        .await
        .map_err(|e| format!("start {}: {e}", program.display()))?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the container program has no pipes".to_owned());
    };
    let mut lines = BufReader::new(stdout).lines();
    let mut next = async move || match lines.next_line().await {
        Ok(Some(line)) => serde_json::from_str(&line).ok(),
        _ => None,
    };
    match next().await {
        Some(Report::Started { pid, notes }) => {
            tokio::spawn(async move {
                let lost = Report::Exited {
                    code: None,
                    signal: Some(libc::SIGKILL),
                    oom_killed: false,
                };
                let report = next().await.unwrap_or(lost);
                let _ = child.wait().await;
                at_end(report);
            });
            let stdin = Arc::new(Mutex::new(stdin));
            Ok((Hand { pid, stdin }, notes))
        }
        Some(Report::Failed { message }) => {
            let _ = child.wait().await;
            Err(message)
        }
        _ => {
            let status = child.wait().await;
            Err(format!(
                "the container program ended without a word ({})",
                status.map_or_else(|e| e.to_string(), |s| s.to_string())
            ))
        }
    }
}

/// Runs a program in a container: `Ok` if it exits with 0 in time, else what there is to say.
pub async fn exec(program: &Path, spec: ExecSpec, timeout: Duration) -> Result<(), String> {
    let command = spec.argv.join(" ");
    let mut child = spawn(program, &Request::Exec(spec), Stdio::piped())
        .await
        .map_err(|e| format!("exec {command:?}: {e}"))?;
    // Held until the end: letting go kills the program.
    let hand = child.stdin.take();
    let run = async {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            let limit = MAX_OUTPUT as u64;
            let (mut stdout, mut stderr) = (stdout.take(limit), stderr.take(limit));
            let _ = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
        }
        out.extend(err);
        (child.wait().await, out)
    };
    let (status, output) = tokio::time::timeout(timeout, run)
        .await
        .map_err(|_| format!("command {command:?} timed out after {timeout:?}"))?;
    drop(hand);
    let output = String::from_utf8_lossy(&output).trim().to_owned();
    match status.map(|s| s.code()) {
        Ok(Some(0)) => Ok(()),
        Ok(Some(code)) if code == i32::from(EXEC_FAILED) => Err(format!("exec: {output}")),
        Ok(code) => Err(match code {
            Some(code) => format!("command {command:?} exited with {code}: {output}"),
            None => format!("command {command:?} was killed: {output}"),
        }),
        Err(error) => Err(format!("exec {command:?}: {error}")),
    }
}

async fn spawn(program: &Path, request: &Request, stderr: Stdio) -> io::Result<Child> {
    let mut child = Command::new(program)
        .arg("lab-container")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn()?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    if let Some(stdin) = child.stdin.as_mut() {
        stdin.write_all(&line).await?;
        stdin.flush().await?;
    }
    Ok(child)
}

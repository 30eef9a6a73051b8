//! Running a built-in image as a process of its own, on a port nobody else has.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// A running built-in, killed when the test ends.
pub struct Image {
    pub child: Child,
    pub said: BufReader<ChildStdout>,
}

impl Image {
    /// Starts `parfait image NAME args…` and waits for the line that says it listens.
    pub fn start(line: &str, env: &[(&str, &str)]) -> Image {
        let mut child = command(line, env)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example is built with the tests");
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        said.read_line(&mut first).expect("a first line");
        while first.contains("is not served") {
            first.clear();
            said.read_line(&mut first).expect("another line");
        }
        assert!(first.contains("listen"), "{line}: {first:?}");
        Image { child, said }
    }

    #[allow(dead_code, reason = "not every test file needs it")]
    /// Sends SIGTERM and returns the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        run("kill", &["-TERM", &pid]);
        self.child.wait().expect("our child").code()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut rest = String::new();
        let _ = self.said.read_to_string(&mut rest);
    }
}

/// The command that runs a built-in, with nothing of our environment.
pub fn command(line: &str, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary());
    command.args(line.split_whitespace()).env_clear();
    command.envs(env.iter().copied());
    command
}

/// The example `parfait-image`, which cargo builds beside the tests.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("we run");
    let target = test
        .parent()
        .and_then(|p| p.parent())
        .expect("target/debug");
    target.join("examples").join("parfait-image")
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0"));
    let address = listener.and_then(|l| l.local_addr());
    address.expect("a free port").port()
}

pub fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Standard output of a program, which must succeed.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn stdout(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {out}{err}");
    out
}

/// Whether a program of this machine is there; says so loudly if it is not.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn have(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        skip(&format!("this machine has no {program}"));
    }
    found.is_ok()
}

/// Says, past what libtest captures, that the running test cannot run here.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test of images");
    let _ = writeln!(std::io::stderr(), "SKIP: {name}: {why}");
}

//! [`Failure`]: an error for people, and the exit code it stands for.
//!
//! `explain` and `node status` know a fourth code, 3 for unknown; that one is their answers' own.

use std::fmt;
use std::process::ExitCode;

/// Done; delivered; every check passed.
pub const DONE: u8 = 0;
/// Failed; not delivered; a check failed.
pub const FAILED: u8 = 1;
/// Wrong usage: the command line, a file, or a name that does not exist.
pub const USAGE: u8 = 2;
/// Why a command ends, in words, and with which exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The command could not be done.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self {
            code: FAILED,
            message: message.to_string(),
        }
    }

    /// The command was wrong.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self {
            code: USAGE,
            message: message.to_string(),
        }
    }

    /// Prints it on standard error and answers its exit code.
    pub fn report(&self) -> ExitCode {
        ExitCode::from(self.say())
    }

    /// The same for a process that ends otherwise than by returning from main.
    pub fn say(&self) -> u8 {
        eprintln!("parfait: {}", self.message);
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<parfait_lab_fabric::Error> for Failure {
    fn from(error: parfait_lab_fabric::Error) -> Self {
        use parfait_lab_fabric::Error;
        match error {
            Error::NoTarget { .. } | Error::AlreadyRunning(_) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::failed(said(&error))
    }
}

/// What the API server said, without the wrapping; else the whole chain of causes.
pub fn said(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

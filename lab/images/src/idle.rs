//! Waiting: what `pause` does, and a toolbox that was given nothing to do.
//!
//! It answers SIGTERM and SIGINT at once, with 0, which a shell as the first process of a container
//! would not do.

use crate::console::complain;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

pub fn main(_args: Vec<String>) -> ExitCode {
    match wait() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("idle: cannot wait for signals: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn wait() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

//! Telling people how far things are: a moving line on a terminal, plain lines elsewhere.
//!
//! What is done stays as a line; what is being waited for moves on a terminal. Where nothing can
//! move it is printed when it has lasted for some seconds, and again when it changes. All of it
//! goes to standard error.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How long a reason must have lasted, and the one before it must be past, to be told in a plain line.
const QUIET: Duration = Duration::from_secs(4);

/// Where progress goes.
pub struct Progress {
    spinner: Option<ProgressBar>,
    said: BTreeMap<String, (String, Instant)>,
}

impl Progress {
    /// On a terminal with a moving line, elsewhere without.
    pub fn new() -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            spinner.set_style(
                ProgressStyle::with_template("{spinner} {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self {
            spinner,
            said: BTreeMap::new(),
        }
    }

    /// Something is done.
    pub fn done(&self, what: &str) {
        match &self.spinner {
            Some(spinner) => spinner.println(format!("✓ {what}")),
            None => eprintln!("{what}"),
        }
    }

    /// Something is noteworthy.
    pub fn note(&self, what: &str) {
        match &self.spinner {
            Some(spinner) => spinner.println(what),
            None => eprintln!("{what}"),
        }
    }

    /// What is being waited for, under a name.
    pub fn waiting(&mut self, name: &str, what: &str) {
        if self.spinner.is_some() {
            return;
        }
        let now = Instant::now();
        let (said, at) = self
            .said
            .entry(name.to_owned())
            .or_insert_with(|| (String::new(), now));
        if said != what && now.duration_since(*at) >= QUIET {
            (*said, *at) = (what.to_owned(), now);
            eprintln!("{name} {what}");
        }
    }

    /// The moving line.
    pub fn line(&self, what: String) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(what);
        }
    }

    /// No more moving line.
    pub fn clear(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    /// An error's message must not stand beside a line that moves no more.
    fn drop(&mut self) {
        self.clear();
    }
}

//! Small programs that containers expect to find: the gRPC health probe, and `wget` and `nc` for
//! machines that lack them, since half of all manifests wait for something with one of the two.
//!
//! They take the flags that busybox's take, and print and end as those do.

pub mod grpc_health_probe;
pub mod nc;
pub mod wget;

use std::process::ExitCode;
use std::time::Duration;

use crate::console::complain;

/// Runs a program's future on a runtime of its own.
fn run(program: &str, work: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A name that is being looked up must not hold up the end.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            complain(&format!("{program}: cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Seconds of a `-w` or `-T`, which may have a fraction.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

/// The arguments of a program as single letters and what follows them: `-zvw 2` is `z`, `v`, `w 2`.
struct Letters {
    args: std::vec::IntoIter<String>,
    /// What is left of a cluster of letters.
    cluster: String,
}

impl Letters {
    fn new(args: Vec<String>) -> Letters {
        Letters {
            args: args.into_iter(),
            cluster: String::new(),
        }
    }

    /// The next letter, `Err` with an argument that is none.
    fn next(&mut self) -> Option<Result<char, String>> {
        if self.cluster.is_empty() {
            let arg = self.args.next()?;
            match arg
                .strip_prefix('-')
                .filter(|rest| !rest.is_empty() && !rest.starts_with('-'))
            {
                Some(rest) => self.cluster = rest.to_owned(),
                None => return Some(Err(arg)),
            }
        }
        let letter = self.cluster.remove(0);
        Some(Ok(letter))
    }

    /// The value of the letter that came last: the rest of its cluster, or the next argument.
    fn value(&mut self) -> Option<String> {
        match self.cluster.is_empty() {
            true => self.args.next(),
            false => Some(std::mem::take(&mut self.cluster)),
        }
    }
}

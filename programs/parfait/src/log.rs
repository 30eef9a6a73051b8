//! Where the program's own messages go: standard error, without colours where nobody looks.
//!
//! `RUST_LOG` chooses (`tracing-subscriber`'s directives); without it, `info`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Sends messages to a writer.
pub fn to<W>(writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    // A second call would only say that there is one already.
    let _ = subscriber
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}

//! Printing results on standard output: `say!` is `println!` that does not panic when nobody reads.
//!
//! `parfait lab status | head -1` closes the pipe early. That is no fault of anybody: the program
//! ends quietly, as one killed by SIGPIPE would. (SIGPIPE itself stays ignored, as a pipe to one of
//! our own children may break too, and that is ours to handle.)

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// `println!`, quietly ending the program when standard output is closed.
macro_rules! say {
    () => { $crate::output::line(format_args!("")) };
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}
pub(crate) use say;

/// What [`say!`] does.
pub fn line(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_fmt(text)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    if let Err(error) = written {
        let code = if error.kind() == ErrorKind::BrokenPipe {
            128 + libc::SIGPIPE
        } else {
            1
        };
        std::process::exit(code);
    }
}

/// `1 policy`, `2 policies`.
pub fn counted(number: usize, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

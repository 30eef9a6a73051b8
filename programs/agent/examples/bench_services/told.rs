//! What is printed: `NAME NUMBER` lines.

use std::fs;
use std::time::Instant;

/// A number among the arguments.
pub fn number(word: &str) -> u32 {
    word.parse().expect("a number")
}

/// The milliseconds since `start`.
pub fn told(name: &str, start: Instant) {
    println!("{name} {:.4}", start.elapsed().as_secs_f64() * 1e3);
}

/// A line of this process's `/proc/PID/status`, in KiB.
pub fn told_memory(name: &str, what: &str) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    println!("{name} {}", number.unwrap_or("0"));
}

//! [`Tbf`]: a token bucket, as an interface's queue (tc-tbf(8)).
//!
//! ```text
//!                    rate bytes a second
//!                            ▼
//!   packets ─▶ [limit bytes] ─▶ (bucket of burst bytes) ─▶ wire
//! ```

use std::fmt;

use serde::Serialize;

/// A token bucket at an interface's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tbf {
    /// Bytes a second; at least 1.
    pub rate: u64,
    /// Bytes that may go at once. A packet larger than that is never sent.
    pub burst: u32,
    /// Bytes that may wait, those of the bucket included; what exceeds them is dropped.
    pub limit: u32,
}

impl Tbf {
    /// Whether this, as the kernel tells it, is what was asked for. The kernel keeps the burst as a time in ticks of 64 ns,
    /// so that it comes back rounded.
    #[must_use]
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let tick = wanted.rate / 10_000_000;
        let slack = 2 + 2 * tick + u64::from(wanted.burst >> 12);
        self.rate == wanted.rate
            && self.limit == wanted.limit
            && u64::from(self.burst.abs_diff(wanted.burst)) <= slack
    }
}

/// As `tc qdisc add … root` takes it: rates in bits, sizes in bytes.
impl fmt::Display for Tbf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, burst, limit } = self;
        write!(
            f,
            "tbf rate {}bit burst {burst}b limit {limit}b",
            u128::from(*rate) * 8
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_burst_is_the_same_and_another_is_not() {
        let wanted = Tbf {
            rate: 125_000,
            burst: 100_000,
            limit: 103_125,
        };
        assert_eq!(
            wanted.to_string(),
            "tbf rate 1000000bit burst 100000b limit 103125b"
        );
        let with = |rate, burst, limit| Tbf { rate, burst, limit };
        assert!(with(125_000, 99_999, 103_125).satisfies(&wanted));
        assert!(!with(125_001, 100_000, 103_125).satisfies(&wanted));
        assert!(!with(125_000, 90_000, 103_125).satisfies(&wanted));
        assert!(!with(125_000, 100_000, 103_126).satisfies(&wanted));
    }
}

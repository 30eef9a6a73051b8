//! What the server counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters that any task may add to.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        /// What the counters said at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads all counters.
            #[must_use]
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Counts {
            /// Name and value of each, in the order of the declaration.
            #[must_use]
            pub fn each(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Messages over UDP.
    udp,
    /// Messages over TCP.
    tcp,
    /// Answers from the zone with records.
    found,
    /// Answers from the zone without records for a name that exists.
    no_data,
    /// Answers from the zone that a name does not exist.
    no_name,
    /// Questions given to upstream servers.
    forwarded,
    /// Questions that no upstream server answered, or that there was none for.
    failed,
    /// Questions refused, or for operations that are not implemented.
    refused,
    /// Messages that are no question.
    malformed,
    /// Messages that got no answer: answers, fragments of a header, more than can be forwarded.
    dropped,
    /// Answers over UDP that did not fit, so that the client has to come back over TCP.
    truncated,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

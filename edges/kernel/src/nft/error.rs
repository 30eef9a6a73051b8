//! What can go wrong with nf_tables, with the object, the operation and the kernel's number.

use rustix::io::Errno;

/// Why tables could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket itself failed.
    #[error("nf_tables: {operation}: {errno}{}", advice(*errno))]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused a change, and with it the whole transaction: nothing has changed.
    #[error("nf_tables: {operation} {object}: {errno}{}{}", in_words(hint), refusal(*errno))]
    Refused {
        /// What was tried: `add element`, `delete chain`, …
        operation: String,
        /// On what: table, chain and rule or set and element, as `nft` names them.
        object: String,
        /// The kernel's answer.
        errno: Errno,
        /// The kernel's own words, mostly none.
        hint: String,
    },
    /// Somebody changed a ruleset between looking and writing. Look again, and try again.
    #[error("nf_tables: the ruleset was changed by another program meanwhile; observe it again")]
    Changed,
    /// The value has no form that this program writes.
    #[error("nf_tables: {object}: {what}")]
    Unsupported {
        /// The table, chain or set.
        object: String,
        /// What is not supported, and what to write instead.
        what: String,
    },
}

impl Error {
    /// The kernel's number, where there is one.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Socket { errno, .. } | Self::Refused { errno, .. } => Some(*errno),
            Self::Changed | Self::Unsupported { .. } => None,
        }
    }

    pub(super) fn socket(operation: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Self::Socket { operation, errno }
        }
    }
}

fn in_words(hint: &str) -> String {
    match hint {
        "" => String::new(),
        hint => format!(" ({hint})"),
    }
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM | Errno::ACCESS => ": this needs CAP_NET_ADMIN in the network namespace",
        Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::INVAL => {
            ": the kernel must be built with CONFIG_NF_TABLES"
        }
        _ => "",
    }
}

fn refusal(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM => ": this needs CAP_NET_ADMIN in the network namespace",
        Errno::NOENT => ": it, or something it names, is not there: observe the ruleset again",
        Errno::EXIST => ": something like it is there already, or overlaps it",
        Errno::BUSY => ": something else still refers to it",
        Errno::OPNOTSUPP => ": the kernel lacks this expression, or not in such a chain",
        _ => "",
    }
}

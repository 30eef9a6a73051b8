//! What a DNS server can hold: [`Name`], [`Record`], and [`Zone`], which answers questions.
//!
//! A zone is to names what the Linux types are to packets: a plain value that the application layer
//! makes, that the server's sockets answer from, that explain asks, and that prove compares with what
//! a running server says. There is one [`Zone::answer`], so they cannot differ.
//!
//! ```text
//!   layers/application ──apply──▶ Zone ──▶ edges/serve answers from it
//!                                  ├─────▶ explain asks it
//!                                  └─────▶ prove compares it with a server's answers
//! ```
//!
//! Follows RFC 1034 and 1035, 2308 (negative answers), 8020 (what does not exist has nothing below it)
//! and 6891 only in that sizes are left to the server. Deliberately absent: the wire format, which the
//! server's edge takes from a library; wildcards, delegation, DNSSEC and transfers, which the names of
//! a cluster do not need.

mod name;
mod record;
mod zone;

pub use name::{Name, NameError};
pub use record::{Data, Record, RecordType, Shown};
pub use zone::{Answer, Found, Rcode, Zone};

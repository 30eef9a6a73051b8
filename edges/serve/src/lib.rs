//! The node's servers: sockets that answer from what the layers decided. So far DNS.
//!
//! ```text
//!   pod ──UDP/TCP 53──▶ dns::run ──▶ Zone::answer ──▶ the cluster's names
//!                          └───────▶ upstream server    all others
//! ```
//!
//! Nothing is decided here: which names exist is the application layer's, and the zone is swapped whole
//! while questions are answered. Deliberately absent: a cache of what upstream servers said, which
//! they have themselves; HTTP, which comes later.

pub mod dns;

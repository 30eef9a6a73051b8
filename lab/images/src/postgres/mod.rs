//! PostgreSQL's protocol, version 3, as far as logging in and asking a small question goes.
//!
//! ```text
//!   client                                server
//!   StartupMessage(user, database)  ──▶
//!                                   ◀──   AuthenticationOk | CleartextPassword | MD5 | SASL
//!   PasswordMessage, SASLResponse   ──▶
//!                                   ◀──   AuthenticationOk, ParameterStatus…, ReadyForQuery
//!   Query("SELECT 1")               ──▶
//!                                   ◀──   RowDescription, DataRow, CommandComplete, ReadyForQuery
//! ```
//!
//! [`client`] pings a server, as the web application of the running example does; [`server`] is the
//! stand-in for the `postgres` image. Both are tested against the real other side. Follows chapter 55
//! of PostgreSQL's documentation (Frontend/Backend Protocol). TLS and GSSAPI are declined.

pub(crate) mod answers;
pub mod client;
pub(crate) mod md5;
pub(crate) mod query;
pub(crate) mod scram;
pub mod server;
pub(crate) mod wire;

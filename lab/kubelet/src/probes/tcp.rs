//! The TCP probe: can a connection be made?

use std::net::SocketAddr;

use tokio::net::TcpStream;

/// Connects and closes.
pub async fn ask(to: SocketAddr) -> Result<(), String> {
    TcpStream::connect(to)
        .await
        .map(drop)
        .map_err(|e| format!("dial tcp {to}: {e}"))
}

//! Listeners: accepting connections, within limits, until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::directory::Directory;
use super::sessions::Sessions;

/// How a server presents itself, and what it bears.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    /// Addresses that SendTargets names. Empty: the one that the connection came in on.
    pub announce: Vec<SocketAddr>,
    /// What one peer, and all together, may use.
    pub limits: Limits,
}

/// Bounds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time; one more is closed at once.
    pub connections: usize,
    /// Time for a login, from the accepted connection to the full feature phase.
    pub login: Duration,
    /// Commands that one session may have open.
    pub commands: u16,
    /// Time between the request to log out and the end of the connection at shutdown.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            login: Duration::from_secs(15),
            commands: 128,
            farewell: Duration::from_secs(2),
        }
    }
}

/// Serves `listeners` until `shutdown` resolves; returns when every session has ended and settled.
/// `sessions` shows the live ones meanwhile.
pub async fn serve(
    listeners: Vec<TcpListener>,
    directory: Arc<dyn Directory>,
    sessions: Sessions,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) {
    let _ = (listeners, directory, sessions, config);
    shutdown.await;
}

//! Listeners: accepting connections, within limits, until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::chap::Challenges;
use super::connection::{self, Shared};
use super::directory::Directory;
use super::failures::Failures;
use super::memory::Memory;
use super::portals::{Door, Portals};
use super::room::Room;
use super::sessions::Sessions;
use super::threads::Threads;

/// Pause after a connection could not be accepted.
const BACK_OFF: Duration = Duration::from_millis(100);

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
    /// Of these, connections that have not logged in to a target.
    pub strangers: usize,
    /// Connections from one address, and strangers' from one network: no peer takes the room of all
    /// others.
    pub connections_per_address: usize,
    /// Time for a login, from the accepted connection to the full feature phase.
    pub login: Duration,
    /// Commands that one session may have open.
    pub commands: u16,
    /// Time between the request to log out and the end of the connection at shutdown.
    pub farewell: Duration,
    /// Time in which a peer has to take some of what waits for it, or to send some of what it was asked
    /// for or has begun to send.
    pub stalled: Duration,
    /// Who says nothing for so long and has shown that it knows pings is pinged (NOP-In), and gone if it
    /// says nothing for as long again.
    pub silence: Duration,
    /// Time that a discovery session may take.
    pub discovery: Duration,
    /// Bytes of data that all sessions together may have on their way between disks and peers.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            strangers: 1024,
            connections_per_address: 256,
            login: Duration::from_secs(15),
            commands: 128,
            farewell: Duration::from_secs(2),
            stalled: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            discovery: Duration::from_secs(60),
            memory: 1024 * 1024 * 1024,
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
    let portals = Portals::new(config.announce);
    for listener in listeners {
        let opened = listener
            .local_addr()
            .and_then(|name| portals.open(name, listener));
        if let Err(error) = opened {
            tracing::error!(%error, "a listener has no address");
        }
    }
    serve_at(portals, directory, sessions, config.limits, shutdown).await;
}

/// The same at portals that may come and go meanwhile.
pub async fn serve_at(
    portals: Portals,
    directory: Arc<dyn Directory>,
    sessions: Sessions,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let room = Room::new(&limits);
    let shared = Arc::new(Shared {
        memory: Memory::new(limits.memory),
        directory,
        sessions,
        limits,
        portals: portals.clone(),
        challenges: Challenges::default(),
        failures: Failures::default(),
        threads: Threads::start(),
    });
    // A watch channel, because every connection must see the end, also one that looks late.
    let stop = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let door = tokio::select! {
            door = portals.next() => door,
            // Portals that have closed, whose last connection has ended.
            Some(_) = tasks.join_next() => continue,
            () = &mut shutdown => break,
        };
        let (shared, room, stop) = (shared.clone(), room.clone(), stop.subscribe());
        tasks.spawn(listen(door, shared, room, stop));
    }
    stop.send_replace(true);
    // Each listener returns when its connections have.
    while tasks.join_next().await.is_some() {}
}

/// Accepts connections and owns their tasks.
async fn listen(
    Door {
        listener,
        mut closes,
    }: Door,
    shared: Arc<Shared>,
    room: Arc<Room>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => break,
            _ = closes.wait_for(|closes| *closes) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let knock = shared.sessions.knocks().knock(peer);
                let seat = match room.enter(peer.ip()) {
                    Ok(seat) => seat,
                    Err(full) => {
                        tracing::warn!(%peer, %full, "closing a connection");
                        continue;
                    }
                };
                if let Err(error) = prepare(&stream) {
                    tracing::warn!(%peer, %error, "setting the options of a connection");
                    continue;
                }
                let (shared, stop) = (shared.clone(), stop.clone());
                connections.spawn(async move {
                    connection::run(stream, seat, knock, shared, stop).await;
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: there will be some when connections end.
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
    drop(listener);
    // Whoever waits for it may listen there now. Connections that came in by it go on.
    drop(closes);
    while connections.join_next().await.is_some() {}
}

/// Options of a connection: no waiting for more to send, and a peer that has vanished is noticed
/// within about twenty seconds. Pings would do the same, but iPXE and OVMF answer none.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(20)))
}

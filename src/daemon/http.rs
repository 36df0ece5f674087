//! HTTP connections of boot service, dashboard and control socket: bounded in number and in patience.

use std::future::{Future, Ready, ready};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::peer::Peer;

/// A client that opens its connection, or sends its request's head, more slowly than this is not one
/// of ours.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);

/// Connections of one listener that may be open at a time. A room that boots at once opens one or two
/// a machine; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;

/// What is going on at the end gets this long to finish.
const FAREWELL: Duration = Duration::from_secs(3);

/// Something that accepts connections.
pub(super) trait Accept: Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// What has to happen before it carries requests: a handshake, which others do not wait for.
    type Opening: Future<Output = io::Result<Self::Stream>> + Send + 'static;
    /// Waits for the next one, and tells who it is from.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Opening, Peer)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    type Opening = Ready<io::Result<TcpStream>>;

    async fn next(&self) -> io::Result<(Self::Opening, Peer)> {
        let (stream, peer) = accept(self).await?;
        Ok((ready(Ok(stream)), peer))
    }
}

/// Waits for the next connection over TCP, and tells who it is from.
pub(super) async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, Peer)> {
    let (stream, from) = listener.accept().await?;
    // A client that vanishes in the middle of its initramfs must not keep its place.
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    let peer = Peer::Network {
        from,
        local: stream.local_addr()?,
    };
    Ok((stream, peer))
}

impl Accept for &UnixListener {
    type Stream = tokio::net::UnixStream;
    type Opening = Ready<io::Result<Self::Stream>>;

    async fn next(&self) -> io::Result<(Self::Opening, Peer)> {
        let (stream, _) = self.accept().await?;
        let credentials = stream.peer_cred()?;
        let peer = Peer::Local {
            uid: credentials.uid(),
            pid: credentials.pid().unwrap_or(0),
        };
        Ok((ready(Ok(stream)), peer))
    }
}

/// Answers connections of `listener` with `router` until `shutdown` resolves. Each request carries
/// its [`Peer`] as an extension.
pub(super) async fn serve(
    listener: impl Accept,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let open = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            // The semaphore is never closed, so there is always a place in the end.
            let place = places.clone().acquire_owned().await.ok();
            (listener.next().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        let (opening, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a connection that was gone already. Either passes.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let router = router.clone();
        let answer = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            router.clone().oneshot(request.map(Body::new))
        });
        let watcher = open.watcher();
        tokio::spawn(async move {
            let stream = match tokio::time::timeout(HEAD_PATIENCE, opening).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "a connection was not opened"),
                Err(_) => return tracing::debug!("a connection took too long to be opened"),
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
                .serve_connection(TokioIo::new(stream), answer);
            // How a peer ends its connection is its own affair.
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%error, "an HTTP connection ended badly");
            }
            drop(place);
        });
    }
    if tokio::time::timeout(FAREWELL, open.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("HTTP connections were cut off by the end of the server");
    }
}

//! HTTP connections of boot service, dashboard and control socket: bounded in number and in patience.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tower::ServiceExt;

use super::pace::Paced;
use super::peer::{Peer, Scheme};
use super::seats::{Answering, Seat, Seats};
use super::unsent;

/// A client that opens its connection, or sends its request's head, more slowly than this is not one
/// of ours.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);

/// Connections of one listener that may be open at a time: a room that boots at once opens one or two
/// a machine.
const MAX_CONNECTIONS: usize = 1024;

/// The head of a request is no longer than this, and so is what is read or written at a time.
const LONGEST_HEAD: usize = 16 << 10;

/// Browsers send some twenty.
const MOST_HEADERS: usize = 64;

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
    unsent::keep_little(stream.as_fd())?;
    let peer = Peer::Network {
        from,
        local: stream.local_addr()?,
        over: Scheme::Http,
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
    let seats = Seats::new(MAX_CONNECTIONS);
    let open = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.next() => accepted,
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
        let Some(seat) = seats.enter(&peer) else {
            tracing::debug!(?peer, "a connection was closed: there are too many");
            continue;
        };
        let answered = answered(opening, seat.clone(), peer, router.clone(), open.watcher());
        tokio::spawn(async move {
            tokio::select! {
                () = answered => {}
                () = seat.gives_way() => tracing::debug!("a connection gave way to another"),
            }
        });
    }
    if tokio::time::timeout(FAREWELL, open.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("HTTP connections were cut off by the end of the server");
    }
}

/// Answers what comes in by one connection, until its end.
async fn answered<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    opening: impl Future<Output = io::Result<S>>,
    seat: Seat,
    peer: Peer,
    router: Router,
    watcher: Watcher,
) {
    let stream = match tokio::time::timeout(HEAD_PATIENCE, opening).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection was not opened"),
        Err(_) => return tracing::debug!("a connection took too long to be opened"),
    };
    let answer = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let answering = seat.answers();
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(answer.map(|body| OnItsWay {
                body,
                _answering: answering,
            }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(Paced::new(stream)), answer);
    // How a peer ends its connection is its own affair.
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
}

/// The body of an answer: its connection is busy until it is sent.
struct OnItsWay {
    body: Body,
    _answering: Answering,
}

impl HttpBody for OnItsWay {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

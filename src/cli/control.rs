//! The other end of the control socket: a running server's API, called by commands.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// An answer larger than this is not one of ours.
const MAX_ANSWER: usize = 64 << 20;

/// A connection to the server that holds the library.
#[derive(Debug)]
pub(super) struct Control {
    runtime: tokio::runtime::Runtime,
    socket: std::path::PathBuf,
}

impl Control {
    /// The server that holds the library in `dir`, if one runs.
    pub(super) fn running(dir: &Path) -> Result<Option<Self>> {
        let socket = dir.join("control.sock");
        match std::os::unix::net::UnixStream::connect(&socket) {
            Ok(_) => Self::new(&socket).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => bail!(
                "you may not talk to the running server ({}): be root, or a member of group netroot",
                socket.display()
            ),
            // No socket, or one that a killed server left.
            Err(_) => Ok(None),
        }
    }

    /// The server behind `socket`. Nothing is sent yet.
    fn new(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the control socket's client")?;
        Ok(Self {
            runtime,
            socket: socket.to_owned(),
        })
    }

    /// GETs `path`, such as `/api/v1/clients`.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::GET, path, None::<&()>)
    }

    /// POSTs `body` to `path`.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.call(Method::POST, path, Some(body))
    }

    /// PATCHes `path` with `body`.
    pub(super) fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.call(Method::PATCH, path, Some(body))
    }

    /// DELETEs `path`.
    pub(super) fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.call(Method::DELETE, path, Some(body))
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).context("writing the request")?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .context("writing the request")?;
        let (status, answer) = self.runtime.block_on(self.exchange(request))?;
        if status.is_success() {
            return serde_json::from_slice(&answer).with_context(|| {
                format!("reading the server's answer to {path}; is it of this version of netroot?")
            });
        }
        Err(refusal(status, &answer))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        let socket = self.socket.display();
        let stream = match UnixStream::connect(&self.socket).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => bail!(
                "you may not talk to the running server ({socket}): be root, or a member of group netroot"
            ),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("connecting to the server that holds the library ({socket})")
                });
            }
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .with_context(|| format!("talking to the server ({socket})"))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| anyhow!(error))?;
            Ok::<_, anyhow::Error>((status, body.to_bytes()))
        };
        // The connection must be driven while the exchange goes on, and has nothing to say after it.
        tokio::select! {
            answer = exchange => answer.with_context(|| format!("talking to the server ({socket})")),
            closed = connection => Err(match closed {
                Ok(()) => anyhow!("the server closed the control socket ({socket}) before it answered"),
                Err(error) => anyhow!(error).context(format!("talking to the server ({socket})")),
            }),
        }
    }
}

/// The error that a problem document (RFC 9457) tells.
fn refusal(status: StatusCode, answer: &[u8]) -> anyhow::Error {
    let problem: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    let detail = |key| problem.get(key).and_then(|text| text.as_str());
    match detail("detail").or(detail("title")) {
        Some(text) => anyhow!("{text}"),
        None => anyhow!("the server answered {status}"),
    }
}

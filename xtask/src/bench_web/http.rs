//! As much of HTTP/1.1 as a measurement needs: requests one after another over one connection, and
//! streams of which somebody hears each event.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Nothing that is measured takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that stays.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    /// What goes along with each request.
    head: String,
}

/// Pages that are kept up to date, as a browser would hear it.
#[derive(Debug)]
pub(super) struct Watchers {
    heard: Receiver<Heard>,
    /// Nobody asks what they hear: it is only read.
    idle: Arc<AtomicBool>,
    // Both end them: a stream that is shut down is at its end, and so is who reads it.
    streams: Vec<TcpStream>,
    readers: Vec<JoinHandle<()>>,
}

/// One watcher has one event.
#[derive(Debug)]
struct Heard {
    at: Instant,
    data: String,
}

impl Connection {
    /// Connects to `address`; shows `token`, if one is given.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(crate) fn open(address: &str, token: Option<&str>) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let shown = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        Ok(Connection {
            stream: BufReader::with_capacity(1 << 18, stream),
            head: format!("Host: {address}\r\n{}", shown.unwrap_or_default()),
        })
    }

    /// What stands at `path`.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub(crate) fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        self.ask(&format!("GET {path} HTTP/1.1\r\n{}\r\n", self.head))
            .with_context(|| format!("asking for {path}"))
    }

    /// Sends a document.
    ///
    /// # Errors
    /// When it is not answered with a 2xx status.
    pub(super) fn post(&mut self, path: &str, document: &serde_json::Value) -> Result<Vec<u8>> {
        let body = document.to_string();
        let length = body.len();
        self.ask(&format!(
            "POST {path} HTTP/1.1\r\n{}Content-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}",
            self.head
        ))
        .with_context(|| format!("sending a document to {path}"))
    }

    fn ask(&mut self, request: &str) -> Result<Vec<u8>> {
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (status, head) = self.answered()?;
        let length = head.iter().find_map(|(name, value)| {
            let is_it = name.eq_ignore_ascii_case("content-length");
            is_it.then(|| value.parse::<usize>().ok()).flatten()
        });
        let mut body = vec![0; length.context("the answer does not tell how long it is")?];
        self.stream.read_exact(&mut body)?;
        if !(200..300).contains(&status) {
            bail!("answered {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// The status and the fields of an answer; its body is still to be read.
    fn answered(&mut self) -> Result<(u16, Vec<(String, String)>)> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("no answer of HTTP: {line:?}"))?;
        let mut fields = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => fields.push((name.to_owned(), value.trim().to_owned())),
                None => return Ok((status, fields)),
            }
        }
    }
}

impl Watchers {
    /// Opens the stream of a topic `number` times, as pages that were drawn just now, with one token
    /// after the other.
    ///
    /// # Errors
    /// When the server does not let them in.
    pub(super) fn open(
        address: &str,
        tokens: &[String],
        topic: &str,
        number: usize,
    ) -> Result<Self> {
        let (sender, heard) = channel();
        let mut watchers = Watchers {
            heard,
            idle: Arc::default(),
            streams: Vec::new(),
            readers: Vec::new(),
        };
        for token in tokens.iter().cycle().take(number) {
            let mut connection = Connection::open(address, Some(token))?;
            let since = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis();
            let path = format!("/stream?topic={topic}&since={since}");
            let request = format!("GET {path} HTTP/1.1\r\n{}\r\n", connection.head);
            connection
                .stream
                .get_mut()
                .write_all(request.as_bytes())
                .context("asking for a stream")?;
            let (status, _) = connection.answered()?;
            if status != 200 {
                bail!("asking for {path}: answered {status}");
            }
            connection.stream.get_ref().set_read_timeout(None)?;
            watchers
                .streams
                .push(connection.stream.get_ref().try_clone()?);
            let (sender, idle) = (sender.clone(), watchers.idle.clone());
            let read = move || listen(connection.stream, &sender, &idle);
            watchers.readers.push(std::thread::spawn(read));
        }
        Ok(watchers)
    }

    /// From now on they only read what they are sent.
    pub(super) fn idle(&self) {
        self.idle.store(true, Ordering::Relaxed);
    }

    /// Waits until each of them has an event with all of `words`; when the last one had it.
    ///
    /// # Errors
    /// When one of them does not get it.
    pub(super) fn all_heard(&self, words: &[&str]) -> Result<Instant> {
        let (mut missing, begin) = (self.streams.len(), Instant::now());
        let mut last = begin;
        while missing > 0 {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let heard = self.heard.recv_timeout(left);
            let heard = heard.with_context(|| format!("{missing} never heard of {words:?}"))?;
            if words.iter().all(|word| heard.data.contains(word)) {
                missing -= 1;
                last = last.max(heard.at);
            }
        }
        Ok(last)
    }

    /// Takes in what comes for a while: how many events, and how many bytes, all together.
    pub(super) fn count(&self, for_so_long: Duration) -> (usize, usize) {
        let end = Instant::now() + for_so_long;
        let (mut events, mut bytes) = (0, 0);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(heard) => {
                    events += 1;
                    bytes += heard.data.len();
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return (events, bytes);
                }
            }
        }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for stream in &self.streams {
            // The server may have been quicker.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for reader in self.readers.drain(..) {
            // One that panicked has said so.
            let _ = reader.join();
        }
    }
}

/// Tells of each event until the stream ends. Chunks of the transfer need no look: each line of an
/// event that says something begins with `data:`.
fn listen(mut stream: BufReader<TcpStream>, to: &Sender<Heard>, idle: &AtomicBool) {
    let mut line = String::new();
    while !idle.load(Ordering::Relaxed) && stream.read_line(&mut line).is_ok_and(|len| len > 0) {
        if let Some(data) = line.strip_prefix("data: ") {
            let heard = Heard {
                at: Instant::now(),
                data: data.trim_end().to_owned(),
            };
            if to.send(heard).is_err() {
                return;
            }
        }
        line.clear();
    }
    let mut bytes = vec![0; 1 << 18];
    while stream.read(&mut bytes).is_ok_and(|len| len > 0) {}
}

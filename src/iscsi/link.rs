//! One TCP connection: PDUs in, PDUs out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::io::{AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;

use super::directory::BoxFuture;
use super::frame::{Decoder, Fault};
use super::output::Output;
use super::pdu::{Incoming, Outgoing};
use super::sessions::Parameters;
use crate::block;

/// Most bytes received before something else gets its turn.
const BUDGET: usize = 1024 * 1024;
/// Most bytes that are read away while a connection closes.
const DRAIN: usize = 16 * 1024 * 1024;

/// A connection.
pub(super) struct Link {
    stream: TcpStream,
    decoder: Decoder,
    output: Output,
    /// What is to be sent next is being read from its file.
    loading: Option<BoxFuture<'static, block::Result<Bytes>>>,
    /// The peer has closed its side.
    closed: bool,
}

/// Why nothing more comes from the peer.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection is gone.
    Connection,
    /// The peer has stopped answering, as TCP found.
    TimedOut,
    /// What comes cannot be understood.
    Fault(Fault),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Lost::TimedOut,
            _ => Lost::Connection,
        }
    }
}

impl Link {
    pub(super) fn new(stream: TcpStream) -> Self {
        Link {
            stream,
            decoder: Decoder::new(),
            output: Output::default(),
            loading: None,
            closed: false,
        }
    }

    /// From the next PDU on, what was negotiated holds.
    pub(super) fn agree(&mut self, parameters: &Parameters) {
        let (header, data) = (parameters.header_digest, parameters.data_digest);
        self.decoder
            .agree(parameters.target_max_recv as usize, header, data);
        self.output.agree(header, data);
    }

    /// The same on the runtime in which this is called: its poller tells from now on what comes.
    ///
    /// # Errors
    /// When the socket cannot be given to it.
    pub(super) fn moved_here(self) -> io::Result<Self> {
        let stream = TcpStream::from_std(self.stream.into_std()?)?;
        Ok(Link { stream, ..self })
    }

    /// Waits for the next PDU of a login.
    pub(super) async fn receive(&mut self) -> Result<Incoming, Lost> {
        loop {
            if let Some(pdu) = self.next()? {
                return Ok(pdu);
            }
            self.stream.readable().await?;
            self.fill()?;
        }
    }

    /// Sends a PDU and waits until all is gone.
    pub(super) async fn send(&mut self, pdu: Outgoing) -> io::Result<()> {
        self.push(pdu);
        self.flush().await
    }

    /// Waits until all is gone.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while self.send_some()? < u64::MAX && !self.output.is_empty() {
            self.ready(Interest::WRITABLE).await?;
        }
        Ok(())
    }

    /// Puts a PDU at the end of what is to be sent.
    pub(super) fn push(&mut self, pdu: Outgoing) {
        self.output.push(pdu);
    }

    /// Sends what the socket takes now, and tells how much that was.
    pub(super) fn send_some(&mut self) -> io::Result<u64> {
        if self.loading.is_some() {
            return Ok(0);
        }
        let sent = self.output.send(&self.stream)?;
        let missing = self.output.missing();
        self.loading = missing.map(|segment| block::load(vec![segment]).wait().boxed());
        Ok(sent)
    }

    /// Whether something waits for the peer, not for the storage.
    pub(super) fn awaits_peer(&self) -> bool {
        self.loading.is_none() && !self.output.is_empty()
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> u64 {
        self.output.len()
    }

    /// Waits until the socket can do what is wanted; where something has to be read before it can be sent, until
    /// that is there.
    pub(super) async fn ready(&mut self, interest: Interest) -> io::Result<Ready> {
        let Some(loading) = &mut self.loading else {
            return self.stream.ready(interest).await;
        };
        let receives = interest.is_readable();
        tokio::select! {
            loaded = loading => {
                self.loading = None;
                self.output.found(loaded.map_err(io::Error::other)?);
                Ok(Ready::WRITABLE)
            }
            ready = self.stream.readable(), if receives => ready.map(|()| Ready::READABLE),
        }
    }

    /// Whether a PDU has begun to arrive, and is not all there.
    pub(super) fn is_amid(&self) -> bool {
        self.decoder.is_amid()
    }

    /// Receives what is there, and tells how much that was.
    pub(super) fn fill(&mut self) -> Result<u64, Lost> {
        let mut received = 0;
        while received < BUDGET {
            match self.stream.try_read_buf(self.decoder.buffer()) {
                Ok(0) => {
                    self.closed = true;
                    return Err(Lost::Connection);
                }
                Ok(n) => received += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(received as u64)
    }

    /// The next PDU that has been received.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Lost> {
        self.decoder.next().map_err(Lost::Fault)
    }

    /// Sends what waits and closes, so that the peer gets to see the last PDU: a socket that is closed
    /// with unread bytes resets the connection, and what was sent before is lost with it.
    pub(super) async fn close(mut self, grace: Duration) {
        let _ = tokio::time::timeout(grace, async {
            self.flush().await?;
            self.stream.shutdown().await?;
            let mut drained = 0;
            let mut scrap = vec![0; 16 * 1024];
            while !self.closed && drained < DRAIN {
                self.stream.readable().await?;
                match self.stream.try_read(&mut scrap) {
                    Ok(0) => break,
                    Ok(n) => drained += n,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
            io::Result::Ok(())
        })
        .await;
    }
}

/// The address with IPv4 as IPv4, also where an IPv6 socket took it in. One of IPv6 keeps its zone: those
/// of one link mean nothing without (RFC 4007 §6).
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_ipv4_and_ipv6_keeps_its_zone() {
        for (address, as_it_is) in [
            ("[::ffff:192.0.2.7]:69", "192.0.2.7:69"),
            ("192.0.2.7:69", "192.0.2.7:69"),
            ("[fe80::1%3]:69", "[fe80::1%3]:69"),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(canonical(address), as_it_is.parse().unwrap());
        }
    }
}

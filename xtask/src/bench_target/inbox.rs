//! Bytes that come in, taken apart into PDUs without waiting for whole ones.
//!
//! Data are handed on as they come, so that a large PDU needs no memory of its own, and data that nobody
//! looks at need not be copied out of the socket at all (`MSG_TRUNC`, tcp(7)).

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::wire::{BHS, Header, padding};

/// Bytes of a digest.
const DIGEST: usize = 4;

/// As much as is taken from a socket at once.
const WINDOW: usize = 256 << 10;

/// As much as is taken where a long run of data is expected that nobody looks at.
const NARROW: usize = 1 << 10;

/// Which parts of PDUs are followed by their CRC32C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Digests {
    pub(super) header: bool,
    pub(super) data: bool,
}

/// What becomes of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// They are looked at, or are so few that it costs less to copy them.
    Taken,
    /// They are many, and dropped within the kernel.
    Dropped,
}

/// Who is told of PDUs.
pub(super) trait Sink {
    /// A PDU begins.
    fn header(&mut self, header: &Header) -> Result<()>;
    /// So many bytes of its data, unless they are dropped.
    fn data(&mut self, bytes: &[u8]) -> Result<()>;
    /// It is there as a whole.
    fn end(&mut self) -> Result<()>;
}

/// What a receive has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Something.
    Some,
    /// Nothing is there now.
    Nothing,
    /// The other side has closed.
    Closed,
}

/// One connection's incoming bytes.
#[derive(Debug)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    /// Where dropped data would go.
    void: Vec<u8>,
    start: usize,
    end: usize,
    digests: Digests,
    data: Data,
    at: At,
    crc: u32,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum At {
    Header,
    /// The PDU's data, of which so many are to come; then its trailer.
    Data {
        left: usize,
        trailer: usize,
    },
    /// Padding and digest.
    Trailer(usize),
}

impl Inbox {
    pub(super) fn new(data: Data) -> Self {
        let window = match data {
            Data::Taken => WINDOW,
            Data::Dropped => NARROW,
        };
        Self {
            buffer: vec![0; window],
            void: Vec::new(),
            start: 0,
            end: 0,
            digests: Digests::default(),
            data,
            at: At::Header,
            crc: 0,
        }
    }

    /// From the next PDU on, these are there.
    pub(super) fn set_digests(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// Takes what there is from a socket, and tells `sink` of it.
    ///
    /// # Errors
    /// When the connection breaks, a digest is wrong, or the sink takes offence.
    pub(super) fn receive(
        &mut self,
        socket: impl AsFd,
        flags: RecvFlags,
        sink: &mut impl Sink,
    ) -> Result<Received> {
        if let (Data::Dropped, At::Data { left, trailer }) = (self.data, self.at)
            && self.start == self.end
            && !self.digests.data
        {
            return self.drop_data(socket, flags, left, trailer, sink);
        }
        // What is left is less than a header and its digest.
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = self.buffer.get_mut(self.end..).context("no room is left")?;
        match recv(socket, room, flags) {
            Ok((_, 0)) => return Ok(Received::Closed),
            Ok((_, len)) => self.end += len,
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::Closed),
            Err(error) => return Err(error).context("receiving"),
        }
        self.take_apart(sink)?;
        Ok(Received::Some)
    }

    /// Has the kernel drop data.
    fn drop_data(
        &mut self,
        socket: impl AsFd,
        flags: RecvFlags,
        left: usize,
        trailer: usize,
        sink: &mut impl Sink,
    ) -> Result<Received> {
        // Its length counts; nothing is written to it.
        if self.void.len() < left {
            self.void = vec![0; left];
        }
        let room = self.void.get_mut(..left).context("no room is left")?;
        match recv(socket, room, flags | RecvFlags::TRUNC) {
            Ok((_, 0)) => return Ok(Received::Closed),
            Ok((_, len)) => {
                self.at = At::Data {
                    left: left - len.min(left),
                    trailer,
                };
            }
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::Closed),
            Err(error) => return Err(error).context("receiving"),
        }
        self.take_apart(sink)?;
        Ok(Received::Some)
    }

    /// Tells the sink of all that the buffer holds.
    fn take_apart(&mut self, sink: &mut impl Sink) -> Result<()> {
        loop {
            let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
            match self.at {
                At::Header => {
                    let digest = if self.digests.header { DIGEST } else { 0 };
                    let Some((head, behind)) = bytes.split_first_chunk::<BHS>() else {
                        return Ok(());
                    };
                    if behind.len() < digest {
                        return Ok(());
                    }
                    if self.digests.header {
                        check_digest(crc32c::crc32c(head), behind, "header")?;
                    }
                    let header = Header(*head);
                    ensure!(header.ahs_words() == 0, "an additional header: {header:x?}");
                    self.start += BHS + digest;
                    sink.header(&header)?;
                    let left = header.data_len();
                    let digest = if self.digests.data { DIGEST } else { 0 };
                    self.crc = 0;
                    if left == 0 {
                        sink.end()?;
                    } else {
                        let trailer = padding(left) + digest;
                        self.at = At::Data { left, trailer };
                    }
                }
                At::Data { left: 0, trailer } => self.at = At::Trailer(trailer),
                At::Data { left, trailer } => {
                    let now = bytes.get(..left.min(bytes.len())).unwrap_or_default();
                    if now.is_empty() {
                        return Ok(());
                    }
                    if self.digests.data {
                        self.crc = crc32c::crc32c_append(self.crc, now);
                    }
                    sink.data(now)?;
                    let left = left - now.len();
                    self.start += now.len();
                    self.at = At::Data { left, trailer };
                }
                At::Trailer(trailer) => {
                    let Some(rest) = bytes.get(..trailer) else {
                        return Ok(());
                    };
                    if self.digests.data {
                        let (pad, digest) = rest.split_at(trailer - DIGEST);
                        check_digest(crc32c::crc32c_append(self.crc, pad), digest, "data")?;
                    }
                    self.start += trailer;
                    self.at = At::Header;
                    sink.end()?;
                }
            }
        }
    }
}

/// RFC 7143 §13.1: the digest's bytes stand as CRC32C of the least significant byte first.
fn check_digest(computed: u32, found: &[u8], what: &str) -> Result<()> {
    match found.first_chunk::<DIGEST>() {
        Some(found) if u32::from_le_bytes(*found) == computed => Ok(()),
        _ => bail!("the {what} digest is wrong"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{empty, opcode, put32};
    use super::*;

    /// What a sink was told.
    #[derive(Default)]
    struct Told {
        itts: Vec<u32>,
        data: Vec<u8>,
        ends: usize,
    }

    impl Sink for Told {
        fn header(&mut self, header: &Header) -> Result<()> {
            self.itts.push(header.itt());
            Ok(())
        }

        fn data(&mut self, bytes: &[u8]) -> Result<()> {
            self.data.extend(bytes);
            Ok(())
        }

        fn end(&mut self) -> Result<()> {
            self.ends += 1;
            Ok(())
        }
    }

    fn pdu(itt: u32, data: &[u8], digests: Digests) -> Vec<u8> {
        let mut bhs = empty(opcode::DATA_IN, data.len());
        put32(&mut bhs, 16, itt);
        let mut bytes = bhs.to_vec();
        if digests.header {
            bytes.extend(crc32c::crc32c(&bhs).to_le_bytes());
        }
        let mut padded = data.to_vec();
        padded.resize(data.len() + padding(data.len()), 0);
        bytes.extend(&padded);
        if digests.data && !data.is_empty() {
            bytes.extend(crc32c::crc32c(&padded).to_le_bytes());
        }
        bytes
    }

    /// Feeds `stream` in pieces of `piece` bytes.
    fn feed(stream: &[u8], piece: usize, digests: Digests, data: Data) -> Result<Told> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        let mut inbox = Inbox::new(data);
        inbox.set_digests(digests);
        let mut told = Told::default();
        for bytes in stream.chunks(piece) {
            rustix::net::send(&near, bytes, rustix::net::SendFlags::empty())?;
            while inbox.receive(&far, RecvFlags::DONTWAIT, &mut told)? == Received::Some {}
        }
        Ok(told)
    }

    #[test]
    fn pieces_of_any_size_make_the_same_pdus() {
        for digests in [(false, false), (true, false), (false, true), (true, true)] {
            let digests = Digests {
                header: digests.0,
                data: digests.1,
            };
            let stream = [
                pdu(1, b"seven b", digests),
                pdu(2, b"", digests),
                pdu(3, &[9; 100], digests),
            ]
            .concat();
            for piece in [1, 3, 47, 48, 49, 1000] {
                let told = feed(&stream, piece, digests, Data::Taken).unwrap();
                assert_eq!(told.itts, [1, 2, 3], "{digests:?} {piece}");
                assert_eq!(told.data, [b"seven b", &[9; 100][..]].concat());
                assert_eq!(told.ends, 3);
            }
        }
    }

    #[test]
    fn a_wrong_digest_is_seen() {
        let digests = Digests {
            header: true,
            data: true,
        };
        let good = pdu(1, &[1; 64], digests);
        for wrong in [5, 60, 117] {
            let mut bytes = good.clone();
            bytes[wrong] ^= 1;
            assert!(feed(&bytes, 1000, digests, Data::Taken).is_err(), "{wrong}");
        }
    }

    /// RFC 3720 §B.4: 32 bytes of zeros have the digest aa 36 91 8a.
    #[test]
    fn digests_are_those_of_the_standard() {
        check_digest(crc32c::crc32c(&[0; 32]), &[0xaa, 0x36, 0x91, 0x8a], "test").unwrap();
    }

    #[test]
    fn data_are_dropped_over_tcp() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let none = Digests::default();
        let stream = [pdu(1, &[7; 100_001], none), pdu(2, &[8; 5], none)].concat();
        let sender = std::thread::spawn(move || std::io::Write::write_all(&mut near, &stream));
        let mut inbox = Inbox::new(Data::Dropped);
        let mut told = Told::default();
        while inbox.receive(&far, RecvFlags::empty(), &mut told).unwrap() == Received::Some {}
        sender.join().unwrap().unwrap();
        assert_eq!((told.itts, told.ends), (vec![1, 2], 2));
        assert!(told.data.len() < 5000, "{}", told.data.len());
    }
}

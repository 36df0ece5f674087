//! Bytes that go out: PDUs are gathered, and leave with as few calls as there can be.
//!
//! Headers and small data are copied together; large data stay where they are, in memory that whoever
//! flushes names, until the socket takes them.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::inbox::Digests;
use super::wire::{Bhs, padding};

/// Data that are shorter cost less to copy than to name.
const WORTH_NAMING: usize = 16 << 10;

/// Runs of bytes that go out with one call.
const RUNS: usize = 128;

/// One connection's outgoing bytes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Headers, small data, padding and digests.
    own: Vec<u8>,
    runs: Vec<Run>,
    /// The first of the runs that have not left, and its bytes that have.
    next: usize,
    gone: usize,
    digests: Digests,
}

#[derive(Debug, Clone)]
enum Run {
    Own(Range<usize>),
    Named(Range<usize>),
}

impl Outbox {
    /// From the next PDU on, these are added.
    pub(super) fn set_digests(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// Whether everything has left.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds a PDU without data.
    pub(super) fn push(&mut self, bhs: &Bhs) {
        let from = self.own.len();
        self.push_header(bhs);
        self.own_since(from);
    }

    /// Adds a PDU with data that are copied.
    pub(super) fn push_copied(&mut self, bhs: &Bhs, data: &[u8]) {
        let from = self.own.len();
        self.push_header(bhs);
        self.own.extend_from_slice(data);
        self.push_trailer(data);
        self.own_since(from);
    }

    /// Adds a PDU with data that stay at `place` of `memory`, which the flush is given, too.
    pub(super) fn push_named(&mut self, bhs: &Bhs, memory: &[u8], place: Range<usize>) {
        let data = memory.get(place.clone()).unwrap_or_default();
        if data.len() < WORTH_NAMING {
            return self.push_copied(bhs, data);
        }
        let from = self.own.len();
        self.push_header(bhs);
        self.own_since(from);
        self.runs.push(Run::Named(place));
        let from = self.own.len();
        self.push_trailer(data);
        self.own_since(from);
    }

    /// Sends as much as the socket takes.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn flush(&mut self, socket: impl AsFd, memory: &[u8]) -> Result<()> {
        while self.next < self.runs.len() {
            let mut slices = [IoSlice::new(&[]); RUNS];
            let waiting = self.runs.iter().skip(self.next);
            let mut gone = self.gone;
            let mut number = 0;
            for (run, slice) in waiting.zip(&mut slices) {
                let bytes = match run {
                    Run::Own(place) => self.own.get(place.clone()),
                    Run::Named(place) => memory.get(place.clone()),
                };
                *slice = IoSlice::new(bytes.and_then(|all| all.get(gone..)).unwrap_or_default());
                gone = 0;
                number += 1;
            }
            let slices = slices.get(..number).unwrap_or_default();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&socket, slices, &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent) => self.advance(sent),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error).context("sending"),
            }
        }
        self.own.clear();
        self.runs.clear();
        (self.next, self.gone) = (0, 0);
        Ok(())
    }

    fn advance(&mut self, sent: usize) {
        self.gone += sent;
        while let Some(Run::Own(place) | Run::Named(place)) = self.runs.get(self.next) {
            if self.gone < place.len() {
                return;
            }
            self.gone -= place.len();
            self.next += 1;
        }
    }

    fn push_header(&mut self, bhs: &Bhs) {
        self.own.extend_from_slice(bhs);
        if self.digests.header {
            self.own.extend(crc32c::crc32c(bhs).to_le_bytes());
        }
    }

    /// Padding and digest of `data`.
    fn push_trailer(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let pad = [0; 3];
        let pad = pad.get(..padding(data.len())).unwrap_or_default();
        self.own.extend_from_slice(pad);
        if self.digests.data {
            let crc = crc32c::crc32c_append(crc32c::crc32c(data), pad);
            self.own.extend(crc.to_le_bytes());
        }
    }

    /// What was copied since `from` goes out next, with the run before it where that is one with it.
    fn own_since(&mut self, from: usize) {
        let to = self.own.len();
        if from == to {
            return;
        }
        match self.runs.last_mut() {
            Some(Run::Own(place)) if place.end == from => place.end = to,
            _ => self.runs.push(Run::Own(from..to)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::super::wire::{empty, opcode};
    use super::*;

    #[test]
    fn everything_leaves_in_order_through_a_narrow_socket() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let memory: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        let mut outbox = Outbox::default();
        outbox.set_digests(Digests {
            header: true,
            data: true,
        });
        let mut expected = Vec::new();
        for (from, to) in [(0, 200_000), (5, 12), (0, 300_000), (7, 7)] {
            let data = &memory[from..to];
            let bhs = empty(opcode::DATA_OUT, data.len());
            outbox.push_named(&bhs, &memory, from..to);
            expected.extend(bhs);
            expected.extend(crc32c::crc32c(&bhs).to_le_bytes());
            let mut padded = data.to_vec();
            padded.resize(data.len() + padding(data.len()), 0);
            expected.extend(&padded);
            if !data.is_empty() {
                expected.extend(crc32c::crc32c(&padded).to_le_bytes());
            }
        }
        let mut all = Vec::new();
        while !outbox.is_empty() {
            outbox.flush(&near, &memory).unwrap();
            let mut some = vec![0; 50_000];
            let read = far.read(&mut some).unwrap();
            all.extend(&some[..read]);
        }
        drop(near);
        far.read_to_end(&mut all).unwrap();
        assert!(all == expected);
    }
}

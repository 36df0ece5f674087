//! A target without storage: it answers reads and writes from memory at once, on one thread, and so shows
//! how fast a target could be whose disks cost nothing. Only large reads can be faster: it copies them
//! into the socket, and sendfile does not.
//!
//! It knows what the load generator says and no more than that.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::RecvFlags;

use super::cdb::{Direction, transfer};
use super::inbox::{Data, Digests, Inbox, Received, Sink};
use super::outbox::Outbox;
use super::pattern::{BLOCK, Hand, fill};
use super::wire::{FINAL, Header, NO_TAG, STATUS, empty, opcode, put, put32};

/// Commands that it takes at a time.
const WINDOW: u32 = 256;

/// What it takes in one PDU.
const MAX_RECV: u32 = 262_144;

/// The end of a burst (MaxBurstLength), as it answers and keeps it.
const MAX_BURST: u32 = 1 << 20;

/// The listener's number among the connections.
const LISTENER: u64 = u64::MAX;

/// A disk in memory with the pattern on it.
pub(super) fn disk(bytes: u64) -> Vec<u8> {
    let mut disk = vec![0; usize::try_from(bytes).unwrap_or(0)];
    fill(Hand::Maker, 0, &mut disk);
    disk
}

/// Serves until the process ends.
///
/// # Errors
/// When the listener or the epoll fails; connections that break just end.
pub(super) fn serve(listener: &TcpListener, mut disk: Vec<u8>) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut connections = HashMap::new();
    let mut next = 0;
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                let (socket, _) = listener.accept().context("accepting")?;
                socket.set_nodelay(true)?;
                epoll::add(&epoll, &socket, EventData::new_u64(next), EventFlags::IN)?;
                connections.insert(next, Connection::new(socket));
                next += 1;
            } else if let Some(connection) = connections.get_mut(&number)
                && !matches!(connection.turn(&epoll, event.data, &mut disk), Ok(true))
            {
                // It closes with the value, and the epoll forgets it.
                connections.remove(&number);
            }
        }
    }
}

/// One initiator's connection.
struct Connection {
    socket: TcpStream,
    inbox: Inbox,
    nexus: Nexus,
    awaits_room: bool,
}

/// What it has said, and what is due to it.
struct Nexus {
    outbox: Outbox,
    header: Header,
    /// The text of a login, or data of a write that come in now.
    text: Vec<u8>,
    /// Where the next bytes go.
    at: usize,
    writes: HashMap<u32, Write>,
    stat_sn: u32,
    exp_cmd_sn: u32,
    max_send: u32,
    /// Digests that hold once the login's answer has been sent.
    agreed: Option<Digests>,
}

/// A write whose data are not all there.
#[derive(Debug, Clone, Copy)]
struct Write {
    at: usize,
    expected: u32,
    /// Bytes that have come.
    got: u32,
}

impl Connection {
    fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            inbox: Inbox::new(Data::Taken),
            nexus: Nexus {
                outbox: Outbox::default(),
                header: Header([0; 48]),
                text: Vec::new(),
                at: 0,
                writes: HashMap::new(),
                stat_sn: 1,
                exp_cmd_sn: 1,
                max_send: 8192,
                agreed: None,
            },
            awaits_room: false,
        }
    }

    /// Hears and answers; whether the connection goes on.
    fn turn(&mut self, epoll: &OwnedFd, data: EventData, disk: &mut [u8]) -> Result<bool> {
        // Who takes no answers is not heard either, or they would grow without a bound.
        if !self.awaits_room {
            let mut target = Target {
                nexus: &mut self.nexus,
                disk,
            };
            let heard = self
                .inbox
                .receive(&self.socket, RecvFlags::DONTWAIT, &mut target)?;
            if heard == Received::Closed {
                return Ok(false);
            }
        }
        self.nexus.outbox.flush(&self.socket, disk)?;
        if let Some(digests) = self.nexus.agreed.take() {
            self.inbox.set_digests(digests);
            self.nexus.outbox.set_digests(digests);
        }
        if self.nexus.outbox.is_empty() == self.awaits_room {
            self.awaits_room = !self.awaits_room;
            let events = if self.awaits_room {
                EventFlags::OUT
            } else {
                EventFlags::IN
            };
            epoll::modify(epoll, &self.socket, data, events)?;
        }
        Ok(true)
    }
}

/// A connection with the disk behind it, for as long as it is heard.
struct Target<'a> {
    nexus: &'a mut Nexus,
    disk: &'a mut [u8],
}

impl Sink for Target<'_> {
    fn header(&mut self, header: &Header) -> Result<()> {
        let nexus = &mut *self.nexus;
        nexus.header = *header;
        nexus.text.clear();
        nexus.at = match header.opcode() {
            opcode::SCSI_COMMAND => {
                nexus.exp_cmd_sn = header.cmd_sn().wrapping_add(1);
                place(header)
            }
            opcode::DATA_OUT => {
                let write = nexus
                    .writes
                    .get(&header.itt())
                    .context("data for no write")?;
                write.at + header.offset() as usize
            }
            _ => 0,
        };
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let nexus = &mut *self.nexus;
        if nexus.header.opcode() == opcode::LOGIN {
            nexus.text.extend_from_slice(bytes);
            return Ok(());
        }
        let place = self.disk.get_mut(nexus.at..nexus.at + bytes.len());
        place
            .context("a write behind the disk")?
            .copy_from_slice(bytes);
        nexus.at += bytes.len();
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let nexus = &mut *self.nexus;
        let header = nexus.header;
        match header.opcode() {
            opcode::LOGIN => nexus.login(&header),
            opcode::SCSI_COMMAND => match transfer(&header.cdb()) {
                Some((Direction::Read, ..)) => nexus.read(&header, self.disk)?,
                Some((Direction::Write, ..)) => nexus.write(&header),
                None => nexus.good(header.itt()),
            },
            opcode::DATA_OUT => nexus.data_out(&header)?,
            opcode::NOP_OUT => {}
            opcode::LOGOUT => {
                let bhs = nexus.answer(opcode::LOGOUT_RESPONSE, header.itt(), 0);
                nexus.outbox.push(&bhs);
            }
            other => bail!("opcode {other:#x} is not known here"),
        }
        Ok(())
    }
}

/// Where a command's data are in the disk.
fn place(header: &Header) -> usize {
    transfer(&header.cdb()).map_or(0, |(_, lba, _)| (lba * BLOCK) as usize)
}

impl Nexus {
    /// The header of an answer, with the next status number.
    fn answer(&mut self, opcode: u8, itt: u32, data_len: usize) -> [u8; 48] {
        let mut bhs = empty(opcode, data_len);
        bhs[1] = FINAL;
        put32(&mut bhs, 16, itt);
        self.put_numbers(&mut bhs);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        bhs
    }

    fn put_numbers(&self, bhs: &mut [u8; 48]) {
        put32(bhs, 24, self.stat_sn);
        put32(bhs, 28, self.exp_cmd_sn);
        put32(bhs, 32, self.exp_cmd_sn.wrapping_add(WINDOW - 1));
    }

    fn login(&mut self, header: &Header) {
        let text = String::from_utf8_lossy(&self.text).into_owned();
        let mut digests = Digests::default();
        let mut answer = String::new();
        for (key, value) in text.split('\0').filter_map(|pair| pair.split_once('=')) {
            match key {
                "HeaderDigest" => digests.header = value == "CRC32C",
                "DataDigest" => digests.data = value == "CRC32C",
                "MaxRecvDataSegmentLength" => self.max_send = value.parse().unwrap_or(8192),
                "InitialR2T" | "ImmediateData" | "FirstBurstLength" => {}
                _ => continue,
            }
            if key != "MaxRecvDataSegmentLength" {
                answer += &format!("{key}={value}\0");
            }
        }
        answer += &format!("MaxRecvDataSegmentLength={MAX_RECV}\0MaxBurstLength={MAX_BURST}\0");
        answer += "TargetPortalGroupTag=1\0";
        self.exp_cmd_sn = header.cmd_sn();
        let mut bhs = self.answer(opcode::LOGIN_RESPONSE, header.itt(), answer.len());
        bhs[1] = header.flags();
        put(&mut bhs, 8, &header.0[8..14]);
        put(&mut bhs, 14, &[0, 1]);
        self.outbox.push_copied(&bhs, answer.as_bytes());
        self.agreed = Some(digests);
    }

    fn read(&mut self, header: &Header, disk: &[u8]) -> Result<()> {
        let (itt, all, from) = (header.itt(), header.expected() as usize, place(header));
        ensure!(from + all <= disk.len(), "a read behind the disk");
        let mut offset = 0;
        let mut data_sn = 0;
        while offset < all {
            let len = (all - offset).min(self.max_send as usize);
            let is_last = offset + len == all;
            let mut bhs = empty(opcode::DATA_IN, len);
            if is_last {
                bhs = self.answer(opcode::DATA_IN, itt, len);
                bhs[1] = FINAL | STATUS;
            } else {
                put32(&mut bhs, 16, itt);
                self.put_numbers(&mut bhs);
            }
            put32(&mut bhs, 20, NO_TAG);
            put32(&mut bhs, 36, data_sn);
            put32(&mut bhs, 40, offset as u32);
            // Small data are copied now. Large ones stay where they are until they leave, and a write
            // could change them on their way: no load here mixes those with writes.
            let place = from + offset..from + offset + len;
            self.outbox.push_named(&bhs, disk, place);
            (offset, data_sn) = (offset + len, data_sn + 1);
        }
        Ok(())
    }

    fn write(&mut self, header: &Header) {
        let write = Write {
            at: place(header),
            expected: header.expected(),
            got: header.data_len() as u32,
        };
        // Without F, more comes by itself, up to FirstBurstLength.
        self.goes_on(header.itt(), write, header.flags() & FINAL == 0);
    }

    fn data_out(&mut self, header: &Header) -> Result<()> {
        let mut write = *self
            .writes
            .get(&header.itt())
            .context("data for no write")?;
        ensure!(header.offset() == write.got, "data out of order");
        write.got += header.data_len() as u32;
        self.goes_on(header.itt(), write, header.flags() & FINAL == 0);
        Ok(())
    }

    /// Answers a write that is there as a whole, and asks for the next burst of any other.
    fn goes_on(&mut self, itt: u32, write: Write, more_comes: bool) {
        if write.got >= write.expected {
            self.writes.remove(&itt);
            return self.good(itt);
        }
        if !more_comes {
            let len = (write.expected - write.got).min(MAX_BURST);
            let mut bhs = empty(opcode::R2T, 0);
            bhs[1] = FINAL;
            put32(&mut bhs, 16, itt);
            put32(&mut bhs, 20, itt);
            self.put_numbers(&mut bhs);
            put32(&mut bhs, 40, write.got);
            put32(&mut bhs, 44, len);
            self.outbox.push(&bhs);
        }
        self.writes.insert(itt, write);
    }

    fn good(&mut self, itt: u32) {
        let bhs = self.answer(opcode::SCSI_RESPONSE, itt, 0);
        self.outbox.push(&bhs);
    }
}

//! One session's commands: what is on its way. No sockets.
//!
//! - `answers`: whether every answer is as it must be

mod answers;

use std::sync::Arc;

use super::cdb::{Direction, cdb};
use super::load::Io;
use super::login::{Agreed, Manner};
use super::outbox::Outbox;
use super::pattern::{BLOCK, Expected, Hand, Written, fill};
use super::wire::{Command, DataOut, NO_TAG, READ};

/// What has been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) commands: u64,
    pub(super) bytes: u64,
}

/// What reads must find, and where writes are noted.
#[derive(Debug, Clone)]
pub(super) struct Truth {
    pub(super) expected: Expected,
    /// Writes bring the pattern, and what they cover is kept here.
    pub(super) written: Option<Arc<Written>>,
}

/// The state of a session in its full feature phase.
#[derive(Debug)]
pub(super) struct Nexus {
    lun: [u8; 8],
    manner: Manner,
    agreed: Agreed,
    slots: Vec<Slot>,
    free: Vec<u32>,
    truth: Truth,
    /// What writes bring, where nobody looks at it.
    payload: Arc<Vec<u8>>,
    tally: Tally,
    /// The PDU that is coming in.
    current: Current,
    /// Data that came with it, where they say what is wrong.
    told: Vec<u8>,
    pub(super) outbox: Outbox,
}

/// A place for a command; its number is the command's tag.
#[derive(Debug, Clone, Copy)]
struct Slot {
    state: State,
    io: Io,
    /// Bytes that have come, or that have been sent.
    moved: u32,
    /// The number of the next Data-In.
    data_sn: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Transfer,
    /// TEST UNIT READY, which also hears what the unit has to say.
    Ready,
    /// It was answered otherwise than with GOOD.
    NotReady,
}

#[derive(Debug, Clone, Copy)]
enum Current {
    /// The next byte of its data belongs at `at` of the disk.
    DataIn {
        slot: u32,
        status: bool,
        at: u64,
    },
    Response {
        slot: u32,
        status: u8,
    },
    Other {
        opcode: u8,
    },
}

impl Nexus {
    pub(super) fn new(
        lun: [u8; 8],
        manner: Manner,
        agreed: Agreed,
        depth: u32,
        truth: Truth,
        payload: Arc<Vec<u8>>,
    ) -> Self {
        let nothing = Io {
            direction: Direction::Read,
            lba: 0,
            blocks: 0,
        };
        let slot = Slot {
            state: State::Free,
            io: nothing,
            moved: 0,
            data_sn: 0,
        };
        let mut outbox = Outbox::default();
        outbox.set_digests(manner.digests);
        Self {
            lun,
            manner,
            agreed,
            slots: vec![slot; depth as usize],
            free: (0..depth).rev().collect(),
            truth,
            payload,
            tally: Tally::default(),
            current: Current::Other { opcode: 0 },
            told: Vec::new(),
            outbox,
        }
    }

    /// Whether another command may be sent.
    pub(super) fn has_room(&self) -> bool {
        // Serial number arithmetic (RFC 7143 §4.2.2.1).
        let window = self.agreed.max_cmd_sn.wrapping_sub(self.agreed.cmd_sn);
        !self.free.is_empty() && window.cast_signed() >= 0
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// What has been done since this was asked last.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Sends a command, for which there must be room.
    pub(super) fn issue(&mut self, io: Io) {
        let cdb = cdb(io.direction, io.lba, io.blocks);
        self.send(State::Transfer, io, cdb);
    }

    /// Sends a TEST UNIT READY.
    pub(super) fn ask_ready(&mut self) {
        let io = Io {
            direction: Direction::Read,
            lba: 0,
            blocks: 0,
        };
        self.send(State::Ready, io, [0; 16]);
    }

    /// Whether the unit was ready when it was asked last.
    pub(super) fn is_ready(&mut self) -> bool {
        let slot = self
            .slots
            .iter_mut()
            .find(|slot| slot.state == State::NotReady);
        slot.is_none_or(|slot| {
            slot.state = State::Free;
            false
        })
    }

    fn send(&mut self, state: State, io: Io, cdb: [u8; 16]) {
        let Some(itt) = self.free.pop() else {
            return;
        };
        let (immediate, first) = match io.direction {
            Direction::Read => (0, 0),
            Direction::Write => self.unsolicited(io.bytes()),
        };
        let command = Command {
            direction: io.direction,
            lun: self.lun,
            itt,
            expected: io.bytes(),
            cmd_sn: self.agreed.cmd_sn,
            exp_stat_sn: self.agreed.exp_stat_sn,
            cdb,
            immediate: immediate as usize,
            is_final: first == immediate,
        };
        self.agreed.cmd_sn = self.agreed.cmd_sn.wrapping_add(1);
        if let Some(slot) = self.slots.get_mut(itt as usize) {
            *slot = Slot {
                state,
                io,
                moved: first,
                data_sn: 0,
            };
        }
        let mut header = command.emit();
        if state == State::Ready {
            header[1] &= !READ;
        }
        self.push(&header, io, 0, immediate);
        if first > immediate {
            self.send_data(itt, io, NO_TAG, immediate, first);
        }
    }

    /// How much of a write goes with its command, and how much of it without being asked for.
    fn unsolicited(&self, bytes: u32) -> (u32, u32) {
        let first = bytes.min(self.agreed.first_burst);
        let one = first.min(self.agreed.max_send).min(self.manner.data_out);
        let immediate = if self.agreed.immediate_data { one } else { 0 };
        let all = if self.agreed.initial_r2t {
            immediate
        } else {
            first
        };
        (immediate, all)
    }

    /// Sends bytes `from` to `to` of a write.
    fn send_data(&mut self, itt: u32, io: Io, ttt: u32, from: u32, to: u32) {
        let one = self.agreed.max_send.min(self.manner.data_out);
        let (mut offset, mut data_sn) = (from, 0);
        while offset < to {
            let len = one.min(to - offset);
            let header = DataOut {
                lun: self.lun,
                itt,
                ttt,
                exp_stat_sn: self.agreed.exp_stat_sn,
                data_sn,
                offset,
                len: len as usize,
                is_final: offset + len == to,
            };
            self.push(&header.emit(), io, offset, len);
            (offset, data_sn) = (offset + len, data_sn + 1);
        }
    }

    /// A PDU with `len` bytes of a write's data.
    fn push(&mut self, header: &[u8; 48], io: Io, offset: u32, len: u32) {
        if len == 0 {
            self.outbox.push(header);
        } else if self.truth.written.is_some() {
            let mut data = vec![0; len as usize];
            fill(Hand::Load, io.lba * BLOCK + u64::from(offset), &mut data);
            self.outbox.push_copied(header, &data);
        } else {
            let place = offset as usize..(offset + len) as usize;
            self.outbox.push_named(header, &self.payload, place);
        }
    }
}

//! One command of a session, from its PDU to its status.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::iscsi::wire::{ScsiCommand, Tag};
use crate::scsi::Response;

/// Tells one command from another, even one that comes later with the same tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::iscsi) struct TaskId {
    pub(super) itt: Tag,
    pub(super) serial: u32,
}

/// A command that is open.
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) command: ScsiCommand,
    /// Bytes that the device takes, once it has said so.
    pub(super) wanted: Option<u64>,
    /// The data have been handed over.
    pub(super) delivered: bool,
    pub(super) gather: Gather,
    /// Unsolicited data are still to come.
    pub(super) unsolicited: bool,
    /// The same, as the session counts it.
    pub(super) announced: bool,
    /// Bytes that R2Ts have asked for and that have not come.
    pub(super) missing: u64,
    /// DataSN of the next unsolicited PDU.
    pub(super) next_unsolicited: u32,
    /// R2Ts that have not been answered in full, oldest first.
    pub(super) open: VecDeque<OpenR2t>,
    /// Up to where data have been asked for, or came unasked.
    pub(super) asked_to: u64,
    /// Part of the session's budget that this command holds.
    pub(super) reserved: u64,
    /// The same, for what comes unasked.
    pub(super) unasked: u64,
    /// Number of the next R2T or Data-In PDU.
    pub(super) next_data_sn: u32,
    /// Data of it got lost: what still comes is passed over.
    pub(super) gap: bool,
    /// The command has ended while unsolicited data were still to come.
    pub(super) early: Option<Response>,
}

/// An R2T that is being answered.
pub(super) struct OpenR2t {
    pub(super) ttt: Tag,
    pub(super) end: u64,
    pub(super) next_data_sn: u32,
}

impl Task {
    pub(super) fn new(id: TaskId, command: ScsiCommand) -> Self {
        Task {
            id,
            command,
            wanted: None,
            delivered: false,
            gather: Gather::default(),
            unsolicited: false,
            announced: false,
            missing: 0,
            next_unsolicited: 0,
            open: VecDeque::new(),
            asked_to: 0,
            reserved: 0,
            unasked: 0,
            next_data_sn: 0,
            gap: false,
            early: None,
        }
    }

    /// Bytes that the initiator is ready to send.
    pub(super) fn offered(&self) -> u64 {
        if self.command.write {
            u64::from(self.command.expected_len)
        } else {
            0
        }
    }

    /// Bytes that are both offered and wanted, once that is known.
    pub(super) fn limit(&self) -> Option<u64> {
        self.wanted.map(|wanted| wanted.min(self.offered()))
    }

    /// The number of the next R2T or Data-In PDU, which is used up.
    pub(super) fn take_data_sn(&mut self) -> u32 {
        let sn = self.next_data_sn;
        self.next_data_sn += 1;
        sn
    }
}

/// Data of a command, in order. Small pieces are put together, so that the disk writes them at once,
/// and so that a small piece does not keep a large receive buffer alive.
#[derive(Default)]
pub(super) struct Gather {
    parts: Vec<Bytes>,
    tail: BytesMut,
    len: u64,
}

/// Pieces up to this size are copied.
const SMALL: usize = 8 * 1024;

impl Gather {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len() as u64;
        if bytes.len() <= SMALL {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.close();
            self.parts.push(bytes);
        }
    }

    /// Counts bytes that nobody will look at.
    pub(super) fn skip(&mut self, len: u64) {
        self.len += len;
    }

    /// Takes the first `len` bytes; the rest is dropped.
    pub(super) fn take(&mut self, len: u64) -> Vec<Bytes> {
        self.close();
        let mut left = len as usize;
        let mut parts = std::mem::take(&mut self.parts);
        parts.retain_mut(|bytes| {
            bytes.truncate(left);
            left -= bytes.len();
            !bytes.is_empty()
        });
        parts
    }

    fn close(&mut self) {
        if !self.tail.is_empty() {
            self.parts.push(std::mem::take(&mut self.tail).freeze());
        }
    }
}

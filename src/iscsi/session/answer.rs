//! The end of a command: data and status for the initiator (RFC 7143 §11.4, §11.7).

use bytes::Bytes;

use super::Session;
use super::task::{Task, TaskId};
use crate::block::{self, Segment};
use crate::iscsi::pdu::Outgoing;
use crate::iscsi::wire::{DataIn, Residual, ScsiResponse};
use crate::scsi::{Response, Sense, Status};

impl Session {
    /// A command has ended, or was forgotten. Called once for each that was begun.
    pub(in crate::iscsi) fn finished(&mut self, id: TaskId, response: Response) {
        self.settled(id);
        self.conclude(id, response);
        // After the answer, so that what follows an ordered command is seen to follow it.
        self.ended_at_device(id);
    }

    /// Answers a command, once its last unsolicited data are here.
    pub(super) fn conclude(&mut self, id: TaskId, response: Response) {
        match self.task(id) {
            None => {}
            // §11.4: the response waits until the last unsolicited data are here.
            Some(task) if task.unsolicited => task.early = Some(response),
            Some(_) => {
                if let Some(task) = self.drop_task(id)
                    && !self.over
                    && response.status != Status::Silent
                {
                    self.answer(task, response);
                }
            }
        }
        self.leave_when_idle();
    }

    fn answer(&mut self, mut task: Task, response: Response) {
        let expected = match (task.command.read, task.command.write) {
            (false, false) => 0,
            _ => u64::from(task.command.expected_len),
        };
        let (actual, sent) = if let Some(wanted) = task.wanted {
            // Also where the initiator said that it sends nothing.
            (wanted, 0)
        } else if task.command.write {
            (0, 0)
        } else {
            let actual = block::total(&response.data);
            (actual, actual.min(expected))
        };
        let residual = Residual::between(expected, actual);
        self.count(
            &task.command,
            if task.command.write {
                task.gather.len()
            } else {
                sent
            },
        );
        // iPXE takes a status with the data only if the data fill its buffer exactly.
        let collapse = response.status == Status::Good && residual == Residual::None && sent > 0;
        self.data_in(&mut task, response.data, sent, collapse);
        if collapse {
            return;
        }
        let sense = response.sense.map(sense_segment).unwrap_or_default();
        let header = ScsiResponse {
            response: 0,
            status: response.status as u8,
            residual,
            itt: task.id.itt,
            numbers: self.status_numbers(),
            exp_data_sn: task.next_data_sn,
        };
        self.send(Outgoing::with(header.emit(), sense));
    }

    /// Sends `len` bytes in as many PDUs as it takes, the status with the last one if wished.
    fn data_in(&mut self, task: &mut Task, data: Vec<Segment>, len: u64, collapse: bool) {
        let most = u64::from(self.parameters.initiator_max_recv);
        let burst = u64::from(self.parameters.max_burst);
        // A part of some bytes keeps all of them in memory for as long as it waits.
        let cut_short = block::total(&data) > len;
        let mut rest = data.into_iter();
        let mut current = None;
        let mut offset = 0;
        while offset < len {
            let in_burst = burst - offset % burst;
            let n = most.min(in_burst).min(len - offset);
            let done = offset + n == len;
            let with_status = done && collapse;
            let numbers = if with_status {
                self.status_numbers()
            } else {
                self.numbers()
            };
            let header = DataIn {
                // §11.7.1: F ends a sequence.
                last: done || n == in_burst,
                status: with_status.then_some((Status::Good as u8, Residual::None)),
                itt: task.id.itt,
                numbers,
                data_sn: task.take_data_sn(),
                offset: offset as u32,
            };
            let mut data = cut(&mut current, &mut rest, n);
            if cut_short {
                data.iter_mut().for_each(detach);
            }
            self.send(Outgoing {
                bhs: header.emit(),
                data,
            });
            offset += n;
        }
    }
}

/// Bytes of their own, instead of a part of others.
fn detach(segment: &mut Segment) {
    if let Segment::Bytes(bytes) = segment {
        *bytes = Bytes::copy_from_slice(bytes);
    }
}

/// Takes `n` bytes off the front.
fn cut(
    current: &mut Option<Segment>,
    rest: &mut impl Iterator<Item = Segment>,
    n: u64,
) -> Vec<Segment> {
    let mut parts = Vec::new();
    let mut left = n;
    while left > 0 {
        let Some(mut segment) = current.take().or_else(|| rest.next()) else {
            break;
        };
        let head = segment.split_to(left);
        left -= head.len();
        if !head.is_empty() {
            parts.push(head);
        }
        if !segment.is_empty() {
            *current = Some(segment);
        }
    }
    parts
}

/// Sense data in a data segment: their length comes first (§11.4.7).
fn sense_segment(sense: Sense) -> Vec<u8> {
    let bytes = sense.emit();
    let mut data = (bytes.len() as u16).to_be_bytes().to_vec();
    data.extend(bytes);
    data
}

//! Data that got lost on the way (RFC 7143 §7.9): a number that is not the next one tells of it.
//!
//! It is dealt with as if the digest of what is missing had been wrong (§7.8). Nothing is asked for again
//! at error recovery level 0, so the command ends with CHECK CONDITION, once the initiator has sent all
//! that it was asked for or had announced. The connection goes on.

use super::task::{Task, TaskId};
use super::{Action, Session, Violation};
use crate::iscsi::wire::{DataOut, Tag};
use crate::scsi::Sense;

/// Whether data of a sequence that is open are missing before these.
pub(super) fn is_gap(task: &Task, header: &DataOut) -> bool {
    if header.ttt == Tag::NONE {
        return task.unsolicited && header.data_sn != task.next_unsolicited;
    }
    let open = task.open.front().filter(|open| open.ttt == header.ttt);
    open.is_some_and(|open| header.data_sn != open.next_data_sn)
}

impl Session {
    /// Takes a PDU of a command that has lost data. Only the ends of sequences count.
    pub(super) fn pass_over(&mut self, id: TaskId, header: &DataOut) -> Result<(), Violation> {
        let Some(task) = self.task(id) else {
            return Ok(());
        };
        task.gap = true;
        let is_open = match header.ttt {
            Tag::NONE => task.unsolicited,
            ttt => task.open.front().is_some_and(|open| open.ttt == ttt),
        };
        if !is_open {
            return Err(Violation("data that nobody asked for"));
        }
        if header.last && header.ttt == Tag::NONE {
            task.unsolicited = false;
        } else if header.last {
            task.open.pop_front();
        }
        if task.unsolicited || !task.open.is_empty() {
            return Ok(());
        }
        // One that has ended at the device while its data were on their way ends as it did there.
        if let Some(response) = task.early.take() {
            self.conclude(id, response);
            return Ok(());
        }
        let dormant = self.dequeue(id);
        if !dormant {
            self.actions.push(Action::Forget { id });
        }
        self.conclude(id, Sense::DATA_LOST.into());
        if dormant {
            self.enable();
        }
        Ok(())
    }
}

//! Data from the initiator: with the command, unasked, and asked for (RFC 7143 §4.2.5.2, §11.7, §11.8).

use bytes::Bytes;

use super::lost;
use super::task::{OpenR2t, Task, TaskId};
use super::{Action, IMMEDIATE, LARGEST, Session, Violation};
use crate::iscsi::pdu::{Incoming, Outgoing};
use crate::iscsi::wire::{Attribute, DataOut, R2t, Reject, ScsiCommand, Tag};
use crate::scsi::{Response, Sense};

impl Session {
    /// Takes a command.
    pub(super) fn command(&mut self, command: ScsiCommand, pdu: Incoming) -> Result<(), Violation> {
        if self.tasks.contains_key(&command.itt) {
            self.reject(&pdu.bhs, Reject::TASK_IN_PROGRESS);
            return Ok(());
        }
        let most = usize::from(self.window) + IMMEDIATE;
        if self.tasks.len() >= most || self.leaving.is_some() {
            self.reject(&pdu.bhs, Reject::TOO_MANY_IMMEDIATE);
            return Ok(());
        }
        let task = self.admit(command, pdu.data)?;
        let id = task.id;
        self.tasks.insert(command.itt, task);
        // Both directions at once need a second length (§11.2.2.4), and no command here has them. No
        // unit has an auto contingent allegiance (NORMACA is 0), so none of its commands either.
        let both = command.read && command.write;
        let attribute = command.attribute;
        if self.holds(id) > self.most_held {
            // SAM-5 §5.3.1: there is no room for the command now, and there will be.
            self.conclude(id, Response::task_set_full());
        } else if both || matches!(attribute, Attribute::Aca | Attribute::Unknown(_)) {
            self.conclude(id, Sense::INVALID_FIELD.into());
        } else {
            self.enqueue(id);
        }
        Ok(())
    }

    /// Bytes that have come unasked, or will, with a command and those before it; nothing for one that
    /// is alone with its data. What it holds is set aside for it, whatever becomes of it.
    fn holds(&mut self, id: TaskId) -> u64 {
        let first_burst = u64::from(self.parameters.first_burst);
        let before = self.held_unasked;
        let Some(task) = self.task(id) else {
            return 0;
        };
        let brings = match task.unsolicited {
            true => first_burst.min(task.offered()),
            false => task.gather.len(),
        };
        task.unasked = brings;
        self.held_unasked += brings;
        if before > 0 && brings > 0 {
            before + brings
        } else {
            0
        }
    }

    /// Checks the data that come with a command, and those that it announces.
    fn admit(&mut self, command: ScsiCommand, data: Bytes) -> Result<Task, Violation> {
        let id = TaskId {
            itt: command.itt,
            serial: self.next_task,
        };
        self.next_task = self.next_task.wrapping_add(1);
        let mut task = Task::new(id, command);
        let len = data.len() as u64;
        if len > 0 {
            if !command.write || !self.parameters.immediate_data {
                return Err(Violation("data with a command that may have none"));
            }
            if len > task.offered() || len > u64::from(self.parameters.first_burst) {
                return Err(Violation("more data with a command than it may have"));
            }
            task.gather.push(data);
        }
        if !command.last {
            if !command.write || self.parameters.initial_r2t {
                return Err(Violation("unsolicited data where none were agreed on"));
            }
            task.unsolicited = true;
            task.announced = true;
            self.announced += 1;
        }
        task.asked_to = len;
        Ok(task)
    }

    /// The device takes `wanted` bytes for a command.
    pub(in crate::iscsi) fn wants(&mut self, id: TaskId, wanted: u64) {
        if let Some(task) = self.task(id) {
            task.wanted = Some(wanted);
            self.go_on(id);
        }
        if self.leaving.is_some() {
            self.forget_waiting();
            self.leave_when_idle();
        }
    }

    /// Takes a Data-Out PDU.
    pub(super) fn data_out(&mut self, pdu: &Incoming) -> Result<(), Violation> {
        let cannot = |_| Violation("a header that cannot be");
        let header = DataOut::parse(&pdu.bhs).map_err(cannot)?;
        let first_burst = u64::from(self.parameters.first_burst);
        // Data of a command that has been aborted are on their way for a while.
        let Some(task) = self.tasks.get_mut(&header.itt) else {
            return Ok(());
        };
        let id = task.id;
        if task.gap || lost::is_gap(task, &header) {
            return self.pass_over(id, &header);
        }
        if u64::from(header.offset) != task.gather.len() {
            return Err(Violation("data out of order"));
        }
        let end = task.gather.len() + pdu.data.len() as u64;
        if header.ttt == Tag::NONE {
            if !task.unsolicited {
                return Err(Violation("unsolicited data that were not announced"));
            }
            if end > task.offered() || end > first_burst {
                return Err(Violation("more unsolicited data than agreed on"));
            }
            task.next_unsolicited = task.next_unsolicited.wrapping_add(1);
            task.unsolicited = !header.last;
            if header.last {
                task.announced = false;
                self.announced -= 1;
            }
            task.asked_to = end;
        } else {
            solicited(task, &header, end)?;
            task.missing -= pdu.data.len() as u64;
            self.missing -= pdu.data.len() as u64;
        }
        // Nobody will look at the data of a command that has ended.
        if task.early.is_some() {
            task.gather.skip(pdu.data.len() as u64);
        } else {
            task.gather.push(pdu.data.clone());
        }
        if !task.unsolicited
            && let Some(response) = task.early.take()
        {
            self.conclude(id, response);
            return Ok(());
        }
        self.go_on(id);
        Ok(())
    }

    /// Asks for more data of a command, or hands them over if they are all there.
    fn go_on(&mut self, id: TaskId) {
        let Some(task) = self.task(id) else {
            return;
        };
        let Some(limit) = task.limit() else {
            return;
        };
        if task.delivered || task.unsolicited {
            return;
        }
        if task.gather.len() >= limit && task.open.is_empty() {
            task.delivered = true;
            let data = task.gather.take(limit);
            let offered = task.offered();
            self.actions.push(Action::Deliver { id, data, offered });
            return;
        }
        if task.reserved == 0 && !self.reserve(id, limit) {
            return;
        }
        self.ask(id, limit);
    }

    /// Sets a part of the session's budget aside for the data that a command is about to ask for. A
    /// command gets all that it needs or waits, so that commands never wait for each other.
    fn reserve(&mut self, id: TaskId, limit: u64) -> bool {
        let (asked, most) = (self.asked, self.most_asked);
        let waiting = self.starved.front().is_some_and(|first| *first != id);
        let Some(task) = self.task(id) else {
            return false;
        };
        let needs = limit.saturating_sub(task.asked_to);
        // Where it may ask for the largest transfer, there is none that it could not ask for.
        let fits = asked + needs <= most || asked == 0 && most >= LARGEST;
        if waiting || !fits {
            if !self.starved.contains(&id) {
                self.starved.push_back(id);
            }
            return false;
        }
        task.reserved = needs;
        self.asked += needs;
        self.starved.retain(|other| *other != id);
        true
    }

    /// Gives a command's part of the budget back, and lets others go on.
    pub(super) fn release(&mut self, task: &Task) {
        self.asked -= task.reserved;
        self.starved.retain(|other| *other != task.id);
        self.missing -= task.missing;
        self.announced -= usize::from(task.announced);
        self.held_unasked -= task.unasked;
        self.feed();
    }

    /// Lets commands go on that wait until they may ask for their data.
    pub(super) fn feed(&mut self) {
        while let Some(next) = self.starved.front().copied() {
            let before = self.starved.len();
            self.go_on(next);
            if self.starved.len() == before {
                break;
            }
        }
    }

    /// Sends as many R2Ts of a command as may be open.
    fn ask(&mut self, id: TaskId, limit: u64) {
        let most = usize::from(self.parameters.max_outstanding_r2t);
        let burst = u64::from(self.parameters.max_burst);
        loop {
            let numbers = self.numbers();
            let ttt = Tag(self.next_ttt);
            let Some(task) = self.task(id) else {
                return;
            };
            let len = burst.min(limit.saturating_sub(task.asked_to));
            if len == 0 || task.open.len() >= most {
                return;
            }
            let r2t = R2t {
                lun: task.command.lun,
                itt: id.itt,
                ttt,
                numbers,
                r2t_sn: task.take_data_sn(),
                offset: task.asked_to as u32,
                len: len as u32,
            };
            task.asked_to += len;
            task.missing += len;
            task.open.push_back(OpenR2t {
                ttt,
                end: task.asked_to,
                next_data_sn: 0,
            });
            self.missing += len;
            self.use_up_ttt();
            self.send(Outgoing::bare(r2t.emit()));
        }
    }

    /// The open command with this id.
    pub(super) fn task(&mut self, id: TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(&id.itt).filter(|task| task.id == id)
    }

    /// Ends a command that came to nothing, without an answer.
    pub(super) fn drop_task(&mut self, id: TaskId) -> Option<Task> {
        self.task(id)?;
        let task = self.tasks.remove(&id.itt)?;
        self.release(&task);
        Some(task)
    }

    /// Drops what waits for data that will not come.
    pub(super) fn forget_waiting(&mut self) {
        let waiting: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|task| task.wanted.is_some() && !task.delivered)
            .map(|task| task.id)
            .collect();
        for id in waiting {
            self.actions.push(Action::Forget { id });
            self.drop_task(id);
        }
    }
}

/// Checks a PDU that answers an R2T. Sequences come in order, since DataSequenceInOrder is Yes.
fn solicited(task: &mut Task, header: &DataOut, end: u64) -> Result<(), Violation> {
    let Some(open) = task.open.front_mut().filter(|open| open.ttt == header.ttt) else {
        return Err(Violation("data that nobody asked for"));
    };
    open.next_data_sn = open.next_data_sn.wrapping_add(1);
    if end > open.end {
        return Err(Violation("more data than were asked for"));
    }
    if header.last != (end == open.end) {
        return Err(Violation("a sequence of data that ends at the wrong place"));
    }
    if header.last {
        task.open.pop_front();
    }
    Ok(())
}

//! Task attributes: which command may begin while others are at work (SAM-5 §8.6).
//!
//! A simple command begins whenever it comes, an ordered one when all older ones have ended, and what
//! comes after an ordered one waits for its end. Within a session this holds over all units, which is
//! more than the standard asks for. Commands of several sessions share a task set (TST is 0) and need no
//! more: an initiator that knows another's command to be older knows it by the answer to that, so it has
//! ended, and of two that are both without an answer nobody can tell which of them came first.

use std::collections::VecDeque;

use super::task::TaskId;
use super::{Action, Session};
use crate::iscsi::wire::Attribute;

/// The commands of a session that have not begun yet, oldest first, and how many others have.
#[derive(Default)]
pub(super) struct Queue {
    dormant: VecDeque<TaskId>,
    /// Commands that have begun and not ended at the device.
    at_work: usize,
    /// The ordered one among them.
    ordered: Option<TaskId>,
}

impl Session {
    /// Takes a new command in, and begins it if it may.
    pub(super) fn enqueue(&mut self, id: TaskId) {
        let attribute = self.task(id).map(|task| task.command.attribute);
        if attribute == Some(Attribute::HeadOfQueue) {
            self.begin(id);
        } else {
            self.queue.dormant.push_back(id);
            self.enable();
            if self.queue.dormant.back() == Some(&id)
                && let Some(task) = self.task(id)
            {
                let lun = task.command.lun;
                self.actions.push(Action::Enlist { id, lun });
            }
        }
    }

    /// A command does not work on the device any more.
    pub(super) fn ended_at_device(&mut self, id: TaskId) {
        self.queue.at_work = self.queue.at_work.saturating_sub(1);
        if self.queue.ordered == Some(id) {
            self.queue.ordered = None;
        }
        self.enable();
    }

    /// Takes a command away that was aborted; tells whether it had not begun. Others may begin then:
    /// see [`enable`](Self::enable).
    pub(super) fn dequeue(&mut self, id: TaskId) -> bool {
        let before = self.queue.dormant.len();
        self.queue.dormant.retain(|other| *other != id);
        self.queue.dormant.len() < before
    }

    /// Begins what may begin now.
    pub(super) fn enable(&mut self) {
        while !self.over
            && self.queue.ordered.is_none()
            && let Some(&next) = self.queue.dormant.front()
        {
            let attribute = self.task(next).map(|task| task.command.attribute);
            if attribute == Some(Attribute::Ordered) {
                if self.queue.at_work > 0 {
                    return;
                }
                self.queue.ordered = Some(next);
            }
            self.queue.dormant.pop_front();
            self.begin(next);
        }
    }

    fn begin(&mut self, id: TaskId) {
        let Some(task) = self.task(id) else {
            return;
        };
        let command = task.command;
        self.queue.at_work += 1;
        self.actions.push(Action::Begin {
            id,
            lun: command.lun,
            cdb: command.cdb,
            reads: if command.read {
                u64::from(command.expected_len)
            } else {
                0
            },
        });
    }
}

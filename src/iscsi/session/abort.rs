//! Task management (RFC 7143 §11.5, §11.6): an answer goes out when nothing that was aborted works any
//! more, so that what the initiator sends next cannot be overtaken.

use super::task::TaskId;
use super::{Action, Scope, Session};
use crate::iscsi::pdu::Outgoing;
use crate::iscsi::wire::{Tag, TaskRequest, TaskResponse};
use crate::scsi::Lun;

/// TARGET COLD RESET.
const COLD_RESET: u8 = 7;

/// Functions that may wait for commands to settle; no initiator has use for more.
pub(super) const MOST_OPEN: usize = 64;

/// A task management function that waits for commands to settle.
pub(super) struct Pending {
    itt: Tag,
    tasks: Vec<TaskId>,
    /// The device has not settled yet.
    device: bool,
    /// All sessions end after the answer.
    cold: bool,
}

impl Session {
    /// Does what a task management request asks for.
    pub(super) fn manage(&mut self, request: TaskRequest) {
        if self.aborts.len() >= MOST_OPEN {
            self.managed(request.itt, TaskResponse::REJECTED);
            return;
        }
        let lun = request.lun;
        let on_unit =
            |of: &[u8; 8]| Lun::parse(*of).is_some() && Lun::parse(*of) == Lun::parse(lun);
        match request.function {
            1 => self.abort_task(&request),
            2 => self.abort(&request, on_unit, Some(Scope::Own(lun))),
            4 => self.abort(&request, on_unit, Some(Scope::Commands(lun))),
            5 => self.abort(&request, on_unit, Some(Scope::Unit(lun))),
            // TARGET WARM RESET, and TARGET COLD RESET, which closes all connections besides (§11.5.1):
            // `answer_settled` has them closed. Persistent reservations stay, as nothing has lost its
            // power: who resets a target must not be rid of what keeps him off its disks.
            6 | COLD_RESET => self.abort(&request, |_| true, Some(Scope::Device)),
            // TASK REASSIGN needs error recovery level 2.
            8 => self.managed(request.itt, 4),
            _ => self.managed(request.itt, TaskResponse::NOT_SUPPORTED),
        }
    }

    /// The device has settled after a reset, or there was no such unit.
    pub(in crate::iscsi) fn reset_done(&mut self, tmf: Tag, found: bool) {
        // Who uses a tag twice at a time is answered twice.
        let waits = |pending: &Pending| pending.itt == tmf && pending.device;
        let Some(at) = self.aborts.iter().position(waits) else {
            return;
        };
        if !found {
            self.aborts.remove(at);
            self.managed(tmf, TaskResponse::NO_LUN);
        } else if let Some(pending) = self.aborts.get_mut(at) {
            pending.device = false;
            self.answer_settled();
        }
        self.leave_when_idle();
    }

    /// A command does not work on the device any more.
    pub(super) fn settled(&mut self, id: TaskId) {
        if self.aborts.is_empty() {
            return;
        }
        for pending in &mut self.aborts {
            pending.tasks.retain(|task| *task != id);
        }
        self.answer_settled();
    }

    fn abort_task(&mut self, request: &TaskRequest) {
        let itt = request.referenced_itt;
        if self.tasks.contains_key(&itt) {
            self.abort_tasks(request, |task| *task == itt, None);
            return;
        }
        // §11.6.1: a command that is still to come counts as received, and as aborted. One whose answer
        // has been sent does not exist, and has to be told so (§7.10).
        let ahead = self.exp_cmd_sn.distance_to(request.ref_cmd_sn);
        let to_come = ahead >= 0
            && request.ref_cmd_sn.distance_to(self.max_cmd_sn) >= 0
            && request.ref_cmd_sn.distance_to(request.cmd_sn) > 0;
        let response = if to_come {
            self.held.insert(request.ref_cmd_sn.0, None);
            TaskResponse::COMPLETE
        } else {
            TaskResponse::NO_TASK
        };
        self.managed(request.itt, response);
    }

    fn abort(
        &mut self,
        request: &TaskRequest,
        on_unit: impl Fn(&[u8; 8]) -> bool,
        scope: Option<Scope>,
    ) {
        let tags: Vec<Tag> = self
            .tasks
            .values()
            .filter(|task| on_unit(&task.command.lun))
            .map(|task| task.id.itt)
            .collect();
        self.abort_tasks(request, |itt| tags.contains(itt), scope);
    }

    /// Aborts commands: they get no answer (their aborts do).
    fn abort_tasks(
        &mut self,
        request: &TaskRequest,
        which: impl Fn(&Tag) -> bool,
        scope: Option<Scope>,
    ) {
        let (tmf, cold) = (request.itt, request.function == COLD_RESET);
        let tasks: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(itt, _)| which(itt))
            .map(|(_, task)| task.id)
            .collect();
        let mut pending = Pending {
            itt: tmf,
            tasks: Vec::new(),
            device: scope.is_some(),
            cold,
        };
        for id in tasks {
            let dormant = self.dequeue(id);
            if let Some(task) = self.drop_task(id)
                && task.early.is_none()
            {
                if !dormant {
                    pending.tasks.push(id);
                }
                self.actions.push(Action::Forget { id });
            }
        }
        self.aborts.push(pending);
        self.enable();
        if let Some(scope) = scope {
            self.actions.push(Action::Reset { tmf, scope });
        }
        self.answer_settled();
    }

    fn answer_settled(&mut self) {
        let (done, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.aborts)
            .into_iter()
            .partition(|pending| pending.tasks.is_empty() && !pending.device);
        self.aborts = waiting;
        for pending in done {
            self.managed(pending.itt, TaskResponse::COMPLETE);
            if pending.cold && !self.over {
                self.actions.push(Action::Restart);
            }
        }
    }

    fn managed(&mut self, itt: Tag, response: u8) {
        if self.over {
            return;
        }
        let response = TaskResponse {
            response,
            itt,
            numbers: self.status_numbers(),
        };
        self.send(Outgoing::bare(response.emit()));
    }
}

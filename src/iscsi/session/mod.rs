//! The full feature phase of one session: PDUs and the ends of commands in, [`Action`]s out.
//!
//! The state machine knows no socket, no time and no device. Whoever drives it carries out its
//! actions in order, and tells it what becomes of them: [`Session::wants`], [`Session::finished`],
//! [`Session::reset_done`], [`Session::listed`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use self::task::{Task, TaskId};
use self::text::Exchange;
use super::directory::End;
use super::login::Agreed;
use super::names::IscsiName;
use super::output::SENDFILE_MIN;
use super::pdu::{Incoming, Outgoing};
use super::sessions::{Counters, Parameters};
use super::wire::{
    self, AsyncMessage, Head, LogoutRequest, LogoutResponse, NopIn, NopOut, Numbers, Opcode,
    Reject, ScsiCommand, Serial, Tag, TaskRequest, TextRequest,
};
use crate::scsi;

mod abort;
mod answer;
mod data;
mod lost;
mod order;
pub(super) mod task;
#[cfg(test)]
mod tests;
mod text;

/// The largest transfer of one command, in bytes.
pub(super) const LARGEST: u64 = scsi::MAX_TRANSFER as u64;
/// Immediate commands that may be open beyond the window.
const IMMEDIATE: usize = 8;
/// Bytes of data of commands that have come before their turn. On one connection nothing overtakes: who
/// numbers its commands so plays with us.
const MAX_HELD: u64 = 512 * 1024;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// Send this.
    Send(Outgoing),
    /// A command has come and has to wait for others: resets by other initiators are for it, too. Then
    /// [`Action::Begin`] or [`Action::Forget`].
    Enlist { id: TaskId, lun: [u8; 8] },
    /// Start a command; then [`Session::wants`] or [`Session::finished`].
    Begin {
        id: TaskId,
        lun: [u8; 8],
        cdb: [u8; 16],
        /// Most bytes that it may read.
        reads: u64,
    },
    /// All data of the command are here, of those that the initiator has offered.
    Deliver {
        id: TaskId,
        data: Vec<Bytes>,
        offered: u64,
    },
    /// The command is aborted: drop it if it waits. [`Session::finished`] is called in any case, if it was
    /// begun.
    Forget { id: TaskId },
    /// Reset at the device; then [`Session::reset_done`].
    Reset { tmf: Tag, scope: Scope },
    /// List targets; then [`Session::listed`].
    List,
    /// A TARGET COLD RESET is done and answered: all sessions with the target end.
    Restart,
    /// The session is over.
    End(End),
}

/// What a reset is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// A unit and its commands.
    Unit([u8; 8]),
    /// The commands of a unit.
    Commands([u8; 8]),
    /// The initiator's own commands on a unit, which the session has seen to: whether there is the unit
    /// is all that is asked.
    Own([u8; 8]),
    /// All units.
    Device,
}

/// A session in its full feature phase.
pub(super) struct Session {
    parameters: Parameters,
    /// The target; nothing in a discovery session.
    target: Option<IscsiName>,
    /// Addresses that SendTargets names.
    portals: Vec<SocketAddr>,
    counters: Arc<Counters>,
    window: u16,
    cid: u16,
    stat_sn: Serial,
    exp_cmd_sn: Serial,
    max_cmd_sn: Serial,
    /// Commands that came before their turn, by their distance from the first command of the session;
    /// nothing for one that was aborted before it came.
    held: BTreeMap<u32, Option<Incoming>>,
    tasks: HashMap<Tag, Task>,
    queue: order::Queue,
    next_task: u32,
    next_ttt: u32,
    /// Bytes that R2Ts may have asked for at a time, in all commands together.
    most_asked: u64,
    /// Bytes that commands may hold at a time that have come unasked.
    most_held: u64,
    held_unasked: u64,
    /// Bytes that R2Ts have asked for and that have not been used yet.
    asked: u64,
    /// Those of them that have not come yet.
    missing: u64,
    /// Commands that have announced unsolicited data, not all of which have come.
    announced: usize,
    /// Commands that wait until others have used their data.
    starved: VecDeque<TaskId>,
    aborts: Vec<abort::Pending>,
    text: Option<Exchange>,
    /// The initiator has pinged, and so knows what pings are.
    pings: bool,
    /// The initiator has asked to log out, and waits until its commands have ended.
    leaving: Option<LogoutRequest>,
    over: bool,
    actions: Vec<Action>,
}

/// The peer broke the protocol: the connection ends. The reason goes to the log, a Reject (with its
/// reason code) to the peer where the standard has one.
struct Violation(&'static str);

impl Session {
    /// A session that has just logged in.
    pub(super) fn new(
        agreed: Agreed,
        target: Option<IscsiName>,
        portals: Vec<SocketAddr>,
        window: u16,
        counters: Arc<Counters>,
    ) -> Self {
        Session {
            parameters: agreed.parameters,
            target,
            portals,
            counters,
            window,
            cid: agreed.cid,
            stat_sn: agreed.stat_sn,
            exp_cmd_sn: agreed.exp_cmd_sn,
            max_cmd_sn: agreed.exp_cmd_sn.plus(u32::from(window).saturating_sub(1)),
            held: BTreeMap::new(),
            tasks: HashMap::new(),
            queue: order::Queue::default(),
            next_task: 0,
            next_ttt: 0,
            most_asked: LARGEST,
            most_held: LARGEST,
            held_unasked: 0,
            asked: 0,
            missing: 0,
            announced: 0,
            starved: VecDeque::new(),
            aborts: Vec::new(),
            text: None,
            pings: false,
            leaving: None,
            over: false,
            actions: Vec::new(),
        }
    }

    /// The target of the session; nothing in a discovery session.
    pub(super) fn target(&self) -> Option<&IscsiName> {
        self.target.as_ref()
    }

    /// Whether data go out in pieces that are worth a call of their own, and need not be digested.
    pub(super) fn sends_large(&self) -> bool {
        !self.parameters.data_digest
            && u64::from(self.parameters.initiator_max_recv) >= SENDFILE_MIN
    }

    /// How many bytes its commands may hold at a time from now on, of those that come unasked and of
    /// those that R2Ts ask for.
    pub(super) fn may_hold(&mut self, bytes: u64) {
        let more = bytes > self.most_asked;
        (self.most_asked, self.most_held) = (bytes, bytes);
        if more {
            self.feed();
        }
    }

    /// Whether R2Ts have asked for nothing that is still to be used, but a command waits, as all that
    /// it needs is more than may be asked for.
    pub(super) fn needs_more(&self) -> bool {
        self.asked == 0 && !self.starved.is_empty()
    }

    /// Whether R2Ts have asked for something that is still to be used.
    pub(super) fn has_asked(&self) -> bool {
        self.asked > 0
    }

    /// Whether the initiator has data to send, as it was asked or has announced.
    pub(super) fn awaits_data(&self) -> bool {
        self.missing > 0 || self.announced > 0
    }

    /// Takes what is to be done.
    pub(super) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Takes the next PDU.
    pub(super) fn receive(&mut self, pdu: Incoming) {
        if self.over {
            return;
        }
        let bhs = pdu.bhs;
        if let Err(Violation(reason)) = self.sort(pdu) {
            tracing::debug!(reason, "the initiator broke the protocol");
            self.reject(&bhs, Reject::PROTOCOL_ERROR);
            self.end(End::ProtocolError);
        }
    }

    /// A PDU's data did not agree with their digest. At error recovery level 0 nothing can be done
    /// about it but to start anew (RFC 7143 §7.8).
    pub(super) fn corrupted(&mut self, bhs: &wire::Bhs) {
        self.reject(bhs, Reject::DATA_DIGEST);
        self.end(End::ProtocolError);
    }

    /// Asks the initiator to log out within some seconds (RFC 7143 §11.9.1).
    pub(super) fn ask_logout(&mut self, seconds: u16) {
        self.notify(AsyncMessage::LOGOUT, [0, 0, seconds]);
    }

    /// Pings an initiator that has pinged itself; tells whether it has been. Others are left alone: iPXE
    /// and OVMF have no answer to it, and are as well without.
    pub(super) fn ask_for_life(&mut self) -> bool {
        if !self.pings {
            return false;
        }
        self.ping_initiator()
    }

    /// Pings an initiator that is known to be a system's; tells whether it has been.
    pub(super) fn ping_initiator(&mut self) -> bool {
        if self.over {
            return false;
        }
        let ttt = self.use_up_ttt();
        let ping = NopIn {
            lun: [0; 8],
            itt: Tag::NONE,
            ttt,
            // §11.19.2: it has a StatSN and takes none.
            numbers: self.numbers(),
        };
        self.send(Outgoing::bare(ping.emit()));
        true
    }

    /// Tells the initiator that the session is dropped now.
    pub(super) fn tell_dropped(&mut self) {
        self.notify(AsyncMessage::DROPPED, [0, 0, 0]);
    }

    /// Puts a PDU where it belongs by its command number (RFC 7143 §4.2.2.1).
    fn sort(&mut self, pdu: Incoming) -> Result<(), Violation> {
        let head = pdu.head();
        match head.opcode {
            Opcode::DataOut => return self.data_out(&pdu),
            // No command numbers, or none that count.
            Opcode::Snack => {
                self.reject(&pdu.bhs, Reject::SNACK);
                return Ok(());
            }
            Opcode::LoginRequest => return Err(Violation("a login within a session")),
            _ if head.immediate => {
                self.obey(head, pdu)?;
                return self.catch_up();
            }
            _ => {}
        }
        let cmd_sn = cmd_sn(&pdu);
        let ahead = self.exp_cmd_sn.distance_to(cmd_sn);
        if ahead < 0 || cmd_sn.distance_to(self.max_cmd_sn) < 0 {
            // Outside of the window: ignored, as the standard says.
            return Ok(());
        }
        if ahead > 0 {
            let held: usize = self.held.values().flatten().map(|p| p.data.len()).sum();
            if (held + pdu.data.len()) as u64 > MAX_HELD {
                return Err(Violation("too much data before its turn"));
            }
            self.held.entry(cmd_sn.0).or_insert(Some(pdu));
            return Ok(());
        }
        self.advance();
        self.obey(head, pdu)?;
        self.catch_up()
    }

    /// Does what was held back and has its turn now: a command that came late, or an abort of one that
    /// never came, may have filled the gap before it.
    fn catch_up(&mut self) -> Result<(), Violation> {
        while let Some(next) = self.held.remove(&self.exp_cmd_sn.0) {
            self.advance();
            if let Some(pdu) = next {
                self.obey(pdu.head(), pdu)?;
            }
        }
        Ok(())
    }

    /// Counts a command as received.
    fn advance(&mut self) {
        self.exp_cmd_sn = self.exp_cmd_sn.plus(1);
    }

    /// Does what a PDU asks for, now that it is its turn.
    fn obey(&mut self, head: Head, pdu: Incoming) -> Result<(), Violation> {
        let cannot = |_| Violation("a header that cannot be");
        match head.opcode {
            Opcode::ScsiCommand if self.target.is_some() => {
                let command = ScsiCommand::parse(&pdu.bhs).map_err(cannot)?;
                self.command(command, pdu)
            }
            Opcode::TaskRequest if self.target.is_some() => {
                self.manage(TaskRequest::parse(&pdu.bhs).map_err(cannot)?);
                Ok(())
            }
            Opcode::ScsiCommand | Opcode::TaskRequest => {
                Err(Violation("a command in a discovery session"))
            }
            Opcode::NopOut => {
                self.ping(NopOut::parse(&pdu.bhs).map_err(cannot)?, pdu.data);
                Ok(())
            }
            Opcode::TextRequest => {
                let request = TextRequest::parse(&pdu.bhs).map_err(cannot)?;
                self.text(request, &pdu)
            }
            Opcode::LogoutRequest => {
                self.logout(LogoutRequest::parse(&pdu.bhs).map_err(cannot)?);
                Ok(())
            }
            _ => {
                self.reject(&pdu.bhs, Reject::NOT_SUPPORTED);
                Ok(())
            }
        }
    }

    fn ping(&mut self, nop: NopOut, mut data: Bytes) {
        // §11.18.1: nothing is to be answered.
        if nop.itt == Tag::NONE {
            return;
        }
        data.truncate(self.parameters.initiator_max_recv as usize);
        self.pings = true;
        let response = NopIn {
            lun: nop.lun,
            itt: nop.itt,
            ttt: Tag::NONE,
            numbers: self.status_numbers(),
        };
        self.send(Outgoing::with(response.emit(), data));
    }

    /// Takes the next tag for what the initiator is to answer.
    fn use_up_ttt(&mut self) -> Tag {
        let ttt = Tag(self.next_ttt);
        // 0xffffffff stands for none.
        self.next_ttt = (self.next_ttt + 1) % Tag::NONE.0;
        ttt
    }

    fn logout(&mut self, request: LogoutRequest) {
        let refused = match request.reason {
            0 => None,
            1 if request.cid == self.cid => None,
            1 => Some(1),
            _ => Some(2),
        };
        if let Some(response) = refused {
            let response = LogoutResponse {
                response,
                itt: request.itt,
                numbers: self.status_numbers(),
            };
            self.send(Outgoing::bare(response.emit()));
            return;
        }
        self.leaving = Some(request);
        self.forget_waiting();
        self.leave_when_idle();
    }

    /// Answers a logout once no command is open any more.
    fn leave_when_idle(&mut self) {
        if !self.tasks.is_empty() || !self.aborts.is_empty() {
            return;
        }
        if let Some(request) = self.leaving.take() {
            let response = LogoutResponse {
                response: 0,
                itt: request.itt,
                numbers: self.status_numbers(),
            };
            self.send(Outgoing::bare(response.emit()));
            self.end(End::Logout);
        }
    }

    fn notify(&mut self, event: u8, parameters: [u16; 3]) {
        if self.over {
            return;
        }
        let message = AsyncMessage {
            event,
            numbers: self.status_numbers(),
            parameters,
        };
        self.send(Outgoing::bare(message.emit()));
    }

    fn reject(&mut self, bhs: &wire::Bhs, reason: u8) {
        let reject = Reject {
            reason,
            numbers: self.status_numbers(),
        };
        self.send(Outgoing::with(reject.emit(), bhs.to_vec()));
    }

    fn end(&mut self, end: End) {
        self.over = true;
        self.actions.push(Action::End(end));
    }

    fn send(&mut self, outgoing: Outgoing) {
        self.actions.push(Action::Send(outgoing));
    }

    /// Numbers for a PDU without status.
    fn numbers(&mut self) -> Numbers {
        // The window closes with each open command and never goes back (RFC 7143 §4.2.2.1).
        let open = (self.tasks.len() as u32).min(u32::from(self.window));
        let room = u32::from(self.window) - open;
        let max = self.exp_cmd_sn.plus(room.wrapping_sub(1));
        if self.max_cmd_sn.distance_to(max) > 0 {
            self.max_cmd_sn = max;
        }
        Numbers {
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn,
        }
    }

    /// Numbers for a PDU with status, which counts.
    fn status_numbers(&mut self) -> Numbers {
        let numbers = self.numbers();
        self.stat_sn = self.stat_sn.plus(1);
        numbers
    }

    fn count(&self, command: &ScsiCommand, bytes: u64) {
        if command.read {
            self.counters.read(bytes);
        } else if command.write {
            self.counters.wrote(bytes);
        }
    }
}

/// CmdSN, which stands at the same place in all requests that have one.
fn cmd_sn(pdu: &Incoming) -> Serial {
    let number = pdu
        .bhs
        .get(24..28)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_be_bytes);
    Serial(number)
}

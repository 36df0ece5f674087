//! How a command ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::running::Fate;
use super::sense::Sense;
use crate::block::{Answer, Segment};

/// What became of a command when it was started.
pub enum Start {
    /// It needs nothing more from the initiator.
    Done(Answer<Response>),
    /// It needs the initiator's data first.
    Data(Pending),
}

/// A command that waits for data. It was checked: what can be refused without data has been.
pub struct Pending {
    len: u64,
    exact: bool,
    detached: bool,
    stop: Option<Stop>,
    run: Box<dyn FnOnce(Vec<Bytes>) -> Answer<Response> + Send>,
}

/// The end of a command.
#[derive(Debug, Clone)]
pub struct Response {
    /// SCSI status.
    pub status: Status,
    /// Why, with [`Status::CheckCondition`].
    pub sense: Option<Sense>,
    /// Data for the initiator.
    pub data: Vec<Segment>,
}

/// SCSI status codes (SAM-5 §5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Good = 0x00,
    /// Not done; the sense data tell why.
    CheckCondition = 0x02,
    /// Done, and what was asked about is so: the blocks fit into the cache.
    ConditionMet = 0x04,
    /// Another initiator holds the unit.
    ReservationConflict = 0x18,
    /// There is no room for it now.
    TaskSetFull = 0x28,
    /// Another initiator aborted it, and the unit tells so (TAS is 1, SPC-4 §7.5.8).
    TaskAborted = 0x40,
    /// It was aborted, and nothing is sent: its initiator knows, or a unit attention tells (TAS is 0).
    /// This is no status of the standard.
    Silent = 0xff,
}

/// The wish that a command ends before its time. Those that take long look at it between their steps.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// The command need not go on.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it need not.
    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Pending {
    pub(super) fn new(
        len: u64,
        run: impl FnOnce(Vec<Bytes>) -> Answer<Response> + Send + 'static,
    ) -> Self {
        Pending {
            len,
            exact: false,
            detached: false,
            stop: None,
            run: Box::new(run),
        }
    }

    /// The same command, which is refused where the initiator has more or fewer data for it: it cannot
    /// mean what the command says then.
    pub(super) fn exactly(self) -> Self {
        Pending {
            exact: true,
            ..self
        }
    }

    /// The same command, whose work goes on when nobody waits for its answer any more.
    pub(super) fn detached(self) -> Self {
        Pending {
            detached: true,
            ..self
        }
    }

    /// Whether its answer may be dropped when the command is aborted: the work goes on without it.
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// The same command, which looks at `stop` between its steps.
    pub(super) fn stopped_by(self, stop: Stop) -> Self {
        Pending {
            stop: Some(stop),
            ..self
        }
    }

    /// The way to end it early, if it takes so long that this is worth something. It has not ended
    /// before its answer is there, whatever that is.
    pub fn stop(&self) -> Option<Stop> {
        self.stop.clone()
    }

    /// Bytes that the command takes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it takes none after all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Goes on with the initiator's data. There may be less than [`len`](Self::len), where the
    /// initiator expected to transfer less than its command says, but never more.
    pub fn finish(self, data: Vec<Bytes>) -> Answer<Response> {
        let offered = data.iter().map(|bytes| bytes.len() as u64).sum();
        self.finish_of(data, offered)
    }

    /// The same, with the data of an initiator that had `offered` bytes for the command, some of which
    /// it may not have been asked for.
    pub fn finish_of(self, data: Vec<Bytes>, offered: u64) -> Answer<Response> {
        if self.exact && offered != self.len {
            return Answer::Now(Sense::INVALID_FIELD.into());
        }
        (self.run)(data)
    }

    /// The same command with something around its end.
    pub(super) fn wrap(
        self,
        around: impl FnOnce(
            Box<dyn FnOnce(Vec<Bytes>) -> Answer<Response> + Send>,
            Vec<Bytes>,
        ) -> Answer<Response>
        + Send
        + 'static,
    ) -> Self {
        let run = self.run;
        Pending {
            run: Box::new(move |data| around(run, data)),
            ..self
        }
    }
}

impl Response {
    /// Done, without data.
    pub fn good() -> Self {
        Self::with(Vec::new())
    }

    /// Done, with data.
    pub fn with(data: Vec<Segment>) -> Self {
        Response {
            status: Status::Good,
            sense: None,
            data,
        }
    }

    /// Done, with bytes cut to the initiator's allocation length.
    pub(super) fn cut(bytes: Vec<u8>, allocation: usize) -> Self {
        let mut bytes = Bytes::from(bytes);
        bytes.truncate(allocation);
        Self::with(vec![Segment::Bytes(bytes)])
    }

    /// There is no room for the command now; its initiator sends it again.
    pub fn task_set_full() -> Self {
        Response {
            status: Status::TaskSetFull,
            ..Self::good()
        }
    }

    /// Another initiator holds the unit.
    pub(super) fn conflict() -> Self {
        Response {
            status: Status::ReservationConflict,
            ..Self::good()
        }
    }

    /// Of a command that has met this fate before its end.
    pub(super) fn aborted(fate: Fate) -> Self {
        match fate {
            Fate::Removed => Sense::NO_UNIT.into(),
            Fate::Wiped => Sense::SANITIZING.into(),
            Fate::Told => Response {
                status: Status::TaskAborted,
                ..Self::good()
            },
            Fate::Alive | Fate::Aborted => Response {
                status: Status::Silent,
                ..Self::good()
            },
        }
    }
}

impl From<Sense> for Response {
    fn from(sense: Sense) -> Self {
        Response {
            status: Status::CheckCondition,
            sense: Some(sense),
            data: Vec::new(),
        }
    }
}

impl From<Response> for Start {
    fn from(response: Response) -> Self {
        Start::Done(Answer::Now(response))
    }
}

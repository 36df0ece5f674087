//! How a command ends.

use bytes::Bytes;

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
    /// Another initiator aborted it: nothing is sent, a unit attention tells (TAS is 0).
    TaskAborted = 0x40,
}

impl Pending {
    pub(super) fn new(
        len: u64,
        run: impl FnOnce(Vec<Bytes>) -> Answer<Response> + Send + 'static,
    ) -> Self {
        Pending {
            len,
            run: Box::new(run),
        }
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
        (self.run)(data)
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

    /// Aborted by somebody else.
    pub(super) fn aborted() -> Self {
        Response {
            status: Status::TaskAborted,
            ..Self::good()
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

//! Task Management Function Request and Response (RFC 7143 §11.5, §11.6).

use super::bytes::{Reader, Writer, request};
use super::{Bhs, Error, Numbers, Serial, Tag};

/// Something is to be done to commands that are on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskRequest {
    /// Not queued behind the command window.
    pub immediate: bool,
    /// What: 1 ABORT TASK, 2 ABORT TASK SET, 4 CLEAR TASK SET, 5 LOGICAL UNIT RESET, 6 and 7 TARGET
    /// RESET, others.
    pub function: u8,
    /// The unit.
    pub lun: [u8; 8],
    /// Initiator task tag of this request.
    pub itt: Tag,
    /// Of the command that ABORT TASK is about.
    pub referenced_itt: Tag,
    /// Number of this request.
    pub cmd_sn: Serial,
    /// The next status that the initiator expects.
    pub exp_stat_sn: Serial,
    /// Number of the command that ABORT TASK is about.
    pub ref_cmd_sn: Serial,
}

impl TaskRequest {
    const OPCODE: u8 = 0x02;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [first, function] = r.take()?;
        r.take::<6>()?;
        Ok(TaskRequest {
            immediate: first & 0x40 != 0,
            function: function & 0x7f,
            lun: r.take()?,
            itt: r.tag()?,
            referenced_itt: r.tag()?,
            cmd_sn: r.serial()?,
            exp_stat_sn: r.serial()?,
            ref_cmd_sn: r.serial()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(request(Self::OPCODE, self.immediate))
            .u8(0x80 | self.function)
            .zeros(2)
            .lengths()
            .bytes(&self.lun)
            .tag(self.itt)
            .tag(self.referenced_itt)
            .serial(self.cmd_sn)
            .serial(self.exp_stat_sn)
            .serial(self.ref_cmd_sn)
            .done()
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskResponse {
    /// See the constants.
    pub response: u8,
    /// Initiator task tag of the request.
    pub itt: Tag,
    /// Sequence numbers.
    pub numbers: Numbers,
}

impl TaskResponse {
    const OPCODE: u8 = 0x22;
    /// Done.
    pub const COMPLETE: u8 = 0;
    /// There is no such task.
    pub const NO_TASK: u8 = 1;
    /// There is no such unit.
    pub const NO_LUN: u8 = 2;
    /// This function is not there.
    pub const NOT_SUPPORTED: u8 = 5;
    /// Function rejected.
    pub const REJECTED: u8 = 255;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [_, _, response] = r.take()?;
        r.take::<13>()?;
        let itt = r.tag()?;
        r.take::<4>()?;
        Ok(TaskResponse {
            response,
            itt,
            numbers: r.numbers()?,
        })
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(Self::OPCODE)
            .u8(0x80)
            .u8(self.response)
            .u8(0)
            .lengths()
            .zeros(8)
            .tag(self.itt)
            .zeros(4)
            .numbers(self.numbers)
            .done()
    }
}

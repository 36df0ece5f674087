//! Login Request and Login Response (RFC 7143 §11.12, §11.13).

use super::bytes::{Reader, Writer, flag, request};
use super::{Bhs, Error, Numbers, Serial, Tag};

/// A stage of the login, as CSG and NSG name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Who is it.
    Security,
    /// How to talk.
    Operational,
    /// The login is done.
    FullFeature,
}

impl Stage {
    fn parse(bits: u8) -> Result<Self, Error> {
        match bits & 0x03 {
            0 => Ok(Stage::Security),
            1 => Ok(Stage::Operational),
            3 => Ok(Stage::FullFeature),
            _ => Err(Error::Illegal("stage")),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Stage::Security => 0,
            Stage::Operational => 1,
            Stage::FullFeature => 3,
        }
    }
}

/// A step of a login, from the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginRequest {
    /// The stage that the initiator would go to, with the T bit.
    pub next: Option<Stage>,
    /// More text follows.
    pub more: bool,
    /// The stage that it is in.
    pub stage: Stage,
    /// Lowest version that the initiator speaks.
    pub version_min: u8,
    /// The initiator's part of the session's identifier.
    pub isid: [u8; 6],
    /// The target's part; 0 for a new session.
    pub tsih: u16,
    /// Initiator task tag, the same during one login.
    pub itt: Tag,
    /// Connection id.
    pub cid: u16,
    /// Number of the next command.
    pub cmd_sn: Serial,
    /// The next status that the initiator expects.
    pub exp_stat_sn: Serial,
}

impl LoginRequest {
    const OPCODE: u8 = 0x03;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (flags, mut request) = Self::read(bytes)?;
        request.stage = Stage::parse(flags >> 2)?;
        if request.stage == Stage::FullFeature {
            return Err(Error::Illegal("current stage"));
        }
        if flags & 0x80 != 0 {
            let next = Stage::parse(flags)?;
            if next.bits() <= request.stage.bits() {
                return Err(Error::Illegal("next stage"));
            }
            if request.more {
                return Err(Error::Illegal("T bit together with the C bit"));
            }
            request.next = Some(next);
        }
        Ok(request)
    }

    /// Reads what an answer needs of a header whose stages may be impossible; it says nothing of them.
    pub fn envelope(bytes: &[u8]) -> Result<Self, Error> {
        Ok(Self::read(bytes)?.1)
    }

    fn read(bytes: &[u8]) -> Result<(u8, Self), Error> {
        let mut r = Reader::header(bytes)?;
        let [_, flags, _, version_min] = r.take()?;
        r.take::<4>()?;
        let (isid, tsih, itt, cid) = (r.take()?, r.be16()?, r.tag()?, r.be16()?);
        r.take::<2>()?;
        let request = LoginRequest {
            next: None,
            more: flags & 0x40 != 0,
            stage: Stage::Security,
            version_min,
            isid,
            tsih,
            itt,
            cid,
            cmd_sn: r.serial()?,
            exp_stat_sn: r.serial()?,
        };
        Ok((flags, request))
    }

    /// The header.
    pub fn emit(&self) -> Bhs {
        Writer::new(request(Self::OPCODE, true))
            .u8(stages(self.next, self.more, self.stage))
            .u8(0)
            .u8(self.version_min)
            .lengths()
            .bytes(&self.isid)
            .be16(self.tsih)
            .tag(self.itt)
            .be16(self.cid)
            .zeros(2)
            .serial(self.cmd_sn)
            .serial(self.exp_stat_sn)
            .done()
    }
}

/// A step of a login, from the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginResponse {
    /// The stage that both go to, with the T bit.
    pub next: Option<Stage>,
    /// More text follows.
    pub more: bool,
    /// The stage that both are in.
    pub stage: Stage,
    /// The initiator's part of the session's identifier.
    pub isid: [u8; 6],
    /// The target's part, told with the last step.
    pub tsih: u16,
    /// Initiator task tag.
    pub itt: Tag,
    /// Sequence numbers.
    pub numbers: Numbers,
    /// Status class and detail; 0 is success.
    pub status: u16,
}

impl LoginResponse {
    const OPCODE: u8 = 0x23;

    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::header(bytes)?;
        let [_, flags, _, _] = r.take()?;
        r.take::<4>()?;
        let (isid, tsih, itt) = (r.take()?, r.be16()?, r.tag()?);
        r.take::<4>()?;
        let numbers = r.numbers()?;
        Ok(LoginResponse {
            next: if flags & 0x80 != 0 {
                Some(Stage::parse(flags)?)
            } else {
                None
            },
            more: flags & 0x40 != 0,
            stage: Stage::parse(flags >> 2)?,
            isid,
            tsih,
            itt,
            numbers,
            status: r.be16()?,
        })
    }

    /// The header. Version 0 is the only one there is.
    pub fn emit(&self) -> Bhs {
        Writer::new(Self::OPCODE)
            .u8(stages(self.next, self.more, self.stage))
            .zeros(2)
            .lengths()
            .bytes(&self.isid)
            .be16(self.tsih)
            .tag(self.itt)
            .zeros(4)
            .numbers(self.numbers)
            .be16(self.status)
            .done()
    }
}

fn stages(next: Option<Stage>, more: bool, stage: Stage) -> u8 {
    flag(next.is_some(), 0x80) | flag(more, 0x40) | stage.bits() << 2 | next.map_or(0, Stage::bits)
}

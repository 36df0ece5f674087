//! The few PDUs that a load needs, as RFC 7143 §11 lays them out: both what an initiator sends and what
//! a target answers, since the null target speaks by the same words.
//!
//! This is not netroot's own code for them, so that a mistake there is not made here again.

use super::cdb::Direction;

/// Bytes of a basic header segment.
pub(super) const BHS: usize = 48;

/// A basic header segment.
pub(super) type Bhs = [u8; BHS];

/// A tag that names nothing.
pub(super) const NO_TAG: u32 = 0xffff_ffff;

/// The first byte of a header, without the bit for immediate delivery.
pub(super) mod opcode {
    pub(crate) const NOP_OUT: u8 = 0x00;
    pub(crate) const SCSI_COMMAND: u8 = 0x01;
    pub(crate) const LOGIN: u8 = 0x03;
    pub(crate) const DATA_OUT: u8 = 0x05;
    pub(crate) const LOGOUT: u8 = 0x06;
    pub(crate) const NOP_IN: u8 = 0x20;
    pub(crate) const SCSI_RESPONSE: u8 = 0x21;
    pub(crate) const LOGIN_RESPONSE: u8 = 0x23;
    pub(crate) const DATA_IN: u8 = 0x25;
    pub(crate) const LOGOUT_RESPONSE: u8 = 0x26;
    pub(crate) const R2T: u8 = 0x31;
}

/// Immediate delivery, in the first byte.
const IMMEDIATE: u8 = 0x40;
/// The final PDU of a sequence.
pub(super) const FINAL: u8 = 0x80;
/// In a command: it reads.
pub(super) const READ: u8 = 0x40;
/// In a command: it writes.
pub(super) const WRITE: u8 = 0x20;
/// In a Data-In: it holds the status.
pub(super) const STATUS: u8 = 0x01;
/// In a Data-In or a response: there is a residual, of either kind.
pub(super) const RESIDUAL: u8 = 0x06;

/// A SCSI command, as it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command {
    pub(super) direction: Direction,
    pub(super) lun: [u8; 8],
    pub(super) itt: u32,
    /// Bytes that are to be read or written.
    pub(super) expected: u32,
    pub(super) cmd_sn: u32,
    pub(super) exp_stat_sn: u32,
    pub(super) cdb: [u8; 16],
    /// Bytes of data that come with it.
    pub(super) immediate: usize,
    /// Whether none follow without being asked for.
    pub(super) is_final: bool,
}

impl Command {
    /// Its header.
    pub(super) fn emit(&self) -> Bhs {
        let mut bhs = empty(opcode::SCSI_COMMAND, self.immediate);
        let direction = match self.direction {
            Direction::Read => READ,
            Direction::Write => WRITE,
        };
        // A simple task attribute.
        bhs[1] = direction | 1 | if self.is_final { FINAL } else { 0 };
        put(&mut bhs, 8, &self.lun);
        put32(&mut bhs, 16, self.itt);
        put32(&mut bhs, 20, self.expected);
        put32(&mut bhs, 24, self.cmd_sn);
        put32(&mut bhs, 28, self.exp_stat_sn);
        put(&mut bhs, 32, &self.cdb);
        bhs
    }
}

/// Data of a write, as they are sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataOut {
    pub(super) lun: [u8; 8],
    pub(super) itt: u32,
    /// The tag of the R2T that asked for them.
    pub(super) ttt: u32,
    pub(super) exp_stat_sn: u32,
    pub(super) data_sn: u32,
    pub(super) offset: u32,
    pub(super) len: usize,
    pub(super) is_final: bool,
}

impl DataOut {
    /// Their header.
    pub(super) fn emit(&self) -> Bhs {
        let mut bhs = empty(opcode::DATA_OUT, self.len);
        bhs[1] = if self.is_final { FINAL } else { 0 };
        put(&mut bhs, 8, &self.lun);
        put32(&mut bhs, 16, self.itt);
        put32(&mut bhs, 20, self.ttt);
        put32(&mut bhs, 28, self.exp_stat_sn);
        put32(&mut bhs, 36, self.data_sn);
        put32(&mut bhs, 40, self.offset);
        bhs
    }
}

/// A header that came in. Which of these a PDU has depends on what it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header(pub(super) Bhs);

impl Header {
    pub(super) fn opcode(&self) -> u8 {
        self.0[0] & 0x3f
    }

    pub(super) fn flags(&self) -> u8 {
        self.0[1]
    }

    /// Of a SCSI response: 0 if the command was carried out.
    pub(super) fn response(&self) -> u8 {
        self.0[2]
    }

    pub(super) fn status(&self) -> u8 {
        self.0[3]
    }

    /// Four-byte words of additional headers.
    pub(super) fn ahs_words(&self) -> u8 {
        self.0[4]
    }

    pub(super) fn data_len(&self) -> usize {
        usize::from(self.0[5]) << 16 | usize::from(self.0[6]) << 8 | usize::from(self.0[7])
    }

    pub(super) fn lun(&self) -> [u8; 8] {
        take(&self.0, 8)
    }

    pub(super) fn itt(&self) -> u32 {
        self.be32(16)
    }

    pub(super) fn ttt(&self) -> u32 {
        self.be32(20)
    }

    /// Of a command: the bytes that it is to transfer.
    pub(super) fn expected(&self) -> u32 {
        self.be32(20)
    }

    /// Of what initiators send.
    pub(super) fn cmd_sn(&self) -> u32 {
        self.be32(24)
    }

    /// Of what targets send, as all that follow.
    pub(super) fn stat_sn(&self) -> u32 {
        self.be32(24)
    }

    pub(super) fn max_cmd_sn(&self) -> u32 {
        self.be32(32)
    }

    pub(super) fn data_sn(&self) -> u32 {
        self.be32(36)
    }

    pub(super) fn offset(&self) -> u32 {
        self.be32(40)
    }

    /// Of an R2T.
    pub(super) fn desired_len(&self) -> u32 {
        self.be32(44)
    }

    pub(super) fn residual(&self) -> u32 {
        self.be32(44)
    }

    pub(super) fn cdb(&self) -> [u8; 16] {
        take(&self.0, 32)
    }

    /// Of a login response: class and detail.
    pub(super) fn login_status(&self) -> u16 {
        u16::from_be_bytes([self.0[36], self.0[37]])
    }

    fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(take(&self.0, at))
    }
}

/// A header of which only opcode and length are set.
pub(super) fn empty(opcode: u8, data_len: usize) -> Bhs {
    let mut bhs = [0; BHS];
    bhs[0] = opcode;
    let [.., high, middle, low] = data_len.to_be_bytes();
    (bhs[5], bhs[6], bhs[7]) = (high, middle, low);
    bhs
}

/// The same, for immediate delivery.
pub(super) fn immediate(opcode: u8, data_len: usize) -> Bhs {
    empty(opcode | IMMEDIATE, data_len)
}

/// Writes a field.
pub(super) fn put(bhs: &mut Bhs, at: usize, bytes: &[u8]) {
    if let Some(field) = bhs.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

/// Writes a number of four bytes.
pub(super) fn put32(bhs: &mut Bhs, at: usize, number: u32) {
    put(bhs, at, &number.to_be_bytes());
}

/// Bytes that pad data to a multiple of four.
pub(super) fn padding(data_len: usize) -> usize {
    data_len.wrapping_neg() % 4
}

/// `N` bytes from `at` on; zeros where a caller reaches over the end, which none does.
pub(super) fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let field = bytes.get(at..at + N);
    field
        .and_then(|field| field.try_into().ok())
        .unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::super::cdb::cdb;
    use super::*;

    /// A READ(10) of 8 blocks from block 0x12345 on, laid out by hand after RFC 7143 §11.3 and SBC-3.
    #[test]
    fn a_command_is_laid_out_as_the_standard_has_it() {
        let command = Command {
            direction: Direction::Read,
            lun: [0, 1, 0, 0, 0, 0, 0, 0],
            itt: 7,
            expected: 4096,
            cmd_sn: 0x0102_0304,
            exp_stat_sn: 9,
            cdb: cdb(Direction::Read, 0x12345, 8),
            immediate: 0,
            is_final: true,
        };
        let expected = [
            0x01, 0xc1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0x10, 0, 1, 2,
            3, 4, 0, 0, 0, 9, 0x28, 0, 0, 1, 0x23, 0x45, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(command.emit(), expected);
    }

    #[test]
    fn data_out_says_where_it_belongs() {
        let bhs = DataOut {
            lun: [0, 1, 0, 0, 0, 0, 0, 0],
            itt: 3,
            ttt: 0xabcd,
            exp_stat_sn: 5,
            data_sn: 2,
            offset: 1024,
            len: 512,
            is_final: false,
        }
        .emit();
        let header = Header(bhs);
        assert_eq!(header.opcode(), opcode::DATA_OUT);
        assert_eq!(header.flags(), 0);
        assert_eq!(header.data_len(), 512);
        assert_eq!((header.itt(), header.ttt()), (3, 0xabcd));
        assert_eq!((header.data_sn(), header.offset()), (2, 1024));
    }

    #[test]
    fn padding_fills_words() {
        assert_eq!([0, 1, 2, 3, 4].map(padding), [0, 3, 2, 1, 0]);
    }
}

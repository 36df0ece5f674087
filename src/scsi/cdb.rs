//! Command descriptor blocks.

/// A command block, padded with zeros to 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cdb([u8; 16]);

impl Cdb {
    pub(super) fn new(bytes: [u8; 16]) -> Self {
        Cdb(bytes)
    }

    pub(super) fn opcode(&self) -> u8 {
        self.byte(0)
    }

    /// SERVICE ACTION as commands with one opcode for several actions hold it.
    pub(super) fn service_action(&self) -> u8 {
        self.byte(1) & 0x1f
    }

    /// CONTROL: the last byte, or the second where the length is told in the block (SPC-4 §4.2.5.1).
    pub(super) fn control(&self) -> u8 {
        self.byte(usize::from(self.control_at()))
    }

    /// Where CONTROL stands.
    pub(super) fn control_at(&self) -> u16 {
        match self.opcode() >> 5 {
            0 => 5,
            1 | 2 => 9,
            3 => 1,
            4 => 15,
            5 => 11,
            // Vendor's own commands: there are none.
            _ => 5,
        }
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub(super) fn bit(&self, at: usize, mask: u8) -> bool {
        self.byte(at) & mask != 0
    }

    pub(super) fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.byte(at), self.byte(at + 1)])
    }

    pub(super) fn be32(&self, at: usize) -> u32 {
        u32::from(self.be16(at)) << 16 | u32::from(self.be16(at + 2))
    }

    pub(super) fn be64(&self, at: usize) -> u64 {
        u64::from(self.be32(at)) << 32 | u64::from(self.be32(at + 4))
    }

    /// LOGICAL BLOCK ADDRESS and TRANSFER LENGTH, where the size of the command puts them (the group
    /// code is the opcode's high three bits, SPC-4 §4.2.5.1).
    pub(super) fn blocks(&self) -> (u64, u64) {
        match self.opcode() >> 5 {
            0 => {
                let lba = self.be32(0) & 0x1f_ffff;
                // A length of 0 means 256 blocks (SBC-3 §5.10).
                let n = match self.byte(4) {
                    0 => 256,
                    n => u64::from(n),
                };
                (u64::from(lba), n)
            }
            1 | 2 => (u64::from(self.be32(2)), u64::from(self.be16(7))),
            4 => (self.be64(2), u64::from(self.be32(10))),
            _ => (u64::from(self.be32(2)), u64::from(self.be32(6))),
        }
    }
}

//! READ and WRITE (SBC-3), from both sides.

use super::wire::take;

/// Which way the data of a command go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the initiator.
    Read,
    /// To the target.
    Write,
}

/// READ or WRITE of so many blocks: of 10 bytes where its fields are wide enough, as initiators do it.
pub(super) fn cdb(direction: Direction, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    let (ten, sixteen) = match direction {
        Direction::Read => (0x28, 0x88),
        Direction::Write => (0x2a, 0x8a),
    };
    if let (Ok(lba), Ok(blocks)) = (u32::try_from(lba), u16::try_from(blocks)) {
        cdb[0] = ten;
        cdb[2..6].copy_from_slice(&lba.to_be_bytes());
        cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    } else {
        cdb[0] = sixteen;
        cdb[2..10].copy_from_slice(&lba.to_be_bytes());
        cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    }
    cdb
}

/// What a READ or a WRITE is about: direction, first block, blocks. Nothing for other commands.
pub(super) fn transfer(cdb: &[u8; 16]) -> Option<(Direction, u64, u32)> {
    let direction = match cdb[0] {
        0x28 | 0x88 => Direction::Read,
        0x2a | 0x8a => Direction::Write,
        _ => return None,
    };
    Some(if cdb[0] & 0xe0 == 0x20 {
        let blocks = u16::from_be_bytes([cdb[7], cdb[8]]);
        let lba = u32::from_be_bytes(take(cdb, 2));
        (direction, lba.into(), blocks.into())
    } else {
        let lba = u64::from_be_bytes(take(cdb, 2));
        (direction, lba, u32::from_be_bytes(take(cdb, 10)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_read_as_they_were_written() {
        for (lba, blocks, opcode) in [
            (5, 8, 0x2a),
            (u64::from(u32::MAX), 0xffff, 0x2a),
            (1 << 40, 8, 0x8a),
            (5, 0x10000, 0x8a),
        ] {
            let cdb = cdb(Direction::Write, lba, blocks);
            assert_eq!(cdb[0], opcode);
            assert_eq!(transfer(&cdb), Some((Direction::Write, lba, blocks)));
        }
        assert_eq!(transfer(&[0; 16]), None);
    }
}

//! Logical unit numbers.

use std::fmt;

/// The number of a logical unit on its device, below 16384.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lun(u16);

/// Numbers below this use the peripheral device addressing method, as initiators expect.
const PERIPHERAL: u16 = 256;
/// Numbers below this can be written by the flat space addressing method.
const FLAT: u16 = 0x4000;

impl Lun {
    /// The unit that every device has.
    pub const ZERO: Lun = Lun(0);

    /// The unit with this number, if there can be one.
    pub fn new(number: u16) -> Option<Lun> {
        (number < FLAT).then_some(Lun(number))
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Reads the eight bytes of SAM-5 §4.7; nothing for an address that no unit here can have.
    pub fn parse(bytes: [u8; 8]) -> Option<Lun> {
        let [high, low, rest @ ..] = bytes;
        if rest != [0; 6] {
            return None;
        }
        match high >> 6 {
            0 if high == 0 => Some(Lun(u16::from(low))),
            1 => Some(Lun(u16::from_be_bytes([high & 0x3f, low]))),
            _ => None,
        }
    }

    /// The eight bytes of SAM-5 §4.7.
    pub fn emit(self) -> [u8; 8] {
        let method = if self.0 < PERIPHERAL { 0 } else { FLAT };
        let [high, low] = (self.0 | method).to_be_bytes();
        [high, low, 0, 0, 0, 0, 0, 0]
    }
}

impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addressing_methods_name_the_same_unit() {
        let flat = [0x40, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(Lun::parse(flat), Lun::new(1));
        for number in [0, 1, 255, 256, 0x3fff] {
            let lun = Lun::new(number).unwrap();
            assert_eq!(Lun::parse(lun.emit()), Some(lun));
        }
    }

    #[test]
    fn other_addresses_name_no_unit() {
        assert_eq!(Lun::new(0x4000), None);
        for bytes in [
            [0, 1, 0, 1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0, 0],
            [0x80, 1, 0, 0, 0, 0, 0, 0],
            [0xc1, 1, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Lun::parse(bytes), None);
        }
    }
}

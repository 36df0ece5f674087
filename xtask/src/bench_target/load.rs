//! Which blocks are read and written, one command after another.

use std::ops::Range;
use std::sync::Arc;

use super::cdb::Direction;
use super::pattern::BLOCK;

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Io {
    pub(super) direction: Direction,
    pub(super) lba: u64,
    pub(super) blocks: u32,
}

impl Io {
    /// Bytes that it transfers.
    pub(super) fn bytes(&self) -> u32 {
        self.blocks * BLOCK as u32
    }
}

/// In which order blocks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// One behind the other, and from the front again.
    Sequential,
    /// Anyhow.
    Random,
}

/// A load without an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) order: Order,
    /// How many of a hundred commands read.
    pub(super) reads: u32,
    /// Bytes of a command.
    pub(super) bytes: u32,
    /// The blocks that it is about.
    pub(super) region: Range<u64>,
}

/// The commands of one session.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Made as they are needed.
    Made {
        load: Load,
        next: u64,
        numbers: Numbers,
    },
    /// Recorded, and at an end at some time.
    Recorded { all: Arc<Vec<Io>>, next: usize },
}

impl Source {
    /// Those of a load; sessions of different numbers go different ways.
    pub(super) fn made(load: &Load, session: usize) -> Self {
        let mut numbers = Numbers(0x2545_f491_4f6c_dd1d ^ (session as u64 + 1) << 20);
        let slots = (load.region.end - load.region.start) * BLOCK / u64::from(load.bytes);
        // They do not all begin at the same place.
        let next = numbers.below(slots.max(1));
        Source::Made {
            load: load.clone(),
            next: if session == 0 { 0 } else { next },
            numbers,
        }
    }

    /// Those of a record.
    pub(super) fn recorded(all: Arc<Vec<Io>>) -> Self {
        Source::Recorded { all, next: 0 }
    }

    /// The next command.
    pub(super) fn next(&mut self) -> Option<Io> {
        match self {
            Source::Recorded { all, next } => {
                let io = all.get(*next).copied();
                *next += 1;
                io
            }
            Source::Made {
                load,
                next,
                numbers,
            } => {
                let blocks = load.bytes / BLOCK as u32;
                let slots = (load.region.end - load.region.start) / u64::from(blocks);
                let slot = match load.order {
                    Order::Sequential => {
                        let slot = *next;
                        *next = (slot + 1) % slots.max(1);
                        slot
                    }
                    Order::Random => numbers.below(slots),
                };
                let reads = load.reads == 100 || numbers.below(100) < load.reads.into();
                Some(Io {
                    direction: if reads {
                        Direction::Read
                    } else {
                        Direction::Write
                    },
                    lba: load.region.start + slot * u64::from(blocks),
                    blocks,
                })
            }
        }
    }
}

/// The same numbers each time (xorshift64*).
#[derive(Debug, Clone)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        // The upper half of the product is as even as the number, and costs no division.
        ((u128::from(number) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(order: Order, reads: u32) -> Load {
        Load {
            order,
            reads,
            bytes: 4096,
            region: 2048..2048 + 800,
        }
    }

    #[test]
    fn a_sequence_comes_round() {
        let mut source = Source::made(&load(Order::Sequential, 100), 0);
        let lbas: Vec<u64> = (0..101).map(|_| source.next().unwrap().lba).collect();
        assert_eq!(lbas[..3], [2048, 2056, 2064]);
        assert_eq!(lbas[99..], [2840, 2048]);
    }

    #[test]
    fn any_order_stays_inside_and_goes_everywhere() {
        let mut source = Source::made(&load(Order::Random, 70), 3);
        let all: Vec<Io> = (0..10_000).map(|_| source.next().unwrap()).collect();
        assert!(
            all.iter()
                .all(|io| io.lba >= 2048 && io.lba + 8 <= 2848 && io.lba % 8 == 0)
        );
        let places: std::collections::BTreeSet<u64> = all.iter().map(|io| io.lba).collect();
        assert_eq!(places.len(), 100);
        let reads = all
            .iter()
            .filter(|io| io.direction == Direction::Read)
            .count();
        assert!((6700..7300).contains(&reads), "{reads}");
    }

    #[test]
    fn a_record_ends() {
        let io = Io {
            direction: Direction::Read,
            lba: 7,
            blocks: 1,
        };
        let mut source = Source::recorded(Arc::new(vec![io]));
        assert_eq!(source.next(), Some(io));
        assert_eq!(source.next(), None);
    }
}

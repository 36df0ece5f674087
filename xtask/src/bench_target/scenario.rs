//! What is measured, and what netroot has to reach in it.

use super::contender::Unit;
use super::load::{Load, Order};
use super::login::Manner;
use super::pattern::{BLOCK, FRONT};
use super::place::SIZE;

/// Sessions of a storm: one for each clone of the room.
pub(super) const ROOM: usize = 50;

/// Where loads write: little enough to stay in memory, so that the disk has no part in it.
const WRITTEN: u64 = 256 << 20;

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) unit: Unit,
    pub(super) work: Work,
    pub(super) floors: &'static [Floor],
}

impl Scenario {
    /// Whether a plain sendfile loop does the same without a protocol: one session reads a file from its
    /// beginning on, in large PDUs without digests.
    pub(super) fn is_like_sendfile(&self) -> bool {
        let Work::Load(shape) = self.work else {
            return false;
        };
        let is_plain = shape.sessions == 1 && shape.manner == Manner::OPEN_ISCSI;
        is_plain && shape.order == Order::Sequential && shape.reads == 100
    }
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    /// Sessions under load for a while.
    Load(Shape),
    /// One session at queue depth 1 is measured while another floods.
    Fairness { small: Shape, flood: Shape },
    /// Login and logout, one after another.
    Logins,
    /// So many sessions that do nothing.
    Idle(usize),
    /// Every client of the room reads what a boot reads.
    Storm(Shape),
}

/// The shape of a load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) sessions: usize,
    pub(super) depth: u32,
    pub(super) bytes: u32,
    pub(super) order: Order,
    /// How many of a hundred commands read.
    pub(super) reads: u32,
    pub(super) manner: Manner,
}

impl Shape {
    /// The load of one session.
    pub(super) fn load(&self) -> Load {
        let end = if self.writes() {
            FRONT + WRITTEN / BLOCK
        } else {
            SIZE / BLOCK
        };
        Load {
            order: self.order,
            reads: self.reads,
            bytes: self.bytes,
            region: FRONT..end,
        }
    }

    /// Whether any of it writes.
    pub(super) fn writes(&self) -> bool {
        self.reads < 100
    }

    const fn read(order: Order, bytes: u32, sessions: usize, depth: u32) -> Self {
        Self {
            sessions,
            depth,
            bytes,
            order,
            reads: 100,
            manner: Manner::OPEN_ISCSI,
        }
    }

    const fn reading(self, reads: u32) -> Self {
        Self { reads, ..self }
    }

    const fn with(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    const fn with_digests(self) -> Self {
        self.with(self.manner.with_digests())
    }
}

/// What has to be reached, beside the peer in the same run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Floor {
    /// So many times the peer's rate, at least.
    Ratio(f64),
    /// This part of the peer's processor time for a command, at most.
    ProcessorOfCommand(f64),
    /// The same for a MiB.
    ProcessorOfMib(f64),
    /// This part of the plain sendfile loop's rate, at least.
    OfSendfile(f64),
    /// Bytes of memory that a session takes, at most.
    Resident(f64),
    /// The slowest client takes so many times the fastest one's time, at most.
    Slowest(f64),
    /// What the clones have in the page cache by themselves, as a part of what one boot reads, at most.
    Copies(f64),
}

const THIRD: f64 = 1.0 / 3.0;

const READ_1M: Shape = Shape::read(Order::Sequential, 1 << 20, 1, 8);
const READ_256K: Shape = Shape::read(Order::Sequential, 256 << 10, 1, 32);
const READ_4K_QD1: Shape = Shape::read(Order::Random, 4096, 1, 1);
const READ_4K_QD32: Shape = Shape::read(Order::Random, 4096, 1, 32);
const READ_4K_16X4: Shape = Shape::read(Order::Random, 4096, 16, 4);
const READ_4K_100X1: Shape = Shape::read(Order::Random, 4096, 100, 1);
const IPXE: Shape = Shape::read(Order::Sequential, 256 << 10, 1, 1).with(Manner::IPXE);
const WRITE_1M: Shape = READ_1M.reading(0);
const WRITE_4K: Shape = READ_4K_QD32.reading(0);
const FLOOD: Shape = Shape::read(Order::Sequential, 1 << 20, 1, 128);
const BOOT: Shape = Shape::read(Order::Sequential, 1 << 20, ROOM, 4);

const fn load(
    name: &'static str,
    what: &'static str,
    unit: Unit,
    shape: Shape,
    floors: &'static [Floor],
) -> Scenario {
    other(name, what, unit, Work::Load(shape), floors)
}

const fn other(
    name: &'static str,
    what: &'static str,
    unit: Unit,
    work: Work,
    floors: &'static [Floor],
) -> Scenario {
    Scenario {
        name,
        what,
        unit,
        work,
        floors,
    }
}

/// All of them. Idle sessions come first: memory that a server has used before would hide theirs.
#[rustfmt::skip]
pub(super) const ALL: &[Scenario] = &[
    other("idle-1000", "1,000 sessions that do nothing", Unit::Sealed, Work::Idle(1000), &[Floor::Resident(65_536.0)]),
    load("read-1m-qd8", "sequential read 1 MiB, QD 8", Unit::Sealed, READ_1M,
        &[Floor::Ratio(2.0), Floor::OfSendfile(0.85), Floor::ProcessorOfMib(THIRD)]),
    load("read-256k-qd32", "sequential read 256 KiB, QD 32", Unit::Sealed, READ_256K, &[]),
    load("read-1m-clone", "sequential read 1 MiB, QD 8", Unit::Clone, READ_1M, &[Floor::Ratio(1.5)]),
    load("read-4k-qd1", "random read 4 KiB, QD 1", Unit::Sealed, READ_4K_QD1, &[Floor::Ratio(1.5)]),
    load("read-4k-qd32", "random read 4 KiB, QD 32", Unit::Sealed, READ_4K_QD32,
        &[Floor::Ratio(3.0), Floor::ProcessorOfCommand(THIRD)]),
    load("read-4k-16x4", "random read 4 KiB, 16 sessions x QD 4", Unit::Sealed, READ_4K_16X4, &[Floor::Ratio(3.0)]),
    load("read-4k-100x1", "random read 4 KiB, 100 sessions x QD 1", Unit::Sealed, READ_4K_100X1, &[]),
    load("digests-1m-qd8", "sequential read 1 MiB, QD 8, both digests", Unit::Sealed, READ_1M.with_digests(), &[Floor::Ratio(2.0)]),
    load("digests-256k-qd32", "sequential read 256 KiB, QD 32, both digests", Unit::Sealed, READ_256K.with_digests(), &[Floor::Ratio(2.0)]),
    load("digests-4k-qd1", "random read 4 KiB, QD 1, both digests", Unit::Sealed, READ_4K_QD1.with_digests(), &[]),
    load("digests-4k-qd32", "random read 4 KiB, QD 32, both digests", Unit::Sealed, READ_4K_QD32.with_digests(), &[]),
    load("digests-4k-16x4", "random read 4 KiB, 16 sessions x QD 4, both digests", Unit::Sealed, READ_4K_16X4.with_digests(), &[]),
    load("digests-4k-100x1", "random read 4 KiB, 100 sessions x QD 1, both digests", Unit::Sealed, READ_4K_100X1.with_digests(), &[]),
    load("ipxe-read", "iPXE: read 256 KiB in PDUs of 8 KiB, QD 1", Unit::Clone, IPXE, &[Floor::Ratio(1.3)]),
    load("ipxe-write", "iPXE: write 256 KiB in PDUs of 512 bytes, QD 1", Unit::Clone, IPXE.reading(0), &[Floor::Ratio(1.3)]),
    load("write-1m-clone", "sequential write 1 MiB, QD 8", Unit::Clone, WRITE_1M, &[Floor::Ratio(1.3)]),
    load("write-1m-overlay", "sequential write 1 MiB, QD 8", Unit::Overlay, WRITE_1M, &[Floor::Ratio(1.3)]),
    load("write-4k-clone", "random write 4 KiB, QD 32", Unit::Clone, WRITE_4K, &[Floor::Ratio(2.0)]),
    load("write-4k-overlay", "random write 4 KiB, QD 32", Unit::Overlay, WRITE_4K, &[Floor::Ratio(2.0)]),
    load("mixed-4k", "random 4 KiB, 70 % reads, QD 32", Unit::Volume, READ_4K_QD32.reading(70), &[]),
    other("logins", "login and logout, one after another", Unit::Sealed, Work::Logins, &[]),
    other("fairness", "random read 4 KiB, QD 1, while another session floods with 1 MiB, QD 128", Unit::Sealed,
        Work::Fairness { small: READ_4K_QD1, flood: FLOOD }, &[Floor::Ratio(3.0)]),
    other("storm", "50 clients boot at once: what a recorded boot reads, and again elsewhere, to 200 MiB", Unit::Room, Work::Storm(BOOT),
        &[Floor::Ratio(3.0), Floor::Slowest(1.3), Floor::Copies(0.1)]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_names_of_one() {
        let names: BTreeSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn nobody_writes_a_version() {
        for scenario in ALL.iter().filter(|scenario| scenario.unit == Unit::Sealed) {
            if let Work::Load(shape) = scenario.work {
                assert!(!shape.writes(), "{}", scenario.name);
            }
        }
    }

    #[test]
    fn plain_streams_stand_beside_the_sendfile_loop() {
        let streams = ALL.iter().filter(|scenario| scenario.is_like_sendfile());
        let names: Vec<_> = streams.map(|scenario| scenario.name).collect();
        assert_eq!(names, ["read-1m-qd8", "read-256k-qd32", "read-1m-clone"]);
    }

    #[test]
    fn loads_leave_the_front_alone() {
        let load = READ_1M.load();
        assert_eq!(load.region, 2048..2_097_152);
        assert_eq!(WRITE_4K.load().region, 2048..2048 + 524_288);
    }
}

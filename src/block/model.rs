//! The model that every disk is held against: an array of bytes.

use bytes::Bytes;
use proptest::prelude::*;

use super::{Disk, segment};

/// Size of the disks in these tests, not a multiple of a grain.
pub(super) const BLOCKS: u64 = 67;

/// One request, in blocks.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Read(u64, u64),
    Write(u64, u64, u8),
    Unmap(u64, u64),
    Flush,
}

/// Sequences of requests within a disk of `blocks` blocks.
pub(super) fn ops(blocks: u64) -> impl Strategy<Value = Vec<Op>> {
    let extent = (0..blocks).prop_flat_map(move |lba| (Just(lba), 0..=(blocks - lba).min(24)));
    let op = prop_oneof![
        3 => extent.clone().prop_map(|(lba, n)| Op::Read(lba, n)),
        4 => (extent.clone(), 1u8..).prop_map(|((lba, n), b)| Op::Write(lba, n, b)),
        2 => extent.prop_map(|(lba, n)| Op::Unmap(lba, n)),
        1 => Just(Op::Flush),
    ];
    proptest::collection::vec(op, 1..40)
}

/// The bytes of a write: they differ from block to block, and come in uneven slices.
pub(super) fn pattern(blocks: u64, seed: u8) -> Vec<u8> {
    (0..blocks * 512)
        .map(|i| seed.wrapping_add((i / 512) as u8).max(1))
        .collect()
}

/// Runs `ops` on `disk` and on `model`, and compares every read and the whole at the end.
pub(super) fn check(disk: &dyn Disk, mut model: Vec<u8>, ops: Vec<Op>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for op in ops {
            run(disk, &mut model, op).await;
        }
        let all = Op::Read(0, disk.geometry().blocks);
        run(disk, &mut model, all).await;
    });
}

/// What a request makes of the model.
pub(super) fn foretell(model: &mut [u8], op: &Op) {
    let range = |lba: u64, n: u64| (lba * 512) as usize..((lba + n) * 512) as usize;
    match *op {
        Op::Write(lba, n, seed) => model[range(lba, n)].copy_from_slice(&pattern(n, seed)),
        Op::Unmap(lba, n) => model[range(lba, n)].fill(0),
        Op::Read(..) | Op::Flush => {}
    }
}

/// Runs one request on both.
pub(super) async fn run(disk: &dyn Disk, model: &mut [u8], op: Op) {
    let extent = |lba, n| disk.geometry().extent(lba, n).unwrap();
    foretell(model, &op);
    match op {
        Op::Read(lba, n) => {
            let range = (lba * 512) as usize..((lba + n) * 512) as usize;
            let segments = disk.read(extent(lba, n)).wait().await.unwrap();
            assert_eq!(segment::total(&segments), n * 512);
            let bytes = segment::load(segments).wait().await.unwrap();
            assert!(bytes[..] == model[range], "read of {n} at {lba}");
        }
        Op::Write(lba, n, seed) => {
            let data = pattern(n, seed);
            let (head, tail) = data.split_at(data.len() / 3);
            let slices = vec![Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)];
            disk.write(extent(lba, n), slices).wait().await.unwrap();
        }
        Op::Unmap(lba, n) => disk.unmap(extent(lba, n)).wait().await.unwrap(),
        Op::Flush => disk.flush().wait().await.unwrap(),
    }
}

//! Vital product data of block devices (SBC-3 §6.6): what they do at most, and at best.

use super::atomic::MAX_COMPARE_BLOCKS;
use super::cache::MAX_PREFETCH;
use super::kinds::Kinds;
use super::medium::{MAX_TRANSFER, OPTIMAL_TRANSFER};
use super::provisioning::{MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BLOCKS};
use crate::block::Geometry;

/// Block limits (B0h, SBC-3 §6.6.4, SBC-4 §6.6.4).
pub(super) fn block_limits(geometry: &Geometry) -> Vec<u8> {
    let blocks = |bytes: u32| (bytes / geometry.block_size).to_be_bytes();
    let [_, _, g0, g1] = blocks(geometry.physical_block_size);
    let mut data = vec![0; 60];
    put(&mut data, 0, &[0x01]); // WSNZ: WRITE SAME needs a number of blocks
    put(&mut data, 2, &[g0, g1]); // OPTIMAL TRANSFER LENGTH GRANULARITY
    put(&mut data, 4, &blocks(MAX_TRANSFER));
    put(&mut data, 8, &blocks(OPTIMAL_TRANSFER));
    put(&mut data, 12, &blocks(MAX_PREFETCH));
    if geometry.read_only {
        return data;
    }
    put(&mut data, 1, &[MAX_COMPARE_BLOCKS]); // MAXIMUM COMPARE AND WRITE LENGTH
    if geometry.thin {
        put(&mut data, 16, &MAX_UNMAP_BLOCKS.to_be_bytes());
        put(&mut data, 20, &MAX_UNMAP_DESCRIPTORS.to_be_bytes());
        put(&mut data, 24, &blocks(geometry.unmap_size)); // OPTIMAL UNMAP GRANULARITY
        // UGAVALID and UNMAP GRANULARITY ALIGNMENT.
        put(
            &mut data,
            28,
            &(0x8000_0000 | geometry.unmap_aligned).to_be_bytes(),
        );
    }
    put(
        &mut data,
        32,
        &u64::from(MAX_WRITE_SAME_BLOCKS).to_be_bytes(),
    );
    // MAXIMUM ATOMIC TRANSFER LENGTH. No alignment, granularity or boundary.
    put(&mut data, 40, &blocks(geometry.atomic.min(MAX_TRANSFER)));
    data
}

/// Block device characteristics (B1h, SBC-3 §6.6.3, SBC-4): nothing rotates.
pub(super) fn characteristics(kinds: Kinds) -> Vec<u8> {
    let mut data = vec![0; 60];
    put(&mut data, 0, &[0x00, 0x01]);
    if kinds.may_be_sanitized() {
        // WABEREQ: after a block erase, reads succeed.
        put(&mut data, 3, &[0x40]);
    }
    // VBULS: VERIFY compares blocks that are not mapped as well, with zeros (SBC-4, VERIFY).
    put(&mut data, 4, &[0x01]);
    data
}

/// Logical block provisioning (B2h, SBC-3 §6.6.5); agrees with READ CAPACITY(16).
pub(super) fn provisioning(geometry: &Geometry) -> Vec<u8> {
    if geometry.thin {
        // LBPU, LBPWS, LBPWS10, LBPRZ; PROVISIONING TYPE thin.
        vec![0, 0xe4, 0x02, 0]
    } else {
        vec![0, 0, 0, 0]
    }
}

/// Puts `bytes` at `at`; both are constants of this file, within the page.
fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in data.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

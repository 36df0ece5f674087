//! Commands to units that are not the initiator's, and to blocks that are not there.

use super::super::server::OVERLAY;
use super::*;

/// CDBs of 16 bytes that name blocks: opcode and flags.
const ON_BLOCKS: [(&str, u8, u8, bool); 9] = [
    ("READ(16)", 0x88, 0, false),
    ("WRITE(16)", 0x8a, 0, true),
    ("WRITE AND VERIFY(16)", 0x8e, 0, true),
    ("VERIFY(16)", 0x8f, 0x02, true),
    ("ORWRITE(16)", 0x8b, 0, true),
    ("WRITE SAME(16)", 0x93, 0, true),
    ("WRITE SAME(16) that unmaps", 0x93, 0x08, true),
    ("PRE-FETCH(16)", 0x90, 0, false),
    ("SYNCHRONIZE CACHE(16)", 0x91, 0, false),
];

fn on_blocks(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = ON_BLOCKS
        .into_iter()
        .map(|(name, opcode, flags, writes)| {
            inside(
                format!("{name} beyond the end"),
                Alive,
                move |mut peer| async move {
                    // The last block and one more; far beyond; an end that does not fit in 64 bits.
                    for lba in [SIZE / 512, 1 << 40, u64::MAX] {
                        let cdb = on_blocks(opcode, flags, lba, 1);
                        let data = if writes { &[1; 512][..] } else { b"" };
                        let reads = if opcode == 0x88 { 512 } else { 0 };
                        // SBC-3 §5.4: LOGICAL BLOCK ADDRESS OUT OF RANGE.
                        assert_eq!(peer.sense(cdb, reads, data).await, (5, 0x2100));
                    }
                    peer
                },
            )
        })
        .collect();
    cases.push(inside(
        "COMPARE AND WRITE beyond the end",
        Alive,
        |mut peer| async {
            let mut cdb = on_blocks(0x89, 0, u64::MAX, 0);
            cdb[13] = 1;
            assert_eq!(peer.sense(cdb, 0, &[0; 1024]).await, (5, 0x2100));
            peer
        },
    ));
    cases.push(inside(
        "GET LBA STATUS beyond the end",
        Alive,
        |mut peer| async {
            let cdb = on_blocks(0x9e, 0x12, u64::MAX, 512);
            assert_eq!(peer.sense(cdb, 512, b"").await, (5, 0x2100));
            peer
        },
    ));
    cases.push(inside(
        "a range that goes round the end of numbers",
        Alive,
        |mut peer| async {
            let cdb = on_blocks(0x88, 0, u64::MAX - 3, 16);
            assert_eq!(peer.sense(cdb, 16 * 512, b"").await.0, 5);
            peer
        },
    ));
    cases.push(inside(
        "opcodes that there are not",
        Alive,
        |mut peer| async {
            for opcode in [0x04, 0x3b, 0x7f, 0xc0, 0xff] {
                let mut cdb = [0; 16];
                cdb[0] = opcode;
                assert_eq!(peer.sense(cdb, 0, b"").await, (5, 0x2000), "{opcode:#04x}");
            }
            peer
        },
    ));
    cases.extend(foreign());
    cases
}

/// Units that are another target's, or nobody's.
fn foreign() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("that there is not", [0, 2, 0, 0, 0, 0, 0, 0]),
        ("far away", [0x7f, 0xff, 0, 0, 0, 0, 0, 0]),
        ("on the second level", [0, 1, 0, 1, 0, 0, 0, 0]),
        ("with an extended address", [0xd2, 0, 0, 1, 0, 0, 0, 0]),
        ("that is not specified", [0xff; 8]),
    ]
    .into_iter()
    .map(|(name, lun)| {
        inside(
            format!("a unit {name}"),
            Alive,
            move |mut peer| async move {
                let mut write = peer.scsi(write_10(BLOCK, 1));
                (write.lun, write.write, write.expected_len) = (lun, true, 512);
                peer.send(write.emit(), &[1; 512]).await;
                let answer = peer.receive().await.unwrap();
                assert_eq!((answer.opcode(), answer.bhs[3]), (Opcode::ScsiResponse, 2));
                // LOGICAL UNIT NOT SUPPORTED.
                assert_eq!(
                    (answer.data[4] & 0xf, &answer.data[14..16]),
                    (5, &[0x25, 0][..])
                );
                peer
            },
        )
    })
    .collect();
    cases.push(inside(
        "a write to a unit that only looks like ours",
        Alive,
        |mut peer| async {
            // The controller at LUN 0 has no blocks.
            let mut write = peer.scsi(write_10(BLOCK, 1));
            (write.lun, write.write, write.expected_len) = ([0; 8], true, 512);
            peer.send(write.emit(), &[1; 512]).await;
            let answer = peer.receive().await.unwrap();
            assert_eq!((answer.opcode(), answer.bhs[3]), (Opcode::ScsiResponse, 2));
            peer
        },
    ));
    // CVE-2020-28374: a copy from and to units that the initiator has no way to.
    cases.push(inside(
        "EXTENDED COPY from another target's unit",
        Alive,
        |mut peer| async {
            let mut other = Peer::login(peer.server(), OVERLAY, 9).await;
            let mut inquiry = [0; 16];
            (inquiry[0], inquiry[1], inquiry[2], inquiry[4]) = (0x12, 1, 0x83, 255);
            let (foreign, own) = (
                other.command(inquiry, 255, b"").await.1,
                peer.command(inquiry, 255, b"").await.1,
            );
            for (from, to) in [(&foreign, &own), (&own, &foreign)] {
                let list = copy(&from[8..16], &to[8..16]);
                let mut cdb = [0; 16];
                (cdb[0], cdb[13]) = (0x83, list.len() as u8);
                // COPY TARGET DEVICE NOT REACHABLE.
                assert_eq!(peer.sense(cdb, 0, &list).await, (0xa, 0x0d02));
            }
            peer
        },
    ));
    cases
}

/// A list that copies a block from one unit to another (SPC-4 §6.4).
fn copy(from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut list = vec![1, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
    for naa in [from, to] {
        let end = list.len() + 32;
        list.extend([0xe4, 0, 0, 0, 1, 3, 0, naa.len() as u8]);
        list.extend(naa);
        list.resize(end, 0);
    }
    list.extend([2, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 1]);
    list.extend(u64::from(BLOCK).to_be_bytes());
    list.extend(200u64.to_be_bytes());
    list
}

#[tokio::test]
async fn commands_reach_nothing_that_is_not_their_initiators() {
    play(cases()).await;
}

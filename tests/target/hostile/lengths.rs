//! Lengths that lie: of data segments, additional headers, transfers and parameter lists.

use netroot::iscsi::wire::{Stage, set_lengths};

use super::*;

/// A CDB of 16 bytes from its first ones.
fn cdb<const N: usize>(bytes: [u8; N]) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..N].copy_from_slice(&bytes);
    cdb
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = headers();
    cases.extend(transfers());
    cases.extend(lists());
    cases
}

/// Lengths in the basic header segment.
fn headers() -> Vec<Case> {
    let mut cases = Vec::new();
    // CVE-2011-0001: a login's data segment that is longer than what was declared.
    for len in [8193, 0x00ff_ffff] {
        let name = format!("a login with {len} bytes of data");
        cases.push(outside(name, move |mut peer| async move {
            let mut bhs = peer.login_request(Stage::Security, None).emit();
            set_lengths(&mut bhs, len);
            peer.raw(&bhs).await;
            peer.raw(&[b'x'; 9000]).await;
            peer
        }));
    }
    cases.push(outside("additional headers on a login", |mut peer| async {
        let mut bhs = peer.login_request(Stage::Security, None).emit();
        bhs[4] = 255;
        peer.raw(&bhs).await;
        peer.raw(&[0; 2048]).await;
        peer
    }));
    for (name, content) in [("zeros", 0), ("ones", 0xff), ("a length too long", 0x7f)] {
        let name = format!("additional headers of a command: {name}");
        cases.push(inside(name, Alive, move |mut peer| async move {
            let mut bhs = peer.scsi([0; 16]).emit();
            bhs[4] = 255;
            peer.raw(&bhs).await;
            peer.raw(&[content; 255 * 4]).await;
            assert_eq!(peer.receive().await.unwrap().opcode(), Opcode::ScsiResponse);
            peer
        }));
    }
    // RFC 7143 §11.2.2: only commands have them.
    cases.push(inside(
        "additional headers on data",
        Closed,
        |mut peer| async {
            let (itt, ttt) = asked(&mut peer).await;
            let mut bhs = data_out(itt, ttt).emit();
            bhs[4] = 1;
            peer.raw(&bhs).await;
            peer.raw(&[0; 4]).await;
            peer
        },
    ));
    for len in [0x0010_0001, 0x00ff_ffff] {
        let name = format!("a command with {len} bytes of data");
        cases.push(inside(name, Closed, move |mut peer| async move {
            let mut bhs = peer.scsi(write_10(0, 1)).emit();
            set_lengths(&mut bhs, len);
            peer.raw(&bhs).await;
            peer
        }));
    }
    cases.push(inside(
        "a data segment that never ends",
        Closed,
        |mut peer| async {
            let mut bhs = peer.scsi(write_10(0, 1)).emit();
            set_lengths(&mut bhs, 512);
            peer.raw(&bhs).await;
            peer.raw(&[1; 511]).await;
            peer.finish().await;
            peer
        },
    ));
    cases
}

/// What the initiator expects to transfer is not what its command says.
fn transfers() -> Vec<Case> {
    vec![
        inside(
            "a read that expects 4 GiB of a block",
            Alive,
            |mut peer| async {
                let mut read = peer.scsi(read_10(BLOCK, 1));
                (read.read, read.expected_len) = (true, u32::MAX);
                peer.send(read.emit(), b"").await;
                let data = peer.receive().await.unwrap();
                assert_eq!((data.opcode(), data.data.len()), (Opcode::DataIn, 512));
                let answer = peer.receive().await.unwrap();
                // RFC 7143 §11.4.5.1: underflow, and what is missing.
                assert_eq!((answer.bhs[1] & 0x06, answer.bhs[3]), (0x02, 0));
                assert_eq!(answer.bhs[44..48], (u32::MAX - 512).to_be_bytes());
                peer
            },
        ),
        inside(
            "a read that expects less than a block",
            Alive,
            |mut peer| async {
                let mut read = peer.scsi(read_10(BLOCK, 2));
                (read.read, read.expected_len) = (true, 100);
                peer.send(read.emit(), b"").await;
                let data = peer.receive().await.unwrap();
                assert_eq!((data.opcode(), data.data.len()), (Opcode::DataIn, 100));
                let answer = peer.receive().await.unwrap();
                assert_eq!(answer.bhs[1] & 0x06, 0x04, "overflow");
                assert_eq!(answer.bhs[44..48], 924u32.to_be_bytes());
                peer
            },
        ),
        inside(
            "a write that has 4 GiB for a block",
            Alive,
            |mut peer| async {
                let mut write = peer.scsi(write_10(100, 1));
                (write.write, write.expected_len) = (true, u32::MAX);
                peer.send(write.emit(), b"").await;
                let r2t = peer.receive().await.unwrap();
                assert_eq!(r2t.opcode(), Opcode::R2t);
                // No more is asked for than the command takes.
                assert_eq!(r2t.bhs[44..48], 512u32.to_be_bytes());
                let ttt = u32::from_be_bytes(r2t.bhs[20..24].try_into().unwrap());
                peer.send(data_out(write.itt, Tag(ttt)).emit(), &[0; 512])
                    .await;
                assert_eq!(peer.receive().await.unwrap().opcode(), Opcode::ScsiResponse);
                peer
            },
        ),
        inside(
            "a write that has nothing for a block",
            Alive,
            |mut peer| async {
                let write = peer.scsi(write_10(BLOCK, 1));
                peer.send(write.emit(), b"").await;
                let answer = peer.receive().await.unwrap();
                assert_eq!(answer.opcode(), Opcode::ScsiResponse);
                peer
            },
        ),
        inside("a command in both directions", Alive, |mut peer| async {
            let mut both = peer.scsi(write_10(BLOCK, 1));
            (both.read, both.write, both.expected_len) = (true, true, 512);
            peer.send(both.emit(), b"").await;
            let answer = peer.receive().await.unwrap();
            assert_eq!((answer.opcode(), answer.bhs[3]), (Opcode::ScsiResponse, 2));
            peer
        }),
        inside("a transfer above the limit", Alive, |mut peer| async {
            // 16 MiB less a block, of a disk that has 8.
            let read = cdb([0xa8, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0, 0]);
            let (key, _) = peer.sense(read, 16 << 20, b"").await;
            assert_eq!(key, 5);
            peer
        }),
    ]
}

/// Parameter lists (CVE-2020-1711, CVE-2024-42416): what is said of a list is held against the list.
fn lists() -> Vec<Case> {
    let unmap = |list: &[u8]| {
        (
            cdb([0x42, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0]),
            list.to_vec(),
        )
    };
    let select = |list: &[u8]| (cdb([0x15, 0x10, 0, 0, list.len() as u8, 0]), list.to_vec());
    let reserve = |len: u8, n: usize| (cdb([0x5f, 0, 0, 0, 0, 0, 0, 0, len, 0]), vec![0; n]);
    let copy = |list: &[u8]| {
        let len = list.len() as u8;
        let cdb = cdb([0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, len, 0, 0]);
        (cdb, list.to_vec())
    };
    let descriptor = [&0u64.to_be_bytes()[..], &u32::MAX.to_be_bytes(), &[0; 4]].concat();
    let beyond = [&[0, 22, 0, 16, 0, 0, 0, 0][..], &descriptor].concat();
    [
        (
            "UNMAP with half a header",
            unmap(&[0, 22, 0]),
            Some((5, 0x1a00)),
        ),
        (
            "UNMAP of blocks beyond the end",
            unmap(&beyond),
            Some((5, 0)),
        ),
        (
            "UNMAP with a count of 64 KiB in 8 bytes",
            unmap(&[0xff; 8]),
            None,
        ),
        (
            "MODE SELECT with half a header",
            select(&[0, 0]),
            Some((5, 0x1a00)),
        ),
        (
            "MODE SELECT with a page longer than its list",
            select(&[0, 0, 0, 0, 0x0a, 0xff, 0]),
            Some((5, 0)),
        ),
        (
            "MODE SELECT with descriptors longer than its list",
            select(&[0, 0, 0, 0xff]),
            Some((5, 0x1a00)),
        ),
        (
            "PERSISTENT RESERVE OUT with a short list",
            reserve(8, 8),
            Some((5, 0x1a00)),
        ),
        (
            "PERSISTENT RESERVE OUT with less than it says",
            reserve(24, 8),
            Some((5, 0x1a00)),
        ),
        (
            "EXTENDED COPY with half a header",
            copy(&[1, 0, 0, 32]),
            Some((5, 0)),
        ),
        (
            "EXTENDED COPY with descriptors that are not there",
            copy(&[1, 0, 0xff, 0xe0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]),
            Some((5, 0)),
        ),
    ]
    .into_iter()
    .map(|(name, (cdb, list), expected)| {
        inside(name, Alive, move |mut peer| async move {
            match expected {
                // 0 stands for any code.
                Some((key, code)) => {
                    let told = peer.sense(cdb, 0, &list).await;
                    assert_eq!((told.0, if code == 0 { 0 } else { told.1 }), (key, code));
                }
                // An incomplete descriptor is none (SBC-3 §5.28.2).
                None => assert_eq!(peer.command(cdb, 0, &list).await.0, 0),
            }
            peer
        })
    })
    .collect()
}

#[tokio::test]
async fn lengths_that_lie_are_found_out() {
    play(cases()).await;
}

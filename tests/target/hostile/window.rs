//! Numbers and tags of commands, and PDUs that a target does not take.

use netroot::iscsi::wire::{LogoutRequest, TaskRequest, TaskResponse};

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("far ahead", 5000u32),
        ("half the numbers ahead", 0x8000_0000),
        ("the one before", u32::MAX),
        ("just beyond the window", 129),
    ]
    .into_iter()
    .map(|(name, ahead)| {
        inside(
            format!("a command number {name}"),
            Alive,
            move |mut peer| async move {
                // RFC 7143 §4.2.2.1: ignored, and not answered.
                let mut write = peer.scsi(write_10(BLOCK, 1));
                peer.cmd_sn = peer.cmd_sn.wrapping_sub(1);
                write.cmd_sn = Serial(peer.cmd_sn.wrapping_add(ahead));
                (write.write, write.expected_len) = (true, 512);
                peer.send(write.emit(), &[1; 512]).await;
                peer
            },
        )
    })
    .collect();
    cases.extend([
        inside(
            "a gap in the numbers that is closed later",
            Alive,
            |mut peer| async {
                let first = peer.scsi([0; 16]);
                let second = peer.scsi([0; 16]);
                peer.send(second.emit(), b"").await;
                peer.send(first.emit(), b"").await;
                for itt in [first.itt, second.itt] {
                    let answer = peer.receive().await.unwrap();
                    assert_eq!(answer.bhs[16..20], itt.0.to_be_bytes(), "in their order");
                }
                peer
            },
        ),
        inside(
            "a gap in the numbers that stays, and megabytes behind it",
            Closed,
            |mut peer| async {
                peer.cmd_sn += 1;
                for _ in 0..100 {
                    let mut write = peer.scsi(write_10(100, 512));
                    (write.write, write.expected_len) = (true, 262_144);
                    peer.send(write.emit(), &vec![1; 65536]).await;
                }
                peer
            },
        ),
        inside("the same command twice", Alive, |mut peer| async {
            let ready = peer.scsi([0; 16]);
            peer.send(ready.emit(), b"").await;
            peer.send(ready.emit(), b"").await;
            // The second one has an old number: there is one answer.
            assert_eq!(peer.receive().await.unwrap().opcode(), Opcode::ScsiResponse);
            peer
        }),
        inside("the same tag twice", Alive, |mut peer| async {
            let (itt, _) = asked(&mut peer).await;
            let mut again = peer.scsi([0; 16]);
            again.itt = itt;
            peer.send(again.emit(), b"").await;
            rejected(&mut peer, Reject::TASK_IN_PROGRESS, itt).await;
            peer
        }),
        inside("immediate commands without end", Closed, |mut peer| async {
            let mut refused = false;
            for _ in 0..200 {
                let mut write = peer.scsi(write_10(100, 2));
                peer.cmd_sn -= 1;
                (write.immediate, write.write, write.expected_len) = (true, true, 1024);
                peer.send(write.emit(), b"").await;
                refused |= peer.receive().await.unwrap().opcode() == Opcode::Reject;
            }
            assert!(refused, "all of them are taken");
            // The good sessions are served while these wait; then this peer breaks a rule.
            peer.send(data_out(Tag(2), Tag(7777)).emit(), &[1; 512])
                .await;
            peer
        }),
    ]);
    cases.extend(strangers());
    cases.extend(functions());
    cases
}

/// Opcodes of targets, and of nobody.
fn strangers() -> Vec<Case> {
    [
        (0x07, Reject::NOT_SUPPORTED),
        (0x1c, Reject::NOT_SUPPORTED),
        (0x1f, Reject::NOT_SUPPORTED),
        (0x20, Reject::NOT_SUPPORTED),
        (0x21, Reject::NOT_SUPPORTED),
        (0x25, Reject::NOT_SUPPORTED),
        (0x31, Reject::NOT_SUPPORTED),
        (0x3f, Reject::NOT_SUPPORTED),
        // SNACK, which error recovery level 0 does not have (RFC 7143 §11.16).
        (0x10, Reject::SNACK),
    ]
    .into_iter()
    .map(|(opcode, reason)| {
        inside(
            format!("the opcode {opcode:#04x}"),
            Alive,
            move |mut peer| async move {
                let command = peer.scsi([0; 16]);
                peer.cmd_sn -= 1;
                let mut bhs = command.emit();
                bhs[0] = opcode | 0x40;
                peer.send(bhs, b"").await;
                rejected(&mut peer, reason, command.itt).await;
                peer
            },
        )
    })
    .collect()
}

/// Task management and logouts that make no sense.
fn functions() -> Vec<Case> {
    let manage = |function, lun, cmd_sn| TaskRequest {
        immediate: true,
        function,
        lun,
        itt: Tag(0x5000_0000),
        referenced_itt: Tag(0x6000_0000),
        cmd_sn: Serial(cmd_sn),
        exp_stat_sn: Serial(0),
        ref_cmd_sn: Serial(cmd_sn.wrapping_sub(100)),
    };
    let mut cases: Vec<Case> = [
        ("of a command that never was", 1, LUN, TaskResponse::NO_TASK),
        (
            "to clear an ACA, which there is not",
            3,
            LUN,
            TaskResponse::NOT_SUPPORTED,
        ),
        (
            "to reset a unit that there is not",
            5,
            [0, 9, 0, 0, 0, 0, 0, 0],
            TaskResponse::NO_LUN,
        ),
        (
            "to clear a unit that there is not",
            4,
            [0xff; 8],
            TaskResponse::NO_LUN,
        ),
        // Allegiance reassignment belongs to error recovery level 2 (§11.6.1).
        ("to reassign a task", 8, LUN, 4),
        ("of no standard", 0x55, LUN, TaskResponse::NOT_SUPPORTED),
    ]
    .into_iter()
    .map(|(name, function, lun, expected)| {
        inside(
            format!("a function {name}"),
            Alive,
            move |mut peer| async move {
                peer.send(manage(function, lun, peer.cmd_sn).emit(), b"")
                    .await;
                let answer = peer.receive().await.unwrap();
                let answer = TaskResponse::parse(&answer.bhs).unwrap();
                assert_eq!((answer.itt, answer.response), (Tag(0x5000_0000), expected));
                peer
            },
        )
    })
    .collect();
    for (name, reason, cid, expected) in [
        ("of a connection that there is not", 1, 7, 1),
        ("for recovery", 2, 0, 2),
        ("for no reason", 0x55, 0, 2),
    ] {
        cases.push(inside(
            format!("a logout {name}"),
            Alive,
            move |mut peer| async move {
                let logout = LogoutRequest {
                    immediate: true,
                    reason,
                    itt: Tag(90),
                    cid,
                    cmd_sn: Serial(peer.cmd_sn),
                    exp_stat_sn: Serial(0),
                };
                peer.send(logout.emit(), b"").await;
                let answer = peer.receive().await.unwrap();
                assert_eq!(
                    (answer.opcode(), answer.bhs[2]),
                    (Opcode::LogoutResponse, expected)
                );
                peer
            },
        ));
    }
    cases
}

#[tokio::test]
async fn numbers_and_requests_out_of_place_do_nothing() {
    play(cases()).await;
}

//! Data from the initiator: with the wrong tag, offset, order, amount, or after the end.

use netroot::iscsi::wire::ScsiCommand;

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = answers();
    cases.extend(unasked());
    cases.push(inside("data for no command", Alive, |mut peer| async {
        peer.send(data_out(Tag(4711), Tag(3)).emit(), &[1; 512])
            .await;
        peer
    }));
    cases.push(inside(
        "data after the end of their command",
        Alive,
        |mut peer| async {
            let mut write = peer.scsi(write_10(100, 1));
            (write.write, write.expected_len) = (true, 512);
            peer.send(write.emit(), &[0; 512]).await;
            assert_eq!(peer.receive().await.unwrap().opcode(), Opcode::ScsiResponse);
            // They may have been on their way while the command was aborted: they are dropped.
            for ttt in [Tag(0), Tag::NONE] {
                peer.send(data_out(write.itt, ttt).emit(), &[1; 512]).await;
            }
            peer
        },
    ));
    cases.push(inside(
        "data with the wrong unit",
        Alive,
        |mut peer| async {
            let (itt, ttt) = asked(&mut peer).await;
            // Windows does not set it: the command's counts.
            let mut header = data_out(itt, ttt);
            header.lun = [0xff; 8];
            peer.send(header.emit(), &[0; 1024]).await;
            assert_eq!(peer.receive().await.unwrap().opcode(), Opcode::ScsiResponse);
            peer
        },
    ));
    cases
}

/// Answers to an R2T for 1024 bytes, with 512 bytes of data where nothing else is said.
fn answers() -> Vec<Case> {
    let changes: [(usize, Change<DataOut>); 8] = [
        (512, ("beyond the command", |d| d.offset = 0xffff_fe00)),
        (512, ("before where it was asked for", |d| d.offset = 1)),
        (512, ("not from the start", |d| d.offset = 512)),
        (
            512,
            ("for another transfer", |d| {
                d.ttt = Tag(d.ttt.0.wrapping_add(1))
            }),
        ),
        (512, ("that nobody asked for", |d| d.ttt = Tag::NONE)),
        (512, ("ended too early", |_| ())),
        (1024, ("not ended at the end", |d| d.last = false)),
        (4096, ("more than was asked for", |_| ())),
    ];
    let mut cases: Vec<Case> = changes
        .into_iter()
        .map(|(len, (name, change))| {
            inside(format!("data {name}"), Closed, move |mut peer| async move {
                let (itt, ttt) = asked(&mut peer).await;
                let mut header = data_out(itt, ttt);
                change(&mut header);
                peer.send(header.emit(), &vec![1; len]).await;
                rejected(&mut peer, Reject::PROTOCOL_ERROR, itt).await;
                peer
            })
        })
        .collect();
    // RFC 7143 §7.9: some got lost, so their command ends; nothing of it reaches the disk.
    for (name, data_sn) in [("a gap", 27), ("a number from nowhere", u32::MAX)] {
        let name = format!("data with {name}");
        cases.push(inside(name, Alive, move |mut peer| async move {
            let (itt, ttt) = asked(&mut peer).await;
            let mut header = data_out(itt, ttt);
            header.data_sn = data_sn;
            peer.send(header.emit(), &[1; 1024]).await;
            lost(&mut peer, itt).await;
            peer
        }));
    }
    cases.push(inside("the same data twice", Alive, |mut peer| async {
        let (itt, ttt) = asked(&mut peer).await;
        let mut header = data_out(itt, ttt);
        header.last = false;
        peer.send(header.emit(), &[1; 512]).await;
        peer.send(header.emit(), &[1; 512]).await;
        (header.last, header.data_sn, header.offset) = (true, 1, 512);
        peer.send(header.emit(), &[1; 512]).await;
        lost(&mut peer, itt).await;
        peer
    }));
    cases
}

/// The command ends with ABORTED COMMAND.
async fn lost(peer: &mut Peer, itt: Tag) {
    let answer = peer.receive().await.unwrap();
    assert_eq!((answer.opcode(), answer.bhs[3]), (Opcode::ScsiResponse, 2));
    assert_eq!(answer.bhs[16..20], itt.0.to_be_bytes());
    assert_eq!(answer.data[4] & 0xf, 0xb);
}

/// Data with a command, or announced by it.
fn unasked() -> Vec<Case> {
    let commands: [(u32, usize, Change<ScsiCommand>); 5] = [
        (512, 1024, ("more than their command says", |_| ())),
        (600 * 512, 600 * 512, ("more than the first burst", |_| ())),
        (
            512,
            512,
            ("with a read", |c| (c.read, c.write) = (true, false)),
        ),
        (
            0,
            512,
            ("with a command that has none", |c| c.write = false),
        ),
        // InitialR2T is Yes where nothing else was agreed on (RFC 7143 §13.10).
        (
            1024,
            512,
            ("announced against the agreement", |c| c.last = false),
        ),
    ];
    commands
        .into_iter()
        .map(|(expected, len, (name, change))| {
            inside(
                format!("data with a command: {name}"),
                Closed,
                move |mut peer| async move {
                    let mut write = peer.scsi(write_10(100, 2));
                    (write.write, write.expected_len) = (true, expected);
                    change(&mut write);
                    peer.send(write.emit(), &vec![1; len]).await;
                    rejected(&mut peer, Reject::PROTOCOL_ERROR, write.itt).await;
                    peer
                },
            )
        })
        .collect()
}

#[tokio::test]
async fn data_that_break_the_rules_reach_no_disk() {
    play(cases()).await;
}

//! Logins that go where they must not: every stage transition that RFC 7143 §6.3.1 and §11.12.3 do not
//! have, and requests that do not belong to the login that they stand in.

use netroot::iscsi::wire::{LoginRequest, Stage};

use super::*;

/// T, and C, of the second byte.
const T: u8 = 0x80;
const C: u8 = 0x40;

fn names() -> Vec<u8> {
    format!("InitiatorName=iqn.x:y\0TargetName={MEMORY}\0").into_bytes()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = firsts();
    cases.extend(seconds());
    cases.push(inside(
        "a login within a session",
        Closed,
        |mut peer| async {
            let login = peer.login_request(Stage::Security, None);
            peer.send(login.emit(), &names()).await;
            rejected(&mut peer, Reject::PROTOCOL_ERROR, login.itt).await;
            peer
        },
    ));
    cases
}

/// First requests, by their flags, current and next stage.
fn firsts() -> Vec<Case> {
    let mut flags = Vec::new();
    for (csg, nsg) in [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)] {
        flags.push((
            format!("from stage {csg} to stage {nsg}"),
            T | csg << 2 | nsg,
        ));
    }
    for csg in [2, 3] {
        flags.push((format!("in stage {csg}"), csg << 2));
        for nsg in 0..4 {
            let name = format!("from stage {csg}, which no login is in, to stage {nsg}");
            flags.push((name, T | csg << 2 | nsg));
        }
    }
    // §11.12.2: what has more text to say cannot go on to the next stage.
    flags.push((
        "on to the next stage in the middle of text".into(),
        T | C | 0x01,
    ));
    let mut cases: Vec<Case> = flags
        .into_iter()
        .map(|(name, byte)| {
            outside(name, move |mut peer| async move {
                let mut bhs = peer.login_request(Stage::Security, None).emit();
                bhs[1] = byte;
                peer.send(bhs, &names()).await;
                login_refused(&mut peer, 0x0200).await;
                peer
            })
        })
        .collect();
    cases.push(outside("a version that is to come", |mut peer| async {
        let request = LoginRequest {
            version_min: 1,
            ..peer.login_request(Stage::Operational, Some(Stage::FullFeature))
        };
        peer.send(request.emit(), &names()).await;
        // §11.13.5: unsupported version.
        login_refused(&mut peer, 0x0205).await;
        peer
    }));
    cases
}

/// Second requests that are not what the first one has begun.
fn seconds() -> Vec<Case> {
    let changes: [Change<LoginRequest>; 6] = [
        ("back to the stage before", |r| {
            (r.stage, r.next) = (Stage::Security, None);
        }),
        ("with another ISID", |r| r.isid[5] ^= 0x40),
        ("with another CID", |r| r.cid = 7),
        ("with another task tag", |r| r.itt = Tag(99)),
        ("with the TSIH of a session", |r| r.tsih = 1),
        ("with another version", |r| r.version_min = 1),
    ];
    let mut cases: Vec<Case> = changes
        .into_iter()
        .map(|(name, change)| {
            outside(
                format!("a login that goes on {name}"),
                move |mut peer| async move {
                    let first = peer.login_request(Stage::Operational, None);
                    peer.send(first.emit(), &names()).await;
                    login_refused(&mut peer, 0).await;
                    let mut second =
                        peer.login_request(Stage::Operational, Some(Stage::FullFeature));
                    change(&mut second);
                    peer.send(second.emit(), b"").await;
                    let answer = peer.receive().await.expect("an answer to the login");
                    assert_eq!(answer.login_status() >> 8, 2);
                    peer
                },
            )
        })
        .collect();
    for (name, more) in [
        ("as somebody else", "InitiatorName=iqn.x:other\0"),
        ("to another target", "TargetName=iqn.2026-01.test:private\0"),
        ("to look for targets after all", "SessionType=Discovery\0"),
    ] {
        cases.push(outside(
            format!("a login that goes on {name}"),
            move |mut peer| async move {
                let first = peer.login_request(Stage::Operational, None);
                peer.send(first.emit(), &names()).await;
                login_refused(&mut peer, 0).await;
                let second = peer.login_request(Stage::Operational, Some(Stage::FullFeature));
                peer.send(second.emit(), more.as_bytes()).await;
                login_refused(&mut peer, 0x0200).await;
                peer
            },
        ));
    }
    cases
}

#[tokio::test]
async fn stages_that_are_not_next_are_refused() {
    play(cases()).await;
}

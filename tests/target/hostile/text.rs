//! Text that is none, that does not end, or that says too much.

use netroot::iscsi::wire::{LoginRequest, Stage, TextRequest};

use super::*;

fn names() -> String {
    format!("InitiatorName=iqn.x:y\0TargetName={MEMORY}\0")
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = logins();
    cases.extend(endless());
    cases.extend(questions());
    cases
}

/// One login request, and the class of the status that it gets.
fn logins() -> Vec<Case> {
    let names = names();
    let with = |more: &str| format!("{names}{more}").into_bytes();
    [
        // CVE-2013-2850: unknown keys that are longer than a key may be.
        (
            "a key of 4000 bytes",
            with(&format!("{}=1\0", "k".repeat(4000))),
        ),
        (
            "a key of 64 bytes",
            with(&format!("{}=1\0", "k".repeat(64))),
        ),
        (
            "a value of 256 bytes",
            with(&format!("InitiatorAlias={}\0", "v".repeat(256))),
        ),
        ("a name of 300 bytes", {
            format!(
                "InitiatorName=iqn.{}\0TargetName={MEMORY}\0",
                "x".repeat(300)
            )
            .into_bytes()
        }),
        ("700 keys", {
            with(&(0..700).map(|i| format!("k{i}=1\0")).collect::<String>())
        }),
        (
            "the same key twice",
            with("HeaderDigest=None\0HeaderDigest=None\0"),
        ),
        ("the same names twice", with(&names)),
        ("a second target", with("TargetName=iqn.other:target\0")),
        ("control characters", with("\u{1}\u{2}=\u{3}\0")),
        ("spaces in a key", with("Header Digest=None\0")),
        ("no key", with("=value\0")),
        ("no value and no sign", with("HeaderDigest\0")),
        ("nothing but NUL", vec![0; 64]),
        (
            "text that is no UTF-8",
            [names.as_bytes(), b"X-\xff\xfe=\xc0\x80\0"].concat(),
        ),
        (
            "text without its NUL",
            names.trim_end_matches('\0').replace('\0', " ").into_bytes(),
        ),
        (
            "no initiator",
            format!("TargetName={MEMORY}\0").into_bytes(),
        ),
        ("no target", b"InitiatorName=iqn.x:y\0".to_vec()),
        (
            "an initiator without a name",
            format!("InitiatorName=\0TargetName={MEMORY}\0").into_bytes(),
        ),
        ("a name with a path in it", {
            format!("InitiatorName=iqn.x:../../y\0TargetName={MEMORY}\0").into_bytes()
        }),
        ("a length of -1", with("MaxRecvDataSegmentLength=-1\0")),
        (
            "a length of 2^64",
            with("MaxRecvDataSegmentLength=18446744073709551616\0"),
        ),
        ("a length of 0", with("MaxRecvDataSegmentLength=0\0")),
        (
            "what only a target says",
            with("TargetAddress=192.0.2.1:3260,1\0"),
        ),
        (
            "an answer for an offer",
            with("HeaderDigest=NotUnderstood\0"),
        ),
    ]
    .into_iter()
    .map(|(name, text)| {
        outside(format!("login: {name}"), move |mut peer| async move {
            let request = peer.login_request(Stage::Operational, Some(Stage::FullFeature));
            peer.send(request.emit(), &text).await;
            let answer = peer.receive().await.expect("an answer to the login");
            // An initiator error (RFC 7143 §11.13.5), whichever.
            assert_eq!(answer.login_status() >> 8, 2, "{name}: {}", answer.text());
            peer
        })
    })
    .collect()
}

/// Text that goes on and on (CVE-2021-28361).
fn endless() -> Vec<Case> {
    vec![
        outside("login: parts without end", |mut peer| async {
            let more = LoginRequest {
                more: true,
                ..peer.login_request(Stage::Security, None)
            };
            for _ in 0..200 {
                peer.send(more.emit(), b"a").await;
            }
            let last = peer.drain().await.pop().expect("an answer");
            assert_eq!(last.login_status() >> 8, 2);
            peer
        }),
        outside("login: 10,000 keys in parts", |mut peer| async {
            let more = LoginRequest {
                more: true,
                ..peer.login_request(Stage::Security, None)
            };
            let keys: Vec<u8> = (0..10_000)
                .flat_map(|i| format!("X-key-{i}=1\0").into_bytes())
                .collect();
            for part in keys.chunks(8000) {
                peer.send(more.emit(), part).await;
            }
            let last = peer.drain().await.pop().expect("an answer");
            assert_eq!(last.login_status() >> 8, 2);
            peer
        }),
        outside("login: empty requests without end", |mut peer| async {
            let first = peer.login_request(Stage::Security, None);
            peer.send(first.emit(), names().as_bytes()).await;
            for _ in 0..200 {
                peer.send(first.emit(), b"").await;
            }
            let last = peer.drain().await.pop().expect("an answer");
            assert_eq!(last.login_status() >> 8, 2);
            peer
        }),
        inside("question: parts without end", Closed, |mut peer| async {
            peer.send(question(true, Tag::NONE).emit(), &[b'x'; 8000])
                .await;
            let part = peer.receive().await.unwrap();
            let ttt = u32::from_be_bytes(part.bhs[20..24].try_into().unwrap());
            for _ in 0..100 {
                peer.send(question(true, Tag(ttt)).emit(), &[b'x'; 8000])
                    .await;
            }
            peer
        }),
    ]
}

/// Text requests in the full feature phase.
fn questions() -> Vec<Case> {
    let many: Vec<u8> = (0..600)
        .flat_map(|i| format!("k{i}=1\0").into_bytes())
        .collect();
    let mut cases: Vec<Case> = [
        ("no text", vec![0xff; 100]),
        ("no sign", b"SendTargets\0".to_vec()),
        ("600 keys", many),
        (
            "the same key twice",
            b"SendTargets=\0SendTargets=\0".to_vec(),
        ),
    ]
    .into_iter()
    .map(|(name, text)| {
        inside(
            format!("question: {name}"),
            Closed,
            move |mut peer| async move {
                peer.send(question(false, Tag::NONE).emit(), &text).await;
                rejected(&mut peer, Reject::PROTOCOL_ERROR, Tag(9)).await;
                peer
            },
        )
    })
    .collect();
    cases.push(inside(
        "question: keys of the login",
        Alive,
        |mut peer| async {
            let text = b"MaxBurstLength=512\0X=1\0";
            peer.send(question(false, Tag::NONE).emit(), text).await;
            let answer = peer.receive().await.unwrap().text();
            assert_eq!(answer.trim(), "MaxBurstLength=Reject X=NotUnderstood");
            peer
        },
    ));
    cases.push(inside(
        "question: all targets, in a session with one",
        Alive,
        |mut peer| async {
            peer.send(question(false, Tag::NONE).emit(), b"SendTargets=All\0")
                .await;
            let answer = peer.receive().await.unwrap().text();
            // It hears of its own and of no other.
            let targets = answer.matches("TargetName=").count();
            assert!(targets == 1 && answer.contains(MEMORY), "{answer}");
            peer
        },
    ));
    cases.push(inside(
        "question: another one's target",
        Alive,
        |mut peer| async {
            let ask = b"SendTargets=iqn.2026-01.test:private\0";
            peer.send(question(false, Tag::NONE).emit(), ask).await;
            let answer = peer.receive().await.unwrap().text();
            assert!(!answer.contains("TargetAddress"), "{answer}");
            peer
        },
    ));
    cases.push(inside(
        "question: a part that nobody asked for",
        Alive,
        |mut peer| async {
            peer.send(question(false, Tag(4711)).emit(), b"SendTargets=\0")
                .await;
            rejected(&mut peer, Reject::PROTOCOL_ERROR, Tag(9)).await;
            peer
        },
    ));
    cases
}

fn question(more: bool, ttt: Tag) -> TextRequest {
    TextRequest {
        immediate: true,
        last: !more,
        more,
        itt: Tag(9),
        ttt,
        cmd_sn: Serial(0),
        exp_stat_sn: Serial(0),
    }
}

#[tokio::test]
async fn text_that_breaks_the_rules_is_refused() {
    play(cases()).await;
}

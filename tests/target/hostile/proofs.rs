//! Authentication skipped, replayed, reflected, downgraded and overflowed. All of it ends with 0201
//! (RFC 7143 §11.13.5), whatever was wrong, so that nobody learns from it what was right.

use md5::{Digest, Md5};
use netroot::iscsi::wire::Stage;

use super::super::server::{GUARDED, SECRET};
use super::*;

/// What a guesser may be told.
const DENIED: u16 = 0x0201;

fn names() -> String {
    format!("InitiatorName=iqn.test:peer TargetName={GUARDED}")
}

/// Says something in the security stage, asking for the next one.
async fn say(peer: &mut Peer, text: &str) -> Pdu {
    let request = peer.login_request(Stage::Security, Some(Stage::Operational));
    let text = text.replace(' ', "\0") + "\0";
    peer.send(request.emit(), text.as_bytes()).await;
    peer.receive().await.expect("an answer to the login")
}

/// Logs in up to the challenge, and gives CHAP_I and CHAP_C.
async fn challenged(peer: &mut Peer) -> (u8, Vec<u8>) {
    let accepted = say(peer, &format!("{} AuthMethod=CHAP", names())).await;
    assert_eq!(accepted.login_status(), 0);
    let told = say(peer, "CHAP_A=5").await.text();
    let value = |key: &str| {
        let at = told.find(key).unwrap() + key.len() + 1;
        told[at..].split(' ').next().unwrap().to_owned()
    };
    let hex = value("CHAP_C");
    let hex = hex.strip_prefix("0x").unwrap();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let challenge = (0..hex.len()).step_by(2).map(byte).collect();
    (value("CHAP_I").parse().unwrap(), challenge)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// CHAP_R for a secret.
fn proof(secret: &str, id: u8, challenge: &[u8]) -> String {
    let hash = Md5::new().chain_update([id]).chain_update(secret);
    hex(&hash.chain_update(challenge).finalize())
}

/// A case that answers a challenge with what it makes of it.
fn answer(name: &str, make: fn(id: u8, challenge: &[u8]) -> String) -> Case {
    outside(format!("proof: {name}"), move |mut peer| async move {
        let (id, challenge) = challenged(&mut peer).await;
        let refused = say(&mut peer, &make(id, &challenge)).await;
        assert_eq!(refused.login_status(), DENIED, "{}", refused.text());
        assert_eq!(refused.text(), "");
        peer
    })
}

/// A case that says something in the security stage instead of what is due.
fn instead(name: &str, before: &'static [&'static str], text: &'static str) -> Case {
    outside(format!("proof: {name}"), move |mut peer| async move {
        let first = format!("{} {}", names(), before.first().unwrap_or(&text));
        let mut last = say(&mut peer, &first).await;
        for text in before
            .iter()
            .skip(1)
            .copied()
            .chain(before.first().map(|_| text))
        {
            assert_eq!(last.login_status(), 0);
            last = say(&mut peer, text).await;
        }
        assert_eq!(last.login_status() >> 8, 2, "{}", last.text());
        peer
    })
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        outside("proof: skipped", |mut peer| async {
            assert_eq!(peer.try_login(GUARDED, "").await.login_status(), DENIED);
            peer
        }),
        outside("proof: skipped after a first request", |mut peer| async {
            let first = peer.login_request(Stage::Security, None);
            let text = format!("{} AuthMethod=CHAP ", names()).replace(' ', "\0");
            peer.send(first.emit(), text.as_bytes()).await;
            login_refused(&mut peer, 0).await;
            let next = peer.login_request(Stage::Operational, Some(Stage::FullFeature));
            peer.send(next.emit(), b"").await;
            let refused = peer.receive().await.unwrap();
            assert_eq!(refused.login_status() >> 8, 2);
            peer
        }),
        outside("proof: another's, said again", |mut peer| async {
            let (id, challenge) = challenged(&mut peer).await;
            let good = format!("CHAP_N=anna CHAP_R=0x{}", proof(SECRET, id, &challenge));
            let server = peer.server();
            let mut replay = Peer::connect(server).await;
            challenged(&mut replay).await;
            assert_eq!(say(&mut replay, &good).await.login_status(), DENIED);
            drop(peer);
            replay
        }),
    ];
    cases.extend([
        instead("downgraded to none", &[], "AuthMethod=None"),
        instead("no method that there is", &[], "AuthMethod=SRP,KRB5"),
        instead("a method of no standard", &[], "AuthMethod=X-com.example"),
        instead(
            "no algorithm that there is",
            &["AuthMethod=CHAP"],
            "CHAP_A=1,2,3",
        ),
        instead(
            "an algorithm that is no number",
            &["AuthMethod=CHAP"],
            "CHAP_A=five",
        ),
        instead(
            "before its challenge",
            &["AuthMethod=CHAP"],
            "CHAP_N=anna CHAP_R=0x00",
        ),
        instead(
            "without a name",
            &["AuthMethod=CHAP", "CHAP_A=5"],
            "CHAP_R=0x00",
        ),
        instead(
            "without a response",
            &["AuthMethod=CHAP", "CHAP_A=5"],
            "CHAP_N=anna",
        ),
        instead(
            "another algorithm in the end",
            &["AuthMethod=CHAP", "CHAP_A=5"],
            "CHAP_A=7",
        ),
        answer("the wrong secret", |id, challenge| {
            format!(
                "CHAP_N=anna CHAP_R=0x{}",
                proof("secret of otto", id, challenge)
            )
        }),
        answer("no secret at all", |id, challenge| {
            format!("CHAP_N=anna CHAP_R=0x{}", proof("", id, challenge))
        }),
        answer("another's name", |id, challenge| {
            format!("CHAP_N=otto CHAP_R=0x{}", proof(SECRET, id, challenge))
        }),
        answer("the target's own challenge, given back", |id, challenge| {
            let (hash, challenge) = (proof(SECRET, id, challenge), hex(challenge));
            format!("CHAP_N=anna CHAP_R=0x{hash} CHAP_I={id} CHAP_C=0x{challenge}")
        }),
        // CVE-2018-14633: more hexadecimal digits, or base64, than a digest has bytes.
        answer("a response of 2 KiB", |_, _| {
            format!("CHAP_N=anna CHAP_R=0x{}", "41".repeat(2048))
        }),
        answer("a response of 2 KiB in base64", |_, _| {
            format!("CHAP_N=anna CHAP_R=0b{}", "QUFB".repeat(700))
        }),
        answer("a response of one byte", |_, _| {
            "CHAP_N=anna CHAP_R=0x41".into()
        }),
        answer("a response of nothing", |_, _| {
            "CHAP_N=anna CHAP_R=0x".into()
        }),
    ]);
    cases
}

#[tokio::test]
async fn who_does_not_prove_it_does_not_get_in() {
    play(cases()).await;
}

//! Headers and data that have changed on their way (RFC 7143 §7.8, §13.1).

use super::*;

fn with_digest(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat()
}

/// Logs in with both digests, and gets the power-on out of the way.
async fn digested(peer: &mut Peer) {
    let keys = "HeaderDigest=CRC32C DataDigest=CRC32C";
    assert_eq!(peer.try_login(MEMORY, keys).await.login_status(), 0);
    let ready = peer.scsi([0; 16]);
    peer.raw(&with_digest(&ready.emit())).await;
    peer.exact(48 + 4 + 20 + 4).await;
}

/// A write of a block where no case has a business, as bytes with their digests.
fn write(peer: &mut Peer) -> (Tag, Vec<u8>, Vec<u8>) {
    let mut write = peer.scsi(write_10(BLOCK, 1));
    (write.write, write.expected_len) = (true, 512);
    let mut bhs = write.emit();
    netroot::iscsi::wire::set_lengths(&mut bhs, 512);
    (write.itt, with_digest(&bhs), with_digest(&[0xee; 512]))
}

/// What comes when data and nothing else were wrong: a Reject with its digests, and the end.
async fn data_rejected(peer: &mut Peer, itt: Tag) {
    let reject = peer.exact(48 + 4 + 48 + 4).await;
    assert_eq!((reject[0] & 0x3f, reject[2]), (0x3f, Reject::DATA_DIGEST));
    assert_eq!(reject[52 + 16..52 + 20], itt.0.to_be_bytes());
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("the first", 0),
        ("the middle", 20),
        ("the last", 47),
        ("the digest", 50),
    ]
    .into_iter()
    .map(|(name, at)| {
        outside(
            format!("a header with a bit changed: {name}"),
            move |mut peer| async move {
                digested(&mut peer).await;
                let (_, mut header, data) = write(&mut peer);
                header[at] ^= 0x10;
                peer.raw(&[header, data].concat()).await;
                peer
            },
        )
    })
    .collect();
    for (name, at) in [("the first", 0), ("the last", 511), ("the digest", 514)] {
        let name = format!("data with a bit changed: {name}");
        cases.push(outside(name, move |mut peer| async move {
            digested(&mut peer).await;
            let (itt, header, mut data) = write(&mut peer);
            data[at] ^= 0x10;
            peer.raw(&[header, data].concat()).await;
            data_rejected(&mut peer, itt).await;
            peer
        }));
    }
    cases.push(outside(
        "no digests where they were agreed on",
        |mut peer| async {
            digested(&mut peer).await;
            let ready = peer.scsi([0; 16]);
            for _ in 0..10 {
                peer.send(ready.emit(), b"").await;
            }
            peer
        },
    ));
    cases
}

#[tokio::test]
async fn what_has_changed_on_its_way_is_not_done() {
    play(cases()).await;
}

//! Other protocols, noise, and PDUs before the login.

use netroot::iscsi::wire::{LogoutRequest, NopOut, Serial, Stage, Tag, TextRequest};

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        (
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: example\r\nAccept: */*\r\nUser-Agent: x\r\n\r\n".to_vec(),
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".repeat(3)),
        ("a TLS hello", tls_hello()),
        ("SMB", [&b"\0\0\0\x90\xffSMBr"[..], &[0; 140]].concat()),
        ("zeros", vec![0; 4096]),
        ("ones", vec![1; 4096]),
        ("the byte a5 over and over", vec![0xa5; 4096]),
        ("all bits set", vec![0xff; 4096]),
        ("noise", noise(65536, 1)),
        ("other noise", noise(65536, 2)),
        // A login in all but the lengths.
        ("noise that begins like a login", {
            let mut bytes = noise(65536, 3);
            bytes[..2].copy_from_slice(&[0x43, 0x87]);
            bytes
        }),
    ]
    .into_iter()
    .map(|(name, bytes)| {
        outside(name, move |mut peer| async move {
            peer.raw(&bytes).await;
            assert!(peer.drain().await.is_empty(), "an answer to {name}");
            peer
        })
    })
    .collect();
    cases.extend(before_the_login());
    cases.push(outside("a command within the login", |mut peer| async {
        let first = peer.login_request(Stage::Security, None);
        let text = b"InitiatorName=iqn.x:y\0SessionType=Discovery\0";
        peer.send(first.emit(), text).await;
        login_refused(&mut peer, 0).await;
        let command = peer.scsi(read_10(0, 1));
        peer.send(command.emit(), b"").await;
        // RFC 7143 §11.13.5: invalid during login.
        login_refused(&mut peer, 0x020b).await;
        peer
    }));
    cases.push(outside("half a header and no more", |mut peer| async {
        peer.raw(&[0x43; 20]).await;
        peer.finish().await;
        peer
    }));
    cases.push(outside("a login without its text", |mut peer| async {
        let mut bhs = peer.login_request(Stage::Security, None).emit();
        netroot::iscsi::wire::set_lengths(&mut bhs, 100);
        peer.raw(&bhs).await;
        peer.finish().await;
        peer
    }));
    cases
}

/// PDUs that only a session has. There is no answer that a peer without a login could understand.
fn before_the_login() -> Vec<Case> {
    let (cmd_sn, exp_stat_sn) = (Serial(1), Serial(0));
    let nop = NopOut {
        immediate: true,
        lun: [0; 8],
        itt: Tag(1),
        ttt: Tag::NONE,
        cmd_sn,
        exp_stat_sn,
    };
    let logout = LogoutRequest {
        immediate: true,
        reason: 0,
        itt: Tag(1),
        cid: 0,
        cmd_sn,
        exp_stat_sn,
    };
    let ask = TextRequest {
        immediate: true,
        last: true,
        more: false,
        itt: Tag(1),
        ttt: Tag::NONE,
        cmd_sn,
        exp_stat_sn,
    };
    let mut response = [0; 48];
    response[0] = 0x23;
    let pdus = [
        ("a ping", nop.emit(), &b"ping"[..]),
        ("a logout", logout.emit(), b""),
        ("a question", ask.emit(), b"SendTargets=All\0"),
        ("data", data_out(Tag(1), Tag(0)).emit(), &[1; 512]),
        ("a login response", response, b""),
    ];
    let mut cases: Vec<Case> = pdus
        .into_iter()
        .map(|(name, bhs, data)| {
            outside(
                format!("{name} before the login"),
                move |mut peer| async move {
                    peer.send(bhs, data).await;
                    assert!(peer.drain().await.is_empty(), "an answer to {name}");
                    peer
                },
            )
        })
        .collect();
    cases.push(outside("a command before the login", |mut peer| async {
        let mut write = peer.scsi(write_10(BLOCK, 1));
        (write.write, write.expected_len) = (true, 512);
        peer.send(write.emit(), &[1; 512]).await;
        peer
    }));
    cases
}

/// A ClientHello of TLS 1.3, as far as its first bytes go.
fn tls_hello() -> Vec<u8> {
    let mut hello = vec![
        0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03,
    ];
    hello.extend(noise(506, 4));
    hello
}

#[tokio::test]
async fn bytes_that_are_no_login_get_no_answer() {
    play(cases()).await;
}

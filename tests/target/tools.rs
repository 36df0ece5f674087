//! Other people's initiators: libiscsi's tools, and QEMU's.

use std::io::Write;

use super::server::{OVERLAY, READ_ONLY, SIZE, Server, WRITABLE};

/// Runs a program and gives what it prints; fails with everything that it said.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments).await;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{out}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    out
}

/// Runs a program that cannot do what it is told to.
pub(crate) async fn fails(program: &str, arguments: &[&str]) {
    let output = output(program, arguments).await;
    assert!(!output.status.success(), "{program} {arguments:?}");
}

/// Not for longer than a minute: an initiator that is refused may try again for ever.
async fn output(program: &str, arguments: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new("timeout");
    command.args(["60", program]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    assert_ne!(
        output.status.code(),
        Some(124),
        "{program} {arguments:?} does not end"
    );
    assert_ne!(
        output.status.code(),
        Some(127),
        "{program} is missing: install libiscsi-bin, qemu-utils and qemu-block-extra"
    );
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libiscsi_lists_targets_and_units() {
    let server = Server::start().await;
    let list = run("iscsi-ls", &["-s", &format!("iscsi://{}", server.v4)]).await;
    for target in [READ_ONLY, WRITABLE, OVERLAY] {
        let line = format!("Target:{target} Portal:{},1", server.v4);
        assert!(list.contains(&line), "{list}");
    }
    assert!(!list.contains("private"), "{list}");
    assert!(list.contains("Lun:1    Type:DIRECT_ACCESS"), "{list}");
    assert!(list.contains("Type:STORAGE_ARRAY_CONTROLLER"), "{list}");

    let inquiry = run("iscsi-inq", &[&server.url(READ_ONLY)]).await;
    assert!(inquiry.contains("Vendor:NETROOT"), "{inquiry}");
    for page in ["0x00", "0x80", "0x83", "0xb0", "0xb1", "0xb2"] {
        let code = u8::from_str_radix(&page[2..], 16).unwrap().to_string();
        run(
            "iscsi-inq",
            &["-e", "1", "-c", &code, &server.url(WRITABLE)],
        )
        .await;
    }
    let capacity = run("iscsi-readcapacity16", &[&server.url(WRITABLE)]).await;
    let blocks = format!("Returned Logical Block Address:{}", SIZE / 512 - 1);
    assert!(
        capacity.replace(": ", ":").contains(&blocks) || capacity.contains(&SIZE.to_string()),
        "{capacity}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ipv4_initiator_of_an_ipv6_socket_is_told_an_ipv4_address() {
    let server = Server::start().await;
    let port = server.dual.port();
    let list = run("iscsi-ls", &[&format!("iscsi://127.0.0.1:{port}")]).await;
    assert!(
        list.contains(&format!("Portal:127.0.0.1:{port},1")),
        "{list}"
    );
    let list = run("iscsi-ls", &[&format!("iscsi://[::1]:{port}")]).await;
    assert!(list.contains(&format!("Portal:[::1]:{port},1")), "{list}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_reads_whole_disks() {
    let server = Server::start().await;
    for target in [READ_ONLY, OVERLAY] {
        let copy = server.dir.path().join("copy");
        let to = copy.to_str().unwrap();
        run(
            "qemu-img",
            &["convert", "-O", "raw", &server.url(target), to],
        )
        .await;
        assert!(
            std::fs::read(&copy).unwrap() == server.contents,
            "the copy of {target} differs"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_writes_and_reads_back() {
    let server = Server::start().await;
    let mut source = tempfile::NamedTempFile::new().unwrap();
    source.write_all(&server.contents).unwrap();
    let from = source.path().to_str().unwrap();
    run(
        "qemu-img",
        &[
            "convert",
            "-n",
            "-f",
            "raw",
            "-O",
            "raw",
            from,
            &server.url(WRITABLE),
        ],
    )
    .await;
    let file = server.dir.path().join("writable");
    assert!(std::fs::read(&file).unwrap() == server.contents);

    for target in [WRITABLE, OVERLAY] {
        let url = server.url(target);
        let io = |command: &'static str| {
            let url = url.clone();
            async move { run("qemu-io", &["-f", "raw", "-c", command, &url]).await }
        };
        for (write, read) in [
            ("write -P 0x5a 512 512", "read -P 0x5a 512 512"),
            ("write -P 0x11 4096 3145728", "read -P 0x11 4096 3145728"),
            ("write -f -P 0x22 5120 1024", "read -P 0x22 5120 1024"),
            ("write -z -u 8192 65536", "read -P 0 8192 65536"),
            ("discard 1048576 1048576", "read -P 0 1048576 1048576"),
        ] {
            for command in [write, "flush", read] {
                let said = io(command).await;
                assert!(
                    !said.contains("failed") && !said.contains("error"),
                    "{said}"
                );
            }
        }
        // What the writes have not touched is as it was.
        let copy = server.dir.path().join("copy");
        let to = copy.to_str().unwrap();
        run("qemu-img", &["convert", "-O", "raw", &url, to]).await;
        let bytes = std::fs::read(&copy).unwrap();
        assert!(bytes[..512] == server.contents[..512]);
        let (tail, expected) = (&bytes[4 << 20..], &server.contents[4 << 20..]);
        assert!(tail == expected, "{target}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_disk_is_not_written_by_anybody() {
    let server = Server::start().await;
    let url = server.url(READ_ONLY);
    let output = tokio::task::spawn_blocking(move || {
        std::process::Command::new("qemu-io")
            .args(["-f", "raw", "-c", "write 0 512", &url])
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    assert!(!output.status.success());
    let file = server.dir.path().join("sealed");
    assert!(std::fs::read(file).unwrap() == server.contents);
    server.stop().await;
}

//! Other people's initiators: libiscsi's tools, and QEMU's.

use std::io::Write;

use super::server::{LARGE_BLOCKS, OVERLAY, READ_ONLY, SHARED, SIZE, Server, WRITABLE};

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
    for target in [READ_ONLY, WRITABLE, OVERLAY, SHARED] {
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
    for target in [READ_ONLY, OVERLAY, SHARED] {
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

    for target in [WRITABLE, OVERLAY, SHARED] {
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

/// What QEMU's block layer says to a command; it tells of failures in its output only.
async fn qemu_io(url: &str, command: &str) -> String {
    let said = run("qemu-io", &["-f", "raw", "-c", command, url]).await;
    assert!(
        !said.contains("failed") && !said.contains("rror"),
        "{command}: {said}"
    );
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_compares_disks_and_sees_their_holes() {
    let server = Server::start().await;
    let sealed = server.dir.path().join("sealed");
    let file = sealed.to_str().unwrap();
    let compare = |url: String| async move {
        run(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "raw", file, &url],
        )
        .await
    };
    assert!(compare(server.url(READ_ONLY)).await.contains("identical"));
    assert!(compare(server.url(OVERLAY)).await.contains("identical"));
    let url = server.url(WRITABLE);
    fails(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", file, &url],
    )
    .await;

    // GET LBA STATUS: what was written, and what was discarded of it.
    qemu_io(&url, "write -P 0x77 1M 1M").await;
    qemu_io(&url, "write -z -u 1280k 128k").await;
    qemu_io(&url, "discard 1536k 256k").await;
    let map = run("qemu-img", &["map", "-f", "raw", "--output=json", &url]).await;
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let data: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|run| run["data"] == true)
        .map(|run| {
            (
                run["start"].as_u64().unwrap() >> 10,
                run["length"].as_u64().unwrap() >> 10,
            )
        })
        .collect();
    assert_eq!(data, [(1024, 256), (1408, 128), (1792, 256)]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_virtual_disk_lives_on_a_unit() {
    let server = Server::start().await;
    let url = server.url(WRITABLE);
    // qcow2 on the bare disk: metadata that is written, read and flushed again and again.
    run("qemu-img", &["create", "-f", "qcow2", &url, "6M"]).await;
    let io = |command: &'static str| {
        let url = url.clone();
        async move { run("qemu-io", &["-f", "qcow2", "-c", command, &url]).await }
    };
    io("write -P 0x42 65536 1048576").await;
    io("write -f -P 0x43 700k 1k").await;
    io("write -z 256k 64k").await;
    for read in [
        "read -P 0x42 65536 196608",
        "read -P 0 256k 64k",
        "read -P 0x43 700k 1k",
    ] {
        let said = io(read).await;
        assert!(said.contains("read "), "{said}");
        assert!(!said.contains("verification failed"), "{read}: {said}");
    }
    let checked = run("qemu-img", &["check", "-f", "qcow2", &url]).await;
    assert!(checked.contains("No errors were found"), "{checked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_uses_blocks_of_4096_bytes() {
    let server = Server::start().await;
    let url = server.url(LARGE_BLOCKS);
    for (write, read) in [
        ("write -P 0x31 4096 8192", "read -P 0x31 4096 8192"),
        // Smaller than a block: QEMU reads the rest and writes it again.
        ("write -P 0x32 5120 512", "read -P 0x32 5120 512"),
        ("write -z -u 8192 4096", "read -P 0 8192 4096"),
        // Larger reads of thin disks with such blocks make QEMU 7.2 abort: it asks where they are mapped,
        // for a length (BDRV_REQUEST_MAX_BYTES) that is no multiple of them.
        ("write -P 0x33 0 4M", "read -P 0x33 2M 28k"),
        ("discard 1M 1M", "read -P 0 1M 28k"),
    ] {
        qemu_io(&url, write).await;
        qemu_io(&url, read).await;
    }
    let capacity = run("iscsi-readcapacity16", &[&url]).await;
    assert!(capacity.contains("4096"), "{capacity}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn software_write_protection_is_kept_until_it_is_taken_back() {
    let server = Server::start().await;
    let url = server.url(WRITABLE);
    let before = run("iscsi-swp", &[&url]).await;
    assert!(before.contains("SWP:0"), "{before}");
    run("iscsi-swp", &["-s", "on", &url]).await;
    let protected = run("iscsi-swp", &[&url]).await;
    assert!(protected.contains("SWP:1"), "{protected}");
    fails("qemu-io", &["-f", "raw", "-c", "write 0 4096", &url]).await;
    run("iscsi-swp", &["-s", "off", &url]).await;
    qemu_io(&url, "write -P 1 0 4096").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libiscsi_keeps_many_commands_in_flight() {
    let server = Server::start().await;
    for order in [&[][..], &["-r"]] {
        let url = server.url(READ_ONLY);
        let args = [order, &["-m", "64", "-b", "16", "-t", "1", &url]].concat();
        let said = run("iscsi-perf", &args).await;
        assert!(said.contains("iops average"), "{said}");
    }
    server.stop().await;
}

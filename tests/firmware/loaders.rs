//! What machines are given before they have iPXE, asked for by TFTP clients that are not ours, by packets
//! that firmware sends, and by those that nobody should.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use netroot::library::MacAddr;
use xtask::guest::Guest;
use xtask::netns::{BOOT_PORT, SERVER};
use xtask::program::{Background, run};
use xtask::server::remove_library;

use crate::lab::{Lab, seal, set};

const LOADER: &str = "/usr/lib/ipxe/snponly.efi";
/// Everybody on the laboratory's network; 255.255.255.255 would need a default route.
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 255);
const PATIENCE: Duration = Duration::from_secs(10);
/// A machine that the server knows.
const KNOWN: [u8; 6] = [0x52, 0x54, 0x99, 0, 0x0d, 0x11];

impl Lab {
    /// Does something on the host beside.
    fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.beside().enter(act).unwrap()
    }

    /// Fetches with a program on the host beside; what came, if it did.
    fn fetch(&self, program: &str, arguments: &[&str], to: &str) -> Option<Vec<u8>> {
        let to = self.dir.join(to);
        let _ = fs::remove_file(&to);
        let mut command = self.beside().command(program);
        command.args(arguments).current_dir(&self.dir);
        let done = run(&mut command);
        let came = fs::read(&to).ok();
        came.filter(|came| done.is_ok() && !came.is_empty())
    }
}

#[test]
fn clients_that_are_not_ours_fetch_loaders_whole_whatever_they_negotiate() {
    let lab = Lab::empty("tftp");
    let expected = fs::read(LOADER).unwrap();
    let check = |what: &str, came: Option<Vec<u8>>| {
        let came = came.unwrap_or_else(|| panic!("{what}: nothing came\n{}", lab.server.said()));
        assert!(came == expected, "{what}: {} bytes", came.len());
    };
    let name = "ipxe-x64.efi";
    let get = ["-m", "binary", SERVER, "-c", "get", name, "tftp-hpa"];
    check("tftp-hpa", lab.fetch("tftp", &get, "tftp-hpa"));
    for options in [
        &[][..],
        &["blksize 1468", "tsize"],
        &["blksize 1024", "windowsize 8"],
        &["windowsize 64", "timeout 2"],
        &["blksize 65464"],
    ] {
        let options = options.iter().flat_map(|option| ["--option", option]);
        let mut get: Vec<&str> = options.collect();
        get.extend(["-g", "-r", name, "-l", "atftp", SERVER]);
        check(&get.join(" "), lab.fetch("atftp", &get, "atftp"));
    }
    let url = format!("tftp://{SERVER}/{name}");
    let get = ["--silent", "--max-time", "60", "--output", "curl"];
    let sized = [&get[..], &["--tftp-blksize", "4096", &url]].concat();
    check("curl", lab.fetch("curl", &sized, "curl"));
    let plain = [&get[..], &["--tftp-no-options", &url]].concat();
    check("curl without options", lab.fetch("curl", &plain, "curl"));
    // HTTP has the same.
    let url = format!("http://{SERVER}:{BOOT_PORT}/ipxe/{name}");
    check(
        "HTTP",
        lab.fetch("curl", &[&get[..], &[&url]].concat(), "curl"),
    );

    for (window, lost) in [(1, 9), (4, 7), (16, 5), (32, 40)] {
        let came = lab.inside(|| fetch_with_losses(name, window, lost));
        check(&format!("window {window}, every {lost}th lost"), Some(came));
    }
    lab.end();
}

#[test]
fn nothing_else_is_given_by_no_name_and_to_no_flood() {
    let lab = Lab::empty("tftp-hostile");
    let url = format!("http://{SERVER}:{BOOT_PORT}/ipxe/");
    for name in [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
        "..\\..\\etc\\passwd",
        "qemu/pxe-virtio.rom",
        "",
    ] {
        let url = format!("{url}{name}");
        let get = [
            "--silent",
            "--path-as-is",
            "--fail",
            "--output",
            "curl",
            &url,
        ];
        assert_eq!(lab.fetch("curl", &get, "curl"), None, "{name}");
        let answer = lab.inside(|| ask(&read_request(name)).0);
        assert_eq!(answer[..4], [0, 5, 0, 1], "{name}: {answer:?}");
    }
    let autoexec = lab.inside(|| ask(&read_request("autoexec.ipxe")).0);
    let text = String::from_utf8_lossy(&autoexec[4..]).into_owned();
    let script = format!("http://{SERVER}:{BOOT_PORT}/boot.ipxe");
    assert!(
        text.starts_with("#!ipxe") && text.contains(&script),
        "{text}"
    );

    // Thousands who ask and never answer; each transfer has a port of its own, and so many there are.
    lab.inside(|| {
        let flood: Vec<UdpSocket> = (0..400).map(|_| from_anywhere()).collect();
        for _ in 0..10 {
            for socket in &flood {
                let request = read_request("ipxe-x64.efi");
                let _ = socket.send_to(&request, (SERVER, 69));
                let _ = socket.send_to(&[0xff; 700], (SERVER, 67));
            }
        }
    });
    let sockets = run(lab.network.command("ss").args(["-Hnup"])).unwrap();
    let transfers = sockets
        .lines()
        .filter(|line| line.contains("netroot"))
        .count();
    assert!((1..=20).contains(&transfers), "{transfers}: {sockets}");
    // Others do not notice.
    let get = [
        "--silent",
        "--output",
        "curl",
        &format!("{url}ipxe-x64.efi"),
    ];
    assert!(lab.fetch("curl", &get, "curl").is_some());
    let mine = fs::read(LOADER).unwrap();
    let own = ["-m", "binary", SERVER, "-c", "get", "ipxe-x64.efi", "own"];
    let mut tftp = lab.network.command("tftp");
    run(tftp.args(own).current_dir(&lab.dir)).unwrap();
    assert!(
        fs::read(lab.dir.join("own")).unwrap() == mine,
        "from another address"
    );
    lab.end();
}

#[test]
fn machines_without_number_take_no_memory_and_keep_nobody_from_booting() {
    /// So many machines. A kilobyte for each of them would be four times what is allowed.
    const MACHINES: u32 = 32_768;
    /// What the memory of a server may grow by that keeps nothing of them: threads of its runtime that it
    /// had not needed before and what the allocator holds back for each, and the few that it remembers.
    const GROWTH: u64 = 8 << 20;
    /// So many ask for their script, too: from then on one is remembered.
    const ASK: u32 = 600;
    /// How many are remembered of those that come from one address.
    const REMEMBERED: usize = 8;

    let lab = Lab::with("dhcp-flood", |site| {
        seal(site, Guest::boot_files().unwrap());
        let known = MacAddr::new(KNOWN).unwrap().to_string();
        let add = ["client", "add", &known, "--image", "guest"];
        site.netroot(&add).unwrap();
    });
    // What it takes to answer anybody is there already.
    assert!(lab.inside(|| is_answered(KNOWN)));
    let before = lab.server.resident().unwrap();
    let answered = lab.inside(|| {
        let socket = dhcp_socket();
        let at_once = Some(Duration::from_millis(200));
        socket.set_read_timeout(at_once).unwrap();
        let machines: Vec<u32> = (0..MACHINES).collect();
        // As many as wait in a socket's buffer, so that each is heard.
        machines.chunks(64).fold(0, |answered, some| {
            for number in some {
                let packet = discovery_of(stranger(*number), 7);
                socket.send_to(&packet, (EVERYBODY, 67)).unwrap();
            }
            answered + answers(&socket).take(some.len()).count()
        })
    });
    assert!(answered > MACHINES as usize / 2, "{answered} were answered");
    lab.inside(|| {
        for number in 0..ASK {
            let mac = MacAddr::new(stranger(number)).unwrap();
            assert_eq!(boot_cfg_status(&mac.to_string()), 200);
        }
    });
    assert!(lab.inside(|| is_answered(KNOWN)), "a client");
    let unknown = lab.site.json(&["client", "list", "--unknown"]).unwrap();
    let unknown = unknown.as_array().unwrap().len();
    assert!((1..=REMEMBERED).contains(&unknown), "{unknown}");
    let grown = lab.server.resident().unwrap().saturating_sub(before);
    println!(
        "{answered} answered, {unknown} remembered, {} KiB more",
        grown >> 10
    );
    assert!(grown < GROWTH, "{grown} bytes more");
    lab.end();
}

#[test]
fn a_machine_is_told_what_to_boot_and_no_address() {
    let lab = Lab::empty("proxy-dhcp");
    let told = |packet: &[u8], port| lab.inside(|| dhcp(packet, port));
    let offer = told(&discovery(7), 67).unwrap();
    assert_eq!(offer[..8], [2, 1, 6, 0, 0xca, 0xfe, 0, 7]);
    assert_eq!(offer[16..20], [0; 4], "no address");
    assert_eq!(offer[20..24], SERVER.parse::<Ipv4Addr>().unwrap().octets());
    assert_eq!(&offer[108..121], b"ipxe-x64.efi\0");
    let mut request = discovery(7);
    request[242] = 3;
    let ack = told(&request, 4011).unwrap();
    assert_eq!(&ack[108..121], b"ipxe-x64.efi\0");
    let http = told(&discovery(16), 67).unwrap();
    let url = format!("http://{SERVER}:{BOOT_PORT}/ipxe/ipxe-x64.efi");
    assert_eq!(&http[108..108 + url.len()], url.as_bytes());

    // Machines that nobody has a loader for are told nothing, and who runs the server why; a laptop that
    // wants an address is none of ours. The last packet is answered, so the others were heard before.
    let silent = lab.inside(|| {
        let socket = dhcp_socket();
        let mut laptop = discovery(7);
        laptop[249..258].copy_from_slice(b"android-x");
        for packet in [discovery(11), laptop, vec![1; 300], discovery(0)] {
            let _ = socket.send_to(&packet, (EVERYBODY, 67));
        }
        answer(&socket, 0)
    });
    assert!(silent.is_some());
    assert_eq!(
        lab.server
            .said()
            .matches("machines with UEFI on arm64")
            .count(),
        1
    );
    lab.end();
}

#[test]
fn strangers_are_told_nothing_where_they_are_refused() {
    let lab = Lab::with("dhcp-strangers", |site| {
        set(site, "unknown = ", "unknown = \"refuse\"");
        seal(site, Guest::boot_files().unwrap());
        let add = ["client", "add", "52:54:00:00:0d:11", "--image", "guest"];
        site.netroot(&add).unwrap();
    });
    let told = lab.inside(|| {
        let socket = dhcp_socket();
        let (stranger, mut client) = (discovery(7), discovery(0));
        client[33] = 0x11;
        for packet in [stranger, client] {
            socket.send_to(&packet, (EVERYBODY, 67)).unwrap();
        }
        // The first answer is to the second question.
        answer(&socket, 0).unwrap()
    });
    assert_eq!(told[28..34], [0x52, 0x54, 0, 0, 0x0d, 0x11]);
    lab.end();
}

#[test]
fn a_port_that_is_taken_is_told_with_what_to_do() {
    let lab = Lab::empty("dhcp-taken");
    let Lab {
        dir,
        network,
        site,
        server,
    } = lab;
    server.stop().unwrap();
    let mut dnsmasq = network.command("dnsmasq");
    let range = [
        "--port=0",
        "--interface=br0",
        "--dhcp-range=192.0.2.210,192.0.2.220",
    ];
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--user=root",
    ]);
    dnsmasq
        .args(range)
        .arg(format!("--dhcp-leasefile={}", dir.join("leases").display()));
    let holder = Background::start(dnsmasq.arg("--pid-file")).unwrap();
    let began = Instant::now();
    while !run(network.command("ss").args(["-Hnul"]))
        .unwrap()
        .contains(":67")
    {
        assert!(began.elapsed() < PATIENCE, "dnsmasq does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut serve = network.command("timeout");
    let library = site.library().to_string_lossy();
    serve.args([
        "20",
        &site.binary().to_string_lossy(),
        "--library",
        &library,
        "serve",
    ]);
    let output = serve.output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{why}");
    assert!(
        why.contains("UDP 0.0.0.0:67") && why.contains("ProxyDHCP"),
        "{why}"
    );
    assert!(why.contains("netroot boot dnsmasq"), "{why}");
    drop(holder);
    remove_library(site.library()).unwrap();
}

#[test]
fn a_room_fetches_the_kernel_at_once() {
    const ROOM: usize = 200;
    let lab = Lab::empty("room-at-once");
    seal(&lab.site, Guest::boot_files().unwrap());
    let kernel = fs::read(Guest::boot_files().unwrap().0).unwrap();
    let request = format!(
        "GET /images/guest/1/vmlinuz-6.1.0 HTTP/1.1\r\nHost: {SERVER}:{BOOT_PORT}\r\nConnection: close\r\n\r\n"
    );
    let began = Instant::now();
    let server = SocketAddr::new(SERVER.parse().unwrap(), BOOT_PORT);
    lab.inside(|| {
        let fetch = || {
            let mut stream = TcpStream::connect(server).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            let head = answer
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200"), "refused");
            assert!(answer[head + 4..] == kernel, "{} bytes", answer.len());
        };
        // Threads that are started in a namespace are in it.
        std::thread::scope(|scope| {
            let machines: Vec<_> = (0..ROOM).map(|_| scope.spawn(fetch)).collect();
            machines.into_iter().for_each(|one| one.join().unwrap());
        });
    });
    println!("{ROOM} kernels in {:.1} s", began.elapsed().as_secs_f64());
    lab.end();
}

fn from_anywhere() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn read_request(name: &str) -> Vec<u8> {
    [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat()
}

/// The first answer to a TFTP request, and where it came from.
fn ask(request: &[u8]) -> (Vec<u8>, SocketAddr) {
    let socket = from_anywhere();
    socket.send_to(request, (SERVER, 69)).unwrap();
    let mut buffer = [0; 2000];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    // Whoever would wait for us need not.
    let _ = socket.send_to(b"\0\x05\0\0\0", from);
    (buffer[..length].to_vec(), from)
}

/// Fetches a file in windows of blocks, and loses every `lost`th packet, of the server's and of its own.
fn fetch_with_losses(name: &str, window: u16, lost: usize) -> Vec<u8> {
    const BLOCK: usize = 1428;
    let socket = from_anywhere();
    let patience = Some(Duration::from_millis(500));
    socket.set_read_timeout(patience).unwrap();
    let options = format!("\0octet\0blksize\0{BLOCK}\0windowsize\0{window}\0");
    let request = [b"\0\x01", name.as_bytes(), options.as_bytes()].concat();
    socket.send_to(&request, (SERVER, 69)).unwrap();
    let (mut came, mut buffer, mut packets) = (Vec::new(), [0; 2000], 0);
    let (mut last, mut in_window, mut server) = (0_u16, 0, None);
    let began = Instant::now();
    let mut is_lost = || {
        packets += 1;
        packets % lost == 0
    };
    while began.elapsed() < 6 * PATIENCE {
        let received = socket.recv_from(&mut buffer);
        if received.is_ok() && is_lost() {
            continue;
        }
        let mut answers = true;
        let mut ends = false;
        if let Ok((length, from)) = received {
            server = Some(from);
            let number = u16::from_be_bytes([buffer[2], buffer[3]]);
            // Else the answer to the options, or a block out of order: it is told which one was the last.
            if buffer[1] == 3 && number == last + 1 {
                came.extend_from_slice(&buffer[4..length]);
                (last, in_window, ends) = (number, in_window + 1, length < 4 + BLOCK);
                answers = in_window == window || ends;
            }
        }
        if let (true, Some(server)) = (answers, server) {
            in_window = 0;
            let answer = [&[0, 4], &last.to_be_bytes()[..]].concat();
            if ends || !is_lost() {
                socket.send_to(&answer, server).unwrap();
            }
        }
        if ends {
            return came;
        }
    }
    panic!("it took too long: {} bytes came", came.len());
}

/// The hardware address of the `number`th machine that nobody knows.
fn stranger(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [0x52, 0x54, a, b, c, d]
}

/// Whether a machine is told what to boot. As firmware does, it asks again where nothing comes.
fn is_answered(mac: [u8; 6]) -> bool {
    let socket = dhcp_socket();
    let second = Some(Duration::from_secs(1));
    socket.set_read_timeout(second).unwrap();
    (0..10).any(|_| {
        let packet = discovery_of(mac, 7);
        socket.send_to(&packet, (EVERYBODY, 67)).unwrap();
        answers(&socket).any(|answer| answer[28..34] == mac)
    })
}

/// What this server tells anybody, until it is silent.
fn answers(socket: &UdpSocket) -> impl Iterator<Item = Vec<u8>> {
    let server: Ipv4Addr = SERVER.parse().unwrap();
    let packets = std::iter::from_fn(|| {
        let mut buffer = [0; 2000];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        Some((buffer[..length].to_vec(), from))
    });
    packets.filter_map(move |(packet, from)| (from.ip() == server).then_some(packet))
}

/// How the server answers who asks for the boot.cfg of a machine.
fn boot_cfg_status(mac: &str) -> u16 {
    let server = SocketAddr::new(SERVER.parse().unwrap(), BOOT_PORT);
    let mut stream = TcpStream::connect(server).unwrap();
    let asked = format!("GET /boot.cfg?mac={mac} HTTP/1.1\r\nHost: {SERVER}\r\n");
    write!(stream, "{asked}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// What a PXE client of this architecture sends; the last byte of its transaction is that, too.
fn discovery(architecture: u8) -> Vec<u8> {
    discovery_of([0x52, 0x54, 0, 0, 0x0d, 0x10], architecture)
}

fn discovery_of(mac: [u8; 6], architecture: u8) -> Vec<u8> {
    let mut packet = vec![1, 1, 6, 0, 0xca, 0xfe, 0, architecture, 0, 0, 0x80, 0];
    packet.extend([0; 16]);
    packet.extend(mac);
    packet.resize(236, 0);
    packet.extend([99, 130, 83, 99, 53, 1, 1, 93, 2, 0, architecture]);
    let class = match architecture {
        16 => &b"\x3c\x0aHTTPClient"[..],
        _ => b"\x3c\x09PXEClient",
    };
    packet.extend(class);
    packet.push(255);
    packet
}

/// A client's socket, on the only interface there is.
fn dhcp_socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The answer of this server to a packet.
fn dhcp(packet: &[u8], port: u16) -> Option<Vec<u8>> {
    let socket = dhcp_socket();
    let to = match port {
        67 => EVERYBODY,
        _ => SERVER.parse().unwrap(),
    };
    socket.send_to(packet, (to, port)).unwrap();
    answer(&socket, packet[7])
}

/// The next answer that is this server's, to a transaction that ends with `transaction`. The one that
/// gives addresses answers as well.
fn answer(socket: &UdpSocket, transaction: u8) -> Option<Vec<u8>> {
    let mut buffer = [0; 2000];
    let server: Ipv4Addr = SERVER.parse().unwrap();
    loop {
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        if from.ip() == server {
            assert_eq!(buffer[7], transaction, "an answer to another question");
            return Some(buffer[..length].to_vec());
        }
    }
}

/// The programs that are asked with are there, or say which package has them.
#[test]
fn packages_are_there() {
    for (file, package) in [
        (LOADER, "ipxe"),
        ("/usr/bin/atftp", "atftp"),
        ("/usr/bin/tftp", "tftp-hpa"),
    ] {
        assert!(Path::new(file).exists(), "install the package {package}");
    }
}

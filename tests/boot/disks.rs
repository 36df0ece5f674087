//! Disks that boot themselves: imported with their boot loader, started by the firmware.

use std::fs;
use std::path::Path;

use netroot::library::{Library, MacAddr};
use xtask::lab_dir;
use xtask::netns::{Leases, Network};
use xtask::qemu::{Accelerator, Machine, OnReset};
use xtask::server::{Site, remove_library};

use crate::lab::{BINARY, RECONNECT, copy_disk};

#[test]
fn a_disk_that_boots_itself_is_started_by_the_firmware_and_written_by_its_client() {
    const MAC: &str = "52:54:00:00:0d:01";
    const SAYS: &str = "NETROOT-LAB this was read from the second sector";
    let dir = lab_dir().join("boot-disk");
    remove_library(&dir).unwrap();
    fs::create_dir_all(&dir).unwrap();
    let network = Network::create(Leases::Infinite).unwrap();
    let library = dir.join("library");
    let site = Site::new(Path::new(BINARY), &library);
    site.netroot(&["init", "--host", "server-01.example.edu", "--yes"])
        .unwrap();
    let disk = dir.join("disk.raw");
    fs::write(&disk, speaking_disk(SAYS)).unwrap();
    let imported = ["image", "import", "dos", "--from", disk.to_str().unwrap()];
    site.netroot(&imported).unwrap();
    site.netroot(&[
        "client",
        "add",
        MAC,
        "--image",
        "dos",
        "--mode",
        "persistent",
    ])
    .unwrap();
    let server = site.serve(&network, &dir.join("serve.log")).unwrap();

    let log = dir.join("525400000d01.log");
    let machine = Machine::start(&network, MAC, Accelerator::Tcg, OnReset::End, &log).unwrap();
    machine.serial().wait_for(SAYS, 0, RECONNECT).unwrap();
    machine.pull_the_plug();
    server.stop().unwrap();

    let copy = dir.join("copy.img");
    let opened = Library::open(&library, None).unwrap();
    let clone = opened.open_clone(&MAC.parse::<MacAddr>().unwrap()).unwrap();
    copy_disk(&*clone, &copy);
    let written = fs::read(&copy).unwrap();
    assert_eq!(
        written[1024..1536],
        written[512..1024],
        "what it wrote is on its disk"
    );
    assert!(written[512..].starts_with(SAYS.as_bytes()));
    site.netroot(&["image", "verify", "dos"]).unwrap();
    drop(opened);
    remove_library(&dir).unwrap();
}

/// A disk of 1 MiB with one partition. Its boot sector reads the second sector, where `says` is,
/// copies it to the third, and writes it to the serial line.
fn speaking_disk(says: &str) -> Vec<u8> {
    #[rustfmt::skip]
    const CODE: &[u8] = &[
        0x31, 0xc0,             // xor ax, ax
        0x8e, 0xd8,             // mov ds, ax
        0x8e, 0xc0,             // mov es, ax
        0x8e, 0xd0,             // mov ss, ax
        0xbc, 0x00, 0x7c,       // mov sp, 0x7c00
        0xfc,                   // cld
        0xb6, 0x00,             // mov dh, 0            head 0; dl is the drive
        0xb9, 0x02, 0x00,       // mov cx, 2            sector 2
        0xbb, 0x00, 0x80,       // mov bx, 0x8000
        0xb8, 0x01, 0x02,       // mov ax, 0x0201       read one
        0xcd, 0x13,             // int 0x13
        0xb9, 0x03, 0x00,       // mov cx, 3            sector 3
        0xb8, 0x01, 0x03,       // mov ax, 0x0301       write one
        0xcd, 0x13,             // int 0x13
        0xbe, 0x00, 0x80,       // mov si, 0x8000
        0xac,                   // next: lodsb
        0x84, 0xc0,             // test al, al
        0x74, 0x12,             // jz done
        0x88, 0xc4,             // mov ah, al
        0xba, 0xfd, 0x03,       // mov dx, 0x3fd        COM1's line status
        0xec,                   // wait: in al, dx
        0xa8, 0x20,             // test al, 0x20
        0x74, 0xfb,             // jz wait
        0xba, 0xf8, 0x03,       // mov dx, 0x3f8
        0x88, 0xe0,             // mov al, ah
        0xee,                   // out dx, al
        0xeb, 0xe9,             // jmp next
        0xf4,                   // done: hlt
        0xeb, 0xfd,             // jmp done
    ];
    let mut disk = vec![0; 1 << 20];
    disk[..CODE.len()].copy_from_slice(CODE);
    // One active partition of type Linux, from sector 64 to the end.
    disk[446] = 0x80;
    disk[450] = 0x83;
    disk[454..458].copy_from_slice(&64u32.to_le_bytes());
    disk[458..462].copy_from_slice(&(2048u32 - 64).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let line = format!("{says}\r\n");
    disk[512..512 + line.len()].copy_from_slice(line.as_bytes());
    disk
}

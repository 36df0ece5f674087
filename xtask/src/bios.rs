//! Disks that a BIOS starts.

/// A disk of 1 MiB with one partition. Its boot sector reads the second sector, where `says` is,
/// copies it to the third, and writes it to the serial line.
pub fn speaking_disk(says: &str) -> Vec<u8> {
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
    let line = format!("{says}\r\n");
    // One active partition of type Linux, from sector 64 to the end.
    let parts: [(usize, &[u8]); 7] = [
        (0, CODE),
        (446, &[0x80]),
        (450, &[0x83]),
        (454, &64u32.to_le_bytes()),
        (458, &(2048u32 - 64).to_le_bytes()),
        (510, &[0x55, 0xaa]),
        (512, line.as_bytes()),
    ];
    for (at, bytes) in parts {
        if let Some(place) = disk.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    disk
}

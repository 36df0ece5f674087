//! Machines whose own firmware logs in to an iSCSI target: the variables that its driver reads, and a
//! disk with a program that it can start.
//!
//! The layouts are those of EDK II (`NetworkPkg/IScsiDxe`, `MdeModulePkg/Include/Guid/VariableFormat.h`),
//! as its release of November 2022, Debian 12's, has them.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::program::{command, run};

/// The firmware itself, of Debian's package ovmf.
pub const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Its variables before the first start.
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// Firmware for 64-bit Arm, of Debian's package qemu-efi-aarch64.
pub const CODE_ARM64: &str = "/usr/share/AAVMF/AAVMF_CODE.fd";
/// Its variables before the first start.
pub const VARIABLES_ARM64: &str = "/usr/share/AAVMF/AAVMF_VARS.fd";

/// What has to be read of the disk before its program can start, at the least, in bytes.
pub const PROGRAM_SIZE: u64 = 1 << 20;

/// A disk that the firmware boots from.
#[derive(Debug, Clone, Copy)]
pub struct IscsiBoot<'a> {
    /// The network card, such as `52:54:00:12:34:56`; it takes its address from DHCP.
    pub mac: &'a str,
    /// What the firmware calls itself.
    pub initiator: &'a str,
    /// Where the target is.
    pub server: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Its name.
    pub target: &'a str,
    /// The disk there.
    pub lun: u8,
}

/// Writes a variable store in which `boot` is all that was ever set up.
///
/// # Errors
/// When the package ovmf is missing or of another making, or the file cannot be written.
pub fn write_variables(boot: &IscsiBoot<'_>, file: &Path) -> Result<()> {
    let mut store = fs::read(VARIABLES).with_context(|| format!("reading {VARIABLES}"))?;
    let mut at = first_variable(&store)?;
    // The driver makes all its attempts anew where it does not find that it has made eight.
    let variables: [(&str, &Guid, &[u8]); 4] = [
        (
            "InitialAttemptOrder",
            &ISCSI_CONFIG,
            &[1, 2, 3, 4, 5, 6, 7, 8],
        ),
        ("AttemptOrder", &ISCSI_CONFIG, &[1]),
        ("Attempt 1", &INITIATOR_NAME, &attempt(boot)),
        (
            "I_NAME",
            &INITIATOR_NAME,
            &text(boot.initiator, boot.initiator.len() + 1),
        ),
    ];
    for (name, guid, data) in variables {
        let variable = variable(name, guid, data);
        let place = store.get_mut(at..at + variable.len());
        place
            .context("the variable store is full")?
            .copy_from_slice(&variable);
        at = (at + variable.len()).next_multiple_of(4);
    }
    fs::write(file, store).with_context(|| format!("writing {}", file.display()))
}

/// Writes the variable store of a firmware that was never set up: it boots from what the machine says.
///
/// # Errors
/// When the package ovmf is missing, or the file cannot be written.
pub fn write_no_variables(file: &Path) -> Result<()> {
    let copied = fs::copy(VARIABLES, file);
    let copied = copied.with_context(|| format!("copying {VARIABLES} to {}", file.display()));
    copied.map(drop)
}

/// Writes a disk of 64 MiB that UEFI boots from: what is started prints `message` and switches the
/// machine off.
///
/// # Errors
/// When a program (sfdisk of package fdisk; mtools) is missing or fails.
pub fn write_disk(disk: &Path, message: &str) -> Result<()> {
    const PARTITIONS: &str = "label: gpt\nstart=2048, size=122880, type=U\n";
    File::create(disk)
        .and_then(|file| file.set_len(64 << 20))
        .with_context(|| format!("creating {}", disk.display()))?;
    let dir = tempfile::tempdir()?;
    let (layout, loader) = (dir.path().join("layout"), dir.path().join("loader"));
    fs::write(&layout, PARTITIONS)?;
    fs::write(&loader, program(message))?;
    run(command("sfdisk", ["--quiet"])
        .arg(disk)
        .stdin(File::open(&layout)?))?;
    write_esp(disk, 1, 122_880, &loader)
}

/// Makes the file system of an EFI system partition, `start` MiB behind the beginning of `disk` and of this
/// many sectors, with a loader where the firmware of x86-64 looks for one.
///
/// # Errors
/// When a program of mtools is missing or fails.
pub(crate) fn write_esp(disk: &Path, start: u64, sectors: u64, loader: &Path) -> Result<()> {
    let partition = format!("{}@@{start}M", disk.display());
    let mtools = |name: &str, arguments: &[&str]| {
        run(command(name, ["-i", &partition]).args(arguments)).map(drop)
    };
    mtools("mformat", &["-T", &sectors.to_string(), "::"])?;
    mtools("mmd", &["::/EFI", "::/EFI/BOOT"])?;
    mtools(
        "mcopy",
        &[&loader.to_string_lossy(), "::/EFI/BOOT/BOOTX64.EFI"],
    )
}

type Guid = [u8; 16];

/// `4b47d616-a8d6-4552-9d44-ccad2e0f4cf9`
const ISCSI_CONFIG: Guid = [
    0x16, 0xd6, 0x47, 0x4b, 0xd6, 0xa8, 0x52, 0x45, 0x9d, 0x44, 0xcc, 0xad, 0x2e, 0x0f, 0x4c, 0xf9,
];
/// `59324945-ec44-4c0d-b1cd-9db139df070c`
const INITIATOR_NAME: Guid = [
    0x45, 0x49, 0x32, 0x59, 0x44, 0xec, 0x0d, 0x4c, 0xb1, 0xcd, 0x9d, 0xb1, 0x39, 0xdf, 0x07, 0x0c,
];
/// Of a store whose variables carry the time of their last authenticated write:
/// `aaf32c78-947b-439a-a180-2e144ec37792`.
const STORE: Guid = [
    0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92,
];

/// Where the first variable of an empty store goes: after the volume's header, which tells its own
/// length, and the store's.
fn first_variable(store: &[u8]) -> Result<usize> {
    const STORE_HEADER_LEN: usize = 28;
    let length = store.get(48..50).and_then(|bytes| bytes.try_into().ok());
    let header = usize::from(u16::from_le_bytes(length.unwrap_or_default()));
    let first = header + STORE_HEADER_LEN;
    if store.get(header..header + STORE.len()) != Some(&STORE)
        || store.get(first..first + 4) != Some(&[0xff; 4])
    {
        bail!("{VARIABLES} is not an empty store of authenticated variables");
    }
    Ok(first)
}

fn variable(name: &str, guid: &Guid, data: &[u8]) -> Vec<u8> {
    const NON_VOLATILE_FOR_BOOT: u32 = 3;
    let name: Vec<u8> = utf16(name);
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    // Start of a variable, the state "added", nothing.
    let mut variable = vec![0xaa, 0x55, 0x3f, 0];
    variable.extend(NON_VOLATILE_FOR_BOOT.to_le_bytes());
    // A counter, a time and the number of a key: nobody signs these.
    variable.extend([0; 28]);
    variable.extend(length(&name));
    variable.extend(length(data));
    variable.extend(guid);
    variable.extend(name);
    variable.extend(data);
    variable
}

/// One way of the driver to a disk, packed.
fn attempt(boot: &IscsiBoot<'_>) -> Vec<u8> {
    const TIMEOUT_IN_MS: u16 = 10_000;
    const RETRIES: u8 = 2;
    let address = |octets: [u8; 4]| [&octets[..], &[0; 12]].concat();
    let mut attempt = vec![0; 16]; // links of a list
    attempt.extend([0, 1, 0, 0, 0, 0]); // card, number, and what came of it
    attempt.extend([0; 4]); // what the menu says
    attempt.extend(text("Attempt 1", 12));
    attempt.extend(text(&boot.mac.to_uppercase(), 96));
    attempt.extend([0; 48]); // name servers and DHCP server
    // The session.
    attempt.extend(boot.port.to_le_bytes());
    attempt.extend([1, 0]); // enabled, IPv4
    attempt.extend([0; 36]); // own address, mask, gateway
    attempt.extend([1, 0]); // these by DHCP, the target not
    attempt.extend(text(boot.target, 224));
    attempt.extend(address(boot.server.octets()));
    attempt.push(0); // IPv6 prefix
    attempt.extend([0, boot.lun, 0, 0, 0, 0, 0, 0]);
    attempt.extend(TIMEOUT_IN_MS.to_le_bytes());
    attempt.push(RETRIES);
    attempt.extend([0x80, 0x00, 0x00, 0x00, 0x00, 0x01]); // ISID
    attempt.extend([0; 20]); // no redirection, and the server is no name
    attempt.extend([0; 255]);
    attempt.push(0); // no authentication
    attempt.extend([0; 289]); // CHAP's names and secrets
    attempt.extend([0, 1]); // this attempt is active
    attempt
}

/// Text in a field of `length` bytes.
fn text(text: &str, length: usize) -> Vec<u8> {
    let mut field = text.as_bytes().to_vec();
    field.resize(length, 0);
    field
}

/// UTF-16 with its end.
fn utf16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().chain([0]);
    units.flat_map(u16::to_le_bytes).collect()
}

/// A program for UEFI on x86-64 that prints `message` on a line of its own and switches the machine
/// off. The message is [`PROGRAM_SIZE`] behind the code, so that all of it has to be read to be started.
fn program(message: &str) -> Vec<u8> {
    // Where the instruction ends that has its distance to the message.
    const LEA_END: u32 = 19;
    const DISTANCE: u32 = PROGRAM_SIZE as u32 - LEA_END;
    let mut section = Vec::new();
    section.extend([0x53]); // push rbx
    section.extend([0x48, 0x83, 0xec, 0x20]); // sub rsp, 32: room that the callee may use
    section.extend([0x48, 0x89, 0xd3]); // mov rbx, rdx: the system table
    section.extend([0x48, 0x8b, 0x4b, 0x40]); // mov rcx, [rbx+64]: ConOut
    section.extend([0x48, 0x8d, 0x15]); // lea rdx, [rip+…]: the message
    section.extend(DISTANCE.to_le_bytes());
    section.extend([0xff, 0x51, 0x08]); // call [rcx+8]: OutputString
    section.extend([0x48, 0x8b, 0x43, 0x58]); // mov rax, [rbx+88]: RuntimeServices
    section.extend([0xb9, 0x02, 0, 0, 0]); // mov ecx, 2: EfiResetShutdown
    section.extend([0x31, 0xd2]); // xor edx, edx: success
    section.extend([0x45, 0x31, 0xc0]); // xor r8d, r8d: no data
    section.extend([0x45, 0x31, 0xc9]); // xor r9d, r9d
    section.extend([0xff, 0x50, 0x68]); // call [rax+104]: ResetSystem
    section.resize(PROGRAM_SIZE as usize, 0x90);
    section.extend(utf16(&format!("\r\n{message}\r\n")));
    executable(section)
}

/// A PE32+ file with one section that begins with the code.
fn executable(mut section: Vec<u8>) -> Vec<u8> {
    const HEADERS: usize = 0x200;
    const PAGE: usize = 0x1000;
    section.resize(section.len().next_multiple_of(PAGE), 0);
    let size = u32::try_from(section.len()).unwrap_or(u32::MAX);
    let (headers, page) = (HEADERS as u32, PAGE as u32);
    let mut file = b"MZ".to_vec();
    file.resize(60, 0);
    file.extend(64_u32.to_le_bytes());
    file.extend(b"PE\0\0");
    file.extend([0x64, 0x86, 1, 0]); // x86-64, one section
    file.extend([0; 12]);
    file.extend([240, 0, 0x22, 0]); // the next header's size; executable, addresses of any size
    file.extend([0x0b, 0x02, 0, 0]); // PE32+
    for field in [size, 0, 0, page, page, 0, 0, page, headers] {
        file.extend(field.to_le_bytes()); // code, data, entry, its base, image base, alignments
    }
    file.extend([0; 16]); // versions
    for field in [page + size, headers, 0, 10] {
        file.extend(field.to_le_bytes()); // image, headers, checksum, EFI application
    }
    file.extend([0; 36]); // stack and heap
    file.extend(16_u32.to_le_bytes());
    file.extend([0; 128]); // directories
    file.extend(b".text\0\0\0");
    for field in [size, page, size, headers, 0, 0, 0, 0x6000_0020] {
        file.extend(field.to_le_bytes()); // in memory, in the file; code, executable, readable
    }
    file.resize(HEADERS, 0);
    file.extend(section);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_as_large_as_the_drivers() {
        let boot = IscsiBoot {
            mac: "52:54:00:12:34:56",
            initiator: "iqn.2026-01.edu.example:firmware",
            server: Ipv4Addr::new(192, 0, 2, 1),
            port: 3260,
            target: "iqn.2026-01.edu.example:disk",
            lun: 1,
        };
        let attempt = attempt(&boot);
        // What the firmware itself writes, seen in its variable store.
        assert_eq!(attempt.len(), 1049);
        assert_eq!(attempt[182..184], 3260_u16.to_le_bytes());
    }

    #[test]
    fn a_program_ends_with_its_message() {
        let program = program("NETROOT-LAB");
        let message = utf16("\r\nNETROOT-LAB\r\n");
        let at = 0x200 + (1 << 20);
        assert_eq!(program[at..at + message.len()], message);
        // The code's distance to it, from behind the instruction that has it.
        assert_eq!(
            program[0x200 + 15..0x200 + 19],
            ((1_u32 << 20) - 19).to_le_bytes()
        );
    }
}

//! iPXE of Debian's packages as if it had been built otherwise: one that trusts another certificate, and a
//! ROM that nobody takes for iPXE. Both are the package's own code with a few bytes changed, which needs
//! neither compiler nor sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::Crc;
use liblzma::stream::{Action, Filters, LzmaOptions, Status, Stream};
use sha2::{Digest, Sha256};

use crate::debs::unpacked;

/// What iPXE trusts that was built without `TRUST=`: the SHA-256 of the certificate of ca.ipxe.org
/// (`src/crypto/rootcert.c`).
const TRUSTED: [u8; 32] = [
    0x9f, 0xaf, 0x71, 0x7b, 0x7f, 0x8c, 0xa2, 0xf9, 0x3c, 0x25, 0x6c, 0x79, 0xf8, 0xac, 0x55, 0x91,
    0x89, 0x5d, 0x66, 0xd1, 0xff, 0x3b, 0xee, 0x63, 0x97, 0xa7, 0x0d, 0x29, 0xc6, 0x5e, 0xed, 0x1a,
];

/// Debian 13's iPXE for UEFI on x86-64, by the firmware's own network driver. It knows HTTPS.
///
/// # Errors
/// When the package cannot be had.
pub fn snponly() -> Result<PathBuf> {
    Ok(unpacked("trixie", "ipxe")?.join("usr/lib/ipxe/snponly.efi"))
}

/// Writes the same to `file`, made to trust this certificate (in DER) in place of its own, as one that is
/// built with `TRUST=` does.
///
/// # Errors
/// When the package cannot be had, or is built otherwise.
pub fn write_trusting(certificate: &[u8], file: &Path) -> Result<()> {
    let mut bytes = fs::read(snponly()?)?;
    replace(&mut bytes, &TRUSTED, &Sha256::digest(certificate))?;
    fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))
}

/// Writes a PXE ROM for QEMU's virtio card (`disable-legacy=on`) to `file`: it says in no DHCP packet that
/// it is iPXE, and asks as any ROM does. What it has to say of itself goes into an option for private use.
///
/// # Errors
/// When the package of Debian 12 cannot be had, or is built otherwise.
pub fn write_plain_rom(file: &Path) -> Result<()> {
    /// `mov edx, 175 << 8 | 177`: the card's number, within iPXE's own option.
    const BUS: [u8; 5] = [0xba, 0xb1, 0xaf, 0, 0];
    /// `mov edx, 175`: what it can do.
    const FEATURES: [u8; 5] = [0xba, 0xaf, 0, 0, 0];
    /// For private use (RFC 3942).
    const PRIVATE: u8 = 224;
    let rom = unpacked("bookworm", "ipxe-qemu")?.join("usr/lib/ipxe/qemu/pxe-virtio.rom");
    let mut rom = fs::read(rom)?;
    let (at, packed) = packed(&rom)?;
    let mut code = unpack(packed)?;
    replace(&mut code, b"\x4d\x04iPXE", &[0; 6])?;
    replace(&mut code, &BUS, &[0xba, 0xb1, PRIVATE, 0, 0])?;
    replace(&mut code, &FEATURES, &[0xba, PRIVATE, 0, 0, 0])?;
    // The changed code takes a byte more than there is room for; this makes some.
    let banner = b"Open Source Network Boot Firmware";
    replace(&mut code, banner, &[b' '; 33])?;
    let mut changed = pack(&code, packed.len())?;
    changed.resize(packed.len(), 0);
    let mut sum = Crc::new();
    sum.update(&changed);
    changed.extend((!sum.sum()).to_le_bytes());
    rom.get_mut(at..at + changed.len())
        .context("the ROM is shorter than what is packed in it")?
        .copy_from_slice(&changed);
    // All bytes of a ROM add up to nothing, or no BIOS runs it.
    let sum = rom.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let last = rom.last_mut().context("the ROM is empty")?;
    *last = last.wrapping_sub(sum);
    fs::write(file, rom).with_context(|| format!("writing {}", file.display()))
}

/// Replaces what is there exactly once.
fn replace(bytes: &mut [u8], what: &[u8], by: &[u8]) -> Result<()> {
    let windows = bytes.windows(what.len()).enumerate();
    let mut places = windows.filter(|(_, window)| *window == what);
    let (Some((at, _)), None) = (places.next(), places.next()) else {
        bail!("this iPXE is not built as it was: {what:02x?} is not in it exactly once");
    };
    let place = bytes.get_mut(at..at + by.len());
    place.context("there is no room")?.copy_from_slice(by);
    Ok(())
}

/// What is packed in a ROM of iPXE, and where it begins: its length stands before it, the complement of
/// its checksum behind it.
fn packed(rom: &[u8]) -> Result<(usize, &[u8])> {
    const LEAST: usize = 32 << 10;
    for (before, length) in rom.windows(4).enumerate() {
        let (at, length) = (before + 4, length.try_into().map(u32::from_le_bytes)?);
        let whole = rom.get(at..at.saturating_add(usize::try_from(length)?));
        let Some((packed, sum)) = whole
            .filter(|whole| whole.len() > LEAST)
            .and_then(<[u8]>::split_last_chunk::<4>)
        else {
            continue;
        };
        let mut crc = Crc::new();
        crc.update(packed);
        if !crc.sum() == u32::from_le_bytes(*sum) {
            return Ok((at, packed));
        }
    }
    bail!("there is nothing packed in the ROM")
}

/// How iPXE packs (`src/util/zbin.c`).
fn filters() -> Result<Filters> {
    const EXTREME: u32 = 1 << 31;
    let mut options = LzmaOptions::new_preset(9 | EXTREME)?;
    options
        .literal_context_bits(2)
        .literal_position_bits(0)
        .position_bits(0);
    let mut filters = Filters::new();
    filters.x86().lzma1(&options);
    Ok(filters)
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    through(Stream::new_raw_decoder(&filters()?)?, packed, 1 << 20)
}

fn pack(code: &[u8], most: usize) -> Result<Vec<u8>> {
    through(Stream::new_raw_encoder(&filters()?)?, code, most)
}

fn through(mut stream: Stream, from: &[u8], most: usize) -> Result<Vec<u8>> {
    let mut to = Vec::with_capacity(most);
    match stream.process_vec(from, &mut to, Action::Finish)? {
        Status::StreamEnd => Ok(to),
        _ => bail!("what is packed in the ROM has no end within {most} bytes"),
    }
}

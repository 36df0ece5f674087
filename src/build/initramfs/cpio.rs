//! What is in an initramfs: one or more cpio archives, the last of them usually compressed.
//!
//! The kernel's own description is Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, Result, bail, ensure};

use crate::build::compressed::{Compression, uncompressed};

/// Length of the header of an entry in "newc" format: magic and 13 numbers of 8 hex digits.
const HEADER: usize = 110;

/// The name that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// Longest file whose contents are kept.
const LONGEST_KEPT: u32 = 1 << 20;

/// Longest path that a kernel takes (`PATH_MAX`).
const LONGEST_NAME: u32 = 4096;

/// Most bytes of names and texts that are kept in memory; real ones have some megabytes.
const MOST_KEPT: usize = 256 << 20;

/// Most bytes that an initramfs may unpack to; a larger one does not fit into a client either.
const LARGEST: u64 = 16 << 30;

/// Names and some contents of an initramfs.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Paths without a leading slash; what was under the `lib`, `bin` or `sbin` of a system with a
    /// merged `/usr` stands there under `usr` as well.
    paths: HashSet<String>,
    texts: HashMap<String, String>,
    compression: Option<Compression>,
    /// Bytes of all that is kept.
    kept: usize,
}

impl Contents {
    /// Reads an initramfs, keeping the texts of the files that `keep` names.
    pub(crate) fn read(stream: impl Read, keep: &dyn Fn(&str) -> bool) -> Result<Self> {
        let mut contents = Self::default();
        contents.archives(
            &mut BufReader::new(stream.take(LARGEST)),
            keep,
            Depth::Outer,
        )?;
        ensure!(!contents.paths.is_empty(), "there is nothing in it");
        Ok(contents)
    }

    /// Whether there is something at one of `paths`, on either side of the merged `/usr`.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// All paths.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// The text of a file that was kept.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// How its main part is compressed.
    pub(crate) fn compression(&self) -> Compression {
        self.compression.unwrap_or(Compression::None)
    }

    /// Reads archive after archive, and what is compressed behind them.
    fn archives(
        &mut self,
        stream: &mut dyn BufRead,
        keep: &dyn Fn(&str) -> bool,
        depth: Depth,
    ) -> Result<()> {
        while skip_zeros(stream)? {
            let first = stream.fill_buf().context("reading it")?;
            if first.starts_with(b"0") {
                self.archive(stream, keep)?;
                continue;
            }
            let compression = Compression::of(first);
            match (compression, depth) {
                (Compression::None, _) => {
                    bail!("it is neither a cpio archive nor compressed in a known way")
                }
                (_, Depth::Inner) => bail!("something compressed lies in something compressed"),
                (_, Depth::Outer) => {
                    self.compression = Some(compression);
                    let inner = uncompressed(compression, stream)?.take(LARGEST);
                    // Nothing follows it that a kernel would need.
                    return self.archives(&mut BufReader::new(inner), keep, Depth::Inner);
                }
            }
        }
        Ok(())
    }

    fn archive(&mut self, stream: &mut dyn BufRead, keep: &dyn Fn(&str) -> bool) -> Result<()> {
        loop {
            let mut header = [0; HEADER];
            stream
                .read_exact(&mut header)
                .context("it ends within an archive")?;
            ensure!(
                header.starts_with(b"070701") || header.starts_with(b"070702"),
                "an entry of it is not in the format that kernels read"
            );
            let size = number(&header, 6)?;
            let length = number(&header, 11)?;
            ensure!(
                length <= LONGEST_NAME,
                "a name of it is longer than any path"
            );
            let name = bytes(stream, length)?;
            skip(stream, padding(HEADER as u64 + name.len() as u64))?;
            let name = name.strip_suffix(b"\0").unwrap_or(&name);
            if name == TRAILER {
                return Ok(());
            }
            let path = plain_path(name);
            self.keep(path.len())?;
            if keep(&path) && size <= LONGEST_KEPT {
                self.keep(size as usize)?;
                let text = bytes(stream, size)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                self.texts.insert(path.clone(), text);
            } else {
                skip(stream, u64::from(size))?;
            }
            skip(stream, padding(u64::from(size)))?;
            self.paths.insert(path);
        }
    }

    /// Counts what is about to be kept in memory.
    fn keep(&mut self, bytes: usize) -> Result<()> {
        // What a short name takes besides its letters.
        self.kept = self.kept.saturating_add(bytes + 64);
        ensure!(
            self.kept <= MOST_KEPT,
            "it has more names than fit into memory"
        );
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Outer,
    Inner,
}

/// The path as it is seen by programs: without `./`, and where `/usr` is merged.
fn plain_path(name: &[u8]) -> String {
    let path = String::from_utf8_lossy(name);
    let path = path.trim_start_matches("./").trim_matches('/');
    let merged = ["lib/", "lib64/", "bin/", "sbin/"];
    if merged.iter().any(|dir| path.starts_with(dir)) {
        format!("usr/{path}")
    } else {
        path.to_owned()
    }
}

/// The number at `index` of a header.
fn number(header: &[u8; HEADER], index: usize) -> Result<u32> {
    let at = 6 + 8 * index;
    let digits = header.get(at..at + 8).unwrap_or_default();
    let digits = std::str::from_utf8(digits).context("a number of it is not hexadecimal")?;
    u32::from_str_radix(digits, 16).context("a number of it is not hexadecimal")
}

/// Zeros that follow `length` bytes.
fn padding(length: u64) -> u64 {
    length.next_multiple_of(4) - length
}

fn bytes(stream: &mut dyn BufRead, length: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream
        .take(u64::from(length))
        .read_to_end(&mut bytes)
        .context("reading it")?;
    ensure!(
        bytes.len() as u64 == u64::from(length),
        "it ends within an entry"
    );
    Ok(bytes)
}

fn skip(stream: &mut dyn BufRead, length: u64) -> Result<()> {
    let skipped = io::copy(&mut stream.take(length), &mut io::sink()).context("reading it")?;
    ensure!(skipped == length, "it ends within an entry");
    Ok(())
}

/// Skips the zeros between archives; `false` at the end.
fn skip_zeros(stream: &mut dyn BufRead) -> Result<bool> {
    loop {
        let first = stream.fill_buf().context("reading it")?;
        if first.is_empty() {
            return Ok(false);
        }
        let zeros = first.iter().take_while(|&&byte| byte == 0).count();
        if zeros == 0 {
            return Ok(true);
        }
        stream.consume(zeros);
    }
}

/// Makes an archive of `files`, as tests need it.
#[cfg(test)]
pub(crate) fn archive_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, text) in files.iter().chain(&[("TRAILER!!!", "")]) {
        let mut numbers = [0; 13];
        numbers[1] = 0o100_644;
        numbers[6] = text.len();
        numbers[11] = name.len() + 1;
        archive.extend(b"070701");
        for number in numbers {
            archive.extend(format!("{number:08X}").as_bytes());
        }
        for part in [&format!("{name}\0"), *text] {
            archive.extend(part.as_bytes());
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    }
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main_part() -> Vec<u8> {
        archive_of(&[
            ("./init", "#!"),
            ("lib/modules/5.0/x.ko", "odd"),
            ("bin", ""),
        ])
    }

    fn check(image: &[u8], compression: Compression) {
        let contents = Contents::read(image, &|path| path == "init").unwrap();
        assert!(contents.has("usr/lib/modules/5.0/x.ko") && contents.has("bin"));
        assert_eq!(contents.text("init"), Some("#!"));
        assert_eq!(contents.compression(), compression);
    }

    #[test]
    fn archives_are_read_one_after_another() {
        check(&main_part(), Compression::None);
        let mut image = archive_of(&[("kernel/x86/microcode/GenuineIntel.bin", "code")]);
        image.resize(image.len().next_multiple_of(512), 0);
        image.extend(zstd::encode_all(&main_part()[..], 1).unwrap());
        check(&image, Compression::Zstd);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let image = main_part();
        for length in 0..image.len() - 4 {
            assert!(
                Contents::read(&image[..length], &|_| true).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn a_name_longer_than_any_path_is_refused_unread() {
        let mut image = main_part();
        image[6 + 8 * 11..6 + 8 * 12].copy_from_slice(b"FFFFFFF0");
        let error = Contents::read(&image[..], &|_| false).unwrap_err();
        assert!(
            error.to_string().contains("longer than any path"),
            "{error}"
        );
    }

    #[test]
    fn what_is_kept_in_memory_is_bounded() {
        let mut contents = Contents::default();
        contents.keep(MOST_KEPT / 2).unwrap();
        let error = contents.keep(MOST_KEPT / 2).unwrap_err();
        assert!(error.to_string().contains("fit into memory"), "{error}");
    }

    #[test]
    fn other_bytes_are_refused() {
        let refused = |image: &[u8]| Contents::read(image, &|_| false).unwrap_err().to_string();
        assert!(refused(b"#!/bin/sh").contains("neither a cpio archive"));
        assert!(refused(b"070707").contains("ends within"));
        assert!(refused(b"").contains("nothing in it"));
        let mut wrong = main_part();
        wrong[6 + 8 * 6] = b'z';
        assert!(refused(&wrong).contains("hexadecimal"));
    }
}

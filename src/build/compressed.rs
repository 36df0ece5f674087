//! Compressed streams, told by their first bytes.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use anyhow::{Context, Result};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
    /// The format of the kernel's tools, not of the lz4 program.
    Lz4Legacy,
    /// Known by name only.
    Unsupported(&'static str),
}

/// A stream whose first bytes were read already, and are read again.
pub(crate) type Sniffed<R> = Chain<Cursor<Vec<u8>>, R>;

/// First bytes of each format.
const MAGICS: &[(&[u8], Compression)] = &[
    (b"\x1f\x8b", Compression::Gzip),
    (b"\xfd7zXZ\0", Compression::Xz),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    (b"\x02\x21\x4c\x18", Compression::Lz4Legacy),
    (b"\x04\x22\x4d\x18", Compression::Unsupported("lz4")),
    (b"BZh", Compression::Unsupported("bzip2")),
    (b"\x5d\0\0", Compression::Unsupported("lzma")),
    (b"\x89LZO", Compression::Unsupported("lzo")),
];

/// The most first bytes that are needed to tell.
const LONGEST_MAGIC: usize = 6;

/// The largest block of lz4's legacy format.
const LZ4_BLOCK: usize = 8 << 20;

impl Compression {
    /// What `first`, the first bytes of a stream, tell.
    pub(crate) fn of(first: &[u8]) -> Self {
        MAGICS
            .iter()
            .find(|(magic, _)| first.starts_with(magic))
            .map_or(Self::None, |(_, compression)| *compression)
    }

    /// Its name, where there is any.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Xz => Some("xz"),
            Self::Zstd => Some("zstd"),
            Self::Lz4Legacy => Some("lz4"),
            Self::Unsupported(name) => Some(name),
        }
    }
}

/// Reads the first bytes of `stream`, and gives how it is compressed with the whole stream.
pub(crate) fn sniff<R: Read>(mut stream: R) -> Result<(Compression, Sniffed<R>)> {
    let mut first = Vec::new();
    let limit = LONGEST_MAGIC as u64;
    (&mut stream).take(limit).read_to_end(&mut first)?;
    let compression = Compression::of(&first);
    Ok((compression, Cursor::new(first).chain(stream)))
}

/// What `stream` holds, uncompressed.
pub(crate) fn uncompressed<'a>(
    compression: Compression,
    stream: impl Read + 'a,
) -> Result<Box<dyn Read + 'a>> {
    let stream = BufReader::with_capacity(256 * 1024, stream);
    Ok(match compression {
        Compression::None => Box::new(stream),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(stream)),
        Compression::Zstd => {
            Box::new(zstd::Decoder::with_buffer(stream).context("starting to read zstd")?)
        }
        Compression::Lz4Legacy => Box::new(Lz4Legacy::new(stream)),
        Compression::Unsupported(name) => anyhow::bail!("{name} is not understood"),
    })
}

/// Blocks of at most 8 MiB, each with its compressed length before it; after the magic there is
/// nothing else (Documentation/arch/x86 of Linux calls for it; lz4's "legacy frame").
struct Lz4Legacy<R> {
    stream: R,
    block: Cursor<Vec<u8>>,
}

impl<R: BufRead> Lz4Legacy<R> {
    fn new(stream: R) -> Self {
        Self {
            stream,
            block: Cursor::default(),
        }
    }

    /// The next block; `false` at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(length) = self.length()? else {
            return Ok(false);
        };
        let bound = lz4_flex::block::get_maximum_output_size(LZ4_BLOCK) as u64;
        if length == 0 || length > bound {
            // What pads the file, or a stream of another kind behind it.
            return Ok(false);
        }
        let mut packed = Vec::new();
        (&mut self.stream).take(length).read_to_end(&mut packed)?;
        let block = lz4_flex::block::decompress(&packed, LZ4_BLOCK).map_err(io::Error::other)?;
        self.block = Cursor::new(block);
        Ok(true)
    }

    /// The length before a block, after the magic of each stream that begins here.
    fn length(&mut self) -> io::Result<Option<u64>> {
        loop {
            let mut length = [0; 4];
            match self.stream.read_exact(&mut length) {
                Ok(()) if Compression::of(&length) == Compression::Lz4Legacy => {}
                Ok(()) => return Ok(Some(u64::from(u32::from_le_bytes(length)))),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }
}

impl<R: BufRead> Read for Lz4Legacy<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = self.block.read(into)?;
            if got > 0 || into.is_empty() || !self.advance()? {
                return Ok(got);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check(packed: &[u8], expected: Compression) {
        let (compression, stream) = sniff(packed).unwrap();
        assert_eq!(compression, expected);
        let mut text = String::new();
        uncompressed(compression, stream)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "what it holds");
    }

    #[test]
    fn every_format_is_told_by_its_first_bytes() {
        let text = b"what it holds";
        check(text, Compression::None);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(text).unwrap();
        check(&gzip.finish().unwrap(), Compression::Gzip);
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(text).unwrap();
        check(&xz.finish().unwrap(), Compression::Xz);
        check(&zstd::encode_all(&text[..], 1).unwrap(), Compression::Zstd);
        let block = lz4_flex::block::compress(text);
        let mut lz4 = b"\x02\x21\x4c\x18".to_vec();
        lz4.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        lz4.extend(block);
        check(&lz4, Compression::Lz4Legacy);
    }

    #[test]
    fn a_million_streams_in_a_row_do_not_fill_the_stack() {
        let magics = b"\x02\x21\x4c\x18".repeat(1_000_000);
        let mut nothing = Vec::new();
        let mut stream = uncompressed(Compression::Lz4Legacy, &magics[..]).unwrap();
        assert_eq!(stream.read_to_end(&mut nothing).unwrap(), 0);
    }

    #[test]
    fn an_empty_stream_is_not_compressed() {
        let (compression, _) = sniff(&b""[..]).unwrap();
        assert_eq!(compression, Compression::None);
    }
}

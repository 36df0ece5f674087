//! The members of a tar archive, one after another.
//!
//! The blocks are read here and not by the crate's own iterator: that one splits pax records at
//! line ends, of which a file capability may contain some, and knows no sparse members of pax.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Context, Result, bail, ensure};
use nix::libc::makedev;
use nix::sys::stat::SFlag;
use nix::sys::time::TimeSpec;
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::acl;
use super::pax::{self, Records};
use crate::build::tree::attributes::{Attributes, is_kept};

const BLOCK: usize = 512;

/// Longest name or set of pax records; nobody needs more, and it is kept in memory.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// Most pieces of a sparse file.
const MOST_PIECES: usize = 1 << 20;

/// How many of them a block behind the header has room for.
const PIECES_IN_BLOCK: usize = 21;

/// Longest data of a member: what a file's offsets can reach.
const LONGEST_DATA: u64 = i64::MAX as u64;

/// A piece of a sparse file: offset and length.
type Piece = (u64, u64);

/// A member, without its data.
#[derive(Debug)]
pub(super) struct Member {
    /// As the archive has it; nothing is checked.
    pub(super) path: OsString,
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
    /// Where the pieces of a sparse file belong: offset and length. A whole file is one piece.
    pub(super) pieces: Vec<Piece>,
    /// Its length when unpacked.
    pub(super) size: u64,
}

/// What a member is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink(OsString),
    /// Another name of a member before it.
    HardLink(OsString),
    Node {
        kind: SFlag,
        device: u64,
    },
}

/// Reads members off a stream.
pub(super) struct Members<R> {
    stream: R,
    /// Data of the present member that was not read yet, and the zeros behind it.
    data: u64,
    padding: u64,
    /// Whether a whole header was seen: what is cut off before that was never an archive.
    begun: bool,
}

/// What stands in members of its own before the one that it is about.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

impl Member {
    /// Bytes of data that it brings.
    pub(super) fn data_size(&self) -> u64 {
        self.pieces.iter().map(|(_, length)| length).sum()
    }
}

impl<R: Read> Members<R> {
    pub(super) fn new(stream: R) -> Self {
        Self {
            stream,
            data: 0,
            padding: 0,
            begun: false,
        }
    }

    /// The next member; its data can be read from here until the one after it is asked for.
    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        let mut extensions = Extensions::default();
        loop {
            let left = self.data + self.padding;
            self.skip(left)?;
            (self.data, self.padding) = (0, 0);
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let header = Header::from_byte_slice(&block);
            let size = header.entry_size().context("a member without a size")?;
            match header.entry_type() {
                EntryType::XHeader => extensions.records = pax::parse(&self.extension(size)?)?,
                EntryType::GNULongName => extensions.path = Some(self.text(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.text(size)?),
                // Remarks about the whole archive, such as the commit that it was made from, and
                // a volume's label.
                EntryType::XGlobalHeader => self.begin_data(size)?,
                other if other.as_byte() == b'V' => self.begin_data(size)?,
                _ => {
                    let member = self.member(header, size, extensions);
                    let path = || String::from_utf8_lossy(&header.path_bytes()).into_owned();
                    return Ok(Some(member.with_context(|| format!("member {}", path()))?));
                }
            }
        }
    }

    fn member(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Member> {
        let records = &extensions.records;
        let size = pax::number(records, "size")?.unwrap_or(size);
        let kind = kind(header, &extensions)?;
        // Only files have data; others may state a size all the same.
        let is_file = kind == Kind::File;
        self.begin_data(if is_file { size } else { 0 })?;
        let mut member = Member {
            path: path(header, &extensions),
            attributes: attributes(header, records)?,
            pieces: if is_file { vec![(0, size)] } else { Vec::new() },
            size: if is_file { size } else { 0 },
            kind,
        };
        if header.entry_type() == EntryType::GNUSparse {
            (member.pieces, member.size) = self.gnu_sparse(header)?;
        } else if is_file && let Some((pieces, size)) = self.pax_sparse(records)? {
            (member.pieces, member.size) = (pieces, size);
        }
        check_pieces(&member.pieces, member.size, self.data)?;
        Ok(member)
    }

    /// The map of GNU's own format, in the header and in blocks behind it.
    fn gnu_sparse(&mut self, header: &Header) -> Result<(Vec<Piece>, u64)> {
        let gnu = header
            .as_gnu()
            .context("a sparse member in another format")?;
        let size = gnu.real_size().context("a sparse member without a size")?;
        let mut pieces = Vec::new();
        add_pieces(&gnu.sparse, &mut pieces)?;
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            // Counted apart from the pieces: a block may have none.
            blocks += 1;
            ensure!(
                blocks <= MOST_PIECES / PIECES_IN_BLOCK,
                "a map of a sparse member is too long"
            );
            let mut block = GnuExtSparseHeader::new();
            self.stream
                .read_exact(block.as_mut_bytes())
                .context("the archive ends within a map")?;
            add_pieces(&block.sparse, &mut pieces)?;
            more = block.is_extended();
        }
        Ok((pieces, size))
    }

    /// The maps of pax: 0.0 and 0.1 in the records, 1.0 at the beginning of the data.
    fn pax_sparse(&mut self, records: &Records) -> Result<Option<(Vec<Piece>, u64)>> {
        if let Some(size) = pax::number(records, "GNU.sparse.realsize")? {
            let wanted = (Some(1), Some(0));
            let found = (
                pax::number(records, "GNU.sparse.major")?,
                pax::number(records, "GNU.sparse.minor")?,
            );
            ensure!(found == wanted, "a sparse member of an unknown format");
            return Ok(Some((self.map_in_data()?, size)));
        }
        let Some(size) = pax::number(records, "GNU.sparse.size")? else {
            return Ok(None);
        };
        let numbers: Vec<u64> = match pax::find(records, "GNU.sparse.map") {
            Some(map) => map
                .split(|&byte| byte == b',')
                .map_while(pax::decimal)
                .collect(),
            None => records
                .iter()
                .filter(|(key, _)| key == "GNU.sparse.offset" || key == "GNU.sparse.numbytes")
                .map_while(|(_, value)| pax::decimal(value))
                .collect(),
        };
        Ok(Some((pairs(&numbers), size)))
    }

    /// Lines of decimal numbers: how many pieces, then offset and length of each; filled up to a
    /// whole block.
    fn map_in_data(&mut self) -> Result<Vec<Piece>> {
        let mut read = 0;
        let mut line = || -> Result<u64> {
            let mut digits = Vec::new();
            let mut byte = [0];
            loop {
                self.stream
                    .read_exact(&mut byte)
                    .context("the archive ends within a map")?;
                read += 1;
                match byte {
                    [b'\n'] => break,
                    _ if digits.len() < 20 => digits.extend(byte),
                    _ => bail!("a map of a sparse member with too long a number"),
                }
            }
            pax::decimal(&digits).context("a map of a sparse member without a number")
        };
        let count = line()?;
        ensure!(
            count <= MOST_PIECES as u64,
            "a map of a sparse member is too long"
        );
        let mut numbers = Vec::new();
        for _ in 0..count * 2 {
            numbers.push(line()?);
        }
        let whole = u64::next_multiple_of(read, BLOCK as u64);
        self.skip(whole - read)?;
        self.data = self
            .data
            .checked_sub(whole)
            .context("a map is longer than its member")?;
        Ok(pairs(&numbers))
    }

    /// The next header; nothing at the end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        match self.stream.read(&mut block[..1])? {
            // An archive should end with two blocks of zeros, but not all do.
            0 => return Ok(None),
            _ => self
                .stream
                .read_exact(&mut block[1..])
                .context(if self.begun {
                    "the archive is cut off"
                } else {
                    "this is not a tar archive"
                })?,
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let stated = Header::from_byte_slice(&block).cksum().ok();
        // The sum is taken with blanks in its own place.
        let before = block.get(..148).unwrap_or_default();
        let after = block.get(156..).unwrap_or_default();
        let sum: u32 = before
            .iter()
            .chain(after)
            .map(|&byte| u32::from(byte))
            .sum();
        ensure!(
            stated == Some(sum + 8 * 32),
            "this is not a tar archive, or it is damaged"
        );
        self.begun = true;
        Ok(Some(block))
    }

    fn begin_data(&mut self, size: u64) -> Result<()> {
        ensure!(
            size <= LONGEST_DATA,
            "a member states a size of {size} bytes"
        );
        self.data = size;
        let block = BLOCK as u64;
        self.padding = (block - size % block) % block;
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        ensure!(
            size <= LONGEST_EXTENSION,
            "a name or attribute of {size} bytes"
        );
        self.begin_data(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 == size, "the archive is cut off");
        Ok(bytes)
    }

    fn text(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut text = self.extension(size)?;
        let end = text.iter().position(|&byte| byte == 0);
        text.truncate(end.unwrap_or(text.len()));
        Ok(text)
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        let skipped = io::copy(&mut (&mut self.stream).take(length), &mut io::sink())?;
        ensure!(skipped == length, "the archive is cut off");
        Ok(())
    }
}

/// Reads the data of the present member, piece after piece.
impl<R: Read> Read for Members<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = (&mut self.stream).take(self.data).read(into)?;
        self.data -= got as u64;
        Ok(got)
    }
}

fn kind(header: &Header, extensions: &Extensions) -> Result<Kind> {
    let link = || -> Result<OsString> {
        let records = pax::find(&extensions.records, "linkpath");
        let found = records
            .map(<[u8]>::to_vec)
            .or_else(|| extensions.link.clone());
        let found = found.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        Ok(OsString::from_vec(
            found.context("a link that leads nowhere")?,
        ))
    };
    let node = |kind| -> Result<Kind> {
        let major = header.device_major()?.unwrap_or(0);
        let minor = header.device_minor()?.unwrap_or(0);
        let device = makedev(major, minor);
        Ok(Kind::Node { kind, device })
    };
    match header.entry_type() {
        EntryType::Regular if header.path_bytes().ends_with(b"/") => Ok(Kind::Directory),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Ok(Kind::File),
        // `D`: a directory in an incremental archive of GNU tar.
        EntryType::Directory => Ok(Kind::Directory),
        other if other.as_byte() == b'D' => Ok(Kind::Directory),
        EntryType::Symlink => Ok(Kind::Symlink(link()?)),
        EntryType::Link => Ok(Kind::HardLink(link()?)),
        EntryType::Char => node(SFlag::S_IFCHR),
        EntryType::Block => node(SFlag::S_IFBLK),
        EntryType::Fifo => Ok(Kind::Node {
            kind: SFlag::S_IFIFO,
            device: 0,
        }),
        other => bail!(
            "it is of type {:?}, which is not understood",
            other.as_byte() as char
        ),
    }
}

fn path(header: &Header, extensions: &Extensions) -> OsString {
    let records = &extensions.records;
    let path = pax::find(records, "GNU.sparse.name").or_else(|| pax::find(records, "path"));
    match path.or(extensions.path.as_deref()) {
        Some(path) => OsStr::from_bytes(path).to_owned(),
        None => OsStr::from_bytes(&header.path_bytes()).to_owned(),
    }
}

fn attributes(header: &Header, records: &Records) -> Result<Attributes> {
    let id = |key, field: io::Result<u64>| -> Result<u32> {
        let id = match pax::number(records, key)? {
            Some(id) => id,
            None => field?,
        };
        u32::try_from(id).with_context(|| format!("{key} {id} is too large"))
    };
    let modified = match pax::time(records, "mtime")? {
        Some(time) => time,
        // GNU tar writes times before 1970 as negative numbers of 64 bits.
        None => TimeSpec::new(header.mtime()?.cast_signed(), 0),
    };
    let mut xattrs = Vec::new();
    for (key, value) in records {
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            let name = OsString::from(name);
            if is_kept(&name) {
                xattrs.push((name, value.clone()));
            }
        }
        let acl = match key.as_str() {
            "SCHILY.acl.access" => "system.posix_acl_access",
            "SCHILY.acl.default" => "system.posix_acl_default",
            _ => continue,
        };
        xattrs.push((OsString::from(acl), acl::parse(value)?));
    }
    Ok(Attributes {
        uid: id("uid", header.uid())?,
        gid: id("gid", header.gid())?,
        mode: header.mode()? & 0o7777,
        accessed: pax::time(records, "atime")?.unwrap_or(modified),
        modified,
        xattrs,
    })
}

fn add_pieces(headers: &[GnuSparseHeader], pieces: &mut Vec<Piece>) -> Result<()> {
    for header in headers.iter().filter(|header| !header.is_empty()) {
        pieces.push((header.offset()?, header.length()?));
    }
    Ok(())
}

fn pairs(numbers: &[u64]) -> Vec<Piece> {
    numbers
        .chunks_exact(2)
        .filter_map(|pair| Some((*pair.first()?, *pair.last()?)))
        .collect()
}

/// Pieces must follow each other within the file and take up all data.
fn check_pieces(pieces: &[Piece], size: u64, data: u64) -> Result<()> {
    let mut end = 0;
    let mut sum = 0u64;
    for &(offset, length) in pieces {
        ensure!(offset >= end, "a map of a sparse member goes backwards");
        end = offset
            .checked_add(length)
            .context("a map of a sparse member overflows")?;
        sum = sum.saturating_add(length);
    }
    ensure!(
        end <= size && sum == data,
        "a map of a sparse member does not fit its data"
    );
    Ok(())
}

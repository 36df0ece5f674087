//! The parameter list of EXTENDED COPY(LID1) (SPC-4 §6.4.1).

use crate::scsi::sense::Sense;

/// Most CSCD descriptors of a list.
pub(super) const MAX_CSCDS: u16 = 8;
/// Most segment descriptors of a list.
pub(super) const MAX_SEGMENTS: u16 = 64;
/// Most bytes of both together: exactly as many as that takes.
pub(super) const MAX_DESCRIPTORS: u32 =
    MAX_CSCDS as u32 * CSCD_LEN as u32 + MAX_SEGMENTS as u32 * SEGMENT_LEN as u32;

pub(super) const HEADER_LEN: usize = 16;
const CSCD_LEN: usize = 32;
const SEGMENT_LEN: usize = 28;

/// Identification descriptor CSCD descriptor (SPC-4 §6.4.5.2).
pub(super) const IDENTIFICATION: u8 = 0xe4;
/// Block device to block device segment descriptor (SPC-4 §6.4.6.5).
pub(super) const BLOCK_TO_BLOCK: u8 = 0x02;

/// What is to be copied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct List {
    /// LIST IDENTIFIER, if the outcome is to be kept under it.
    pub(super) keep: Option<u8>,
    pub(super) cscds: Vec<Cscd>,
    pub(super) segments: Vec<Segment>,
}

/// A unit, by one of its designators (SPC-4 §7.8.6).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cscd {
    /// CODE SET, ASSOCIATION and DESIGNATOR TYPE, as two bytes.
    pub(super) kind: [u8; 2],
    pub(super) designator: Vec<u8>,
    /// Bytes of a block, if that is told.
    pub(super) block_size: Option<u32>,
}

/// One range of blocks to copy. Units are indices into the CSCD descriptors.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) source: u16,
    pub(super) source_lba: u64,
    pub(super) target: u16,
    pub(super) target_lba: u64,
    pub(super) blocks: u16,
    /// DC: the blocks are counted as those of the target.
    pub(super) counts_target: bool,
}

impl List {
    pub(super) fn parse(list: &[u8]) -> Result<Self, Sense> {
        let mut rest = list;
        let header = take(&mut rest, HEADER_LEN)?;
        let (cscds, segments) = (be(header, 2, 2), be(header, 8, 4));
        if cscds + segments > u64::from(MAX_DESCRIPTORS) {
            return Err(Sense::PARAMETER_LENGTH);
        }
        if cscds > u64::from(MAX_CSCDS) * CSCD_LEN as u64 {
            return Err(Sense::TOO_MANY_CSCDS.in_parameter(2));
        }
        if segments > u64::from(MAX_SEGMENTS) * SEGMENT_LEN as u64 {
            return Err(Sense::TOO_MANY_SEGMENTS.in_parameter(8));
        }
        // MAXIMUM INLINE DATA LENGTH is 0.
        if be(header, 12, 4) != 0 {
            return Err(Sense::INLINE_TOO_LONG.in_parameter(12));
        }
        let cscds = descriptors(take(&mut rest, cscds as usize)?, CSCD_LEN, Cscd::parse)?;
        let segments = take(&mut rest, segments as usize)?;
        Ok(List {
            keep: list_id(header)?,
            cscds,
            segments: descriptors(segments, SEGMENT_LEN, Segment::parse)?,
        })
    }
}

/// LIST IDENTIFIER by LIST ID USAGE (SPC-4 §6.4.3.2).
fn list_id(header: &[u8]) -> Result<Option<u8>, Sense> {
    let id = be(header, 0, 1) as u8;
    match be(header, 1, 1) >> 3 & 0x03 {
        0 => Ok(Some(id)),
        // The outcome need not be kept.
        2 => Ok(None),
        3 if id == 0 => Ok(None),
        3 => Err(Sense::INVALID_PARAMETER.in_parameter(0)),
        _ => Err(Sense::INVALID_PARAMETER.in_parameter(1).bit(4)),
    }
}

fn descriptors<T>(
    list: &[u8],
    len: usize,
    parse: impl Fn(&[u8]) -> Result<T, Sense>,
) -> Result<Vec<T>, Sense> {
    list.chunks(len).map(parse).collect()
}

impl Cscd {
    fn parse(bytes: &[u8]) -> Result<Self, Sense> {
        if bytes.first() != Some(&IDENTIFICATION) {
            return Err(Sense::UNSUPPORTED_CSCD);
        }
        if bytes.len() < CSCD_LEN {
            return Err(Sense::PARAMETER_LENGTH);
        }
        // PERIPHERAL DEVICE TYPE: a block device. LU ID TYPE is ignored in this kind of descriptor, and
        // NUL is obsolete (SPC-4 §6.4.5.1).
        if be(bytes, 1, 1) & 0x1f != 0 {
            return Err(Sense::INVALID_PARAMETER);
        }
        let len = be(bytes, 7, 1) as usize;
        let designator = bytes.get(8..28).and_then(|field| field.get(..len));
        let block_size = be(bytes, 29, 3) as u32;
        Ok(Cscd {
            kind: [be(bytes, 4, 1) as u8 & 0x0f, be(bytes, 5, 1) as u8 & 0x3f],
            designator: designator.ok_or(Sense::INVALID_PARAMETER)?.to_vec(),
            block_size: (block_size != 0).then_some(block_size),
        })
    }
}

impl Segment {
    fn parse(bytes: &[u8]) -> Result<Self, Sense> {
        if bytes.first() != Some(&BLOCK_TO_BLOCK) {
            return Err(Sense::UNSUPPORTED_SEGMENT);
        }
        if bytes.len() < SEGMENT_LEN {
            return Err(Sense::PARAMETER_LENGTH);
        }
        // DESCRIPTOR LENGTH counts what follows it.
        if be(bytes, 2, 2) != SEGMENT_LEN as u64 - 4 {
            return Err(Sense::INVALID_PARAMETER);
        }
        Ok(Segment {
            source: be(bytes, 4, 2) as u16,
            target: be(bytes, 6, 2) as u16,
            blocks: be(bytes, 10, 2) as u16,
            source_lba: be(bytes, 12, 8),
            target_lba: be(bytes, 20, 8),
            counts_target: be(bytes, 1, 1) & 0x02 != 0,
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Sense> {
    let (head, tail) = rest.split_at_checked(len).ok_or(Sense::PARAMETER_LENGTH)?;
    *rest = tail;
    Ok(head)
}

/// A number of `len` bytes at `at`; what is not there counts as 0.
fn be(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes.iter().skip(at).take(len);
    bytes.fold(0, |n, byte| n << 8 | u64::from(*byte))
}

//! Commands that tell how things are (SPC-4 §6.33, §6.39; SBC-3 §5.16, §5.25).

use super::cdb::Cdb;
use super::itl::Units;
use super::lun::Lun;
use super::request::Request;
use super::response::{Response, Start};
use super::sense::{Format, Sense};
use super::unit::Kind;
use crate::block::Geometry;

/// TEST UNIT READY. Its reserved bits are not looked at: VMware sets one.
pub(super) fn ready(_: &Request<'_>) -> Result<Start, Sense> {
    Ok(Response::good().into())
}

/// REQUEST SENSE: a unit attention is told here as data, and thereby reported.
pub(super) fn request_sense(request: &Request<'_>) -> Result<Start, Sense> {
    let pending = request
        .take_attention()
        .or_else(|| request.unit.sanitation.sense())
        .unwrap_or(Sense::NONE);
    Ok(sense(&request.cdb, pending).into())
}

/// The answer to REQUEST SENSE.
pub(super) fn sense(cdb: &Cdb, sense: Sense) -> Response {
    // DESC, whatever D_SENSE says (SPC-4 §6.39).
    let format = if cdb.bit(1, 0x01) {
        Format::Descriptor
    } else {
        Format::Fixed
    };
    let data = sense.in_format(format).emit();
    Response::cut(data, usize::from(cdb.byte(4)))
}

/// START STOP UNIT: nothing spins, so only what cannot be is refused.
pub(super) fn start_stop(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    // LOEJ: there is nothing to eject.
    if cdb.bit(4, 0x02) {
        return Err(Sense::INVALID_FIELD.at(4));
    }
    Ok(Response::good().into())
}

/// PREVENT ALLOW MEDIUM REMOVAL: the medium cannot be removed in any case.
pub(super) fn prevent_allow(_: &Request<'_>) -> Result<Start, Sense> {
    Ok(Response::good().into())
}

/// READ CAPACITY(10).
pub(super) fn capacity_10(request: &Request<'_>) -> Result<Start, Sense> {
    let geometry = geometry(request)?;
    let (lba, pmi) = (request.cdb.be32(2), request.cdb.bit(8, 0x01));
    if lba != 0 && !pmi {
        return Err(Sense::INVALID_FIELD.at(2));
    }
    // A disk too large for 32 bits says so, and READ CAPACITY(16) tells its size.
    let last = u32::try_from(last_block(&geometry)).unwrap_or(u32::MAX);
    let mut data = last.to_be_bytes().to_vec();
    data.extend(geometry.block_size.to_be_bytes());
    Ok(Response::cut(data, usize::MAX).into())
}

/// READ CAPACITY(16).
pub(super) fn capacity_16(request: &Request<'_>) -> Result<Start, Sense> {
    let geometry = geometry(request)?;
    let mut data = last_block(&geometry).to_be_bytes().to_vec();
    data.extend(geometry.block_size.to_be_bytes());
    let per_physical = geometry.physical_block_size / geometry.block_size;
    // LBPME and LBPRZ, in one word with LOWEST ALIGNED LOGICAL BLOCK ADDRESS (SBC-3 §5.16.2).
    let provisioning: u16 = if geometry.thin { 0xc000 } else { 0 };
    let aligned = u16::try_from(geometry.aligned).unwrap_or(0) & 0x3fff;
    data.extend([0, per_physical.trailing_zeros() as u8]);
    data.extend((provisioning | aligned).to_be_bytes());
    data.resize(32, 0);
    let allocation = request.cdb.be32(10) as usize;
    Ok(Response::cut(data, allocation).into())
}

/// REPORT LUNS to a unit.
pub(super) fn report_luns(request: &Request<'_>) -> Result<Start, Sense> {
    luns(request.units, &request.cdb).map(Start::from)
}

/// REPORT LUNS.
pub(super) fn luns(units: &Units, cdb: &Cdb) -> Result<Response, Sense> {
    let allocation = cdb.be32(6) as usize;
    // SPC-4 §6.33: room for two entries at least.
    if allocation < 16 {
        return Err(Sense::INVALID_FIELD.at(6));
    }
    let luns: Vec<Lun> = match cdb.byte(2) {
        0x00 | 0x02 => units.keys().copied().collect(),
        // Well-known logical units: none.
        0x01 => Vec::new(),
        _ => return Err(Sense::INVALID_FIELD.at(2)),
    };
    // SAM-5 §5.14: this is how the initiator learns of other units, so none has to tell it any more.
    for itl in units.values() {
        itl.attentions.withdraw(Sense::LUNS_CHANGED);
    }
    let mut data = (luns.len() as u32 * 8).to_be_bytes().to_vec();
    data.extend([0; 4]);
    data.extend(luns.into_iter().flat_map(Lun::emit));
    Ok(Response::cut(data, allocation))
}

fn geometry(request: &Request<'_>) -> Result<Geometry, Sense> {
    match &request.unit.kind {
        Kind::Disk(disk) => Ok(disk.geometry()),
        Kind::Controller => Err(Sense::INVALID_OPCODE),
    }
}

fn last_block(geometry: &Geometry) -> u64 {
    geometry.blocks.saturating_sub(1)
}

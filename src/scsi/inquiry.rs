//! INQUIRY and the vital product data (SPC-4 §6.6, §7.8; SBC-3 §6.6).

use super::cdb::Cdb;
use super::command::Request;
use super::copy;
use super::limits;
use super::response::{Response, Start};
use super::sense::Sense;
use super::unit::{Identity, Kind, Unit};

/// T10 VENDOR IDENTIFICATION, as it is in all data: eight characters.
const VENDOR: &[u8; 8] = b"NETROOT ";
/// PERIPHERAL QUALIFIER and DEVICE TYPE of a unit that is not there.
const NOT_THERE: u8 = 0x7f;

/// INQUIRY to a unit.
pub(super) fn inquiry(request: &Request<'_>) -> Result<Start, Sense> {
    let Page { code, allocation } = Page::parse(&request.cdb)?;
    let unit = request.unit;
    let bytes = match (code, &unit.kind) {
        (None, _) => standard(device_type(unit), product(unit)),
        (Some(code), _) => vital(unit, code).ok_or(Sense::INVALID_FIELD.at(2))?,
    };
    Ok(Response::cut(bytes, allocation).into())
}

/// INQUIRY to a unit that is not there.
pub(super) fn no_unit(cdb: &Cdb) -> Result<Response, Sense> {
    let Page { code, allocation } = Page::parse(cdb)?;
    let bytes = match code {
        None => standard(NOT_THERE, b"                "),
        Some(0) => vec![NOT_THERE, 0, 0, 1, 0],
        Some(_) => return Err(Sense::INVALID_FIELD.at(2)),
    };
    Ok(Response::cut(bytes, allocation))
}

/// What is asked for: standard data or a page of vital product data.
struct Page {
    code: Option<u8>,
    allocation: usize,
}

impl Page {
    fn parse(cdb: &Cdb) -> Result<Self, Sense> {
        let vital = cdb.bit(1, 0x01);
        // CMDDT is obsolete.
        if cdb.bit(1, 0x02) {
            return Err(Sense::INVALID_FIELD.at(1));
        }
        if !vital && cdb.byte(2) != 0 {
            return Err(Sense::INVALID_FIELD.at(2));
        }
        Ok(Page {
            code: vital.then(|| cdb.byte(2)),
            allocation: usize::from(cdb.be16(3)),
        })
    }
}

fn device_type(unit: &Unit) -> u8 {
    match unit.kind {
        Kind::Disk(_) => 0x00,
        Kind::Controller => 0x0c,
    }
}

fn product(unit: &Unit) -> &'static [u8; 16] {
    match unit.kind {
        Kind::Disk(_) => b"DISK            ",
        Kind::Controller => b"CONTROLLER      ",
    }
}

/// Standard INQUIRY data (SPC-4 §6.6.2).
fn standard(device_type: u8, product: &[u8; 16]) -> Vec<u8> {
    let mut data = vec![0; 96];
    let head = [
        device_type,
        0,
        0x06, // VERSION: SPC-4
        0x12, // HISUP, RESPONSE DATA FORMAT 2
        91,   // ADDITIONAL LENGTH
        0,
        0x10, // MULTIP
        0x02, // CMDQUE
    ];
    let revision = format!("{:<4.4}", env!("CARGO_PKG_VERSION"));
    // VERSION DESCRIPTORs: SAM-5, SPC-4, SBC-3.
    let standards = [0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0];
    put(&mut data, 0, &head);
    put(&mut data, 8, VENDOR);
    put(&mut data, 16, product);
    put(&mut data, 32, revision.as_bytes());
    put(&mut data, 58, &standards);
    data
}

/// A page of vital product data, or nothing where there is no such page.
fn vital(unit: &Unit, code: u8) -> Option<Vec<u8>> {
    let body = match (code, &unit.kind) {
        (0x00, Kind::Disk(_)) => vec![0x00, 0x80, 0x83, 0x8f, 0xb0, 0xb1, 0xb2],
        (0x00, Kind::Controller) => vec![0x00, 0x80, 0x83],
        (0x80, _) => unit.identity.serial.clone().into_bytes(),
        (0x83, _) => designators(&unit.identity),
        (0x8f, Kind::Disk(_)) => copy::page(),
        (0xb0, Kind::Disk(disk)) => limits::block_limits(&disk.geometry()),
        (0xb1, Kind::Disk(_)) => limits::characteristics(),
        (0xb2, Kind::Disk(disk)) => limits::provisioning(&disk.geometry()),
        _ => return None,
    };
    let mut page = vec![device_type(unit), code];
    page.extend((body.len() as u16).to_be_bytes());
    page.extend(body);
    Some(page)
}

/// Device identification (SPC-4 §7.8.6): the NAA designator first, which most systems go by.
fn designators(identity: &Identity) -> Vec<u8> {
    let mut data = vec![0x01, 0x03, 0, identity.naa.len() as u8];
    data.extend(identity.naa);
    // VMware reads no more than eight characters after the vendor: the serial's differ from the first.
    let mut t10 = VENDOR.to_vec();
    t10.extend(identity.serial.bytes().skip(1));
    data.extend([0x02, 0x01, 0, t10.len() as u8]);
    data.extend(t10);
    data
}

/// Puts `bytes` at `at`; both are constants of this file, within the page.
fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in data.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

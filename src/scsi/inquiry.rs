//! INQUIRY and the vital product data (SPC-4 §6.6, §7.8; SBC-3 §6.6).

use super::alua;
use super::cdb::Cdb;
use super::copy;
use super::limits;
use super::port::TargetPort;
use super::request::Request;
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
        (Some(code), _) => vital(request, code).ok_or(Sense::INVALID_FIELD.at(2))?,
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
    // 3PC: disks have EXTENDED COPY.
    let third_party = if device_type == 0x00 { 0x08 } else { 0 };
    let mut data = vec![0; 96];
    let head = [
        device_type,
        0,
        0x06, // VERSION: SPC-4
        0x12, // HISUP, RESPONSE DATA FORMAT 2
        91,   // ADDITIONAL LENGTH
        alua::TPGS | third_party,
        0x10, // MULTIP
        0x02, // CMDQUE
    ];
    let revision = format!("{:<4.4}", env!("CARGO_PKG_VERSION"));
    // VERSION DESCRIPTORs (SPC-4 §6.6.2): SAM-5, iSCSI, SPC-4, SBC-3.
    let standards = [0x00, 0xa0, 0x09, 0x60, 0x04, 0x60, 0x04, 0xc0];
    put(&mut data, 0, &head);
    put(&mut data, 8, VENDOR);
    put(&mut data, 16, product);
    put(&mut data, 32, revision.as_bytes());
    put(&mut data, 58, &standards);
    data
}

/// A page of vital product data, or nothing where there is no such page.
fn vital(request: &Request<'_>, code: u8) -> Option<Vec<u8>> {
    let unit = request.unit;
    let body = match (code, &unit.kind) {
        (0x00, Kind::Disk(_)) => vec![0x00, 0x80, 0x83, 0x86, 0x87, 0x8f, 0xb0, 0xb1, 0xb2],
        (0x00, Kind::Controller) => vec![0x00, 0x80, 0x83, 0x86, 0x87],
        (0x80, _) => unit.identity.serial.clone().into_bytes(),
        (0x83, _) => designators(&unit.identity, &request.itl.path.target),
        (0x86, _) => extended(),
        (0x87, _) => mode_page_policy(),
        (0x8f, Kind::Disk(_)) => copy::page(),
        (0xb0, Kind::Disk(disk)) => limits::block_limits(&disk.geometry()),
        (0xb1, Kind::Disk(_)) => limits::characteristics(unit.kinds),
        (0xb2, Kind::Disk(disk)) => limits::provisioning(&disk.geometry()),
        _ => return None,
    };
    let mut page = vec![device_type(unit), code];
    page.extend((body.len() as u16).to_be_bytes());
    page.extend(body);
    Some(page)
}

/// Device identification (SPC-4 §7.8.6): the unit by its NAA designator first, which most systems go
/// by; then the target port that this came in by, and the target device.
fn designators(identity: &Identity, port: &TargetPort) -> Vec<u8> {
    /// ASSOCIATION and DESIGNATOR TYPE, in the byte that holds both, with PIV for ports and devices.
    const UNIT: u8 = 0x00;
    const PORT: u8 = 0x90;
    const DEVICE: u8 = 0xa0;
    // VMware reads no more than eight characters after the vendor: the serial's differ from the first.
    let t10 = [
        VENDOR,
        identity.serial.as_bytes().get(1..).unwrap_or_default(),
    ]
    .concat();
    let [r0, r1] = port.relative.to_be_bytes();
    let [g0, g1] = alua::GROUP.to_be_bytes();
    // The device is what is named before the portal group (RFC 7143 §4.2.7.1).
    let device = port.name.split(',').next().unwrap_or_default();
    [
        designator(BINARY, UNIT | 0x03, &identity.naa),
        designator(ASCII, UNIT | 0x01, &t10),
        designator(BINARY, PORT | 0x04, &[0, 0, r0, r1]),
        designator(BINARY, PORT | 0x05, &[0, 0, g0, g1]),
        designator(UTF8, PORT | 0x08, &name_string(&port.name)),
        designator(UTF8, DEVICE | 0x08, &name_string(device)),
    ]
    .concat()
}

/// PROTOCOL IDENTIFIER of iSCSI, and CODE SET (SPC-4 §7.8.6.1).
const BINARY: u8 = 0x51;
const ASCII: u8 = 0x52;
const UTF8: u8 = 0x53;

fn designator(protocol_and_set: u8, kind: u8, bytes: &[u8]) -> Vec<u8> {
    // Without PIV no protocol is named.
    let first = match kind & 0x80 {
        0 => protocol_and_set & 0x0f,
        _ => protocol_and_set,
    };
    let mut data = vec![first, kind, 0, bytes.len() as u8];
    data.extend(bytes);
    data
}

/// A SCSI name string ends with NUL, in whole words, and has at most 256 bytes (SPC-4 §7.8.6.11).
fn name_string(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    // The length of a designator has one byte.
    bytes.truncate(251);
    bytes.resize((bytes.len() / 4 + 1) * 4, 0);
    bytes
}

/// Extended INQUIRY data (SPC-4 §7.8.7).
fn extended() -> Vec<u8> {
    let mut data = vec![0; 60];
    put(&mut data, 1, &[0x07]); // HEADSUP, ORDSUP, SIMPSUP
    put(&mut data, 2, &[0x01]); // V_SUP: there is a cache that loses its data
    put(&mut data, 3, &[0x01]); // LUICLR: other units are told of once, for all units
    data
}

/// Mode page policy (SPC-4 §7.8.8): all pages are one for all nexuses.
fn mode_page_policy() -> Vec<u8> {
    vec![0x3f, 0xff, 0x00, 0]
}

/// Puts `bytes` at `at`; both are constants of this file, within the page.
fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in data.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

//! LOG SENSE (SPC-4 §6.6, §7.3): what there is to tell, and no figures that nobody measures.

use super::request::Request;
use super::response::{Response, Start};
use super::sense::Sense;

/// The pages that there are.
const PAGES: [u8; 2] = [SUPPORTED, EXCEPTIONS];
/// Supported log pages.
const SUPPORTED: u8 = 0x00;
/// Informational exceptions.
const EXCEPTIONS: u8 = 0x2f;
/// SUBPAGE CODE that stands for all subpages.
const ALL_SUBPAGES: u8 = 0xff;

/// LOG SENSE.
pub(super) fn sense(request: &Request<'_>) -> Result<Start, Sense> {
    let cdb = &request.cdb;
    // SP: nothing is saved.
    if cdb.bit(1, 0x01) {
        return Err(Sense::INVALID_FIELD.at(1).bit(0));
    }
    let (control, code, subpage) = (cdb.byte(2) >> 6, cdb.byte(2) & 0x3f, cdb.byte(3));
    let body = match (code, subpage) {
        (SUPPORTED, 0) => PAGES.to_vec(),
        // §7.3.20: of the pages that have subpages, each; this list is the only subpage.
        (SUPPORTED, ALL_SUBPAGES) => {
            let mut list: Vec<u8> = PAGES.iter().flat_map(|page| [*page, 0]).collect();
            list.extend([SUPPORTED, ALL_SUBPAGES]);
            list
        }
        (EXCEPTIONS, 0) => {
            // PC: current cumulative values are the only ones.
            if control != 0x01 {
                return Err(Sense::INVALID_FIELD.at(2).bit(7));
            }
            exceptions(cdb.be16(5))?
        }
        _ if PAGES.contains(&code) => return Err(Sense::INVALID_FIELD.at(3)),
        _ => return Err(Sense::INVALID_FIELD.at(2).bit(5)),
    };
    // SPF with a subpage; DS and the page code.
    let flags = if subpage == 0 { 0 } else { 0x40 };
    let mut data = vec![flags | code, subpage];
    data.extend((body.len() as u16).to_be_bytes());
    data.extend(body);
    Ok(Response::cut(data, usize::from(cdb.be16(7))).into())
}

/// Informational exceptions (SPC-4 §7.3.8): none, and no temperature.
fn exceptions(from: u16) -> Result<Vec<u8>, Sense> {
    // PARAMETER POINTER: there is parameter 0 only.
    if from != 0 {
        return Err(Sense::INVALID_FIELD.at(5));
    }
    Ok(vec![0, 0, 0x03, 4, 0, 0, 0xff, 0])
}

//! Mode parameters (SPC-4 §7.5, SBC-3 §6.5): what they are, and what an initiator may change.
//!
//! Nothing is saved: SP and the saved values are refused, and a reset brings the defaults back.

use std::sync::atomic::{AtomicU8, Ordering};

pub(super) use self::select::{select_6, select_10};
pub(super) use self::sense::{sense_6, sense_10};
use super::unit::{Kind, Unit};
use crate::block::Geometry;

mod select;
mod sense;

/// Every write is durable when it is answered (WCE is 0).
const WRITE_THROUGH: u8 = 0x01;
/// Nobody writes (SWP).
const PROTECTED: u8 = 0x02;
/// Sense data are in descriptor format (D_SENSE).
const DESCRIPTOR_SENSE: u8 = 0x04;
/// Commands that others abort end with a status (TAS).
const ABORTED_STATUS: u8 = 0x08;

/// What initiators have changed of a unit, for all of them.
#[derive(Default)]
pub(super) struct Settings(AtomicU8);

impl Settings {
    /// Whether every write is durable when it is answered.
    pub(super) fn write_through(&self) -> bool {
        self.has(WRITE_THROUGH)
    }

    /// Whether an initiator has asked that nobody writes.
    pub(super) fn protected(&self) -> bool {
        self.has(PROTECTED)
    }

    /// Whether sense data are in descriptor format.
    pub(super) fn descriptor_sense(&self) -> bool {
        self.has(DESCRIPTOR_SENSE)
    }

    /// Whether commands that others abort end with TASK ABORTED status.
    pub(super) fn aborted_status(&self) -> bool {
        self.has(ABORTED_STATUS)
    }

    /// As it was when the unit came up.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    fn has(&self, setting: u8) -> bool {
        self.0.load(Ordering::Acquire) & setting != 0
    }

    /// Tells what it was before.
    fn change(&self, change: Change) -> u8 {
        let changed = |old| Some(change.of(old));
        match self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, changed)
        {
            Ok(old) | Err(old) => old,
        }
    }
}

/// Settings that are to be set, and to be cleared.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    set: u8,
    clear: u8,
}

impl Change {
    fn of(self, old: u8) -> u8 {
        old & !self.clear | self.set
    }

    fn put(&mut self, setting: u8, on: bool) {
        let (to, from) = if on {
            (&mut self.set, &mut self.clear)
        } else {
            (&mut self.clear, &mut self.set)
        };
        *to |= setting;
        *from &= !setting;
    }
}

/// A mode page: the bytes after its length, as they are with some settings, and the bits of them that
/// may be changed.
struct Page {
    code: u8,
    body: Vec<u8>,
    changeable: Vec<u8>,
    /// Which setting a bit of a byte is, and whether it is so with the bit set.
    bits: &'static [(usize, u8, u8, bool)],
}

/// A bit in a page that is the opposite of its setting, or the same.
const WCE: (usize, u8, u8, bool) = (0, 0x04, WRITE_THROUGH, false);
const D_SENSE: (usize, u8, u8, bool) = (0, 0x04, DESCRIPTOR_SENSE, true);
const SWP: (usize, u8, u8, bool) = (2, 0x08, PROTECTED, true);
const TAS: (usize, u8, u8, bool) = (3, 0x40, ABORTED_STATUS, true);

/// The pages of a unit, in the order in which "all" gives them (SPC-4 §6.11.1).
fn pages(unit: &Unit, settings: u8) -> Vec<Page> {
    let geometry = geometry(unit);
    let writable = geometry.is_some_and(|geometry| !geometry.read_only);
    let page = |code, body: &[u8], bits: &'static [_]| Page::new(code, body, bits, settings);
    let mut pages = Vec::new();
    if geometry.is_some() {
        // Read-write error recovery (SBC-3 §6.5.8): what the storage does by itself.
        pages.push(page(0x01, &[0; 10], &[]));
    }
    // Disconnect-reconnect (SPC-4 §7.5.9): no limits but those that were negotiated.
    pages.push(page(0x02, &[0; 14], &[]));
    if geometry.is_some() {
        // Caching (SBC-3 §6.5.5): a disk that is written has a cache, as a write is durable after a
        // flush only.
        let bits: &[_] = if writable { &[WCE] } else { &[] };
        pages.push(page(0x08, &[0; 18], bits));
    }
    // Control (SPC-4 §7.5.8): no implicit saving of log parameters (GLTSD), unrestricted reordering.
    // TAS is 0 at first: of what others abort there is no status, but a unit attention.
    let control = [0x02, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0];
    let bits: &[_] = if writable {
        &[D_SENSE, SWP, TAS]
    } else {
        &[D_SENSE, TAS]
    };
    pages.push(page(0x0a, &control, bits));
    // Informational exceptions (SPC-4 §7.5.11): none are reported.
    pages.push(page(0x1c, &[0; 10], &[]));
    pages
}

impl Page {
    fn new(code: u8, body: &[u8], bits: &'static [(usize, u8, u8, bool)], settings: u8) -> Self {
        let mut page = Page {
            code,
            body: body.to_vec(),
            changeable: vec![0; body.len()],
            bits,
        };
        for (at, bit, setting, same) in bits {
            if let Some(byte) = page.changeable.get_mut(*at) {
                *byte |= bit;
            }
            if let Some(byte) = page.body.get_mut(*at)
                && (settings & setting != 0) == *same
            {
                *byte |= bit;
            }
        }
        page
    }
}

fn geometry(unit: &Unit) -> Option<Geometry> {
    match &unit.kind {
        Kind::Disk(disk) => Some(disk.geometry()),
        Kind::Controller => None,
    }
}

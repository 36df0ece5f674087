//! Whole PDUs: header and data, as they come and go.

use bytes::Bytes;

use super::wire::{Bhs, Head};
use crate::block::{self, Segment};

/// A PDU from the initiator. Digests have been checked and taken off.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) bhs: Bhs,
    pub(super) data: Bytes,
}

impl Incoming {
    pub(super) fn head(&self) -> Head {
        Head::parse(&self.bhs)
    }
}

/// A PDU for the initiator. Its lengths, padding and digests are put in where it is sent.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) bhs: Bhs,
    pub(super) data: Vec<Segment>,
}

impl Outgoing {
    /// A header alone.
    pub(super) fn bare(bhs: Bhs) -> Self {
        Outgoing {
            bhs,
            data: Vec::new(),
        }
    }

    /// A header with bytes.
    pub(super) fn with(bhs: Bhs, data: impl Into<Bytes>) -> Self {
        let data: Bytes = data.into();
        Outgoing {
            bhs,
            data: if data.is_empty() {
                Vec::new()
            } else {
                vec![Segment::Bytes(data)]
            },
        }
    }

    pub(super) fn data_len(&self) -> u64 {
        block::total(&self.data)
    }
}

//! Finding PDUs in a stream of bytes (RFC 7143 §11.1, §11.2).

use bytes::{Buf, BytesMut};

use super::pdu::Incoming;
use super::wire::{BHS_LEN, Bhs, DIGEST_LEN, Head, Opcode};

/// Most data in a PDU before anything else has been declared (RFC 7143 §13.12).
pub(super) const LOGIN_MAX: usize = 8192;
/// Bytes that are received at once, at least.
const CHUNK: usize = 64 * 1024;

/// Takes PDUs out of what has been received.
pub(super) struct Decoder {
    buffer: BytesMut,
    most: usize,
    header_digest: bool,
    data_digest: bool,
    /// Bytes of the PDU that has begun to arrive, as far as its header has told.
    expected: usize,
}

/// Why a stream cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A data segment longer than we said that we take.
    TooLong,
    /// A login with digests, or additional headers where none can be.
    Malformed,
    /// A header that has changed on its way.
    HeaderDigest,
    /// Data that have changed on their way.
    DataDigest(Bhs),
}

impl Decoder {
    /// For a login.
    pub(super) fn new() -> Self {
        Decoder {
            buffer: BytesMut::new(),
            most: LOGIN_MAX,
            header_digest: false,
            data_digest: false,
            expected: BHS_LEN,
        }
    }

    /// From the next PDU on, other limits hold.
    pub(super) fn agree(&mut self, most: usize, header_digest: bool, data_digest: bool) {
        self.most = most;
        self.header_digest = header_digest;
        self.data_digest = data_digest;
    }

    /// Where to receive to: room for the rest of the PDU under way, and for more.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        let missing = self.expected.saturating_sub(self.buffer.len());
        if self.buffer.capacity() - self.buffer.len() < missing.max(BHS_LEN) {
            self.buffer.reserve(missing.max(CHUNK));
        }
        &mut self.buffer
    }

    /// Whether there are bytes of a PDU whose rest is missing, once there is no [`next`](Self::next).
    pub(super) fn is_amid(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next PDU, if it is all there.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Fault> {
        let Some(bhs) = self.buffer.first_chunk::<BHS_LEN>().copied() else {
            self.expected = BHS_LEN;
            return Ok(None);
        };
        let head = Head::parse(&bhs);
        if head.data_len > self.most {
            return Err(Fault::TooLong);
        }
        // §11.2.2: only commands have additional headers.
        if head.ahs_len > 0 && head.opcode != Opcode::ScsiCommand {
            return Err(Fault::Malformed);
        }
        let digest = |on: bool| if on { DIGEST_LEN } else { 0 };
        let headers = BHS_LEN + head.ahs_len;
        let data_at = headers + digest(self.header_digest);
        if self.buffer.len() >= data_at && self.header_digest && !checks(&self.buffer, 0, headers) {
            return Err(Fault::HeaderDigest);
        }
        let padded = head.data_len + head.padding();
        let has_digest = self.data_digest && head.data_len > 0;
        let len = data_at + padded + digest(has_digest);
        if self.buffer.len() < len {
            self.expected = len;
            return Ok(None);
        }
        self.expected = BHS_LEN;
        let mut pdu = self.buffer.split_to(len);
        if has_digest && !checks(&pdu, data_at, padded) {
            return Err(Fault::DataDigest(bhs));
        }
        pdu.advance(data_at);
        pdu.truncate(head.data_len);
        Ok(Some(Incoming {
            bhs,
            data: pdu.freeze(),
        }))
    }
}

/// Whether the digest after `len` bytes at `at` is theirs. Digests are sent with the low byte first
/// (RFC 7143 §13.1, RFC 3385).
fn checks(buffer: &[u8], at: usize, len: usize) -> bool {
    let bytes = buffer.get(at..at + len).unwrap_or_default();
    let digest = buffer
        .get(at + len..at + len + DIGEST_LEN)
        .unwrap_or_default();
    crc32c::crc32c(bytes).to_le_bytes() == digest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::iscsi::wire::set_lengths;

    /// A ping with data.
    fn ping(data: &[u8]) -> (Bhs, Vec<u8>) {
        let mut bhs = [0; BHS_LEN];
        bhs[0] = 0x40;
        set_lengths(&mut bhs, data.len());
        let mut padded = data.to_vec();
        padded.resize(data.len().next_multiple_of(4), 0);
        (bhs, padded)
    }

    fn decoder(bytes: &[u8]) -> Decoder {
        let mut decoder = Decoder::new();
        decoder.buffer().extend_from_slice(bytes);
        decoder
    }

    #[test]
    fn pdus_arrive_in_pieces_of_any_size() {
        let (bhs, data) = ping(b"hello");
        let stream = [&bhs[..], &data, &bhs, &data].concat();
        for piece in 1..stream.len() {
            let mut decoder = Decoder::new();
            let mut found = 0;
            for part in stream.chunks(piece) {
                decoder.buffer().extend_from_slice(part);
                while let Some(pdu) = decoder.next().unwrap() {
                    assert_eq!(&pdu.data[..], b"hello");
                    found += 1;
                }
            }
            assert_eq!(found, 2);
        }
    }

    #[test]
    fn digests_are_checked() {
        // RFC 3720 appendix B.4: 32 bytes of zeros have this digest.
        assert_eq!(
            crc32c::crc32c(&[0; 32]).to_le_bytes(),
            [0xaa, 0x36, 0x91, 0x8a]
        );
        let (bhs, data) = ping(b"hello");
        let crc = |bytes: &[u8]| crc32c::crc32c(bytes).to_le_bytes();
        let good = [&bhs[..], &crc(&bhs), &data, &crc(&data)].concat();
        let result = |bytes: &[u8]| {
            let mut decoder = decoder(bytes);
            decoder.agree(LOGIN_MAX, true, true);
            decoder.next().map(|pdu| pdu.map(|pdu| pdu.data))
        };
        assert_eq!(&result(&good).unwrap().unwrap()[..], b"hello");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!matches!(result(&bad), Ok(Some(_))), "byte {at}");
        }
        let mut bad = good.clone();
        bad[BHS_LEN + 5] ^= 1;
        assert_eq!(result(&bad), Err(Fault::DataDigest(bhs)));
    }

    #[test]
    fn a_segment_longer_than_declared_is_not_waited_for() {
        let mut bhs = ping(b"").0;
        set_lengths(&mut bhs, LOGIN_MAX + 1);
        assert!(matches!(decoder(&bhs).next(), Err(Fault::TooLong)));
        set_lengths(&mut bhs, 0xff_ffff);
        assert!(matches!(decoder(&bhs).next(), Err(Fault::TooLong)));
    }

    #[test]
    fn additional_headers_belong_to_commands() {
        let mut bhs = ping(b"").0;
        bhs[4] = 255;
        assert!(matches!(decoder(&bhs).next(), Err(Fault::Malformed)));
    }

    proptest! {
        /// Any bytes, with digests or without, are taken apart in the same way, however they come.
        #[test]
        fn a_stream_of_anything_is_followed_or_not(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            small in any::<bool>(),
            digests in any::<(bool, bool)>(),
            piece in 1usize..200,
        ) {
            if small && let Some(lengths) = bytes.get_mut(4..8) {
                // Lengths that are within bounds, so that something comes of it.
                lengths.copy_from_slice(&[0, 0, 0, lengths[3]]);
            }
            let taken = |pieces: &mut dyn Iterator<Item = &[u8]>| {
                let mut decoder = Decoder::new();
                decoder.agree(LOGIN_MAX, digests.0, digests.1);
                let mut found = Vec::new();
                for piece in pieces {
                    decoder.buffer().extend_from_slice(piece);
                    loop {
                        match decoder.next() {
                            Ok(Some(pdu)) => found.push((pdu.bhs, pdu.data)),
                            Ok(None) => break,
                            Err(fault) => return (found, Some(fault)),
                        }
                    }
                }
                (found, None)
            };
            let whole = taken(&mut std::iter::once(&bytes[..]));
            let pieces = taken(&mut bytes.chunks(piece));
            prop_assert_eq!(whole, pieces);
        }
    }
}

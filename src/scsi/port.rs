//! Ports: the two ends of a nexus, as SCSI names them (SAM-5 §4.6.4, SPC-4 §7.6.4).

use std::sync::Arc;

/// PROTOCOL IDENTIFIER of iSCSI (SPC-4 §7.6.1).
const ISCSI: u8 = 0x05;
/// First byte of a TransportID that names an initiator port, by its TPID FORMAT; without that, an
/// initiator with all its ports.
const PORT: u8 = 0x40 | ISCSI;

/// The relative identifier of the one target port that there is: all portals are one group (RFC 7143
/// §4.4.2).
pub(super) const RELATIVE_PORT: u16 = 1;

/// Bytes before the text of a TransportID.
const HEADER_LEN: usize = 4;
/// Where the name of an initiator ends and its ISID begins.
const ISID: &str = ",i,0x";

/// The name of an initiator port, as a TransportID. Equal names are the same port.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransportId(Arc<[u8]>);

/// A target port of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPort {
    /// Its SCSI name string, such as `iqn.2026-01.edu.example:fc28,t,0x0001`.
    pub name: String,
    /// Its relative target port identifier; 0 names none.
    pub relative: u16,
}

/// A way from an initiator to a device: one port at each end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Where commands come from.
    pub initiator: TransportId,
    /// Where they arrive.
    pub target: TargetPort,
}

impl TransportId {
    /// The iSCSI initiator port with this name and ISID (SPC-4 §7.6.4.6).
    pub fn iscsi(name: &str, isid: [u8; 6]) -> Self {
        let isid: String = isid.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut text = format!("{}{ISID}{isid}", name.to_lowercase()).into_bytes();
        // Ends with NUL, in whole words.
        text.resize((text.len() / 4 + 1) * 4, 0);
        let mut bytes = vec![PORT, 0];
        bytes.extend((text.len() as u16).to_be_bytes());
        bytes.extend(text);
        TransportId(bytes.into())
    }

    /// Reads one that names a port, and nothing more; nothing for any other bytes.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        match Named::split(bytes)? {
            (Named::Port(id), []) => Some(id),
            _ => None,
        }
    }

    /// Whether it is a port of the initiator with this name.
    pub(super) fn is_of(&self, name: &str) -> bool {
        let text = self.0.get(HEADER_LEN..).unwrap_or_default();
        text.strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.starts_with(ISID.as_bytes()))
    }

    /// The bytes, as parameter data hold them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a TransportID of a parameter list names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// One initiator port.
    Port(TransportId),
    /// An initiator with all its ports, by its name.
    Device(String),
}

impl Named {
    /// Takes the first TransportID off a list.
    pub(super) fn split(list: &[u8]) -> Option<(Named, &[u8])> {
        let ([format, _, l0, l1], rest) = list.split_first_chunk()?;
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        // Whole words (SPC-4 §7.6.4.6).
        if len % 4 != 0 {
            return None;
        }
        let (text, rest) = rest.split_at_checked(len)?;
        let end = text.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(text.get(..end)?).ok()?;
        let named = match *format {
            ISCSI => Named::Device(text.to_lowercase()),
            PORT => {
                let (name, isid) = text.split_once(ISID)?;
                Named::Port(TransportId::iscsi(name, isid_of(isid)?))
            }
            _ => return None,
        };
        Some((named, rest))
    }
}

/// Up to twelve hexadecimal digits.
fn isid_of(digits: &str) -> Option<[u8; 6]> {
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || digits.is_empty() || digits.len() > 12 {
        return None;
    }
    let [_, _, isid @ ..] = u64::from_str_radix(digits, 16).ok()?.to_be_bytes();
    Some(isid)
}

impl std::fmt::Debug for TransportId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.0.get(HEADER_LEN..).unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        write!(f, "TransportId({})", name.trim_end_matches('\0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initiator_port_of_iscsi_is_name_and_isid_in_whole_words() {
        let id = TransportId::iscsi("iqn.A:i", [0x40, 0, 0, 0x12, 0xab, 0]);
        let text = b"iqn.a:i,i,0x40000012ab00\0\0\0\0";
        assert_eq!(id.as_bytes()[..4], [0x45, 0, 0, text.len() as u8]);
        assert_eq!(&id.as_bytes()[4..], text);
        assert_ne!(
            id,
            TransportId::iscsi("iqn.a:i", [0x40, 0, 0, 0x12, 0xab, 1])
        );
    }

    #[test]
    fn a_transport_id_is_read_as_it_is_written() {
        let id = TransportId::iscsi("iqn.a:i", [0x40, 0, 0, 0x12, 0xab, 0]);
        assert_eq!(TransportId::parse(id.as_bytes()).as_ref(), Some(&id));
        for cut in 0..id.as_bytes().len() {
            assert_eq!(TransportId::parse(&id.as_bytes()[..cut]), None);
        }
        let device = [b"\x05\0\0\x08iqn.A:i\0", &[9][..]].concat();
        let expected = Named::Device("iqn.a:i".into());
        assert_eq!(Named::split(&device), Some((expected, &[9][..])));
        assert!(id.is_of("iqn.a:i"));
        assert!(!id.is_of("iqn.a") && !id.is_of("iqn.a:i2"));
        for text in [
            "iqn.a,i,0x",
            "iqn.a,i,0x0123456789abc",
            "iqn.a,i,0x+1",
            "iqn.a",
        ] {
            let mut bytes = vec![0x45, 0, 0, 32];
            bytes.extend(text.as_bytes());
            bytes.resize(36, 0);
            assert_eq!(TransportId::parse(&bytes), None, "{text}");
        }
    }
}

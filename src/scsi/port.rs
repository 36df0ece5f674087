//! Ports: the two ends of a nexus, as SCSI names them (SAM-5 §4.6.4, SPC-4 §7.6.4).

use std::sync::Arc;

/// PROTOCOL IDENTIFIER of iSCSI (SPC-4 §7.6.1).
const ISCSI: u8 = 0x05;
/// TPID FORMAT of a TransportID that names a port, and not a device with all its ports.
const FORMAT_PORT: u8 = 0x40;

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
        let mut text = format!("{},i,0x{isid}", name.to_lowercase()).into_bytes();
        // Ends with NUL, in whole words.
        text.resize((text.len() / 4 + 1) * 4, 0);
        let mut bytes = vec![FORMAT_PORT | ISCSI, 0];
        bytes.extend((text.len() as u16).to_be_bytes());
        bytes.extend(text);
        TransportId(bytes.into())
    }

    /// The bytes, as parameter data hold them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for TransportId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.0.get(4..).unwrap_or_default();
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
}

//! How large a disk is to be.

use super::Change;
use crate::library::SizeSpec;
use crate::library::manifest::Manifest;

/// Letters for powers of 1024.
const UNITS: &[(&str, u32)] = &[("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50)];

const MIB: u64 = 1024 * 1024;

impl SizeSpec {
    /// Bytes of a disk for a tree that occupies `tree` bytes, a multiple of 1 MiB.
    pub(crate) fn of(self, tree: u64) -> u64 {
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            Self::Hundredths(times) => tree.saturating_mul(u64::from(times)) / 100,
        };
        bytes.div_ceil(MIB).saturating_mul(MIB)
    }
}

/// By how much the disk of a version should grow before such a change, where it has probably not the
/// room for it. The change itself looks at the file system, and says exactly what it lacks.
pub fn growth_for(change: &Change, manifest: &Manifest) -> Option<SizeSpec> {
    /// In hundredths of what it is.
    const STEPS: [u32; 5] = [100, 150, 200, 300, 400];
    let (size, used) = (manifest.disk.size, manifest.facts.tree.bytes);
    let needed = used + used / 100 * change.room();
    let has_room = |hundredths: &u32| {
        let grown = size / 100 * u64::from(*hundredths);
        // A file system's journal and tables.
        grown.saturating_sub(grown / 20 + (64 << 20)) >= needed
    };
    let enough = STEPS.into_iter().find(has_room).unwrap_or(400);
    (enough > 100).then_some(SizeSpec::Hundredths(enough))
}

/// Bytes for people: `1.5 GiB`.
pub(crate) fn human(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, shift)| bytes >> shift > 0);
    match unit {
        None => format!("{bytes} bytes"),
        Some((unit, shift)) => {
            #[allow(clippy::cast_precision_loss)] // one decimal is shown
            let value = bytes as f64 / (1u64 << shift) as f64;
            format!("{value:.1} {unit}iB")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_whole_mebibytes() {
        assert_eq!(SizeSpec::default().of(3 * MIB + 1), 7 * MIB);
        assert_eq!(SizeSpec::Bytes(5).of(0), MIB);
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(human(1536 * MIB), "1.5 GiB");
        assert_eq!(human(17), "17 bytes");
    }
}

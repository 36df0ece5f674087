//! boot.cfg of a disk that boots itself: iPXE attaches it and starts what is on it.

use std::fmt;

use super::{Root, Writes};

/// Everything that the boot.cfg of such a disk says. Kernel arguments and name servers are the
/// business of the boot loader on it.
#[derive(Debug, Clone)]
pub struct SanBoot {
    /// The disk.
    pub root: Root,
    /// Whether and where it may be written.
    pub writes: Writes,
}

impl fmt::Display for SanBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = match self.writes {
            Writes::Disk => "",
            // Its writes cannot go to RAM: nobody stands between its own kernel and the disk.
            Writes::None | Writes::Ram => {
                "echo This disk is read-only: few systems boot so; mode persistent gives it its own\n"
            }
        };
        let script = self.root.said_in(include_str!("../../esp/san.cfg"));
        f.write_str(&script.replace("@NOTE@", note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Portal;
    use crate::library::Secrets;

    fn script(ip: &str, port: u16, lun: u16, writes: Writes) -> String {
        SanBoot {
            root: Root {
                portal: Portal {
                    ip: ip.parse().unwrap(),
                    port,
                },
                target: String::from("iqn.2026-01.edu.example:client-525400123456"),
                lun,
                initiator: Some(String::from(
                    "iqn.2026-01.edu.example:client-525400123456.0",
                )),
                secrets: Secrets::default(),
            },
            writes,
        }
        .to_string()
    }

    #[test]
    fn a_clone_is_booted_by_the_boots_own_initiator() {
        let script = script("192.0.2.1", 3260, 1, Writes::Disk);
        assert!(script.starts_with("#!ipxe\n"));
        for line in [
            "set initiator-iqn iqn.2026-01.edu.example:client-525400123456.0",
            "sanboot iscsi:192.0.2.1:::1:iqn.2026-01.edu.example:client-525400123456 || goto failed",
        ] {
            assert!(
                script.lines().any(|found| found == line),
                "{line} in {script}"
            );
        }
        assert!(!script.contains('@') && !script.contains("read-only"));
    }

    #[test]
    fn the_lun_is_hexadecimal_and_other_ports_are_named() {
        let script = script("2001:db8::1", 3261, 26, Writes::Ram);
        assert!(
            script.contains("sanboot iscsi:[2001:db8::1]::3261:1a:iqn."),
            "{script}"
        );
        assert!(script.contains("\necho This disk is read-only"), "{script}");
    }
}

//! What iPXE tells of its own failures: at what, and the number of its error.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::library::names::{NameError, serde_as_text};

/// What iPXE could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BootFailure {
    /// What it tried.
    pub at: FailedAt,
    /// Its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<IpxeErrno>,
}

/// What iPXE tried, as our scripts name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailedAt {
    /// To fetch its script, or what that leads to.
    Script,
    /// To do what was chosen in its menu.
    Menu,
    /// To log its user in.
    Login,
    /// To fetch the kernel.
    Kernel,
    /// To fetch the initramfs.
    Initramfs,
    /// To fetch the files that make it itself.
    Identity,
    /// To start the kernel.
    Start,
    /// To do what its script says: that named no step, as those of older servers do not.
    Boot,
    /// To attach its disk, or to start what is on it.
    San,
}

/// The number of an error of iPXE, which <https://ipxe.org/> has a page for.
///
/// Its top byte tells what went wrong, much as in POSIX (in iPXE's own numbering, `include/errno.h` of its
/// source), the rest where in iPXE that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpxeErrno(pub u32);

serde_as_text!(IpxeErrno, "^[0-9a-f]{8}$");

impl fmt::Display for IpxeErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for IpxeErrno {
    type Err = NameError;

    /// As iPXE writes `${errno}`, such as `0x2d0c618e`, or as its pages are named.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let plain =
            (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let number = plain.then(|| u32::from_str_radix(digits, 16).ok());
        number
            .flatten()
            .map(IpxeErrno)
            .ok_or_else(|| NameError::new(text, "an error number of iPXE, such as 0x2d0c618e"))
    }
}

impl IpxeErrno {
    /// Whether it is the number that a script of ours ended with, and no error of iPXE's.
    pub fn is_of_a_script(self) -> bool {
        self.0 >> 24 == 0
    }

    /// What went wrong, where that says more than the number.
    fn meaning(self) -> Option<&'static str> {
        Some(match self.0 >> 24 & 0x7f {
            0x02 => "it is not allowed to",
            0x0b => "somebody pressed a key",
            0x0e => "the connection was refused",
            0x0d | 0x0f => "the connection was cut off",
            0x17 | 0x28 => "there is no way to the server",
            0x1c => "something in it is wrong",
            0x1d => "the server or the disk answered with an error",
            0x26 => "the network is down",
            0x2c => "there is no such drive or card",
            0x2d => "there is no such file",
            0x2e => "it is nothing that this firmware can start",
            0x31 | 0x34 => "it has not enough memory",
            0x38 => "there is no connection",
            0x3c => "this iPXE cannot do that",
            0x41 => "the server does not allow it",
            0x4c => "nobody answered in time",
            _ => return None,
        })
    }
}

impl fmt::Display for FailedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailedAt::Script => "fetch its script",
            FailedAt::Menu => "do what was chosen in its menu",
            FailedAt::Login => "log its user in",
            FailedAt::Kernel => "fetch the kernel",
            FailedAt::Initramfs => "fetch the initramfs",
            FailedAt::Identity => "fetch its identity",
            FailedAt::Start => "start the kernel",
            FailedAt::Boot => "do what its script says",
            FailedAt::San => "boot from its disk",
        })
    }
}

impl fmt::Display for BootFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "iPXE could not {}", self.at)?;
        let Some(errno) = self.errno.filter(|errno| !errno.is_of_a_script()) else {
            return Ok(());
        };
        if let Some(meaning) = errno.meaning() {
            write!(f, ": {meaning}")?;
        }
        write!(f, " (https://ipxe.org/{errno})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_with_their_page() {
        let told = |at, errno: &str| {
            let errno = Some(errno.parse().unwrap());
            BootFailure { at, errno }.to_string()
        };
        assert_eq!(
            told(FailedAt::Kernel, "0x2d0c618e"),
            "iPXE could not fetch the kernel: there is no such file (https://ipxe.org/2d0c618e)"
        );
        assert_eq!(
            told(FailedAt::San, "7f000001"),
            "iPXE could not boot from its disk (https://ipxe.org/7f000001)"
        );
        assert_eq!(
            told(FailedAt::Start, "0x2e008001"),
            "iPXE could not start the kernel: it is nothing that this firmware can start \
             (https://ipxe.org/2e008001)"
        );
        assert_eq!(
            told(FailedAt::Boot, "0"),
            "iPXE could not do what its script says"
        );
        for wrong in ["", "0x", "-1", "0x123456789", "${errno}", "1 2"] {
            assert!(wrong.parse::<IpxeErrno>().is_err(), "{wrong}");
        }
    }
}

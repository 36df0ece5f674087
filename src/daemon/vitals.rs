//! How the server's process and its library's file system are.

use std::fs;
use std::time::UNIX_EPOCH;

use super::Server;

/// How the server's process and its library's file system are. What the system does not tell is none.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    /// Bytes of the library's file system.
    pub library_size: Option<u64>,
    /// Bytes of it that are free for anybody.
    pub library_free: Option<u64>,
    /// Bytes of memory that the process has.
    pub resident: Option<u64>,
    /// Its open file descriptors.
    pub descriptors: Option<u64>,
    /// When it began, in seconds since 1970.
    pub began: Option<u64>,
}

impl Server {
    /// How it is. May block.
    pub fn vitals(&self) -> Vitals {
        let room = nix::sys::statvfs::statvfs(self.library.root()).ok();
        let bytes = |blocks: fn(&nix::sys::statvfs::Statvfs) -> u64| {
            room.as_ref()
                .map(|room| blocks(room).saturating_mul(room.fragment_size()))
        };
        let began = self.began.duration_since(UNIX_EPOCH).ok();
        Vitals {
            library_size: bytes(|room| room.blocks()),
            library_free: bytes(|room| room.blocks_available()),
            resident: resident(),
            descriptors: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| fds.count() as u64),
            began: began.map(|since| since.as_secs()),
        }
    }
}

/// `VmRSS` of proc_pid_status(5), which is in KiB.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

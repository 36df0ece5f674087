//! What a client is told from power-on to its root disk: text, and nothing but text.
//!
//! This floor opens no socket and decides nothing about clients; it turns facts (which target, which
//! kernel, whose initramfs) into what iPXE, dracut and initramfs-tools read. The texts around those
//! facts stand in `esp/`.

mod cfg;
mod esp;
mod identity;
mod san;

pub use cfg::{BootCfg, Files, Handover, Portal, Root, Writes, boot_ipxe};
pub use esp::{
    Checked, Esp, EspError, EspFile, Folder, Found, Kernel, Partition, Says, find_loader,
    runs_autoexec,
};
pub use identity::{IdentityFiles, takes_identity};
pub use san::SanBoot;

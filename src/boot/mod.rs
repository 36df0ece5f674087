//! What a client is told from power-on to its root disk: text, and nothing but text.
//!
//! This floor opens no socket and decides nothing about clients; it turns facts (which target, which
//! kernel, whose initramfs) into what iPXE, dracut and initramfs-tools read. The texts around those
//! facts stand in `esp/`.

mod cfg;
pub mod dhcp;
mod esp;
mod firmware;
mod identity;
mod menu;
mod san;
mod scripts;
mod texts;
pub mod tftp;

pub use cfg::{BootCfg, Files, Handover, Portal, Root, Writes};
pub use esp::{
    Checked, Esp, EspError, EspFile, Folder, Found, Kernel, Partition, Says, runs_autoexec,
};
pub use firmware::{AUTOEXEC, Firmware, Loader, Loaders};
pub use identity::{IdentityFiles, takes_identity};
pub use menu::MenuScript;
pub use san::SanBoot;
pub use scripts::{Https, boot_ipxe, failing, local_ipxe, network_ipxe, over_tls, unknown_ipxe};
pub use texts::{Text, TextError};

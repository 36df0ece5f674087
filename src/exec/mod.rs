//! The one place that runs programs, mounts file systems and enters chroots.
//!
//! Everything here is made to leave nothing behind, whatever ends the process:
//!
//! - a [`Program`] dies with the thread that started it, and is killed when its [`Cancel`] says so;
//! - a mount can only be made with a [`PrivateMounts`], which exists only on a thread with a mount
//!   namespace of its own, so the kernel takes the mounts back when the process is gone;
//! - a loop device is only ever made by `mount -o loop`, which makes the kernel free it with the
//!   last unmount.
//!
//! This floor knows no image and no library.

mod cancel;
mod child;
mod chroot;
mod files;
mod jail;
mod keyring;
mod mounts;
mod packages;
mod program;
mod terminal;

pub use cancel::{Cancel, Cancelled};
pub use chroot::Chroot;
pub use files::allow_many_files;
pub use mounts::{Mount, PrivateMounts, in_private_mounts};
pub use packages::advice;
pub use program::{Line, Output, Program, find_program};

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why a program or a mount did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not on this host.
    #[error("{program} is not installed on this host{}", packages::advice(program))]
    Missing {
        /// Its name.
        program: String,
    },
    /// The program is not in the tree that it should run in.
    #[error("the image has no program {program}, or lacks what runs it")]
    MissingInside {
        /// Its name.
        program: String,
    },
    /// The program could not be started, or could not be waited for.
    #[error("cannot run `{command}`")]
    Start {
        /// The whole command line.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The program ran and failed.
    #[error("`{command}` failed ({status}){}", said(stderr))]
    Failed {
        /// The whole command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to its standard error, the end of it where that was long.
        stderr: String,
    },
    /// Somebody asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A mount namespace could not be made, or something in it could not be mounted.
    #[error("cannot {doing} {}", on.display())]
    Mount {
        /// What was tried, such as "mount tmpfs on".
        doing: &'static str,
        /// The mount point or object.
        on: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Result of running something.
pub type Result<T> = std::result::Result<T, Error>;

/// What a failed program said, as the end of a message.
fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::from(", and said nothing"),
        text if text.contains('\n') => format!(":\n{text}"),
        text => format!(": {text}"),
    }
}

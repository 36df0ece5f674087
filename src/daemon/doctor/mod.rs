//! Is this host able to do what it is asked, and if not, what is missing?
//!
//! Each file has the checks of one kind; what they judge by is given to them, so that they are tried
//! without a host that lacks it.
//!
//! - `host`: programs, iPXE, what the kernel has to have, the clock
//! - `network`: ports, firewall, announced addresses
//! - `site`: the library's room and file system, the dashboard's certificate, clients that would not boot
//! - `certificate`: until when one holds

mod certificate;
mod host;
mod network;
mod site;

use jiff::Timestamp;
use serde::Serialize;

use crate::library::{ClientView, Library};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: `programs`, `iPXE`, `kernel`, `clock`, `network`, `library`, `dashboard`,
    /// `boot service`, `clients`, `configuration`.
    pub about: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, in words.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Something that is configured cannot work.
    Bad,
    /// Something that nobody may need is missing, or will go wrong some day.
    Hint,
    /// As it should be.
    Good,
}

impl Finding {
    /// Something that is as it should be.
    pub fn good(about: &'static str, found: impl Into<String>) -> Self {
        Finding {
            about,
            verdict: Verdict::Good,
            found: found.into(),
            remedy: None,
        }
    }

    /// Something that a person should know.
    pub fn hint(about: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding {
            verdict: Verdict::Hint,
            remedy: Some(remedy.into()),
            ..Finding::good(about, found)
        }
    }

    /// Something that cannot work.
    pub fn bad(about: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding {
            verdict: Verdict::Bad,
            ..Finding::hint(about, found, remedy)
        }
    }
}

/// What there is to say of the host alone.
pub fn examine_host() -> Vec<Finding> {
    let mut found = host::programs(&|name| crate::exec::find_program(name).is_some());
    found.extend(host::kernel(
        &|path| path.exists(),
        nix::unistd::geteuid().is_root(),
    ));
    found.push(host::clock(host::is_synchronised()));
    found
}

/// What there is to say of a library and of this host as its server. `seen` are its clients as its
/// running server sees them; nothing where none runs.
pub fn examine(library: &Library, seen: Option<&[ClientView]>) -> Vec<Finding> {
    let config = library.config();
    let mut found = vec![host::loader(&config.boot)];
    found.extend(network::ports(&config, seen.is_some(), &network::bind));
    found.extend(network::netboot(
        &config,
        seen.is_some(),
        &network::bind_udp,
    ));
    found.extend(network::reachable(&config));
    found.extend(site::room(library));
    found.push(site::sharing(library.shares_blocks()));
    found.extend(site::certificates(&config, Timestamp::now()));
    found.extend(site::secrets(&config));
    found.extend(site::boots(library));
    found.extend(site::partitions(seen));
    found
}

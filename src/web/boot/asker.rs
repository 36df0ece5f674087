//! Who asks for a boot.cfg: what the script that all begin with sends along.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::HeaderMap;
use serde::Deserialize;

use super::given;
use super::place::{base, ends};
use crate::daemon::{Peer, Server};
use crate::library::manifest::BootStamp;
use crate::library::{Hardware, ImageName, MacAddr};
use crate::web::Problem;

/// A machine, as it tells of itself. Anybody may say anything, but for the form of its address.
#[derive(Debug, Deserialize)]
pub(super) struct Asker {
    /// The address of the interface that it boots from.
    pub(super) mac: MacAddr,
    uuid: Option<String>,
    serial: Option<String>,
    asset: Option<String>,
    platform: Option<String>,
    arch: Option<String>,
    /// Whose kernel and initramfs lie on its own EFI system partition, where it boots from one.
    pub(super) esp: Option<BootStamp>,
    /// Whether it comes from its menu, or wants to see it.
    pub(super) menu: Option<MenuAsked>,
    /// An image that was chosen there.
    pub(super) image: Option<ImageName>,
}

/// What is asked of a menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MenuAsked {
    /// It is to be shown: somebody pressed the key.
    Show,
    /// It was shown.
    Skip,
}

impl Asker {
    /// What it tells of its hardware, made harmless.
    pub(super) fn hardware(&self) -> Hardware {
        Hardware {
            uuid: self.uuid.clone(),
            serial: self.serial.clone(),
            asset: self.asset.clone(),
            platform: self.platform.clone(),
            arch: self.arch.clone(),
        }
        .harmless()
    }
}

/// A machine that asks, and the way between it and this server.
pub(super) struct Call {
    pub(super) asker: Asker,
    pub(super) peer: Peer,
    /// The same, as it matters for what is a client's alone.
    pub(super) door: given::Asker,
    /// The URL that it reached this server by.
    pub(super) base: String,
    /// Its address.
    pub(super) from: IpAddr,
    /// The address of ours that it came to.
    pub(super) local: SocketAddr,
}

impl Call {
    pub(super) async fn new(
        server: &Arc<Server>,
        asker: Asker,
        peer: Peer,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let base = base(&peer, headers)?;
        let (from, local) = ends(&peer)?;
        let door = given::Asker::of(server, &peer, asker.mac).await?;
        Ok(Call {
            asker,
            peer,
            door,
            base,
            from,
            local,
        })
    }
}

//! What a machine gets that is nobody's client: it is remembered, and does what the policy says.

use super::asker::Call;
use crate::boot::{
    BootCfg, Files, Handover, Portal, Root, SanBoot, Writes, failing, local_ipxe, unknown_ipxe,
};
use crate::daemon::Server;
use crate::library::config::{ForUnknown, PlainPolicy};
use crate::library::manifest::BootFrom;
use crate::library::{Error, Target, VersionId, VersionSpec};

/// The script for it; `error` is that nobody knows it.
pub(super) fn answer(server: &Server, call: &Call, error: Error) -> Result<String, Error> {
    let (mac, library) = (call.asker.mac, server.library());
    if server.saw_stranger(mac, call.asker.hardware(), call.from)
        && server.is_worth_a_word(call.from, &format!("unknown {mac}"))
    {
        tracing::warn!(%mac, peer = %call.peer.actor(), "it asked what to boot: {error}");
    }
    match &library.config().boot.unknown {
        ForUnknown::Plain(PlainPolicy::Menu) => Ok(unknown_ipxe(library, &call.base, &mac)),
        ForUnknown::Plain(PlainPolicy::Local) => Ok(local_ipxe(library)),
        ForUnknown::Plain(PlainPolicy::Refuse) => Err(error),
        ForUnknown::Guest(guest) => match guest_cfg(server, call, &guest.image) {
            Err(
                why @ (Error::Unknown { .. } | Error::NoVersion { .. } | Error::Refused { .. }),
            ) => {
                if server.is_worth_a_word(call.from, "[boot] unknown") {
                    tracing::warn!(%mac, "[boot] unknown names {}, and {why}", guest.image);
                }
                Ok(failing(&why.to_string(), 30))
            }
            other => other,
        },
    }
}

/// The boot.cfg of an image for somebody who has nothing of his own: everybody may read a version, and
/// what he writes stays in his memory.
fn guest_cfg(server: &Server, call: &Call, image: &VersionSpec) -> Result<String, Error> {
    let (mac, library) = (call.asker.mac, server.library());
    let version = library.resolve(image)?;
    let portal = server.portal(call.local);
    let config = library.config();
    let root = Root {
        portal: Portal {
            ip: portal.ip(),
            port: portal.port(),
        },
        target: library.target_name(&Target::Version(version.id().clone())),
        lun: config.iscsi.lun.number(),
        initiator: Some(library.guest_name(&mac)),
        secrets: Default::default(),
    };
    let writes = Writes::Ram;
    if let BootFrom::Disk(_) = version.manifest().boot {
        return Ok(SanBoot { root, writes }.to_string());
    }
    let facts = &version.manifest().facts;
    let VersionId { image, number } = version.id();
    let cfg = BootCfg {
        files: Files::Server(format!("{}/images/{image}/{number}", call.base)),
        handover: Handover::KernelLine,
        identity: None,
        kernel: &facts.kernel_version,
        initramfs: &facts.early,
        root,
        writes,
        mac: Some(mac),
        nameservers: &config.boot.nameservers,
        args: &config.boot.kernel_args,
    };
    Ok(cfg.to_string())
}

//! Whether a client of an image gets its disk back after its connection was lost.
//!
//! The initramfs's iscsid ends when the real root takes over; the kernel keeps the session, but after
//! a lost connection only a running iscsid restores it. An image without one boots, works, and hangs
//! for ever at the first restart of the server.

use anyhow::Result;

use super::shown::Shown;
use super::tree::Root;
use crate::library::manifest::InitramfsKind;

/// Where systemd finds what is enabled.
const ENABLED: &[&str] = &["etc/systemd/system", "usr/lib/systemd/system"];

/// The settings of a root disk: no pings that time out, a day of patience.
const TIMERS: &[(&str, &str)] = &[
    ("node.conn[0].timeo.noop_out_interval", "0"),
    ("node.conn[0].timeo.noop_out_timeout", "0"),
    ("node.session.timeo.replacement_timeout", "86400"),
];

/// What a person should know about the tree at `root`, called `shown`, whose initramfs is of `kind`.
pub(super) fn warnings(root: &Root, kind: InitramfsKind, shown: &Shown) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if !starts_iscsid(root)? {
        warnings.push(format!(
            "nothing in the image starts iscsid, without which a client hangs when the server is \
             restarted: install open-iscsi (Debian) or iscsi-initiator-utils (Fedora) in {shown} and \
             run `{}`",
            shown.systemctl("enable iscsid.service")
        ));
    }
    // dracut takes them from the kernel line, where netroot writes them.
    if kind == InitramfsKind::InitramfsTools && !has_timers(root)? {
        let lines: Vec<_> = TIMERS
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        warnings.push(format!(
            "an initramfs of initramfs-tools takes the timers of its root disk from the image \
             only: write these lines to /etc/iscsi/iscsid.conf in {shown}, and make the \
             initramfs again: {}",
            lines.join("; ")
        ));
    }
    Ok(warnings)
}

/// Whether a unit that runs iscsid is enabled, under whatever name. Other init systems are not
/// looked into.
fn starts_iscsid(root: &Root) -> Result<bool> {
    if !root.exists("usr/lib/systemd/systemd")? && !root.exists("lib/systemd/systemd")? {
        return Ok(true);
    }
    for dir in ENABLED {
        let wants = root.names(dir)?;
        let wants = wants
            .iter()
            .filter(|name| name.ends_with(".wants") || name.ends_with(".requires"));
        for wants in wants {
            for unit in root.names(&format!("{dir}/{wants}"))? {
                // A socket starts it only when somebody asks, which a lost connection does not.
                if unit.ends_with(".service") && runs_iscsid(root, dir, wants, &unit)? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

fn runs_iscsid(root: &Root, dir: &str, wants: &str, unit: &str) -> Result<bool> {
    if unit == "iscsid.service" {
        return Ok(true);
    }
    let text = root
        .text(&format!("{dir}/{wants}/{unit}"))?
        .unwrap_or_default();
    let mut starts = text.lines().filter(|line| line.starts_with("ExecStart="));
    Ok(starts.any(|line| line.contains("/iscsid")))
}

fn has_timers(root: &Root) -> Result<bool> {
    let text = root.text("etc/iscsi/iscsid.conf")?.unwrap_or_default();
    let has = |wanted: &str, value: &str| {
        let mut settings = text.lines().filter_map(|line| line.split_once('='));
        settings.any(|(key, found)| key.trim() == wanted && found.trim() == value)
    };
    Ok(TIMERS.iter().all(|(key, value)| has(key, value)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(files: &[(&str, &str)], kind: InitramfsKind, expected: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let shown = Shown::Image("lab".into());
        let found = warnings(&root, kind, &shown).unwrap();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }

    const SYSTEMD: (&str, &str) = ("usr/lib/systemd/systemd", "");

    #[test]
    fn an_enabled_iscsid_is_found_under_any_name() {
        let dracut = InitramfsKind::Dracut;
        let wants = "etc/systemd/system/sysinit.target.wants";
        check(
            &[SYSTEMD],
            dracut,
            &["image exec lab -- systemctl enable iscsid.service`"],
        );
        check(
            &[SYSTEMD, (&format!("{wants}/iscsid.service"), "")],
            dracut,
            &[],
        );
        check(
            &[SYSTEMD, (&format!("{wants}/iscsid.socket"), "")],
            dracut,
            &["starts iscsid"],
        );
        let own = "[Service]\nExecStart=/usr/sbin/iscsid --foreground\n";
        check(
            &[SYSTEMD, (&format!("{wants}/own.service"), own)],
            dracut,
            &[],
        );
        check(&[("sbin/openrc", "")], dracut, &[]);
    }

    #[test]
    fn timers_must_be_in_an_image_of_initramfs_tools() {
        let tools = InitramfsKind::InitramfsTools;
        check(&[], tools, &["iscsid.conf in the image lab, and"]);
        let settings: String = TIMERS
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        check(&[("etc/iscsi/iscsid.conf", &settings)], tools, &[]);
        let other = settings.replace("86400", "120");
        check(
            &[("etc/iscsi/iscsid.conf", &other)],
            tools,
            &["initramfs-tools"],
        );
    }
}

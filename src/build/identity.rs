//! What makes a machine this machine, and should not be in an image: every client would be it.

use anyhow::Result;

use super::shown::Shown;
use super::tree::Root;

/// Directory, how the names in it begin, and what they are.
const IDENTITIES: &[(&str, &str, &str)] = &[
    ("etc", "machine-id", "a machine-id"),
    ("etc/ssh", "ssh_host_", "SSH host keys"),
    ("var/lib/systemd", "random-seed", "a random seed"),
];

/// Under which name iscsid logs in.
const INITIATOR: &str = "/etc/iscsi/initiatorname.iscsi";

/// Where a client finds the name of its boot.
const NAME_OF_THE_BOOT: &str = "/run/initiatorname.iscsi";

/// What a person should know about the tree at `root`, called `shown`.
pub(super) fn warnings(root: &Root, shown: &Shown) -> Result<Vec<String>> {
    let all = [identities(root, shown)?, initiator(root, shown)?];
    Ok(all.into_iter().flatten().collect())
}

fn identities(root: &Root, shown: &Shown) -> Result<Option<String>> {
    let mut found = Vec::new();
    for (dir, begin, what) in IDENTITIES {
        for name in root.names(dir)? {
            let has = name.starts_with(begin) && has_text(root, &format!("{dir}/{name}"))?;
            if has && !found.contains(what) {
                found.push(what);
            }
        }
    }
    let Some((last, others)) = found.split_last() else {
        return Ok(None);
    };
    let mut list: String = others.iter().map(|what| format!("{what}, ")).collect();
    if !others.is_empty() {
        list = format!("{} and ", list.trim_end_matches(", "));
    }
    let advice = match shown {
        Shown::Directory(path) => format!(
            "remove them from {}, or build with --recipe",
            path.display()
        ),
        // Every change of an image scrubs it.
        Shown::Image(name) => format!(
            "`netroot image exec {name} -- true` makes a version without them (--no-scrub keeps them)"
        ),
    };
    Ok(Some(format!(
        "the image has {list}{last}, which all its clients will share: {advice}"
    )))
}

/// A name in the image is every client's; a link leads to where the boot's own is written.
fn initiator(root: &Root, shown: &Shown) -> Result<Option<String>> {
    let text = root.text(INITIATOR)?.unwrap_or_default();
    let names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("InitiatorName="));
    let name = names.map(str::trim).find(|name| !name.is_empty());
    Ok(name.map(|name| {
        format!(
            "the image has a fixed initiator name, {name}: all its clients would log in again under \
             it, and the server tells them apart by their names; make {INITIATOR} a link to where \
             a boot's own name is (`{}`; dracut writes it there, elsewhere a recipe of netroot does)",
            shown.link(NAME_OF_THE_BOOT, INITIATOR)
        )
    }))
}

fn has_text(root: &Root, path: &str) -> Result<bool> {
    let Some(file) = root.file(path)? else {
        return Ok(false);
    };
    // systemd's machine-id(5): empty and "uninitialized" mean that there is none yet.
    let size = file.metadata()?.len();
    Ok(size > 0
        && root
            .text(path)?
            .is_none_or(|text| text.trim() != "uninitialized"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn told(dir: &Path, shown: &Shown) -> Vec<String> {
        warnings(&Root::open(dir).unwrap(), shown).unwrap()
    }

    #[test]
    fn what_clients_would_share_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/ssh")).unwrap();
        let shown = Shown::Directory("/srv/chroot".into());
        let told = |shown: &Shown| told(dir.path(), shown);
        fs::write(dir.path().join("etc/machine-id"), "uninitialized\n").unwrap();
        assert_eq!(told(&shown), Vec::<String>::new());
        fs::write(dir.path().join("etc/machine-id"), "0123\n").unwrap();
        let expected = "the image has a machine-id, which all its clients will share: remove them \
            from /srv/chroot, or build with --recipe";
        assert_eq!(told(&shown), [expected]);
        fs::write(dir.path().join("etc/ssh/ssh_host_rsa_key"), "key").unwrap();
        fs::write(dir.path().join("etc/ssh/ssh_host_rsa_key.pub"), "key").unwrap();
        let expected = "the image has a machine-id and SSH host keys, which all its clients will \
            share: `netroot image exec lab -- true` makes a version without them (--no-scrub keeps \
            them)";
        assert_eq!(told(&Shown::Image("lab".into())), [expected]);
    }

    #[test]
    fn a_fixed_initiator_name_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/iscsi")).unwrap();
        let file = dir.path().join("etc/iscsi/initiatorname.iscsi");
        let name = "iqn.1993-08.org.debian:01:abc";
        fs::write(&file, format!("## A comment\nInitiatorName={name}\n")).unwrap();
        let shown = Shown::Directory("/srv/chroot".into());
        let expected = format!(
            "the image has a fixed initiator name, {name}: all its clients would log in again under \
             it, and the server tells them apart by their names; make \
             /etc/iscsi/initiatorname.iscsi a link to where a boot's own name is (`ln -sf \
             /run/initiatorname.iscsi /srv/chroot/etc/iscsi/initiatorname.iscsi`; dracut writes it \
             there, elsewhere a recipe of netroot does)"
        );
        assert_eq!(told(dir.path(), &shown), [expected]);
        // Debian's package before its first start.
        fs::write(&file, "GenerateName=yes\n").unwrap();
        assert_eq!(told(dir.path(), &shown), Vec::<String>::new());
        fs::remove_file(&file).unwrap();
        symlink("/run/initiatorname.iscsi", &file).unwrap();
        assert_eq!(told(dir.path(), &shown), Vec::<String>::new());
    }
}

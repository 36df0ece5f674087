//! What makes a machine this machine, and should not be in an image: every client would be it.

use anyhow::Result;

use super::tree::Root;

/// Directory, how the names in it begin, and what they are.
const IDENTITIES: &[(&str, &str, &str)] = &[
    ("etc", "machine-id", "a machine-id"),
    ("etc/ssh", "ssh_host_", "SSH host keys"),
    ("var/lib/systemd", "random-seed", "a random seed"),
];

/// What a person should know about the tree at `root`.
pub(super) fn warning(root: &Root) -> Result<Option<String>> {
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
    Ok(Some(format!(
        "the image has {list}{last}, which all its clients will share: remove them from the tree, or \
         build with --recipe ({} has them)",
        root.path().display()
    )))
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

    use super::*;

    #[test]
    fn what_clients_would_share_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/ssh")).unwrap();
        let told = || warning(&Root::open(dir.path()).unwrap()).unwrap();
        fs::write(dir.path().join("etc/machine-id"), "uninitialized\n").unwrap();
        assert_eq!(told(), None);
        fs::write(dir.path().join("etc/machine-id"), "0123\n").unwrap();
        assert!(
            told()
                .unwrap()
                .starts_with("the image has a machine-id, which")
        );
        fs::write(dir.path().join("etc/ssh/ssh_host_rsa_key"), "key").unwrap();
        fs::write(dir.path().join("etc/ssh/ssh_host_rsa_key.pub"), "key").unwrap();
        assert!(
            told()
                .unwrap()
                .starts_with("the image has a machine-id and SSH host keys, which")
        );
    }
}

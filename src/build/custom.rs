//! What people always change about an image, beside its recipe.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

use super::Script;
use super::recipe::{Action, Deed, Text};
use crate::library::SshKey;

/// Changes that a person asked for, done in this order.
#[derive(Debug, Clone, Default)]
pub struct Custom {
    /// What `/etc/hostname` is to say.
    pub hostname: Option<String>,
    /// root's password, hashed as crypt(5) does, or the path of a file that has it.
    pub root_password_hash: Option<String>,
    /// Keys that may log in as root: each a line of `authorized_keys`, or the path of a file of them.
    pub authorized_keys: Vec<String>,
    /// Files and directories of this host.
    pub copies: Vec<CopyIn>,
    /// Scripts and commands.
    pub scripts: Vec<Script>,
}

/// `SRC:DEST`: a file or directory of this host, and where it goes in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyIn {
    /// On this host.
    pub from: PathBuf,
    /// In the image, from its root.
    pub to: String,
}

/// Something else than `SRC:DEST`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not SRC:DEST, a path of this host and an absolute one in the image that is not below \
     /dev, /proc, /sys or /run, which no image keeps"
)]
pub struct WrongCopy(String);

/// Appends its input to root's keys.
const ADD_KEY: &str = "umask 077; mkdir -p /root/.ssh; cat >>/root/.ssh/authorized_keys";

impl Custom {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.hostname.is_none()
            && self.root_password_hash.is_none()
            && self.authorized_keys.is_empty()
            && self.copies.is_empty()
            && self.scripts.is_empty()
    }

    /// What is to be done.
    ///
    /// # Errors
    /// When a value is none, or a file is not there.
    pub(super) fn actions(&self) -> Result<Vec<Action>> {
        let mut actions = Vec::new();
        if let Some(name) = &self.hostname {
            actions.push(hostname(name)?);
        }
        if let Some(hash) = &self.root_password_hash {
            actions.push(password(hash)?);
        }
        for key in &self.authorized_keys {
            actions.push(authorized_key(key)?);
        }
        for copy in &self.copies {
            copy.from
                .metadata()
                .with_context(|| format!("looking for {} to copy", copy.from.display()))?;
            let (from, to) = (copy.from.clone(), copy.to.clone());
            let say = format!("copy {} to {to}", from.display());
            actions.push(Action::new(say, Deed::CopyIn { from, to }));
        }
        for script in &self.scripts {
            script.ensure_there()?;
            let script = script.clone();
            let say = format!("run `{script}` in it");
            actions.push(Action::new(say, Deed::Script { script }));
        }
        Ok(actions)
    }
}

impl FromStr for CopyIn {
    type Err = WrongCopy;

    fn from_str(text: &str) -> Result<Self, WrongCopy> {
        // A path of this host may have a colon in it, one of the image begins with a slash.
        let parts = text.rsplit_once(":/");
        let (from, to) = parts.ok_or_else(|| WrongCopy(text.to_owned()))?;
        let top = to
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        // Other file systems are mounted there, and gone before the version is sealed.
        let is_kept = !["dev", "proc", "sys", "run"].contains(&top);
        if from.is_empty() || to.split('/').any(|part| part == "..") || !is_kept {
            return Err(WrongCopy(text.to_owned()));
        }
        Ok(Self {
            from: Path::new(from).to_owned(),
            to: format!("/{to}"),
        })
    }
}

fn hostname(name: &str) -> Result<Action> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    ensure!(
        !name.is_empty() && name.len() <= 64 && name.chars().all(plain) && !name.starts_with('-'),
        "`{name}` is no host name: give letters, digits, dots and hyphens, 64 at most"
    );
    let deed = Deed::Write {
        path: String::from("/etc/hostname"),
        text: format!("{name}\n"),
        mode: 0o644,
    };
    Ok(Action::new(format!("call it {name}"), deed))
}

fn password(given: &str) -> Result<Action> {
    let hash = match given.starts_with(['$', '*', '!']) {
        true => given.to_owned(),
        // Every user of this host can read what stands on a command line.
        false => std::fs::read_to_string(given).with_context(|| {
            format!("`{given}` is neither a hash of a password nor a file of one")
        })?,
    };
    let hash = hash.trim_end();
    // crypt(5): `$id$...`; `*` and `!` lock the account.
    let is_hash = hash.starts_with('$') && hash.matches('$').count() >= 2;
    ensure!(
        (is_hash || hash == "*" || hash == "!") && !hash.contains([':', '\n', ' ']),
        "that is no hash of a password: make one with `mkpasswd` or `openssl passwd -6`"
    );
    let deed = Deed::Run {
        command: ["chpasswd", "--encrypted"].map(Text::plain).to_vec(),
        input: Some(format!("root:{hash}\n")),
    };
    Ok(Action::new("set root's password", deed))
}

fn authorized_key(key: &str) -> Result<Action> {
    let text = match is_key(key) {
        true => key.to_owned(),
        false => std::fs::read_to_string(key)
            .with_context(|| format!("`{key}` is neither a key nor a file of keys"))?,
    };
    let mut lines = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    ensure!(
        lines.clone().count() > 0 && lines.all(is_key),
        "there is no public SSH key in `{key}`: give a line of authorized_keys, or a .pub file"
    );
    let deed = Deed::Run {
        command: ["/bin/sh", "-c", ADD_KEY].map(Text::plain).to_vec(),
        input: Some(format!("{}\n", text.trim_end())),
    };
    Ok(Action::new("let an SSH key log in as root", deed))
}

fn is_key(line: &str) -> bool {
    line.parse::<SshKey>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_names_both_sides() {
        let copy: CopyIn = "./motd:/etc/motd".parse().unwrap();
        assert_eq!((copy.from, copy.to), ("./motd".into(), "/etc/motd".into()));
        let copy: CopyIn = "a:b:/opt/".parse().unwrap();
        assert_eq!((copy.from, copy.to), ("a:b".into(), "/opt/".into()));
        let wrong = ["motd", "motd:etc/motd", ":/etc/motd", "motd:/../etc"];
        for wrong in wrong
            .into_iter()
            .chain(["motd:/run/motd", "motd://dev/shm/x"])
        {
            assert!(wrong.parse::<CopyIn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_are_checked_before_anything_starts() {
        let refused = |custom: Custom| assert!(custom.actions().is_err(), "{custom:?}");
        let some = |text: &str| Some(text.to_owned());
        for name in ["", "a b", "-x", "a\nb"] {
            refused(Custom {
                hostname: some(name),
                ..Custom::default()
            });
        }
        for hash in ["secret", "$6", "$6$a:b$c"] {
            refused(Custom {
                root_password_hash: some(hash),
                ..Custom::default()
            });
        }
        refused(Custom {
            authorized_keys: vec!["ssh-rsa".into()],
            ..Custom::default()
        });
        let custom = Custom {
            root_password_hash: some("$6$salt$hash"),
            authorized_keys: vec!["ssh-ed25519 AAAAC3Nza x".into()],
            ..Custom::default()
        };
        let shown: Vec<_> = custom
            .actions()
            .unwrap()
            .iter()
            .map(|a| a.to_string())
            .collect();
        assert!(shown.iter().all(|line| !line.contains("hash")), "{shown:?}");
    }
}

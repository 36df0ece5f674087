//! What people ask for when a version is made: sizes, file systems, releases, packages, keys.
//!
//! A value of one of these types may come from a stranger's request and go to a program of the host:
//! whoever holds one checks nothing again.

use std::fmt;
use std::str::FromStr;

use super::names::{NameError, serde_as_text};

/// A single word of the plain kind: safe in a command line, where it is never taken for an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainWord(String);

/// What a distribution calls a release: `bookworm`, `42`, `9-stream`. It goes into addresses, paths and
/// expressions as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseName(String);

/// A package of a distribution's repositories by name, with a version or an architecture if need be;
/// never a file or an address, whose packages nobody has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageName(String);

/// A distribution and its release, such as `debian:bookworm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseSpec {
    /// The distribution's ID, or the recipe's name.
    pub name: String,
    /// Its release, as the distribution or its recipe calls it.
    pub release: String,
}

/// A public SSH key: one line, as `authorized_keys` has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SshKey(String);

/// A size as a person gives it: a multiple of the tree, or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeSpec {
    /// This many hundredths of what the tree occupies: `2x` is 200.
    Hundredths(u32),
    /// This many bytes: `20G` is 20 GiB.
    Bytes(u64),
}

/// A file system that an image can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileSystem {
    /// The default: what the described system uses.
    #[default]
    Xfs,
    /// For kernels or people that want it.
    Ext4,
    /// The same, with checksums of all data.
    Btrfs,
    /// Read-only and compressed: for clients in mode `shared` only.
    Erofs,
}

/// A size that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: give a multiple of the tree such as 1.5x, or bytes such as 20G")]
pub struct WrongSize(String);

/// A file system that images cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a file system that images can have: give xfs, ext4, btrfs or erofs")]
pub struct UnknownFileSystem(String);

serde_as_text!(
    PlainWord,
    "^[A-Za-z0-9._+~:/=@][A-Za-z0-9._+~:/=@-]{0,255}$"
);
serde_as_text!(ReleaseName, "^[A-Za-z0-9]([._-]?[A-Za-z0-9]){0,15}$");
serde_as_text!(
    PackageName,
    "^@?[A-Za-z0-9][A-Za-z0-9+._:-]{0,126}[A-Za-z0-9+](=[A-Za-z0-9]([A-Za-z0-9+.:~-]{0,126}[A-Za-z0-9])?)?$"
);
serde_as_text!(
    ReleaseSpec,
    "^[a-z][a-z0-9-]{0,31}:[A-Za-z0-9]([._-]?[A-Za-z0-9]){0,15}$"
);
serde_as_text!(
    SshKey,
    "^((?!ssh-|ecdsa-sha2-|sk-)[!-~]+ +)?(ssh-|ecdsa-sha2-|sk-ssh-|sk-ecdsa-)[a-z0-9@.-]* \
     +AAAA[A-Za-z0-9+/=]*( [ -~]*)?$"
);
serde_as_text!(
    SizeSpec,
    r"^([1-9][0-9]{0,2}(\.[0-9]{1,2})?x|[1-9][0-9]{0,3}[KMGTP]|[1-9][0-9]{0,15})$"
);
serde_as_text!(FileSystem, "^(xfs|ext4|btrfs|erofs)$");

/// Longest word: no name of a package or a release comes near it.
const LONGEST_WORD: usize = 256;
/// Longest name of a release.
const LONGEST_RELEASE: usize = 32;
/// Longest name, or version, of a package.
const LONGEST_PACKAGE: usize = 128;
/// Longest key: RSA of 16384 bits takes less than 3,000 characters.
const LONGEST_KEY: usize = 8192;

/// Letters for powers of 1024, as `truncate` and `qemu-img` take them.
const UNITS: &[(&str, u32)] = &[("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50)];

impl PlainWord {
    /// The word as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PlainWord {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+~:/=@-".contains(c);
        let is_word = (1..=LONGEST_WORD).contains(&text.len())
            && !text.starts_with('-')
            && text.chars().all(plain);
        is_word.then(|| Self(text.to_owned())).ok_or_else(|| {
            NameError::new(text, "a plain word: letters, digits and . _ + ~ : / = @ -")
        })
    }
}

impl FromStr for ReleaseName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts = text.split(['.', '_', '-']);
        let sound = (1..=LONGEST_RELEASE).contains(&text.len())
            && parts
                .into_iter()
                .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric()));
        sound.then(|| Self(text.to_owned())).ok_or_else(|| {
            NameError::new(
                text,
                "a release: letters and digits, with . _ - between them",
            )
        })
    }
}

impl fmt::Display for ReleaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for PackageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (name, version) = match text.split_once('=') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        // dnf(8): a group. apt-get(8) takes a `-` at the end for "remove it".
        let name = name.strip_prefix('@').unwrap_or(name);
        let of = |text: &str, more: &str| {
            text.len() <= LONGEST_PACKAGE
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && !text.ends_with(['-', '.', ':', '_', '~'])
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let sound = of(name, "+._:-")
            && name.len() > 1
            && version.is_none_or(|version| of(version, "+.:~-") && !version.ends_with('+'));
        sound.then(|| Self(text.to_owned())).ok_or_else(|| {
            NameError::new(
                text,
                "a package's name, such as vim, libc6:i386 or vim=2:9.0-1",
            )
        })
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for PlainWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ReleaseSpec {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || {
            NameError::new(
                text,
                "a distribution and its release, such as debian:bookworm",
            )
        };
        let (name, release) = text.split_once(':').ok_or_else(wrong)?;
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let sound = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.len() <= LONGEST_RELEASE
            && name.chars().all(is_name)
            && release.parse::<ReleaseName>().is_ok();
        if !sound {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            release: release.to_owned(),
        })
    }
}

impl fmt::Display for ReleaseSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.release)
    }
}

impl SshKey {
    /// What people know it by: its comment, or its type and how it ends.
    pub fn short(&self) -> String {
        let words: Vec<&str> = self.0.split_whitespace().collect();
        let key = words.iter().position(|word| word.starts_with("AAAA"));
        let Some((before, [key, comment @ ..])) = key.and_then(|at| words.split_at_checked(at))
        else {
            return self.0.clone();
        };
        if !comment.is_empty() {
            return comment.join(" ");
        }
        let end: String = key.chars().skip(key.len().saturating_sub(8)).collect();
        format!("{} ...{end}", before.last().copied().unwrap_or_default())
    }
}

impl FromStr for SshKey {
    type Err = NameError;

    /// sshd(8): a type, perhaps after options, and the key.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_type = |word: &str| {
            ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"]
                .iter()
                .any(|kind| word.starts_with(kind))
        };
        let mut words = text.split_whitespace().skip_while(|word| !is_type(word));
        let is_key =
            words.next().is_some() && words.next().is_some_and(|key| key.starts_with("AAAA"));
        if !is_key || text.len() > LONGEST_KEY || text.chars().any(char::is_control) {
            return Err(NameError::new(text, "a public SSH key in one line"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Default for SizeSpec {
    /// Twice the tree, as the described system does it.
    fn default() -> Self {
        Self::Hundredths(200)
    }
}

impl FromStr for SizeSpec {
    type Err = WrongSize;

    fn from_str(text: &str) -> Result<Self, WrongSize> {
        let wrong = || WrongSize(text.chars().take(40).collect());
        if let Some(times) = text.strip_suffix(['x', 'X']) {
            let times: f64 = times.parse().map_err(|_| wrong())?;
            // Under 1x nothing fits; beyond 1000x it is a typing mistake.
            if !(1.0..=1000.0).contains(&times) {
                return Err(wrong());
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // within the range above
            return Ok(Self::Hundredths((times * 100.0).round() as u32));
        }
        let upper = text.to_ascii_uppercase();
        let number = upper.strip_suffix('B').unwrap_or(&upper);
        let number = number.strip_suffix('I').unwrap_or(number);
        let unit = UNITS.iter().find_map(|(unit, shift)| {
            let digits = number.strip_suffix(unit)?;
            Some((digits, *shift))
        });
        let (digits, shift) = unit.unwrap_or((number, 0));
        let bytes: u64 = digits.parse().map_err(|_| wrong())?;
        let bytes = bytes.checked_mul(1 << shift).ok_or_else(wrong)?;
        if bytes == 0 {
            return Err(wrong());
        }
        Ok(Self::Bytes(bytes))
    }
}

/// As `FromStr` takes it.
impl fmt::Display for SizeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hundredths(times) => write!(f, "{}x", f64::from(*times) / 100.0),
            Self::Bytes(bytes) => {
                let whole = |shift: u32| bytes % (1 << shift) == 0;
                match UNITS.iter().rev().find(|(_, shift)| whole(*shift)) {
                    Some((unit, shift)) => write!(f, "{}{unit}", bytes >> shift),
                    None => write!(f, "{bytes}"),
                }
            }
        }
    }
}

impl FileSystem {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Xfs, Self::Ext4, Self::Btrfs, Self::Erofs];

    /// Its name, for mount and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
            Self::Btrfs => "btrfs",
            Self::Erofs => "erofs",
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FileSystem {
    type Err = UnknownFileSystem;

    fn from_str(text: &str) -> Result<Self, UnknownFileSystem> {
        Self::ALL
            .into_iter()
            .find(|filesystem| filesystem.name() == text)
            .ok_or_else(|| UnknownFileSystem(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_multiples_or_bytes() {
        let check = |text: &str, expected: SizeSpec| {
            assert_eq!(text.parse(), Ok(expected), "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected), "{text}");
        };
        check("2x", SizeSpec::Hundredths(200));
        check("1.5x", SizeSpec::Hundredths(150));
        check("20G", SizeSpec::Bytes(20 << 30));
        check("20GiB", SizeSpec::Bytes(20 << 30));
        check("700m", SizeSpec::Bytes(700 << 20));
        check("1048577", SizeSpec::Bytes((1 << 20) + 1));
        for wrong in [
            "",
            "x",
            "0.5x",
            "-2x",
            "NaNx",
            "0",
            "20Q",
            "G",
            "1.5G",
            "99999999P",
        ] {
            assert!(wrong.parse::<SizeSpec>().is_err(), "{wrong}");
        }
        assert_eq!(SizeSpec::Bytes(20 << 30).to_string(), "20G");
    }

    #[test]
    fn words_are_no_options_and_hold_nothing_for_a_shell() {
        for good in ["vim", "linux-image-amd64", "g++", "a=1.2~rc1", "libc6:i386"] {
            assert!(good.parse::<PlainWord>().is_ok(), "{good}");
        }
        let long = "a".repeat(257);
        for bad in ["", "-o", "a b", "a;b", "$(a)", "a\n", "ä", "a*", &long] {
            assert!(bad.parse::<PlainWord>().is_err(), "{bad}");
        }
    }

    #[test]
    fn releases_name_no_paths() {
        let spec: ReleaseSpec = "debian:bookworm".parse().unwrap();
        assert_eq!(
            (spec.name.as_str(), spec.release.as_str()),
            ("debian", "bookworm")
        );
        for bad in [
            "debian",
            "/srv:12",
            "srv/debian:12",
            "debian:../x",
            "debian:..",
            "debian:x~1",
            "-:1",
            "debian:",
            ":12",
        ] {
            assert!(bad.parse::<ReleaseSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn packages_are_names_and_no_files_addresses_or_orders() {
        for good in [
            "vim",
            "g++",
            "@core",
            "libc6:i386",
            "vim=2:9.0.1378-2+deb12u2",
            "kernel-core",
        ] {
            assert!(good.parse::<PackageName>().is_ok(), "{good}");
        }
        for bad in [
            "https://example.org/x.rpm",
            "./a.deb",
            "/etc/shadow",
            "libc6-",
            "~n.",
            "?all",
            "-o",
            "a b",
            "vim=",
            "@",
        ] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_release_is_no_path_and_no_expression() {
        for good in ["bookworm", "42", "9-stream", "22.04"] {
            assert!(good.parse::<ReleaseName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "..",
            "../x",
            "x/w/etc/passwd",
            "a..b",
            "-1",
            "a&b",
            "1.",
            "a b",
        ] {
            assert!(bad.parse::<ReleaseName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_one_line() {
        assert!("ssh-ed25519 AAAAC3Nza x".parse::<SshKey>().is_ok());
        assert!("restrict ssh-rsa AAAAB3 x".parse::<SshKey>().is_ok());
        for bad in ["ssh-rsa", "/root/key.pub", "ssh-rsa AAAA\nssh-rsa AAAA", ""] {
            assert!(bad.parse::<SshKey>().is_err(), "{bad}");
        }
    }
}

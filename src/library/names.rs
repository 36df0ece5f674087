//! Names of things in a library. A value of one of these types is safe in a path, in an iSCSI name
//! and in a kernel command line; whoever holds one checks nothing again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use super::kernel_line::KernelArg;

/// A name, number or address that was not written the way it has to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {wanted}")]
pub struct NameError {
    given: String,
    wanted: &'static str,
}

impl NameError {
    pub(crate) fn new(given: &str, wanted: &'static str) -> Self {
        // What a stranger sent is shown, but not at any length and without control characters.
        let given = given
            .chars()
            .take(80)
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        NameError { given, wanted }
    }
}

/// Tells API documents that a type is written as text of a form (ECMA 262).
macro_rules! schema_of_text {
    ($name:ident, $pattern:expr) => {
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some($pattern))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}
pub(crate) use schema_of_text;

/// Makes a newtype over `String` that only `$check` lets in, in code and from documents.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $pattern:expr, $wanted:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok($name(text.to_owned()))
                } else {
                    Err(NameError::new(text, $wanted))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        schema_of_text!($name, $pattern);
    };
}

/// Makes an enum one of plain words, as documents and the command line have them: `$wanted` says which.
macro_rules! plain_words {
    ($name:ident, $wanted:literal, [$($variant:ident = $word:literal),+ $(,)?]) => {
        impl $name {
            /// All of them.
            pub const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// The word in documents and on the command line.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::library::NameError;

            fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
                let known = $name::ALL.into_iter().find(|one| one.as_str() == text);
                known.ok_or_else(|| $crate::library::NameError::new(text, $wanted))
            }
        }
    };
}
pub(crate) use plain_words;

name!(
    /// The name of a line of versions, such as `fc28`.
    ///
    /// It does not end in `-` and twelve hex digits: `client-525400123456` is the target of a clone.
    /// Neither is it `iqn`: of a target `iqn.2026-01.edu.example:iqn.3` dracut takes `iqn.3` for the
    /// whole name.
    ImageName,
    "^(?!iqn$)(?!.*-[0-9a-f]{12}$)[a-z][a-z0-9-]{0,31}$",
    "the name of an image: a to z, 0 to 9 and `-`, beginning with a letter, at most 32 long, \
     not ending in `-` and twelve hex digits, and not `iqn`, which dracut would misread in the names \
     of targets",
    |text| is_plain(text) && !ends_like_a_clone(text) && text != "iqn"
);

name!(
    /// The name of a volume, which no image of the library has.
    VolumeName,
    "^(?!.*-[0-9a-f]{12}$)[a-z][a-z0-9-]{0,31}$",
    "the name of a volume: a to z, 0 to 9 and `-`, beginning with a letter, at most 32 long, \
     not ending in `-` and twelve hex digits",
    |text| is_plain(text) && !ends_like_a_clone(text)
);

name!(
    /// The name of a client.
    ClientName,
    "^[a-z][a-z0-9-]{0,31}$",
    "the name of a client: a to z, 0 to 9 and `-`, beginning with a letter, at most 32 long",
    is_plain
);

name!(
    /// The name of a group of clients, written `@name` where clients are named too.
    GroupName,
    "^[a-z][a-z0-9-]{0,31}$",
    "the name of a group: a to z, 0 to 9 and `-`, beginning with a letter, at most 32 long",
    is_plain
);

name!(
    /// The name of a snapshot of a client's disk. It does not look like the number of a disk.
    SnapshotName,
    "^(?![0-9a-f]{16}$)[a-z][a-z0-9-]{0,31}$",
    "the name of a snapshot: a to z, 0 to 9 and `-`, beginning with a letter, at most 32 long, and not \
     just 16 hex digits",
    |text| is_plain(text) && !is_disk_id(text)
);

name!(
    /// The name of a user of dashboard and API.
    UserName,
    "^[a-z][a-z0-9-]{0,31}$",
    "the name of a user: a to z, 0 to 9 and `-`, beginning with a letter, at most 32 long",
    is_plain
);

name!(
    /// The name of an API token: what the program is called that shows it.
    TokenName,
    "^[a-z][a-z0-9-]{0,31}$",
    "the name of a token: a to z, 0 to 9 and `-`, beginning with a letter, at most 32 long",
    is_plain
);

/// What a client's disk is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The read-only version itself; writes go to RAM on the client.
    Shared,
    /// A clone of its own; writes stay until reset.
    Persistent,
    /// A clone of its own, pristine again at every boot.
    Ephemeral,
}

/// What a user or a token may do, from less to more.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything but secrets.
    Viewer,
    /// And change everything.
    Operator,
}

plain_words!(
    Role,
    "a role: viewer or operator",
    [Viewer = "viewer", Operator = "operator",]
);

plain_words!(
    Mode,
    "a mode: shared, persistent or ephemeral",
    [
        // The first is taken unasked.
        Shared = "shared",
        Persistent = "persistent",
        Ephemeral = "ephemeral",
    ]
);

impl Mode {
    /// Whether a client in this mode has a disk of its own.
    pub fn has_clone(self) -> bool {
        self != Mode::Shared
    }
}

/// Serializes a type as its text, and back through its `FromStr`.
macro_rules! serde_as_text {
    ($name:ident, $pattern:expr) => {
        serde_as_text!($name);
        crate::library::names::schema_of_text!($name, $pattern);
    };
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(
                &self,
                s: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(
                d: D,
            ) -> std::result::Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// One version of an image, written `fc28@3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId {
    /// The image.
    pub image: ImageName,
    /// Its number: 1 for the first version that was ever sealed.
    pub number: u32,
}

/// An image, or one version of it: `fc28` (whatever is current) or `fc28@3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionSpec {
    /// The image.
    pub image: ImageName,
    /// The version that is meant, or nothing for the current one.
    pub number: Option<u32>,
}

serde_as_text!(
    VersionId,
    "^(?!iqn@)(?!.*-[0-9a-f]{12}@)[a-z][a-z0-9-]{0,31}@[1-9][0-9]{0,8}$"
);
serde_as_text!(
    VersionSpec,
    "^(?!iqn(@|$))(?!.*-[0-9a-f]{12}(@|$))[a-z][a-z0-9-]{0,31}(@[1-9][0-9]{0,8})?$"
);

const VERSION: &str = "a version: an image's name, `@`, and a number from 1, such as fc28@3";

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.image, self.number))
    }
}

impl FromStr for VersionId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let spec: VersionSpec = text.parse()?;
        let number = spec.number.ok_or_else(|| NameError::new(text, VERSION))?;
        Ok(VersionId {
            image: spec.image,
            number,
        })
    }
}

impl fmt::Display for VersionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => f.pad(&format!("{}@{number}", self.image)),
            None => f.pad(self.image.as_str()),
        }
    }
}

impl FromStr for VersionSpec {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (image, number) = match text.split_once('@') {
            None => (text, None),
            Some((image, number)) => {
                let number = version_number(number).ok_or_else(|| NameError::new(text, VERSION))?;
                (image, Some(number))
            }
        };
        Ok(VersionSpec {
            image: image.parse()?,
            number,
        })
    }
}

impl From<ImageName> for VersionSpec {
    fn from(image: ImageName) -> Self {
        VersionSpec {
            image,
            number: None,
        }
    }
}

impl From<VersionId> for VersionSpec {
    fn from(id: VersionId) -> Self {
        VersionSpec {
            image: id.image,
            number: Some(id.number),
        }
    }
}

/// The number of a version, in the one way it is written: decimal, from 1, without leading zeros.
pub(crate) fn version_number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}

/// Whether it looks like what is drawn for each disk.
fn is_disk_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_plain(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn ends_like_a_clone(text: &str) -> bool {
    text.rsplit_once('-')
        .is_some_and(|(_, tail)| tail.len() == 12 && tail.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names() {
        for good in [
            "fc28",
            "a",
            "debian-12",
            "x-12345678901",
            "a2345678901234567890123456789012",
        ] {
            assert_eq!(good.parse::<ImageName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "Fc28",
            "28",
            "-a",
            "a.b",
            "a/b",
            "..",
            "a_b",
            "fc28@3",
            "a\n",
            "ä",
            "client-525400123456",
            "iqn",
            "a23456789012345678901234567890123",
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
        assert!("client-525400123456".parse::<ClientName>().is_ok());
    }

    #[test]
    fn versions_are_written_in_one_way() {
        let spec: VersionSpec = "fc28@3".parse().unwrap();
        assert_eq!((spec.image.as_str(), spec.number), ("fc28", Some(3)));
        assert_eq!(spec.to_string(), "fc28@3");
        assert_eq!("fc28".parse::<VersionSpec>().unwrap().number, None);
        for bad in [
            "fc28@",
            "fc28@0",
            "fc28@03",
            "fc28@+3",
            "fc28@3@4",
            "@3",
            "fc28@4294967296",
        ] {
            assert!(bad.parse::<VersionSpec>().is_err(), "{bad}");
        }
        assert!("fc28".parse::<VersionId>().is_err());
    }

    #[test]
    fn a_name_from_a_document_is_checked_too() {
        assert!(serde_json::from_str::<ImageName>("\"../../etc\"").is_err());
        assert!(serde_json::from_str::<VersionId>("\"fc28@x\"").is_err());
        let id: VersionId = serde_json::from_str("\"fc28@3\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"fc28@3\"");
    }

    #[test]
    fn an_error_shows_hostile_text_harmlessly() {
        let error = "\u{1b}[2J".parse::<ImageName>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
    }
}

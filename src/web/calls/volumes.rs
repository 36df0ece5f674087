//! Bodies of calls about volumes.
//!
//! Secrets go in and never come out: no answer, event or log has one, and `Debug` shows none.

use std::fmt;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::library::{
    self, Allow, Chap, Error, Kept, NewVolume, Object, Paths, Secrets, VolumeEdit, VolumeName,
};

/// Numbers that JSON has exactly in every language (RFC 8259 §6).
const EXACT: f64 = 9_007_199_254_740_991.0;

/// `POST /api/v1/volumes`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "data", "size": 1_073_741_824, "allow": ["192.0.2.0/24"]}))]
pub struct AddVolumeCall {
    /// Its name, which is the last part of its target's.
    pub name: VolumeName,
    /// A file of the server to publish as it is, below a directory that `netroot.toml` lists; made with
    /// `size` if it is not there. Left out, the library keeps the volume.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^/[^\\u0000]*$", max_length = 4096)]
    pub file: Option<PathBuf>,
    /// A block device of the server to publish as it is, below such a directory.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^/[^\\u0000]*$", max_length = 4096)]
    pub device: Option<PathBuf>,
    /// Bytes of a new disk.
    #[serde(default, deserialize_with = "amount")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub size: Option<u64>,
    /// Bytes of a block.
    #[serde(default)]
    pub block_size: BlockSize,
    /// What initiators are told that the storage writes at once; the truth if not given.
    #[serde(default, deserialize_with = "power")]
    #[schema(schema_with = powers)]
    pub physical_block_size: Option<u32>,
    /// Read and write past the system's cache (O_DIRECT).
    #[serde(default)]
    pub direct: bool,
    /// Nobody may write.
    #[serde(default)]
    pub read_only: bool,
    /// Whom it is for; of names and address ranges one each has to fit, where there are both.
    #[serde(default)]
    pub allow: Vec<Allow>,
    /// What initiators have to prove. Without `allow` that alone lets them in.
    #[serde(default, deserialize_with = "proof")]
    pub chap: Option<ChapCall>,
    /// What the target proves to them.
    #[serde(default, deserialize_with = "proof")]
    pub mutual_chap: Option<ChapCall>,
    /// Another volume whose target it joins, with the rules of that.
    #[serde(default)]
    pub target: Option<VolumeName>,
    /// Its number in its target; the next free one if not given.
    #[serde(default, deserialize_with = "lun")]
    #[schema(minimum = 1, maximum = 255)]
    pub lun: Option<u16>,
    /// Initiators may have all of it overwritten (SANITIZE).
    #[serde(default)]
    pub allow_sanitize: bool,
    /// Also a device that is mounted or part of something else; only for root, through the control
    /// socket.
    #[serde(default)]
    pub force: bool,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Bytes of a logical block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize(u32);

/// A CHAP name and its secret.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChapCall {
    /// The name.
    #[schema(pattern = "^[ -~]{1,255}$")]
    pub user: String,
    /// What is proved; never shown again.
    #[schema(write_only, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]{12,255}$")]
    pub secret: String,
}

/// What becomes of a proof.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChapEdit {
    /// Nothing has to be proved any more.
    None,
    /// This has to be.
    Set(#[serde(deserialize_with = "named")] ChapCall),
}

/// `PATCH /api/v1/volumes/{name}`; what is left out, or null, stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EditVolumeCall {
    /// Whom it is for: all of them, or nobody if it is empty.
    pub allow: Option<Vec<Allow>>,
    /// What initiators have to prove.
    pub chap: Option<ChapEdit>,
    /// What the target proves to them.
    pub mutual_chap: Option<ChapEdit>,
    /// Whether to read and write past the system's cache (O_DIRECT).
    pub direct: Option<bool>,
    /// Whether nobody may write.
    pub read_only: Option<bool>,
    /// Whether initiators may have all of it overwritten.
    pub allow_sanitize: Option<bool>,
    /// Only tell what would be done.
    pub dry_run: bool,
}

/// `POST /api/v1/volumes/{name}/resize`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResizeVolumeCall {
    /// Bytes; left out, what its file or device has become.
    #[serde(deserialize_with = "amount")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub size: Option<u64>,
    /// Only tell what would be done.
    pub dry_run: bool,
}

/// `POST /api/v1/volumes/{name}/snapshot`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotVolumeCall {
    /// The name of the copy; made of the volume's and the moment if not given.
    pub r#as: Option<VolumeName>,
    /// Only tell what would be done.
    pub dry_run: bool,
}

/// `DELETE /api/v1/volumes/{name}`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RemoveVolumeCall {
    /// Also when it is in use: its sessions are ended first.
    pub force: bool,
    /// Only tell what would be done.
    pub dry_run: bool,
}

impl AddVolumeCall {
    /// Asks for a volume.
    pub fn of(new: &NewVolume, dry_run: bool) -> Self {
        let (file, device) = match new.kept.clone() {
            Kept::Library => (None, None),
            Kept::File(path) => (Some(path), None),
            Kept::Device(path) => (None, Some(path)),
        };
        AddVolumeCall {
            name: new.name.clone(),
            file,
            device,
            size: new.size,
            block_size: BlockSize(new.block_size),
            physical_block_size: new.physical_block_size,
            direct: new.direct,
            read_only: new.read_only,
            allow: new.allow.clone(),
            chap: new.secrets.chap.as_ref().map(ChapCall::of),
            mutual_chap: new.secrets.mutual.as_ref().map(ChapCall::of),
            target: new.target.clone(),
            lun: new.lun,
            allow_sanitize: new.allow_sanitize,
            force: new.force,
            dry_run,
        }
    }

    /// The volume that is asked for, by somebody whose word on paths is worth `paths`.
    pub fn volume(self, paths: Paths) -> library::Result<NewVolume> {
        let kept = match (self.file, self.device) {
            (None, None) => Kept::Library,
            (Some(file), None) => Kept::File(file),
            (None, Some(device)) => Kept::Device(device),
            (Some(_), Some(_)) => {
                return Err(Error::refused(
                    format!("adding volume {}", self.name),
                    "it is kept in one place",
                    "name a file or a device",
                ));
            }
        };
        if let Kept::File(path) | Kept::Device(path) = &kept
            && !path.is_absolute()
        {
            return Err(Error::Invalid(
                "paths begin with /: nobody knows where the server was started".to_owned(),
            ));
        }
        Ok(NewVolume {
            name: self.name,
            kept,
            paths,
            size: self.size,
            block_size: self.block_size.0,
            physical_block_size: self.physical_block_size,
            direct: self.direct,
            read_only: self.read_only,
            allow: self.allow,
            secrets: Secrets {
                chap: self.chap.map(ChapCall::chap).transpose()?,
                mutual: self.mutual_chap.map(ChapCall::chap).transpose()?,
            },
            target: self.target,
            lun: self.lun,
            allow_sanitize: self.allow_sanitize,
            force: self.force,
        })
    }
}

impl EditVolumeCall {
    /// Asks for a change.
    pub fn of(edit: &VolumeEdit, dry_run: bool) -> Self {
        EditVolumeCall {
            allow: edit.allow.clone(),
            chap: edit.chap.as_ref().map(ChapEdit::of),
            mutual_chap: edit.mutual.as_ref().map(ChapEdit::of),
            direct: edit.direct,
            read_only: edit.read_only,
            allow_sanitize: edit.allow_sanitize,
            dry_run,
        }
    }

    /// The change that is asked for.
    pub fn edit(self) -> library::Result<VolumeEdit> {
        Ok(VolumeEdit {
            allow: self.allow,
            chap: self.chap.map(ChapEdit::chap).transpose()?,
            mutual: self.mutual_chap.map(ChapEdit::chap).transpose()?,
            direct: self.direct,
            read_only: self.read_only,
            allow_sanitize: self.allow_sanitize,
        })
    }
}

impl ChapCall {
    fn of(chap: &Chap) -> Self {
        ChapCall {
            user: chap.user.clone(),
            secret: chap.secret.clone(),
        }
    }

    fn chap(self) -> library::Result<Chap> {
        Chap::new(&self.user, &self.secret)
    }
}

impl fmt::Debug for ChapCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChapCall({})", self.user)
    }
}

impl ChapEdit {
    fn of(chap: &Option<Chap>) -> Self {
        match chap {
            Some(chap) => ChapEdit::Set(ChapCall::of(chap)),
            None => ChapEdit::None,
        }
    }

    fn chap(self) -> library::Result<Option<Chap>> {
        match self {
            ChapEdit::None => Ok(None),
            ChapEdit::Set(chap) => chap.chap().map(Some),
        }
    }
}

impl Default for BlockSize {
    fn default() -> Self {
        BlockSize(512)
    }
}

impl Serialize for BlockSize {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for BlockSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match whole(deserializer)? {
            Some(512) => Ok(BlockSize(512)),
            Some(4096) => Ok(BlockSize(4096)),
            _ => Err(D::Error::custom("blocks have 512 or 4096 bytes")),
        }
    }
}

/// The sizes that physical blocks may have.
const POWERS: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

fn power<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = whole(deserializer)? else {
        return Ok(None);
    };
    let power = POWERS.into_iter().find(|power| u64::from(*power) == number);
    power.map(Some).ok_or_else(|| {
        D::Error::custom(format!(
            "physical blocks of {number} bytes: there are {POWERS:?}"
        ))
    })
}

fn powers() -> utoipa::openapi::schema::Object {
    utoipa::openapi::schema::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::SchemaType::from_iter([
            utoipa::openapi::schema::Type::Integer,
            utoipa::openapi::schema::Type::Null,
        ]))
        .enum_values(Some(POWERS.map(Some).into_iter().chain([None])))
        .build()
}

impl utoipa::PartialSchema for BlockSize {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::Integer)
            .enum_values(Some([512, 4096]))
            .default(Some(512.into()))
            .into()
    }
}

impl ToSchema for BlockSize {}

fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ChapCall, D::Error> {
    Object::deserialize(deserializer).map(|Object(call)| call)
}

fn proof<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ChapCall>, D::Error> {
    let named = Option::deserialize(deserializer)?;
    Ok(named.map(|Object(call)| call))
}

/// A whole number. `3.0` is one as well: JSON knows no integers (RFC 8259 §6), and some languages write
/// all their numbers like that.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else {
        return Ok(None);
    };
    match number.fract() == 0.0 && (0.0..=EXACT).contains(&number) {
        // Without a fraction and within bounds, nothing is lost.
        true => Ok(Some(number as u64)),
        false => Err(D::Error::custom(format!("{number} is no whole number"))),
    }
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match whole(deserializer)? {
        Some(0) => Err(D::Error::custom("there are no disks of 0 bytes")),
        amount => Ok(amount),
    }
}

fn lun<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let number = whole(deserializer)?;
    let lun = number.map(u16::try_from).transpose().ok();
    match lun {
        Some(lun @ (None | Some(1..=255))) => Ok(lun),
        _ => Err(D::Error::custom("a LUN is a number from 1 to 255")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_to_whoever_reads_a_log() {
        let text =
            r#"{"name":"data","size":512.0,"chap":{"user":"me","secret":"a secret of mine"}}"#;
        let call: AddVolumeCall = serde_json::from_str(text).unwrap();
        assert!(!format!("{call:?}").contains("secret of"), "{call:?}");
        let new = call.volume(Paths::Listed).unwrap();
        assert!(!format!("{new:?}").contains("secret of"), "{new:?}");
        assert_eq!((new.size, new.block_size), (Some(512), 512));
    }

    #[test]
    fn what_no_disk_has_is_refused() {
        for wrong in [
            r#""size":0"#,
            r#""size":-1"#,
            r#""size":1.5"#,
            r#""lun":0"#,
            r#""lun":256"#,
            r#""block_size":1024"#,
            r#""dry-run":true"#,
            r#""chap":["me","a secret of mine"]"#,
        ] {
            let text = format!(r#"{{"name":"data",{wrong}}}"#);
            assert!(
                serde_json::from_str::<AddVolumeCall>(&text).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_proof_is_set_taken_away_or_left() {
        let read = |text: &str| {
            let call: EditVolumeCall = serde_json::from_str(text).unwrap();
            let user = |chap: Chap| chap.user;
            call.edit().unwrap().chap.map(|chap| chap.map(user))
        };
        assert_eq!(read("{}"), None);
        assert_eq!(read(r#"{"chap":null}"#), None);
        assert_eq!(read(r#"{"chap":"none"}"#), Some(None));
        let set = r#"{"chap":{"set":{"user":"me","secret":"a secret of mine"}}}"#;
        assert_eq!(read(set), Some(Some("me".to_owned())));
    }
}

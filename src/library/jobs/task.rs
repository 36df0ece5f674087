//! What a job may be: a few named tasks, with values that were checked when they were parsed.
//!
//! A worker is root and does what stands here for people who need no right on its host. So there is no
//! command line in it, no script and no path; who wants those has the command line.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::library::error::{Error, Result};
use crate::library::names::{ImageName, VersionId, VersionSpec};
use crate::library::wanted::{FileSystem, PackageName, ReleaseName, ReleaseSpec, SizeSpec, SshKey};
use crate::library::{HostName, Library, MacAddr, Publish};

/// What a worker is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Make a version of an image from a distribution.
    Build(BuildTask),
    /// Install updates of the same release: a new version of the image.
    Update(UpdateTask),
    /// Make another image of one: its distribution's next release.
    Upgrade(UpgradeTask),
    /// Make a version of a client's disk. Whoever queues it agrees to what
    /// [`Task::PreviewPromotion`] tells.
    Promote(PromoteTask),
    /// Tell what would be promoted, and how it differs from the version that the disk was made from.
    PreviewPromotion(PromoteTask),
    /// Tell what changed from one version to another.
    Diff(DiffTask),
    /// Check a version against its manifest: all hashes, and the file system.
    Verify(VerifyTask),
    /// Boot a version, to see whether it comes up.
    Test(TestTask),
}

/// See [`Task::Build`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildTask {
    /// The image; made if it is new, else it gets its next version.
    pub image: ImageName,
    /// What it is bootstrapped from.
    pub from: ReleaseSpec,
    /// Further packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 500)]
    pub packages: Vec<PackageName>,
    /// What its clients are called, unless DHCP tells them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostName>,
    /// Keys that may log in as root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub authorized_keys: Vec<SshKey>,
    /// Its file system.
    #[serde(default)]
    pub filesystem: FileSystem,
    /// The size of its disk; twice the tree if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeSpec>,
}

/// See [`Task::Update`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTask {
    /// The image, or the version of it to start from.
    pub image: VersionSpec,
    /// The size of the new disk, if it is to grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeSpec>,
}

/// See [`Task::Upgrade`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeTask {
    /// The image, or the version of it to start from.
    pub from: VersionSpec,
    /// The image to make.
    pub to: ImageName,
    /// The release, as the distribution or its recipe calls it.
    pub release: ReleaseName,
    /// The size of the new disk, if it is to grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeSpec>,
}

/// See [`Task::Promote`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteTask {
    /// The client whose disk it is.
    pub client: MacAddr,
    /// The image that gets the version: that of the disk, or a new one.
    pub image: ImageName,
}

/// See [`Task::Diff`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffTask {
    /// The older, or the first.
    pub a: VersionId,
    /// The other.
    pub b: VersionId,
}

/// See [`Task::Verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyTask {
    /// The version.
    pub version: VersionId,
}

/// See [`Task::Test`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestTask {
    /// The version.
    pub version: VersionId,
    /// Whether it becomes current where only its test keeps it from that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub publish: Publish,
}

fn is_default(publish: &Publish) -> bool {
    *publish == Publish::default()
}

/// More than a person lists by hand; a document stays small.
const MOST_PACKAGES: usize = 500;
const MOST_KEYS: usize = 100;

impl Task {
    /// Its word in documents, requests and events.
    pub fn word(&self) -> &'static str {
        match self {
            Task::Build(_) => "build",
            Task::Update(_) => "update",
            Task::Upgrade(_) => "upgrade",
            Task::Promote(_) => "promote",
            Task::PreviewPromotion(_) => "preview-promotion",
            Task::Diff(_) => "diff",
            Task::Verify(_) => "verify",
            Task::Test(_) => "test",
        }
    }

    /// What it is done to, for events: an image, a version, a client.
    pub fn subject(&self) -> String {
        match self {
            Task::Build(task) => task.image.to_string(),
            Task::Update(task) => task.image.to_string(),
            Task::Upgrade(task) => task.to.to_string(),
            Task::Promote(task) | Task::PreviewPromotion(task) => task.client.to_string(),
            Task::Diff(task) => task.b.to_string(),
            Task::Verify(task) => task.version.to_string(),
            Task::Test(task) => task.version.to_string(),
        }
    }

    /// Refuses what could only fail, so that whoever asks learns it at once.
    pub(super) fn ensure_possible(&self, library: &Library) -> Result<()> {
        match self {
            Task::Build(task) => {
                let too_many = |what: &str, most: usize| {
                    Error::Invalid(format!("more than {most} {what} at a time: give fewer"))
                };
                if task.packages.len() > MOST_PACKAGES {
                    return Err(too_many("packages", MOST_PACKAGES));
                }
                if task.authorized_keys.len() > MOST_KEYS {
                    return Err(too_many("keys", MOST_KEYS));
                }
                Ok(())
            }
            Task::Update(task) => library.resolve(&task.image).map(drop),
            Task::Upgrade(task) => library.resolve(&task.from).map(drop),
            Task::Promote(task) | Task::PreviewPromotion(task) => {
                library.client(&task.client).map(drop)
            }
            Task::Diff(task) => {
                library.version(&task.a)?;
                library.version(&task.b).map(drop)
            }
            Task::Verify(task) => library.version(&task.version).map(drop),
            Task::Test(task) => library.version(&task.version).map(drop),
        }
    }
}

/// What a person reads: `build lab from debian:bookworm`.
impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Build(BuildTask { image, from, .. }) => write!(f, "build {image} from {from}"),
            Task::Update(UpdateTask { image, .. }) => write!(f, "update {image}"),
            Task::Upgrade(UpgradeTask {
                from, to, release, ..
            }) => write!(f, "upgrade {from} to {to}, release {release}"),
            Task::Promote(PromoteTask { client, image }) => {
                write!(f, "promote the disk of {client} to {image}")
            }
            Task::PreviewPromotion(PromoteTask { client, image }) => {
                write!(
                    f,
                    "look what promoting the disk of {client} to {image} means"
                )
            }
            Task::Diff(DiffTask { a, b }) => write!(f, "compare {a} with {b}"),
            Task::Verify(VerifyTask { version }) => write!(f, "verify {version}"),
            Task::Test(TestTask { version, .. }) => write!(f, "test {version}"),
        }
    }
}

/// One object for each task. What a derivation makes of it would let in nothing: an object that has the
/// word and one without it, each of them closed.
impl PartialSchema for Task {
    fn schema() -> RefOr<Schema> {
        let one = |word: &str, schema: RefOr<Schema>| {
            let RefOr::T(Schema::Object(mut object)) = schema else {
                return schema;
            };
            let word = ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some([word]));
            object.properties.insert("task".to_owned(), word.into());
            object.required.insert(0, "task".to_owned());
            RefOr::T(Schema::Object(object))
        };
        OneOfBuilder::new()
            .item(one("build", BuildTask::schema()))
            .item(one("update", UpdateTask::schema()))
            .item(one("upgrade", UpgradeTask::schema()))
            .item(one("promote", PromoteTask::schema()))
            .item(one("preview-promotion", PromoteTask::schema()))
            .item(one("diff", DiffTask::schema()))
            .item(one("verify", VerifyTask::schema()))
            .item(one("test", TestTask::schema()))
            .into()
    }
}

impl ToSchema for Task {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        BuildTask::schemas(schemas);
        UpdateTask::schemas(schemas);
        UpgradeTask::schemas(schemas);
        PromoteTask::schemas(schemas);
        DiffTask::schemas(schemas);
        VerifyTask::schemas(schemas);
        TestTask::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> serde_json::Result<Task> {
        serde_json::from_str(text)
    }

    #[test]
    fn tasks_are_read_as_they_are_written() {
        for text in [
            r#"{"task":"build","image":"lab","from":"debian:bookworm","packages":["vim"],"hostname":"lab","filesystem":"ext4","size":"20G"}"#,
            r#"{"task":"update","image":"lab@3"}"#,
            r#"{"task":"upgrade","from":"lab","to":"lab13","release":"trixie","size":"1.5x"}"#,
            r#"{"task":"promote","client":"52:54:00:12:34:56","image":"tools"}"#,
            r#"{"task":"preview-promotion","client":"52:54:00:12:34:56","image":"tools"}"#,
            r#"{"task":"diff","a":"lab@1","b":"lab@2"}"#,
            r#"{"task":"verify","version":"lab@1"}"#,
            r#"{"task":"test","version":"lab@1"}"#,
            r#"{"task":"test","version":"lab@1","publish":"never"}"#,
        ] {
            let task = parse(text).unwrap();
            assert_eq!(serde_json::to_string(&task).unwrap(), text);
            assert!(text.contains(&format!("\"{}\"", task.word())), "{text}");
        }
    }

    #[test]
    fn every_task_has_its_document() {
        let schema = serde_json::to_value(Task::schema()).unwrap();
        let kinds = schema["oneOf"].as_array().unwrap();
        assert_eq!(kinds.len(), 8);
        for kind in kinds {
            assert_eq!(kind["required"][0], "task", "{kind}");
            assert_eq!(kind["additionalProperties"], false, "{kind}");
            assert!(kind["properties"]["task"]["enum"][0].is_string(), "{kind}");
        }
    }

    #[test]
    fn nothing_for_a_shell_and_no_path_gets_in() {
        for text in [
            r#"{"task":"exec","image":"lab","command":["sh"]}"#,
            r#"{"task":"build","image":"lab","from":"/srv/tree"}"#,
            r#"{"task":"build","image":"lab","from":"tree.tar"}"#,
            r#"{"task":"build","image":"../lab","from":"debian:12"}"#,
            r#"{"task":"build","image":"lab","from":"debian:12","packages":["-oDpkg::x"]}"#,
            r#"{"task":"build","image":"lab","from":"debian:12","packages":["a b"]}"#,
            r#"{"task":"build","image":"lab","from":"debian:12","hostname":"a\nb"}"#,
            r#"{"task":"build","image":"lab","from":"debian:12","authorized_keys":["/root/.ssh/id.pub"]}"#,
            r#"{"task":"build","image":"lab","from":"debian:12","filesystem":"vfat"}"#,
            r#"{"task":"build","image":"lab","from":"debian:12","scripts":["x"]}"#,
            r#"{"task":"upgrade","from":"lab","to":"lab13","release":"--x"}"#,
            r#"{"task":"diff","a":"lab","b":"lab@2"}"#,
            r#"{"task":"promote","client":"lab-07","image":"tools"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

//! One version: what it is, what is in it, and who uses it.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use serde::Deserialize;

use super::named;
use crate::daemon::Server;
use crate::library::manifest::{BootFrom, Hash, InitramfsKind, Package};
use crate::library::{ClientName, Image, Use, Version, VersionId, VersionView, mask_boot_ids};
use crate::web::pages::page::{Failure, Html, Page};
use crate::web::pages::text;
use crate::web::{Problem, blocking};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/images/{image}/{number}", get(version))
}

#[derive(Template)]
#[template(path = "version.html")]
struct VersionPage {
    page: Page,
    view: VersionView,
    version: Version,
    /// All other versions of the library, to compare it with.
    others: Vec<VersionId>,
    sought: Sought,
}

/// Which packages are looked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sought {
    q: String,
}

impl VersionPage {
    /// What it was made from, and whether that is still there.
    fn parent(&self) -> Option<(&VersionId, bool)> {
        let parent = self.view.parent.as_ref()?;
        Some((parent, self.others.contains(parent)))
    }

    fn packages(&self) -> Option<Vec<&Package>> {
        let all = self.version.manifest().facts.packages.as_ref()?;
        let words = self.sought.q.to_lowercase();
        let fits = |package: &&Package| {
            let name = package.name.to_lowercase();
            words.split_whitespace().all(|word| name.contains(word))
        };
        Some(all.iter().filter(fits).collect())
    }

    /// Clients that use it, by what it is to them.
    fn clients(&self) -> Vec<(&'static str, Vec<&ClientName>)> {
        let mut groups: Vec<(&'static str, Vec<&ClientName>)> = Vec::new();
        for one in self.view.uses.iter().flatten() {
            let (what, client) = match one {
                Use::Runs { client } => ("Run it", client),
                Use::Assigned { client } => ("Get it at their next boot", client),
                Use::Armed { client } => ("Are assigned to it from their next boot on", client),
                Use::Clone { client } => ("Have a disk that was made from it", client),
                Use::Kept { client } => ("Could bring back a disk that was made from it", client),
                Use::Snapshot { client, .. } => {
                    ("Have a snapshot of a disk that was made from it", client)
                }
                Use::Open { .. } | Use::Bound { .. } | Use::Tested => continue,
            };
            match groups.iter_mut().find(|(known, _)| *known == what) {
                Some((_, names)) => names.push(client),
                None => groups.push((what, vec![client])),
            }
        }
        groups
    }

    /// Who else uses it, a line each. The sessions of clients are no news beside their boots.
    fn others_using(&self) -> Vec<String> {
        let uses = self.view.uses.iter().flatten();
        let others = uses.filter(|one| {
            matches!(
                one,
                Use::Open { client: None, .. } | Use::Bound { .. } | Use::Tested
            )
        });
        let told = |one: &Use| text::told(&mask_boot_ids(&one.to_string()));
        others.map(told).collect()
    }

    /// What it is most likely to be compared with: what it was made from, or the one before it.
    fn is_likely(&self, other: &VersionId) -> bool {
        let before = self.others.iter().rev().find(|one| {
            one.image == self.view.version.image && one.number < self.view.version.number
        });
        match self.parent() {
            Some((parent, true)) => parent == other,
            _ => before == Some(other),
        }
    }

    /// Files beside the disk, with their sizes and hashes.
    fn beside(&self) -> Vec<(&'static str, u64, Hash)> {
        match &self.version.manifest().boot {
            BootFrom::Kernel { kernel, initramfs } => vec![
                ("kernel", kernel.size, kernel.sha256),
                ("initramfs", initramfs.size, initramfs.sha256),
            ],
            BootFrom::Disk(_) => Vec::new(),
        }
    }

    /// How a client boots it, in words.
    fn boots(&self) -> String {
        let manifest = self.version.manifest();
        let early = &manifest.facts.early;
        let maker = match early.kind {
            InitramfsKind::Dracut => "dracut",
            InitramfsKind::InitramfsTools => "initramfs-tools",
            InitramfsKind::Unknown => "something unknown",
        };
        let version = early.version.as_deref().unwrap_or_default();
        match &manifest.boot {
            BootFrom::Kernel { .. } => {
                let kernel = &manifest.facts.kernel_version;
                let text = format!("kernel {kernel}, an initramfs made by {maker} {version}");
                text::told(text.trim_end())
            }
            BootFrom::Disk(table) => format!("from its own disk: {table}"),
        }
    }
}

async fn version(
    State(server): State<Arc<Server>>,
    page: Page,
    Path((image, number)): Path<(String, String)>,
    Query(sought): Query<Sought>,
) -> Result<Html<VersionPage>, Failure> {
    let id: VersionId = named(&format!("{image}@{number}"))?;
    let found = blocking(&server, move |server| {
        let library = server.library();
        let version = library.version(&id)?;
        let view = library.image_view(&id.image, &server.live().sessions())?;
        let view = view.versions.into_iter().find(|one| one.version == id);
        let images = library.images()?;
        let others = images.iter().flat_map(Image::ids);
        let others = others.filter(|one| *one != id).collect();
        Ok((view, version, others))
    });
    let (view, version, others) = found.await?;
    let view = view.ok_or_else(|| Problem::invalid("it was removed this very moment"))?;
    Ok(Html(VersionPage {
        page,
        view,
        version,
        others,
        sought,
    }))
}

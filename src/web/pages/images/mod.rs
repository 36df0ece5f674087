//! Images: their lines of versions, what each takes, who boots it, and what can be done with them.
//!
//! - `card`: an image as lists and its own page show it; `version`: one version
//! - `build`, `compare`: forms for jobs; `acts`: what is done to an image or a version
//! - `work`: the jobs that make versions

mod acts;
mod build;
mod card;
mod compare;
mod version;
mod work;

pub(super) use compare::comparison;

use std::sync::{Arc, Mutex, PoisonError};

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;

use super::page::{Failure, Html, Page};
use super::settings::Said;
use super::text;
use crate::build::{Change, growth_for};
use crate::daemon::Server;
use crate::library::manifest::{BootFrom, Manifest};
use crate::library::{self, Image, ImageName, Library, MacAddr, Version};
use crate::web::stream::{Drawing, Topic};
use crate::web::{Problem, blocking};
use card::{Card, Line, Users};
use work::Work;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/images", get(images))
        .route("/images/{image}", get(image))
        .merge(acts::routes())
        .merge(build::routes())
        .merge(compare::routes())
        .merge(version::routes())
}

#[derive(Template)]
#[template(path = "images.html")]
struct ImagesPage {
    page: Page,
    work: Work,
    images: Vec<Card>,
}

#[derive(Template)]
#[template(path = "image.html")]
struct ImagePage {
    page: Page,
    name: ImageName,
    work: Work,
    line: Line,
    users: Users,
    settings: Said,
    /// Whether its current version boots from its own disk, whatever is said.
    boots_itself: bool,
    /// By how much its disk should grow for updates, and for an upgrade.
    growth: Growth,
    /// Releases that it could be upgraded to.
    releases: Vec<String>,
}

/// Sizes as forms suggest them; nothing where the disk is large enough as it is.
#[derive(Default)]
struct Growth {
    update: String,
    upgrade: String,
}

/// All images, and the jobs that make versions.
#[derive(Default)]
pub(in crate::web) struct ImagesTopic(Drawn<Vec<Card>>);

/// One image: its versions, who boots it, and its jobs.
pub(in crate::web) struct ImageTopic {
    name: ImageName,
    drawn: Drawn<(Line, Users)>,
}

/// What was found out for the last drawing, which takes a while: file systems are asked what each disk
/// shares with others. Only a change of what the documents tell makes that another.
struct Drawn<T>(Mutex<Option<(Documents, Arc<T>)>>);

/// What the documents of images and clients tell: versions, and the revision of each client.
#[derive(PartialEq, Eq)]
struct Documents {
    images: Vec<Image>,
    clients: Vec<(MacAddr, u64)>,
}

impl Topic for ImagesTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> library::Result<()> {
        let library = server.library();
        drawing.piece("image-work", &Work::of_all(library)?);
        let cards = self.0.of(library, || Card::all(server))?;
        for card in cards.iter() {
            drawing.item("images", card.id(), card);
        }
        Ok(())
    }
}

impl ImageTopic {
    pub(in crate::web) fn new(name: ImageName) -> Self {
        ImageTopic {
            name,
            drawn: Drawn::default(),
        }
    }
}

impl Topic for ImageTopic {
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> library::Result<()> {
        let library = server.library();
        drawing.piece("image-work", &Work::of(library, &self.name)?);
        let drawn = self.drawn.of(library, || one(server, &self.name))?;
        drawing.piece("image-line", &drawn.0);
        drawing.piece("image-users", &drawn.1);
        Ok(())
    }
}

impl<T> Default for Drawn<T> {
    fn default() -> Self {
        Drawn(Mutex::new(None))
    }
}

impl<T> Drawn<T> {
    fn of(
        &self,
        library: &Library,
        find: impl FnOnce() -> library::Result<T>,
    ) -> library::Result<Arc<T>> {
        let documents = Documents::of(library)?;
        // A panic elsewhere leaves what was found whole.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, found)) = last.as_ref()
            && *seen == documents
        {
            return Ok(found.clone());
        }
        let found = Arc::new(find()?);
        *last = Some((documents, found.clone()));
        Ok(found)
    }
}

impl Documents {
    fn of(library: &Library) -> library::Result<Self> {
        let clients = library.clients()?;
        Ok(Documents {
            images: library.images()?,
            clients: clients.iter().map(|one| (one.mac, one.revision)).collect(),
        })
    }
}

async fn images(
    State(server): State<Arc<Server>>,
    page: Page,
) -> Result<Html<ImagesPage>, Failure> {
    let found = blocking(&server, |server| {
        Ok((Work::of_all(server.library())?, Card::all(server)?))
    });
    let (work, images) = found.await?;
    Ok(Html(ImagesPage { page, work, images }))
}

async fn image(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
) -> Result<Html<ImagePage>, Failure> {
    let name: ImageName = named(&name)?;
    let asked = name.clone();
    let found = blocking(&server, move |server| {
        let (line, users) = one(server, &asked)?;
        let current = line.current().map(|id| server.library().version(id));
        let library = server.library();
        let work = Work::of(library, &asked)?;
        let settings = Said::of(&library.image_sayings(&library.image(&asked)?));
        Ok((work, line, users, settings, current.transpose()?))
    });
    let (work, line, users, settings, current) = found.await?;
    let manifest = current.as_ref().map(Version::manifest);
    Ok(Html(ImagePage {
        page,
        name,
        work,
        line,
        users,
        settings,
        boots_itself: manifest.is_some_and(|manifest| matches!(manifest.boot, BootFrom::Disk(_))),
        growth: manifest.map_or_else(Growth::default, Growth::of),
        releases: build::releases_after(&server, manifest).await,
    }))
}

impl Growth {
    fn of(manifest: &Manifest) -> Self {
        let told = |change| {
            let growth = growth_for(&change, manifest);
            growth.map_or_else(String::new, |size| size.to_string())
        };
        Growth {
            update: told(Change::Update),
            upgrade: told(Change::Upgrade {
                release: String::new(),
            }),
        }
    }
}

fn one(server: &Server, name: &ImageName) -> library::Result<(Line, Users)> {
    let line = Line::of(server, name)?;
    let users = Users::of(server.library(), name, line.current())?;
    Ok((line, users))
}

pub(super) fn named<T: std::str::FromStr>(text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(Problem::invalid)
}

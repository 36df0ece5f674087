//! An image: as a card among others, as a line of versions, and by who boots it.

use askama::Template;

use crate::daemon::Server;
use crate::library::{
    self, ClientName, Image, ImageName, ImageView, Library, Mode, Usage, Use, VersionId,
    VersionView,
};
use crate::web::pages::text;

/// An image among others; drawn alone where it has changed.
#[derive(Template)]
#[template(path = "image-card.html")]
pub(super) struct Card {
    view: ImageView,
    /// Clients that are assigned to it, by mode.
    modes: Vec<(Mode, usize)>,
    /// Clients that keep a disk of another version than the current one.
    keep: usize,
    /// Clients that are assigned to a version by its number.
    pinned: usize,
}

/// An image's versions.
#[derive(Template)]
#[template(path = "image-line.html")]
pub(super) struct Line {
    view: ImageView,
    /// All versions that there are, of this image and others: the rest is gone.
    there: Vec<VersionId>,
}

/// Who boots an image.
#[derive(Template)]
#[template(path = "image-users.html")]
pub(super) struct Users {
    image: ImageName,
    groups: Vec<Group>,
}

/// Clients to which the current version is the same.
struct Group {
    what: &'static str,
    names: Vec<ClientName>,
    /// How many more there are.
    more: usize,
}

/// So many clients are named. The room shows all of them.
const NAMED: usize = 30;

impl Card {
    /// All images, by name.
    pub(super) fn all(server: &Server) -> library::Result<Vec<Card>> {
        let images = server.library().images()?;
        images.iter().map(|image| Card::of(server, image)).collect()
    }

    fn of(server: &Server, image: &Image) -> library::Result<Card> {
        let library = server.library();
        let view = library.image_view(&image.name, &server.live().sessions())?;
        let current = view.versions.iter().find(|version| version.current);
        let followers = library.followers(&image.name, current.map(|one| &one.version))?;
        let clients = library.clients()?;
        let assigned = clients.iter().filter(|one| one.image.image == image.name);
        let assigned: Vec<Mode> = assigned.map(|client| client.mode).collect();
        let count = |mode: Mode| assigned.iter().filter(|one| **one == mode).count();
        let modes = Mode::ALL.map(|mode| (mode, count(mode)));
        Ok(Card {
            modes: modes.into_iter().filter(|(_, count)| *count > 0).collect(),
            keep: followers.keep.len(),
            pinned: followers.pinned.len(),
            view,
        })
    }

    pub(super) fn id(&self) -> String {
        format!("image-{}", self.view.name)
    }

    fn current(&self) -> Option<&VersionView> {
        self.view.versions.iter().find(|version| version.current)
    }

    fn clients(&self) -> usize {
        self.modes.iter().map(|(_, count)| count).sum()
    }

    /// What all versions take together. What they share is counted with each.
    fn usage(&self) -> Usage {
        self.view.versions.iter().map(|one| one.usage).sum()
    }
}

impl Line {
    pub(super) fn of(server: &Server, name: &ImageName) -> library::Result<Line> {
        let library = server.library();
        let there = library.images()?;
        Ok(Line {
            view: library.image_view(name, &server.live().sessions())?,
            there: there.iter().flat_map(Image::ids).collect(),
        })
    }

    pub(super) fn current(&self) -> Option<&VersionId> {
        self.current_view().map(|version| &version.version)
    }

    /// What the current version calls itself.
    pub(super) fn distribution(&self) -> Option<&str> {
        self.current_view()?.distribution.as_deref()
    }

    fn current_view(&self) -> Option<&VersionView> {
        self.view.versions.iter().find(|version| version.current)
    }

    /// The newest first, as people look for them.
    fn newest(&self) -> impl Iterator<Item = &VersionView> {
        self.view.versions.iter().rev()
    }

    fn is_there(&self, version: &VersionId) -> bool {
        self.there.contains(version)
    }

    /// What a version is compared with: the one that it was made from, or else the one before it.
    fn before<'a>(&'a self, version: &'a VersionView) -> Option<&'a VersionId> {
        let parent = version.parent.as_ref();
        let older = self.view.versions.iter().rev();
        let mut older = older.skip_while(|one| one.version != version.version);
        let former = || older.nth(1).map(|one| &one.version);
        parent
            .filter(|parent| self.is_there(parent))
            .or_else(former)
    }

    /// Versions of other images that were made of this one.
    fn became<'a>(&self, version: &'a VersionView) -> Vec<&'a VersionId> {
        let others = version.children.iter();
        others
            .filter(|child| child.image != self.view.name)
            .collect()
    }
}

/// How many clients use a version.
fn clients(view: &VersionView) -> usize {
    let mut names: Vec<&ClientName> = Vec::new();
    for one in view.uses.iter().flatten() {
        if let Use::Assigned { client } | Use::Clone { client } | Use::Runs { client } = one {
            names.push(client);
        }
    }
    names.sort();
    names.dedup();
    names.len()
}

impl Users {
    pub(super) fn of(
        library: &Library,
        image: &ImageName,
        current: Option<&VersionId>,
    ) -> library::Result<Users> {
        let followers = library.followers(image, current)?;
        let groups = [
            (
                "Get the current version at their next boot",
                followers.next_boot,
            ),
            (
                "Keep a disk of another version until they are reset",
                followers.keep,
            ),
            ("Are pinned to another version", followers.pinned),
        ];
        let groups = groups.map(|(what, mut names)| {
            let more = names.len().saturating_sub(NAMED);
            names.truncate(NAMED);
            Group { what, names, more }
        });
        Ok(Users {
            image: image.clone(),
            groups: groups
                .into_iter()
                .filter(|group| !group.names.is_empty())
                .collect(),
        })
    }
}

//! What follows from a new version: whom it reaches, and what is to be done next.

use anyhow::Result;

use super::image::names;
use crate::cli::print;
use crate::library::manifest::BootFrom;
use crate::library::{ClientName, Followers, ImageName, Library, Version};

/// Whom the version of `image` that was made, or is to be made, reaches: a line each for those that
/// get it, keep a disk of another one, or are pinned.
pub(super) fn reached(image: &ImageName, followers: &Followers) -> Vec<String> {
    let told = |clients: &[ClientName], one: String, more: String| match clients.len() {
        0 => None,
        1 => Some(format!("1 client {one}: {}", names(clients.iter()))),
        count => Some(format!("{count} clients {more}: {}", names(clients.iter()))),
    };
    let Followers {
        next_boot,
        keep,
        pinned,
    } = followers;
    let reset = "until `netroot client reset CLIENT`";
    let assign = format!("until `netroot client assign CLIENT {image}`");
    let lines = [
        told(
            next_boot,
            String::from("gets it at its next boot"),
            String::from("get it at their next boot"),
        ),
        told(
            keep,
            format!("keeps its disk {reset}"),
            format!("keep their disks {reset}"),
        ),
        told(
            pinned,
            format!("stays with another version {assign}"),
            format!("stay with other versions {assign}"),
        ),
    ];
    lines.into_iter().flatten().collect()
}

/// What a person is told behind a version that was just sealed.
pub(super) fn after(library: &Library, version: &Version) -> Result<Vec<String>> {
    let id = version.id();
    if library.waits_for_trial(id)? {
        let image = library.image(&id.image)?;
        let current = image
            .current
            .map_or("none yet".to_owned(), |current| format!("@{current}"));
        return Ok(vec![
            format!("it is not current until its test went well; current is {current}"),
            format!("next: netroot image test {id}"),
        ]);
    }
    let is_current = library.image(&id.image)?.current == Some(id.number);
    let gate = library.config().images.publish_gate;
    if gate && is_current && !library.wants_trial(&version.manifest().boot) {
        print::warning(&format!(
            "{id} is current without a test, although `publish_gate` is set: it boots from its own disk, \
             which cannot be tested here; try it on one client first"
        ));
    }
    let lines = reached(&id.image, &library.followers(&id.image, Some(id))?);
    if !lines.is_empty() {
        return Ok(lines);
    }
    let parent = version.manifest().facts.parent.as_ref();
    if let Some(parent) = parent.filter(|parent| parent.image != id.image) {
        let others = library.followers(&parent.image, None)?;
        if others != Followers::default() {
            return Ok(vec![format!(
                "clients of {} stay with it; next: netroot client assign CLIENT {}",
                parent.image, id.image
            )]);
        }
    }
    // In mode shared, the default, a disk that boots itself would be read-only.
    let mode = match &version.manifest().boot {
        BootFrom::Kernel { .. } => "",
        BootFrom::Disk(_) => " --mode persistent",
    };
    Ok(vec![format!(
        "next: netroot client add MAC --image {}{mode}",
        id.image
    )])
}

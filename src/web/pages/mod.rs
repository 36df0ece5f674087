//! The dashboard. Each page is a template that is whole without JavaScript; the script keeps it up to
//! date by putting newly drawn pieces in the place of old ones.

mod account;
mod act;
mod api;
mod ask;
mod boots;
mod client;
mod events;
mod groups;
mod images;
mod jobs;
mod live;
mod new;
mod page;
mod report;
mod room;
mod settings;
mod spark;
mod text;
mod users;
mod volumes;

pub(in crate::web) use client::ClientTopic;
pub(in crate::web) use events::EventsTopic;
pub(in crate::web) use groups::{GroupTopic, GroupsTopic};
pub(in crate::web) use images::{ImageTopic, ImagesTopic};
pub(in crate::web) use jobs::{JobTopic, JobsTopic};
pub(in crate::web) use live::LiveTopic;
pub(in crate::web) use page::{Failure, Html};
pub(in crate::web) use room::RoomTopic;
pub(in crate::web) use text::encoded;
pub(in crate::web) use users::ensure_person;
pub(in crate::web) use volumes::{VolumeTopic, VolumesTopic};

use std::sync::Arc;

use axum::{Extension, Router};

use super::stream::{self, Hub};
use super::{Problem, assets};
use crate::daemon::Server;
use page::Notices;

/// The parts of the dashboard, as its head names them.
const NAV: [(&str, &str); 7] = [
    ("/", "Room"),
    ("/groups", "Groups"),
    ("/images", "Images"),
    ("/volumes", "Volumes"),
    ("/live", "Live"),
    ("/events", "Events"),
    ("/jobs", "Jobs"),
];

/// All pages. Each request has to carry a [`super::Who`].
pub(super) fn pages(server: Arc<Server>) -> Router {
    Router::new()
        .merge(room::routes())
        .merge(settings::routes())
        .merge(new::routes())
        .merge(act::routes())
        .merge(client::routes())
        .merge(api::routes())
        .merge(events::routes())
        .merge(groups::routes())
        .merge(images::routes())
        .merge(jobs::routes())
        .merge(live::routes())
        .merge(account::routes())
        .merge(users::routes())
        .merge(volumes::routes())
        .merge(stream::routes())
        .merge(assets::assets())
        .fallback(nowhere)
        .layer(Extension(Arc::new(Hub::default())))
        .layer(Extension(Arc::new(Notices::default())))
        .with_state(server)
}

async fn nowhere() -> Failure {
    Problem::new(
        axum::http::StatusCode::NOT_FOUND,
        "there is no such page; the room is at /",
    )
    .into()
}

//! What pages are drawn with: one stylesheet, one script, one picture, all inside the program.
//!
//! Their addresses carry a hash of their content, so that browsers keep them for ever and yet never
//! show an old one.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::Problem;

struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static [u8],
}

const ASSETS: &[Asset] = &[
    Asset {
        name: "style.css",
        kind: "text/css; charset=utf-8",
        content: include_bytes!("../../templates/style.css"),
    },
    Asset {
        name: "app.js",
        kind: "text/javascript; charset=utf-8",
        content: include_bytes!("../../templates/app.js"),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        content: include_bytes!("../../templates/icon.svg"),
    },
];

/// The first bytes of the hash of all of them: part of each address.
static EDITION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for asset in ASSETS {
        hash.update(asset.content);
    }
    let hash = hash.finalize();
    hash.iter().take(6).map(|b| format!("{b:02x}")).collect()
});

/// `/assets/EDITION/NAME`. Nothing in them is secret: they need no login.
pub(super) fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/assets/{edition}/{name}", get(asset))
}

/// Where an asset is found.
pub(super) fn url(name: &str) -> String {
    format!("/assets/{}/{name}", *EDITION)
}

async fn asset(Path((edition, name)): Path<(String, String)>) -> Response {
    let found = ASSETS.iter().find(|asset| asset.name == name);
    match found.filter(|_| edition == *EDITION) {
        Some(asset) => {
            let head = [
                (header::CONTENT_TYPE, asset.kind),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (head, asset.content).into_response()
        }
        None => Problem::new(StatusCode::NOT_FOUND, "there is no such file").into_response(),
    }
}

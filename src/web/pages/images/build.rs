//! An image from a distribution: a form, and the job that it asks for.

use std::collections::BTreeSet;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::build::Recipe;
use crate::daemon::Server;
use crate::library::manifest::Manifest;
use crate::library::{BuildTask, FileSystem, Task};
use crate::web::pages::act::{FormFields, Wrong, field, parsed, words};
use crate::web::pages::jobs::queue;
use crate::web::pages::page::{Failure, Html, Page};
use crate::web::{Problem, recipes};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/images/build", get(build_form).post(build))
}

#[derive(Template)]
#[template(path = "image-build.html")]
struct BuildPage {
    page: Page,
    /// Releases that recipes offer.
    offers: Vec<String>,
    /// Distributions that they bootstrap, others of whose releases have to be written.
    distributions: Vec<String>,
    filled: Filled,
    /// What is wrong, and with which field: none where it is about all of them.
    wrong: Option<Wrong>,
}

#[derive(Default)]
struct Filled {
    image: String,
    /// Chosen from those that are offered.
    from: String,
    /// Written in its place.
    other: String,
    packages: String,
    hostname: String,
    keys: String,
    fs: String,
    size: String,
}

async fn build_form(
    State(server): State<Arc<Server>>,
    page: Page,
) -> Result<Html<BuildPage>, Failure> {
    let filled = Filled {
        fs: FileSystem::default().name().to_owned(),
        ..Filled::default()
    };
    Ok(Html(BuildPage::new(&server, page, filled, None).await?))
}

impl BuildPage {
    async fn new(
        server: &Arc<Server>,
        page: Page,
        filled: Filled,
        wrong: Option<Wrong>,
    ) -> Result<Self, Problem> {
        let recipes = recipes(server).await?;
        let able = || recipes.iter().filter(|recipe| recipe.can("bootstrap"));
        let offers = able().flat_map(Recipe::offers).map(ToString::to_string);
        let distributions: BTreeSet<&String> = able().flat_map(Recipe::ids).collect();
        Ok(BuildPage {
            page,
            offers: offers.collect(),
            distributions: distributions.into_iter().cloned().collect(),
            filled,
            wrong,
        })
    }

    /// What is wrong with a field.
    fn wrong_with(&self, field: &str) -> Option<&str> {
        Wrong::with(self.wrong.as_ref(), field)
    }

    /// Whether what stands behind *More* was filled in, or is wrong.
    fn is_more_open(&self) -> bool {
        let wrong = |field| self.wrong_with(field).is_some();
        !self.filled.hostname.is_empty()
            || !self.filled.size.is_empty()
            || self.filled.fs != FileSystem::default().name()
            || wrong("hostname")
            || wrong("size")
    }
}

/// Releases that a version could be upgraded to: those that recipes offer of its distribution, but for
/// its own.
pub(super) async fn releases_after(
    server: &Arc<Server>,
    manifest: Option<&Manifest>,
) -> Vec<String> {
    let Some(now) = manifest.and_then(|manifest| manifest.facts.distribution.as_ref()) else {
        return Vec::new();
    };
    // The page is about more than that; whoever builds is told what is wrong with a recipe.
    let Ok(recipes) = recipes(server).await else {
        return Vec::new();
    };
    let offers = recipes.iter().flat_map(Recipe::offers);
    let others = offers.filter(|offer| {
        let own = [now.release.as_deref(), now.codename.as_deref()];
        offer.name == now.id && !own.contains(&Some(offer.release.as_str()))
    });
    others.map(|offer| offer.release.clone()).collect()
}

async fn build(
    State(server): State<Arc<Server>>,
    page: Page,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    match build_task(&fields) {
        Ok(task) => Ok(queue(&server, page, Task::Build(task), "/images/build", None).await),
        Err(wrong) => {
            let filled = Filled::from(&fields);
            let again = BuildPage::new(&server, page, filled, Some(wrong)).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, Html(again)).into_response())
        }
    }
}

impl From<&FormFields> for Filled {
    fn from(fields: &FormFields) -> Self {
        let text = |name| field(fields, name).to_owned();
        Filled {
            image: text("image"),
            from: text("from"),
            other: text("other"),
            packages: text("packages"),
            hostname: text("hostname"),
            keys: text("keys"),
            fs: text("fs"),
            size: text("size"),
        }
    }
}

fn build_task(fields: &FormFields) -> Result<BuildTask, Wrong> {
    let in_field = Wrong::in_field;
    let keys = field(fields, "keys").lines().map(str::trim);
    let keys = keys.filter(|line| !line.is_empty()).map(parsed);
    let from = match (field(fields, "from"), field(fields, "other")) {
        ("", "") => {
            let why = "choose one, or write another below".to_owned();
            return Err(in_field("from")(why));
        }
        (chosen, "") => parsed(chosen).map_err(in_field("from")),
        (_, written) => parsed(written).map_err(in_field("other")),
    };
    Ok(BuildTask {
        image: parsed(field(fields, "image")).map_err(in_field("image"))?,
        from: from?,
        packages: words(field(fields, "packages")).map_err(in_field("packages"))?,
        hostname: given(fields, "hostname").map_err(in_field("hostname"))?,
        authorized_keys: keys.collect::<Result<_, _>>().map_err(in_field("keys"))?,
        filesystem: given(fields, "fs")
            .map_err(in_field("fs"))?
            .unwrap_or_default(),
        size: given(fields, "size").map_err(in_field("size"))?,
    })
}

/// A field that may be left empty.
pub(super) fn given<T: std::str::FromStr>(
    fields: &FormFields,
    name: &str,
) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    match field(fields, name).trim() {
        "" => Ok(None),
        text => parsed(text).map(Some),
    }
}

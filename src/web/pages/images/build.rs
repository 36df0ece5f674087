//! An image from a distribution: a form, and the job that it asks for.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::build::Recipes;
use crate::daemon::Server;
use crate::library::{BuildTask, FileSystem, Task};
use crate::web::Problem;
use crate::web::pages::act::{FormFields, field, parsed, words};
use crate::web::pages::jobs::queue;
use crate::web::pages::page::{Failure, Html, Page};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/images/build", get(build_form).post(build))
}

#[derive(Template)]
#[template(path = "image-build.html")]
struct BuildPage {
    page: Page,
    /// Distributions that recipes bootstrap.
    distributions: Vec<String>,
    filled: Filled,
    wrong: Option<String>,
}

#[derive(Default)]
struct Filled {
    image: String,
    from: String,
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
    Ok(Html(BuildPage {
        page,
        distributions: distributions(&server).await?,
        filled: Filled {
            fs: FileSystem::default().name().to_owned(),
            ..Filled::default()
        },
        wrong: None,
    }))
}

async fn distributions(server: &Arc<Server>) -> Result<Vec<String>, Problem> {
    let found = server.call(|server| Recipes::of(server.library())).await;
    let recipes = match found {
        Some(Ok(recipes)) => recipes,
        Some(Err(wrong)) => return Err(Problem::invalid(format!("{wrong:#}"))),
        None => return Ok(Vec::new()),
    };
    let able = recipes.iter().filter(|recipe| recipe.can("bootstrap"));
    let mut ids: Vec<String> = able.flat_map(|recipe| recipe.ids().to_vec()).collect();
    ids.sort();
    ids.dedup();
    Ok(ids)
}

async fn build(
    State(server): State<Arc<Server>>,
    page: Page,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    match build_task(&fields) {
        Ok(task) => Ok(queue(&server, page, Task::Build(task), "/images/build", None).await),
        Err(wrong) => {
            let text = |name| field(&fields, name).to_owned();
            let again = BuildPage {
                page,
                distributions: distributions(&server).await?,
                filled: Filled {
                    image: text("image"),
                    from: text("from"),
                    packages: text("packages"),
                    hostname: text("hostname"),
                    keys: text("keys"),
                    fs: text("fs"),
                    size: text("size"),
                },
                wrong: Some(wrong),
            };
            Ok((StatusCode::UNPROCESSABLE_ENTITY, Html(again)).into_response())
        }
    }
}

fn build_task(fields: &FormFields) -> Result<BuildTask, String> {
    let keys = field(fields, "keys").lines().map(str::trim);
    let keys = keys.filter(|line| !line.is_empty()).map(parsed);
    Ok(BuildTask {
        image: parsed(field(fields, "image"))?,
        from: parsed(field(fields, "from"))?,
        packages: words(field(fields, "packages"))?,
        hostname: given(fields, "hostname")?,
        authorized_keys: keys.collect::<Result<_, _>>()?,
        filesystem: given(fields, "fs")?.unwrap_or_default(),
        size: given(fields, "size")?,
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

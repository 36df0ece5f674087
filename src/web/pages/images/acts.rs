//! What is done to images and versions: jobs are asked for, and what others feel is asked about first.

use std::num::NonZeroU32;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;

use super::build::given;
use super::named;
use crate::daemon::Server;
use crate::library::{
    self, Error, ImageName, Library, Pruned, Pruning, Publish, Removal, Rollback, Task, TestTask,
    UpdateTask, UpgradeTask, VerifyTask, VersionId, VersionSpec, When, mask_boot_ids,
};
use crate::web::blocking;
use crate::web::pages::act::{FormFields, field, parsed};
use crate::web::pages::jobs::queue;
use crate::web::pages::page::{Failure, Html, Notice, Page, Undo};
use crate::web::pages::text;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/images/{image}/update", post(update))
        .route("/images/{image}/upgrade", post(upgrade))
        .route("/images/{image}/prune", get(ask_pruning).post(prune))
        .route(
            "/images/{image}/remove",
            get(ask_image_removal).post(remove_image),
        )
        .route("/images/{image}/{number}/verify", post(verify))
        .route("/images/{image}/{number}/test", post(test))
        .route(
            "/images/{image}/{number}/current",
            get(ask_current).post(make_current),
        )
        .route(
            "/images/{image}/{number}/remove",
            get(ask_removal).post(remove),
        )
}

#[derive(Template)]
#[template(path = "image-current.html")]
struct CurrentPage {
    page: Page,
    plan: Rollback,
}

#[derive(Template)]
#[template(path = "image-remove.html")]
struct RemovePage {
    page: Page,
    /// A version, or a whole image.
    what: VersionSpec,
    plan: Result<Removal, String>,
    /// Whether it is refused only because somebody reads it, who could be cut off.
    forced: Option<Removal>,
}

#[derive(Template)]
#[template(path = "image-prune.html")]
struct PrunePage {
    page: Page,
    image: ImageName,
    keep: NonZeroU32,
    plan: Pruning,
}

/// How many of the newest versions are to stay.
#[derive(Deserialize)]
#[serde(default)]
struct Keep {
    keep: NonZeroU32,
}

/// What is offered: the current version, and two to come back to.
pub(super) const KEEP: NonZeroU32 = NonZeroU32::new(3).unwrap();

impl Default for Keep {
    fn default() -> Self {
        Keep { keep: KEEP }
    }
}

impl RemovePage {
    /// What it does to others, a line each.
    fn consequences(plan: &Removal) -> Vec<String> {
        let lines = plan.consequences().into_iter();
        lines
            .map(|line| text::told(&mask_boot_ids(&line)))
            .collect()
    }
}

impl PrunePage {
    /// The versions that go, as the form brings them along.
    fn shown(&self) -> Vec<&VersionId> {
        let removes = self.plan.removes.iter();
        let versions = removes.filter_map(|pruned| match pruned {
            Pruned::Version { version, .. } => Some(version),
            Pruned::Failed { .. } => None,
        });
        versions.collect()
    }
}

async fn update(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let image: VersionSpec = named(&name)?;
    let back = format!("/images/{}", image.image);
    Ok(match given(&fields, "size") {
        Ok(size) => {
            let task = Task::Update(UpdateTask { image, size });
            queue(&server, page, task, &back, None).await
        }
        Err(wrong) => page.then(&back, Notice::bad(format!("Not asked for: {wrong}"))),
    })
}

async fn upgrade(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let from: VersionSpec = named(&name)?;
    let back = format!("/images/{}", from.image);
    let task = || -> Result<UpgradeTask, String> {
        Ok(UpgradeTask {
            from: from.clone(),
            to: parsed(field(&fields, "to"))?,
            release: parsed(field(&fields, "release"))?,
            size: given(&fields, "size")?,
        })
    };
    Ok(match task() {
        Ok(task) => queue(&server, page, Task::Upgrade(task), &back, None).await,
        Err(wrong) => page.then(&back, Notice::bad(format!("Not asked for: {wrong}"))),
    })
}

async fn verify(
    State(server): State<Arc<Server>>,
    page: Page,
    Path((image, number)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let version: VersionId = named(&format!("{image}@{number}"))?;
    let back = format!("/images/{image}/{number}");
    Ok(queue(
        &server,
        page,
        Task::Verify(VerifyTask { version }),
        &back,
        None,
    )
    .await)
}

async fn test(
    State(server): State<Arc<Server>>,
    page: Page,
    Path((image, number)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let version: VersionId = named(&format!("{image}@{number}"))?;
    let back = format!("/images/{image}/{number}");
    let publish = Publish::default();
    let task = Task::Test(TestTask { version, publish });
    Ok(queue(&server, page, task, &back, None).await)
}

async fn ask_current(
    State(server): State<Arc<Server>>,
    page: Page,
    Path((image, number)): Path<(String, String)>,
) -> Result<Html<CurrentPage>, Failure> {
    let spec: VersionSpec = named(&format!("{image}@{number}"))?;
    let plan = blocking(&server, move |server| server.library().plan_rollback(&spec)).await?;
    Ok(Html(CurrentPage { page, plan }))
}

async fn make_current(
    State(server): State<Arc<Server>>,
    page: Page,
    Path((image, number)): Path<(String, String)>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let spec: VersionSpec = named(&format!("{image}@{number}"))?;
    // What was current when the person was asked.
    let seen = field(&fields, "seen").parse().ok();
    let by = page.who.actor().clone();
    let done = blocking(&server, move |server| {
        server.library().roll_back_on(&spec, seen, &by)
    });
    let notice = match done.await {
        Ok(done) => Notice {
            undo: back(&done),
            ..Notice::good(format!("{} is current now.", done.to))
        },
        Err(problem) => Notice::bad(problem.detail),
    };
    Ok(page.then(&format!("/images/{image}"), notice))
}

/// Makes what was current before current again, unless something else has become that meanwhile.
fn back(done: &Rollback) -> Option<Undo> {
    let from = done.from.as_ref().filter(|from| **from != done.to)?;
    Some(Undo {
        action: format!("/images/{}/{}/current", from.image, from.number),
        fields: vec![("seen".to_owned(), done.to.number.to_string())],
    })
}

async fn ask_removal(
    server: State<Arc<Server>>,
    page: Page,
    Path((image, number)): Path<(String, String)>,
) -> Result<Html<RemovePage>, Failure> {
    ask_to_remove(server, page, named(&format!("{image}@{number}"))?).await
}

async fn ask_image_removal(
    server: State<Arc<Server>>,
    page: Page,
    Path(image): Path<ImageName>,
) -> Result<Html<RemovePage>, Failure> {
    ask_to_remove(server, page, image.into()).await
}

async fn ask_to_remove(
    State(server): State<Arc<Server>>,
    page: Page,
    what: VersionSpec,
) -> Result<Html<RemovePage>, Failure> {
    let spec = what.clone();
    let (plan, forced) = blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        ensure_there(library, &spec)?;
        let plan = library.plan_removal(&spec, When::Now, live);
        // What the command line would take for it is a button here.
        let plan = plan.map_err(|error| match error {
            Error::Refused { why, .. } => mask_boot_ids(&why),
            other => mask_boot_ids(&other.to_string()),
        });
        let forced = match &plan {
            Ok(_) => None,
            Err(_) => library.plan_removal(&spec, When::Force, live).ok(),
        };
        Ok((plan, forced))
    })
    .await?;
    Ok(Html(RemovePage {
        page,
        what,
        plan,
        forced,
    }))
}

/// Says that there is no such version or image, where there is none.
fn ensure_there(library: &Library, what: &VersionSpec) -> library::Result<()> {
    match what.number {
        Some(_) => library.resolve(what).map(drop),
        None => library.image(&what.image).map(drop),
    }
}

async fn remove(
    server: State<Arc<Server>>,
    page: Page,
    Path((image, number)): Path<(String, String)>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    removed(server, page, named(&format!("{image}@{number}"))?, &fields).await
}

async fn remove_image(
    server: State<Arc<Server>>,
    page: Page,
    Path(image): Path<ImageName>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    removed(server, page, image.into(), &fields).await
}

async fn removed(
    State(server): State<Arc<Server>>,
    page: Page,
    spec: VersionSpec,
    fields: &FormFields,
) -> Result<Response, Failure> {
    let shown = versions_shown(fields)?;
    let when = match field(fields, "when") {
        "force" => When::Force,
        _ => When::Now,
    };
    let by = page.who.actor().clone();
    let (image, back) = (spec.image.clone(), removal_of(&spec));
    let asked = spec.clone();
    let done = blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        let done = library.remove_shown(&asked, when, Some(&shown), live, &by);
        let left = library.image(&asked.image).is_ok();
        done.map(|_| left)
    });
    Ok(match done.await {
        Ok(left) => {
            let to = if left {
                format!("/images/{image}")
            } else {
                "/images".to_owned()
            };
            page.then(&to, Notice::good(format!("Removed {spec}.")))
        }
        Err(problem) => page.then(&back, Notice::bad(problem.detail)),
    })
}

/// The page that asks before a version or an image goes.
fn removal_of(what: &VersionSpec) -> String {
    match what.number {
        Some(number) => format!("/images/{}/{number}/remove", what.image),
        None => format!("/images/{}/remove", what.image),
    }
}

/// What a person was shown and agreed to.
fn versions_shown(fields: &FormFields) -> Result<Vec<VersionId>, Failure> {
    let shown = fields.iter().filter(|(name, _)| name == "shown");
    let shown = shown.map(|(_, version)| named(version));
    Ok(shown.collect::<Result<_, _>>()?)
}

async fn ask_pruning(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(image): Path<String>,
    Query(Keep { keep }): Query<Keep>,
) -> Result<Html<PrunePage>, Failure> {
    let image: ImageName = named(&image)?;
    let asked = image.clone();
    let plan = blocking(&server, move |server| {
        let library = server.library();
        library.image(&asked)?; // or say that there is none
        library.plan_prune(Some(&asked), keep, server.live())
    });
    let plan = plan.await?;
    Ok(Html(PrunePage {
        page,
        image,
        keep,
        plan,
    }))
}

async fn prune(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(image): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let image: ImageName = named(&image)?;
    let keep: NonZeroU32 = named(field(&fields, "keep"))?;
    let shown = versions_shown(&fields)?;
    let (by, asked) = (page.who.actor().clone(), image.clone());
    let done = blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        library.prune_shown(Some(&asked), keep, Some(&shown), live, &by)
    });
    let notice = match done.await {
        Ok(done) if done.removes.is_empty() => Notice::good("Nothing was there to remove."),
        Ok(done) => {
            let what = text::count(done.removes.len(), "old version");
            Notice::good(format!("Removed {what} of {image}."))
        }
        Err(problem) => Notice::bad(problem.detail),
    };
    Ok(page.then(&format!("/images/{image}"), notice))
}

//! Images: their lines of versions, what each takes, who boots it, and what can be done with them.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;

use super::act::{FormFields, field, parsed, words};
use super::jobs::queue;
use super::page::{Failure, Html, Notice, Page};
use super::text;
use crate::build::Recipes;
use crate::daemon::Server;
use crate::library::{
    BuildTask, DiffTask, FileSystem, Followers, ImageName, ImageView, Removal, Rollback, Task,
    UpdateTask, UpgradeTask, Use, VerifyTask, Version, VersionId, VersionSpec, VersionView, When,
};
use crate::web::{Problem, blocking};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/images", get(images))
        .route("/images/build", get(build_form).post(build))
        .route("/images/diff", get(diff_form).post(diff))
        .route("/images/{image}", get(image))
        .route("/images/{image}/update", post(update))
        .route("/images/{image}/upgrade", post(upgrade))
        .route("/images/{image}/{number}", get(version))
        .route("/images/{image}/{number}/verify", post(verify))
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
#[template(path = "images.html")]
struct ImagesPage {
    page: Page,
    images: Vec<Card>,
}

/// An image among others.
struct Card {
    view: ImageView,
    followers: Followers,
    /// Bytes that all its versions take which nobody shares, where that is known.
    own: Option<u64>,
}

#[derive(Template)]
#[template(path = "image.html")]
struct ImagePage {
    page: Page,
    card: Card,
}

#[derive(Template)]
#[template(path = "version.html")]
struct VersionPage {
    page: Page,
    view: VersionView,
    version: Version,
    /// All versions of the library, to compare it with.
    others: Vec<VersionId>,
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

#[derive(Template)]
#[template(path = "image-diff.html")]
struct DiffPage {
    page: Page,
    versions: Vec<VersionId>,
    asked: Asked,
}

/// Two versions that are to be compared.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    a: String,
    b: String,
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
    version: VersionId,
    plan: Result<Removal, String>,
    /// Whether it is refused only because somebody reads it, who could be cut off.
    forced: Option<Removal>,
}

impl Card {
    fn of(server: &Server, name: &ImageName) -> Result<Card, crate::library::Error> {
        let library = server.library();
        let view = library.image_view(name, &server.live().sessions())?;
        let current = view.versions.iter().find(|version| version.current);
        let current = current.map(|version| version.version.clone());
        let own = view.versions.iter().map(|version| version.usage.exclusive);
        Ok(Card {
            own: own.sum(),
            followers: library.followers(name, current.as_ref())?,
            view,
        })
    }

    fn current(&self) -> Option<&VersionView> {
        self.view.versions.iter().find(|version| version.current)
    }

    /// The newest first, as people look for them.
    fn newest(&self) -> impl Iterator<Item = &VersionView> {
        self.view.versions.iter().rev()
    }

    fn allocated(&self) -> u64 {
        let each = self.view.versions.iter();
        each.map(|version| version.usage.allocated).sum()
    }

    fn clients(&self) -> usize {
        let Followers {
            next_boot,
            keep,
            pinned,
        } = &self.followers;
        next_boot.len() + keep.len() + pinned.len()
    }
}

/// Who uses a version, where that is told, in words: `pc-01 runs it`.
fn uses(view: &VersionView) -> Vec<String> {
    let told = view.uses.iter().flatten();
    told.map(|one| text::told(&one.to_string())).collect()
}

/// How many clients use it.
fn users(view: &VersionView) -> usize {
    let mut names = Vec::new();
    for one in view.uses.iter().flatten() {
        if let Use::Assigned { client } | Use::Clone { client } | Use::Runs { client } = one
            && !names.contains(client)
        {
            names.push(client.clone());
        }
    }
    names.len()
}

async fn images(
    State(server): State<Arc<Server>>,
    page: Page,
) -> Result<Html<ImagesPage>, Failure> {
    let images = blocking(&server, |server| {
        let all = server.library().images()?.into_iter();
        all.map(|image| Card::of(server, &image.name)).collect()
    })
    .await?;
    Ok(Html(ImagesPage { page, images }))
}

async fn image(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
) -> Result<Html<ImagePage>, Failure> {
    let name: ImageName = named(&name)?;
    let card = blocking(&server, move |server| Card::of(server, &name)).await?;
    Ok(Html(ImagePage { page, card }))
}

async fn version(
    State(server): State<Arc<Server>>,
    page: Page,
    Path((image, number)): Path<(String, String)>,
) -> Result<Html<VersionPage>, Failure> {
    let id: VersionId = named(&format!("{image}@{number}"))?;
    let found = blocking(&server, move |server| {
        let library = server.library();
        let version = library.version(&id)?;
        let view = library.image_view(&id.image, &server.live().sessions())?;
        let view = view.versions.into_iter().find(|one| one.version == id);
        let images = library.images()?.into_iter();
        let others = images
            .flat_map(|image| image.ids())
            .filter(|one| *one != id);
        Ok((view, version, others.collect()))
    });
    let (view, version, others) = found.await?;
    let view = view.ok_or_else(|| Problem::invalid("it was removed this very moment"))?;
    Ok(Html(VersionPage {
        page,
        view,
        version,
        others,
    }))
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
        Ok(task) => Ok(queue(&server, page, Task::Build(task), "/images/build").await),
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
            let status = axum::http::StatusCode::UNPROCESSABLE_ENTITY;
            Ok(axum::response::IntoResponse::into_response((
                status,
                Html(again),
            )))
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
fn given<T: std::str::FromStr>(fields: &FormFields, name: &str) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    match field(fields, name).trim() {
        "" => Ok(None),
        text => parsed(text).map(Some),
    }
}

async fn update(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let image: VersionSpec = named(&name)?;
    let back = format!("/images/{}", image.image);
    let task = Task::Update(UpdateTask { image, size: None });
    Ok(queue(&server, page, task, &back).await)
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
        Ok(task) => queue(&server, page, Task::Upgrade(task), &back).await,
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
    Ok(queue(&server, page, Task::Verify(VerifyTask { version }), &back).await)
}

async fn diff_form(
    State(server): State<Arc<Server>>,
    page: Page,
    Query(asked): Query<Asked>,
) -> Result<Html<DiffPage>, Failure> {
    let images = blocking(&server, |server| server.library().images()).await?;
    Ok(Html(DiffPage {
        page,
        versions: images.iter().flat_map(|image| image.ids()).collect(),
        asked,
    }))
}

async fn diff(
    State(server): State<Arc<Server>>,
    page: Page,
    Form(asked): Form<Asked>,
) -> Result<Response, Failure> {
    let (a, b) = (named(&asked.a)?, named(&asked.b)?);
    Ok(queue(&server, page, Task::Diff(DiffTask { a, b }), "/images/diff").await)
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
        let done = server.library().roll_back_on(&spec, seen, &by);
        server.nudge();
        done
    });
    let notice = match done.await {
        Ok(done) => Notice::good(format!("{} is current now.", done.to)),
        Err(problem) => Notice::bad(problem.detail),
    };
    Ok(page.then(&format!("/images/{image}"), notice))
}

async fn ask_removal(
    State(server): State<Arc<Server>>,
    page: Page,
    Path((image, number)): Path<(String, String)>,
) -> Result<Html<RemovePage>, Failure> {
    let version: VersionId = named(&format!("{image}@{number}"))?;
    let spec: VersionSpec = named(&format!("{image}@{number}"))?;
    let (plan, forced) = blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        let plan = library.plan_removal(&spec, When::Now, live);
        let plan = plan.map_err(|why| why.to_string());
        let forced = match &plan {
            Ok(_) => None,
            Err(_) => library.plan_removal(&spec, When::Force, live).ok(),
        };
        Ok((plan, forced))
    })
    .await?;
    Ok(Html(RemovePage {
        page,
        version,
        plan,
        forced,
    }))
}

async fn remove(
    State(server): State<Arc<Server>>,
    page: Page,
    Path((image, number)): Path<(String, String)>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let spec: VersionSpec = named(&format!("{image}@{number}"))?;
    let when = match field(&fields, "when") {
        "force" => When::Force,
        _ => When::Now,
    };
    let by = page.who.actor().clone();
    let asked = spec.clone();
    let done = blocking(&server, move |server| {
        let (library, live) = (server.library(), server.live());
        let done = library.remove(&asked, when, live, &by);
        server.nudge();
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
        Err(problem) => {
            let back = format!("/images/{image}/{number}/remove");
            page.then(&back, Notice::bad(problem.detail))
        }
    })
}

fn named<T: std::str::FromStr>(text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(Problem::invalid)
}

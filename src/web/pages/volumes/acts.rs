//! What is done to volumes. What loses something is asked about on a page of its own.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::drawn;
use crate::daemon::Server;
use crate::library::{
    self, Actor, Chap, Edition, Error, Kept, NewVolume, Paths, Secrets, SizeSpec, VolumeEdit,
    VolumeName, VolumePlan,
};
use crate::web::pages::act::{FormFields, field, parsed, words};
use crate::web::pages::images::named;
use crate::web::pages::page::{Failure, Html, Notice, Page};
use crate::web::pages::text;
use crate::web::{Problem, blocking};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/volumes", post(add))
        .route("/volumes/{name}/grow", post(grow))
        .route("/volumes/{name}/snapshot", post(snapshot))
        .route("/volumes/{name}/access", post(access))
        .route("/volumes/{name}/remove", get(ask_removal).post(remove))
}

#[derive(Template)]
#[template(path = "volume-remove.html")]
struct RemovePage {
    page: Page,
    name: VolumeName,
    /// Which volume of that name somebody was asked about.
    seen: Edition,
    plan: Result<VolumePlan, String>,
    /// Whether it is refused only because somebody uses it, who could be cut off.
    forced: Option<VolumePlan>,
}

/// The form of a new volume, as somebody has filled it in. Of secrets nothing is kept.
#[derive(Default)]
pub(super) struct Filled {
    pub(super) name: String,
    pub(super) size: String,
    pub(super) allow: String,
    pub(super) user: String,
    pub(super) block_size: String,
    pub(super) read_only: bool,
}

impl Filled {
    fn of(fields: &FormFields) -> Self {
        let field = |name| field(fields, name).to_owned();
        Filled {
            name: field("name"),
            size: field("size"),
            allow: field("allow"),
            user: field("user"),
            block_size: field("block_size"),
            read_only: !field("read_only").is_empty(),
        }
    }

    fn read(&self, secret: &str) -> Result<NewVolume, String> {
        let told = |error: Error| error.to_string();
        let chap = match (self.user.as_str(), secret) {
            ("", "") => None,
            ("", _) => return Err("a secret needs the name that it proves".to_owned()),
            (user, secret) => Some(Chap::new(user, secret).map_err(told)?),
        };
        Ok(NewVolume {
            name: parsed(&self.name)?,
            kept: Kept::Library,
            paths: Paths::Listed,
            size: Some(bytes(&self.size)?),
            block_size: match self.block_size.as_str() {
                "4096" => 4096,
                _ => 512,
            },
            direct: false,
            physical_block_size: None,
            read_only: self.read_only,
            allow: words(&self.allow)?,
            secrets: Secrets { chap, mutual: None },
            target: None,
            lun: None,
            allow_sanitize: false,
            force: false,
        })
    }
}

fn bytes(size: &str) -> Result<u64, String> {
    match parsed(size)? {
        SizeSpec::Bytes(bytes) => Ok(bytes),
        SizeSpec::Hundredths(_) => Err("give the size in bytes, such as 20G".to_owned()),
    }
}

async fn add(
    State(server): State<Arc<Server>>,
    page: Page,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let filled = Filled::of(&fields);
    let added = match filled.read(field(&fields, "secret")) {
        Err(wrong) => Err(wrong),
        Ok(new) => {
            let by = page.who.actor().clone();
            let added = blocking(&server, move |server| {
                server.library().add_volume(&new, server, &by)
            });
            added.await.map_err(|problem| problem.detail)
        }
    };
    match added {
        Ok(volume) => {
            let text = format!(
                "Added {}. Those whom it is for see it at once.",
                volume.name
            );
            Ok(page.then(&format!("/volumes/{}", volume.name), Notice::good(text)))
        }
        Err(wrong) => {
            let page = drawn(&server, page, filled, Some(wrong)).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
    }
}

/// Does something to a volume, and goes back to its page.
async fn done(
    server: &Arc<Server>,
    page: Page,
    name: VolumeName,
    act: impl FnOnce(&Server, &VolumeName, &Actor) -> library::Result<Notice> + Send + 'static,
) -> Response {
    let back = format!("/volumes/{name}");
    let by = page.who.actor().clone();
    let tried = blocking(server, move |server| act(server, &name, &by)).await;
    page.then(
        &back,
        tried.unwrap_or_else(|problem| Notice::bad(problem.detail)),
    )
}

async fn grow(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let name: VolumeName = named(&name)?;
    let size = match field(&fields, "size") {
        "" => None,
        size => match bytes(size) {
            Ok(size) => Some(size),
            Err(wrong) => return Ok(page.then(&format!("/volumes/{name}"), Notice::bad(wrong))),
        },
    };
    Ok(done(&server, page, name, move |server, name, by| {
        let volume = server
            .library()
            .resize_volume(name, None, size, server, by)?;
        let size = server.library().volume_size(&volume)?;
        let size = text::bytes(size);
        Ok(Notice::good(format!(
            "{name} has {size} now, and its initiators are told."
        )))
    })
    .await)
}

async fn snapshot(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let name: VolumeName = named(&name)?;
    let to: Option<VolumeName> = match field(&fields, "as") {
        "" => None,
        to => match parsed(to) {
            Ok(to) => Some(to),
            Err(wrong) => return Ok(page.then(&format!("/volumes/{name}"), Notice::bad(wrong))),
        },
    };
    let by = page.who.actor().clone();
    let source = name.clone();
    let copied = blocking(&server, move |server| {
        let library = server.library();
        library.snapshot_volume(&source, to.as_ref(), server, &by)
    });
    Ok(match copied.await {
        Ok(copy) => {
            let text = format!("Copied {name}. Nobody sees the copy until you say whom it is for.");
            page.then(&format!("/volumes/{}", copy.name), Notice::good(text))
        }
        Err(problem) => page.then(&format!("/volumes/{name}"), Notice::bad(problem.detail)),
    })
}

async fn access(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let name: VolumeName = named(&name)?;
    let read = || -> Result<VolumeEdit, String> {
        // A LUN of another target has that one's rules, and its form has no field for them.
        let has_rules = fields.iter().any(|(field, _)| field == "allow");
        let allow = words(field(&fields, "allow"))?;
        Ok(VolumeEdit {
            allow: has_rules.then_some(allow),
            read_only: Some(!field(&fields, "read_only").is_empty()),
            ..VolumeEdit::default()
        })
    };
    let edit = match read() {
        Ok(edit) => edit,
        Err(wrong) => return Ok(page.then(&format!("/volumes/{name}"), Notice::bad(wrong))),
    };
    let seen = Edition::named(field(&fields, "seen"));
    Ok(done(&server, page, name, move |server, name, by| {
        let library = server.library();
        library.edit_volume(name, Some(&seen), &edit, server, by)?;
        Ok(Notice::good(format!("Changed {name}.")))
    })
    .await)
}

async fn ask_removal(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
) -> Result<Html<RemovePage>, Failure> {
    let name: VolumeName = named(&name)?;
    let asked = name.clone();
    let (seen, plan, forced) = blocking(&server, move |server| {
        let library = server.library();
        let seen = library.volume(&asked)?.edition();
        // What the command line would take for it is a button here.
        let plan = library.plan_remove_volume(&asked, false, server);
        let plan = plan.map_err(|error| match error {
            Error::Refused { why, .. } => why,
            other => other.to_string(),
        });
        let forced = match &plan {
            Ok(_) => None,
            Err(_) => library.plan_remove_volume(&asked, true, server).ok(),
        };
        Ok((seen, plan, forced))
    })
    .await?;
    Ok(Html(RemovePage {
        page,
        name,
        seen,
        plan,
        forced,
    }))
}

async fn remove(
    State(server): State<Arc<Server>>,
    page: Page,
    Path(name): Path<String>,
    Form(fields): Form<FormFields>,
) -> Result<Response, Failure> {
    let name: VolumeName = named(&name)?;
    let force = field(&fields, "force") == "yes";
    let seen = Edition::named(field(&fields, "seen"));
    let by = page.who.actor().clone();
    let gone = name.clone();
    let removed = blocking(&server, move |server| {
        let library = server.library();
        library.remove_volume(&gone, Some(&seen), force, server, &by)
    });
    Ok(match removed.await {
        Ok(_) => page.then("/volumes", Notice::good(format!("Removed {name}."))),
        Err(Problem { detail, .. }) => {
            page.then(&format!("/volumes/{name}/remove"), Notice::bad(detail))
        }
    })
}

//! The API's own document (OpenAPI 3.1): made of the calls as they are registered, and of what is the same
//! for all of them.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{AdditionalProperties, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Content, OpenApi as Document, PathItem, Ref, RefOr, Schema};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::etag::EntityTags;
use super::{accounts, clients, events, groups, images, jobs, rollouts, sessions, volumes};
use crate::daemon::Server;
use crate::library::Moment;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "netroot",
        description = "Images, clients and sessions of a netroot server.\n\n\
            Every act takes `dry_run`, which tells what would be done and does nothing. Refusals are \
            problem details (RFC 9457). What can be changed by several people has an `ETag`; a change \
            that names it in `If-Match` is refused with 412 when somebody else was quicker.\n\n\
            Whoever may only look (the role viewer) is shown boot ids without their last part, `\u{2026}` \
            in its place: with a whole one they could log in to a client's disk.",
        license(name = "MIT OR Apache-2.0")
    ),
    modifiers(&WaysIn),
    // Of parameters, whose types are not found by themselves.
    components(schemas(EntityTags, Moment)),
    tags(
        (name = "clients", description = "Machines: what they boot, and the acts on their disks"),
        (name = "images", description = "Lines of versions, and which one clients get"),
        (name = "events", description = "Who did what, and what each client did"),
        (name = "jobs", description = "Long work that a worker does: builds, updates, upgrades"),
        (name = "accounts", description = "Users, and tokens of programs; managed by people, not by tokens"),
        (name = "about", description = "What can be asked"),
        (name = "volumes", description = "Files and block devices that are published as they are"),
        (name = "sessions", description = "Where the server is reached, what it publishes, who is connected"),
    )
)]
struct About;

/// The document of the whole API.
pub(in crate::web) fn document() -> Document {
    described().1
}

/// All calls, and the document that tells of them.
pub(super) fn described() -> (Router<Arc<Server>>, Document) {
    let v1 = OpenApiRouter::new()
        .routes(routes!(openapi))
        .merge(accounts::routes())
        .merge(clients::routes())
        .merge(events::routes())
        .merge(groups::routes())
        .merge(images::routes())
        .merge(jobs::routes())
        .merge(rollouts::routes())
        .merge(sessions::routes())
        .merge(volumes::routes());
    let (router, mut document) = OpenApiRouter::with_openapi(About::openapi())
        .nest("/api/v1", v1)
        .split_for_parts();
    guarded(&mut document);
    exact(&mut document);
    (router, document)
}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "about",
    responses((status = 200, body = Object, content_type = "application/json"))
)]
async fn openapi() -> Response {
    // The same for as long as the program runs.
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_json().unwrap_or_default());
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, TEXT.as_str()).into_response()
}

/// How one comes in: none of the calls is for everybody.
struct WaysIn;

const TOKEN: &str = "token";
const COOKIE: &str = "cookie";
const CSRF: &str = "csrf";

impl Modify for WaysIn {
    fn modify(&self, document: &mut Document) {
        let about = "A token: `netroot token add NAME --role ROLE`, or the page Users";
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(about))
            .build();
        let about = "The cookie of a login by the dashboard; over TLS it is `__Host-netroot`";
        let cookie = ApiKey::Cookie(ApiKeyValue::with_description("netroot", about));
        let about =
            "What forms of that login bring along: the field `csrf` of any page with a form";
        let csrf = ApiKey::Header(ApiKeyValue::with_description("X-CSRF-Token", about));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(TOKEN, SecurityScheme::Http(token));
        components.add_security_scheme(COOKIE, SecurityScheme::ApiKey(cookie));
        components.add_security_scheme(CSRF, SecurityScheme::ApiKey(csrf));
        for (name, about) in [
            (
                STRANGER,
                "Nobody is logged in, and no token was shown that holds",
            ),
            (
                FORBIDDEN,
                "It is for operators, or for people: a token manages no accounts",
            ),
            (TOO_LARGE, "The body is larger than any call needs"),
        ] {
            let problem = Ref::from_schema_name("Problem");
            let response = ResponseBuilder::new()
                .description(about)
                .content("application/problem+json", Content::new(Some(problem)));
            components
                .responses
                .insert(name.to_owned(), response.into());
        }
    }
}

const STRANGER: &str = "Stranger";
const FORBIDDEN: &str = "Forbidden";
const TOO_LARGE: &str = "TooLarge";

/// Says of each call what the way in answers in its place: it stands before all of them.
fn guarded(document: &mut Document) {
    let none: [&str; 0] = [];
    let by_token = SecurityRequirement::new(TOKEN, none);
    let by_cookie = SecurityRequirement::new(COOKIE, none);
    for item in document.paths.paths.values_mut() {
        let PathItem {
            get,
            post,
            patch,
            delete,
            ..
        } = item;
        for looks in get.iter_mut() {
            looks.security = Some(vec![by_token.clone(), by_cookie.clone()]);
            answers(looks, "401", STRANGER);
        }
        for changes in [post, patch, delete].into_iter().flatten() {
            let from_a_page = by_cookie.clone().add(CSRF, none);
            changes.security = Some(vec![by_token.clone(), from_a_page]);
            answers(changes, "401", STRANGER);
            answers(changes, "403", FORBIDDEN);
            if changes.request_body.is_some() {
                answers(changes, "413", TOO_LARGE);
            }
        }
    }
}

fn answers(call: &mut Operation, status: &str, response: &str) {
    let told = RefOr::Ref(Ref::from_response_name(response));
    call.responses
        .responses
        .entry(status.to_owned())
        .or_insert(told);
}

/// Says what the derived schemas leave open.
fn exact(document: &mut Document) {
    for item in document.paths.paths.values_mut() {
        let calls = [
            &mut item.get,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ];
        let parameters = calls
            .into_iter()
            .flatten()
            .flat_map(|call| &mut call.parameters);
        // A parameter may be left out; there is no way to write null in one.
        parameters
            .flatten()
            .filter_map(|parameter| match parameter {
                RefOr::T(parameter) => parameter.schema.as_mut(),
                RefOr::Ref(_) => None,
            })
            .for_each(not_null);
    }
    let components = document.components.iter_mut();
    let schemas = components.flat_map(|components| components.schemas.values_mut());
    for schema in schemas {
        if let RefOr::T(Schema::OneOf(one_of)) = schema {
            one_of.items.iter_mut().for_each(nothing_else);
        }
    }
}

fn not_null(schema: &mut RefOr<Schema>) {
    let is_null = |schema: &RefOr<Schema>| matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == Type::Null.into());
    match schema {
        RefOr::T(Schema::OneOf(one_of)) => {
            one_of.items.retain(|item| !is_null(item));
            if let [only] = one_of.items.as_slice() {
                *schema = only.clone();
            }
        }
        RefOr::T(Schema::Object(object)) => {
            if let SchemaType::Array(types) = &mut object.schema_type {
                types.retain(|kind| *kind != Type::Null);
                if let [only] = types.as_slice() {
                    object.schema_type = SchemaType::Type(only.clone());
                }
            }
        }
        _ => {}
    }
}

/// A word with something inside, such as `{"assign": {...}}`, has no other words beside it.
fn nothing_else(choice: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::Object(object)) = choice
        && object.properties.len() == 1
        && object.required.len() == 1
    {
        object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    }
}

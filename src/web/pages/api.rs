//! The API, to be read: made of the same document that programs read.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::routing::get;
use serde_json::Value;

use super::page::{Html, Page};
use crate::daemon::Server;
use crate::web::{api, problem};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api", get(reference))
}

#[derive(Template)]
#[template(path = "api.html")]
struct ApiPage {
    page: Page,
    parts: Vec<Part>,
    shapes: Vec<Shape>,
    problems: &'static [(&'static str, &'static str)],
}

/// The calls of one tag.
struct Part {
    name: String,
    about: String,
    calls: Vec<Call>,
}

struct Call {
    method: String,
    path: String,
    summary: String,
    about: String,
    parameters: Vec<Parameter>,
    body: Option<String>,
    answer: Option<String>,
    refusals: Vec<String>,
}

struct Parameter {
    name: String,
    place: String,
    about: String,
    needed: bool,
}

/// What bodies and answers are made of.
struct Shape {
    name: String,
    about: String,
    text: String,
}

async fn reference(page: Page) -> Html<ApiPage> {
    let document = serde_json::to_value(api::document()).unwrap_or_default();
    Html(ApiPage {
        page,
        parts: parts(&document),
        shapes: shapes(&document),
        problems: problem::KINDS,
    })
}

fn parts(document: &Value) -> Vec<Part> {
    let tags = document["tags"].as_array().into_iter().flatten();
    tags.map(|tag| Part {
        name: text(&tag["name"]),
        about: text(&tag["description"]),
        calls: calls(document, &tag["name"]),
    })
    .collect()
}

fn calls(document: &Value, tag: &Value) -> Vec<Call> {
    let mut calls = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, call) in item.as_object().into_iter().flatten() {
            let tags = call["tags"].as_array();
            if tags.is_some_and(|tags| tags.contains(tag)) {
                calls.push(described(path, method, call));
            }
        }
    }
    calls
}

fn described(path: &str, method: &str, call: &Value) -> Call {
    let parameters = call["parameters"].as_array().into_iter().flatten();
    let answers = call["responses"].as_object().into_iter().flatten();
    let mut answer = None;
    let mut refusals = Vec::new();
    for (status, response) in answers {
        if status.starts_with('2') {
            answer = named(response);
        } else {
            refusals.push(status.clone());
        }
    }
    Call {
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: text(&call["summary"]),
        about: text(&call["description"]),
        parameters: parameters
            .map(|one| Parameter {
                name: text(&one["name"]),
                place: text(&one["in"]),
                about: text(&one["description"]),
                needed: one["required"].as_bool().unwrap_or(false),
            })
            .collect(),
        body: named(&call["requestBody"]),
        answer,
        refusals,
    }
}

/// The name of what a body or an answer is made of: `Plan`, `list of Client`.
fn named(holder: &Value) -> Option<String> {
    let kinds = holder["content"].as_object()?;
    let schema = &kinds.values().next()?["schema"];
    Some(shape_name(schema))
}

fn shape_name(schema: &Value) -> String {
    let reference = |schema: &Value| {
        let path = schema["$ref"].as_str()?;
        path.rsplit('/').next().map(str::to_owned)
    };
    if let Some(name) = reference(schema) {
        return name;
    }
    if schema["type"] == "array" {
        return format!("list of {}", shape_name(&schema["items"]));
    }
    let either = schema["oneOf"].as_array().into_iter().flatten();
    either
        .filter_map(reference)
        .next()
        .unwrap_or_else(|| text(&schema["type"]))
}

fn shapes(document: &Value) -> Vec<Shape> {
    let schemas = document
        .pointer("/components/schemas")
        .and_then(Value::as_object);
    let schemas = schemas.into_iter().flatten();
    schemas
        .map(|(name, schema)| Shape {
            name: name.clone(),
            about: text(&schema["description"]),
            text: serde_json::to_string_pretty(schema).unwrap_or_default(),
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

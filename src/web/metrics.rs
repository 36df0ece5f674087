//! `/metrics`, for Prometheus and whoever reads its text format (version 0.0.4).
//!
//! The writer is our own: what is told is read from counters that are there already, at the moment of
//! the question, and a registry of a library would be a second place for each of them.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Problem, blocking};
use crate::daemon::{Boots, Endpoint, Requests, Server, Vitals};
use crate::iscsi::{End, Histogram, Totals};
use crate::library::{self, ClientState, JobState};

/// `/metrics`: for those who may look.
pub(super) fn metrics() -> Router<Arc<Server>> {
    Router::new().route("/metrics", get(answer))
}

/// Counts the answer to each request, by what it was for.
pub(super) async fn counting(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    let endpoint = meant(request.uri().path());
    let response = next.run(request).await;
    server
        .requests()
        .answered(endpoint, response.status().as_u16());
    response
}

/// What the routes are for. Paths of no route are pages that are not there.
fn meant(path: &str) -> Endpoint {
    let first = path.trim_start_matches('/').split('/').next();
    match (first, path) {
        (Some("api"), "/api") => Endpoint::Page,
        (Some("api"), _) => Endpoint::Api,
        (Some("stream"), _) => Endpoint::Stream,
        (Some("assets"), _) => Endpoint::Asset,
        (Some("metrics" | "healthz" | "readyz"), _) => Endpoint::Watch,
        _ => Endpoint::Page,
    }
}

async fn answer(State(server): State<Arc<Server>>) -> Result<Response, Problem> {
    let page = blocking(&server, page).await?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], page).into_response())
}

fn page(server: &Server) -> library::Result<String> {
    let mut page = Page::default();
    target(&mut page, server);
    let library = server.library();
    let views = server.views()?;
    page.family("netroot_clients", "gauge", "Clients, by what they do");
    for state in ClientState::ALL {
        let count = views.iter().filter(|view| view.state == state).count();
        page.value(
            "netroot_clients",
            &[("state", state.as_str())],
            count as f64,
        );
    }
    let drifts = views.iter().filter(|view| view.drift.is_some()).count();
    page.single(
        "netroot_clients_drifting",
        "gauge",
        "Clients whose disk is not of the current version",
        drifts as f64,
    );
    let clones: u64 = views.iter().map(|view| view.clone_bytes).sum();
    page.single(
        "netroot_clone_bytes",
        "gauge",
        "Bytes that clones take, shared ones included",
        clones as f64,
    );
    let images = library.images()?;
    page.single("netroot_images", "gauge", "Images", images.len() as f64);
    let versions: usize = images.iter().map(|image| image.versions.len()).sum();
    page.single(
        "netroot_versions",
        "gauge",
        "Versions of all images",
        versions as f64,
    );
    let jobs = library.jobs()?;
    page.family("netroot_jobs", "gauge", "Jobs that are kept, by state");
    for state in JobState::WORDS {
        let count = jobs.iter().filter(|job| job.state.word() == state).count();
        page.value("netroot_jobs", &[("state", state)], count as f64);
    }
    boots(&mut page, &server.boots());
    requests(&mut page, server.requests());
    vitals(&mut page, &server.vitals());
    Ok(page.0)
}

/// What the iSCSI target does.
fn target(page: &mut Page, server: &Server) {
    let totals = server.totals();
    let sessions = server.session_rows();
    let sum = |of: fn(&crate::daemon::SessionRow) -> u64| sessions.iter().map(of).sum::<u64>();
    let all = |ended: &AtomicU64, live: u64| (ended.load(Relaxed) + live) as f64;
    page.single(
        "netroot_sessions",
        "gauge",
        "Sessions with a target",
        sessions.len() as f64,
    );
    page.family(
        "netroot_commands_total",
        "counter",
        "Commands that moved data",
    );
    let ended = &totals.ended;
    page.value(
        "netroot_commands_total",
        &[("kind", "read")],
        all(&ended.reads, sum(|s| s.reads)),
    );
    page.value(
        "netroot_commands_total",
        &[("kind", "write")],
        all(&ended.writes, sum(|s| s.writes)),
    );
    page.family(
        "netroot_data_bytes_total",
        "counter",
        "Bytes that commands moved, as clients see it",
    );
    page.value(
        "netroot_data_bytes_total",
        &[("kind", "read")],
        all(&ended.bytes_read, sum(|s| s.bytes_read)),
    );
    page.value(
        "netroot_data_bytes_total",
        &[("kind", "write")],
        all(&ended.bytes_written, sum(|s| s.bytes_written)),
    );
    logins(page, totals);
    page.family(
        "netroot_session_ends_total",
        "counter",
        "Sessions that are over, by why",
    );
    for (end, count) in End::ALL.iter().zip(&totals.ends) {
        page.count("netroot_session_ends_total", &[("why", word(*end))], count);
    }
    page.family(
        "netroot_check_conditions_total",
        "counter",
        "CHECK CONDITIONs by sense key (SPC-5)",
    );
    for (key, count) in totals.checks.iter().enumerate() {
        page.count(
            "netroot_check_conditions_total",
            &[("key", &format!("{key:#x}"))],
            count,
        );
    }
    let name = "netroot_command_seconds";
    page.family(
        name,
        "histogram",
        "Time from a command's arrival to its answer",
    );
    for (kind, times) in [
        ("read", &totals.reads),
        ("write", &totals.writes),
        ("other", &totals.others),
    ] {
        page.histogram(name, kind, times);
    }
}

fn logins(page: &mut Page, totals: &Totals) {
    let name = "netroot_logins_total";
    page.family(name, "counter", "iSCSI logins, by outcome");
    let refused = &totals.refused;
    for (outcome, count) in [
        ("accepted", &totals.logins),
        ("not-found", &refused.not_found),
        ("forbidden", &refused.forbidden),
        ("initiator-error", &refused.initiator),
        ("target-error", &refused.target),
        ("broken-off", &totals.broken_off),
    ] {
        page.count(name, &[("outcome", outcome)], count);
    }
}

fn boots(page: &mut Page, boots: &Boots) {
    page.single(
        "netroot_boot_scripts_total",
        "counter",
        "Boot scripts that clients fetched",
        boots.scripts as f64,
    );
    let name = "netroot_boots_total";
    page.family(
        name,
        "counter",
        "Boots of clients: let in to their disk, refused, or never heard of again after the script",
    );
    for (outcome, count) in [
        ("up", boots.up),
        ("refused", boots.refused),
        ("lost", boots.lost),
    ] {
        page.value(name, &[("outcome", outcome)], count as f64);
    }
}

fn requests(page: &mut Page, requests: &Requests) {
    let name = "netroot_http_requests_total";
    let about = "Requests over HTTP, by what was asked for and the class of the answer's status";
    page.family(name, "counter", about);
    for (endpoint, class, count) in requests.counts() {
        let labels = [("endpoint", endpoint.as_str()), ("code", class)];
        page.value(name, &labels, count as f64);
    }
}

fn vitals(page: &mut Page, vitals: &Vitals) {
    page.family(
        "netroot_build_info",
        "gauge",
        "Always 1; which netroot this is",
    );
    page.value(
        "netroot_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1.0,
    );
    for (name, about, value) in [
        (
            "netroot_library_bytes",
            "Bytes of the library's file system",
            vitals.library_size,
        ),
        (
            "netroot_library_free_bytes",
            "Bytes of it that are free",
            vitals.library_free,
        ),
        (
            "process_resident_memory_bytes",
            "Resident memory",
            vitals.resident,
        ),
        (
            "process_open_fds",
            "Open file descriptors",
            vitals.descriptors,
        ),
        (
            "process_start_time_seconds",
            "When the server began, since 1970",
            vitals.began,
        ),
    ] {
        if let Some(value) = value {
            page.single(name, "gauge", about, value as f64);
        }
    }
}

fn word(end: End) -> &'static str {
    match end {
        End::Logout => "logout",
        End::ConnectionLost => "connection-lost",
        End::TimedOut => "timed-out",
        End::Kicked => "kicked",
        End::Reinstated => "reinstated",
        End::ShutDown => "shut-down",
        End::ProtocolError => "protocol-error",
        End::Reset => "reset",
    }
}

/// Lines of the text format. Labels are words of ours: there is nothing to escape in them.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, about: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {about}.\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn count(&mut self, name: &str, labels: &[(&str, &str)], count: &AtomicU64) {
        self.value(name, labels, count.load(Relaxed) as f64);
    }

    fn single(&mut self, name: &str, kind: &str, about: &str, value: f64) {
        self.family(name, kind, about);
        self.value(name, &[], value);
    }

    /// Each bucket counts all that were within its bound.
    fn histogram(&mut self, name: &str, kind: &str, times: &Histogram) {
        let mut within = 0;
        let bucket = format!("{name}_bucket");
        let buckets = times.buckets();
        for (bound, count) in Histogram::BOUNDS.iter().zip(&buckets) {
            within += count;
            let bound = (*bound as f64 / 1e6).to_string();
            self.value(&bucket, &[("kind", kind), ("le", &bound)], within as f64);
        }
        let all: u64 = buckets.iter().sum();
        self.value(&bucket, &[("kind", kind), ("le", "+Inf")], all as f64);
        self.value(
            &format!("{name}_sum"),
            &[("kind", kind)],
            times.sum().as_secs_f64(),
        );
        self.value(&format!("{name}_count"), &[("kind", kind)], all as f64);
    }
}

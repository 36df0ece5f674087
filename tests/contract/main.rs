//! The API against its own document: schemathesis asks every call for what the document allows and for
//! what it does not, and holds the answers against it.
//!
//! `cargo test --test contract -- --nocapture`. What a run found stands in `target/lab/contract`; a run is
//! repeated by the seed that it prints (`NETROOT_SEED`).

// clippy.toml exempts functions marked #[test]; here the whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../web/network.rs"]
#[allow(dead_code, reason = "the dashboard's own tests use all of it")]
mod network;
#[path = "../target/peer.rs"]
#[allow(dead_code, reason = "the target's own tests use all of it")]
mod peer;
#[path = "../web/site.rs"]
#[allow(dead_code, reason = "the dashboard's own tests use all of it")]
mod site;

use std::time::Duration;

use netroot::library::{
    Actor, Ending, JobOutcome, Kept, Library, MacAddr, Mode, NewClient, NewVolume, NoServer, Paths,
    Role, Secrets, Settings, Task, UpdateTask, VerifyTask, Way, this_worker,
};
use tokio::runtime::{Builder, Runtime};
use xtask::program::Background;
use xtask::schemathesis;

use network::{Server, Site};
use peer::Peer;
use site::{Script, boot_cfg, mac, seal};

/// A run takes less than a minute, where the machine has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// A library as it is after some weeks: images with versions, clients of all modes, jobs that wait and
/// jobs that are over.
struct Room {
    site: Site,
    server: Server,
    runtime: Runtime,
}

impl Room {
    fn new() -> Self {
        let site = Site::new("");
        site.users(&[("admin", Role::Operator), ("alice", Role::Viewer)]);
        let library = Library::open(&site.library(), None).unwrap();
        for image in ["fc28", "fc28", "fc29"] {
            seal(&library, image);
        }
        for (last, mode) in Mode::ALL.into_iter().enumerate() {
            add(&library, mac(last as u8 + 1), mode);
        }
        jobs(&library);
        publish(&library);
        drop(library);
        let server = site.serve();
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        Room {
            site,
            server,
            runtime,
        }
    }

    /// A client boots; it is connected until this is dropped, or somebody ends its session.
    fn boot(&self) -> Peer {
        let script = Script::of(&boot_cfg(&self.server.boot, &mac(2)));
        let iscsi = self.server.iscsi.parse().unwrap();
        self.runtime.block_on(script.log_in(iscsi))
    }
}

fn add(library: &Library, mac: MacAddr, mode: Mode) {
    let new = NewClient {
        mac,
        name: Some(format!("lab-{mode}").parse().unwrap()),
        image: "fc28".parse().unwrap(),
        mode,
        args: vec!["quiet".parse().unwrap()],
        groups: ["lab".parse().unwrap()].into(),
        // Whatever way schemathesis says of its image: its script is read here.
        settings: Settings {
            way: Some(Way::Http),
            ..Settings::default()
        },
    };
    let live = NoServer::new(library.live_lock().unwrap());
    library.add_client(&new, &live, &Actor::command()).unwrap();
}

fn publish(library: &Library) {
    let new = NewVolume {
        name: "data".parse().unwrap(),
        kept: Kept::Library,
        paths: Paths::Any,
        size: Some(1 << 20),
        block_size: 512,
        physical_block_size: None,
        direct: false,
        read_only: false,
        allow: vec!["192.0.2.0/24".parse().unwrap()],
        secrets: Secrets::default(),
        target: None,
        lun: None,
        allow_sanitize: false,
        force: false,
    };
    let alone = NoServer::new(library.live_lock().unwrap());
    library.add_volume(&new, &alone, &Actor::command()).unwrap();
}

/// One that is over with a report, one that failed, and one that waits for a worker that never comes.
fn jobs(library: &Library) {
    let verify = || {
        Task::Verify(VerifyTask {
            version: "fc28@1".parse().unwrap(),
        })
    };
    library.queue_job(verify(), &Actor::command()).unwrap();
    let job = library.claim_job(&this_worker()).unwrap().unwrap();
    job.log_step("looking");
    let report: JobOutcome = job.keep_report(b"{\"damaged\":[]}").unwrap();
    job.finish(Ending::Done(report)).unwrap();
    library.queue_job(verify(), &Actor::command()).unwrap();
    let job = library.claim_job(&this_worker()).unwrap().unwrap();
    job.finish(Ending::Failed("it was not there".into()))
        .unwrap();
    let update = Task::Update(UpdateTask {
        image: "fc28".parse().unwrap(),
        size: None,
    });
    library.queue_job(update, &Actor::command()).unwrap();
}

#[test]
fn the_api_does_what_its_document_says() {
    let room = Room::new();
    let server = &room.server;
    let token = ["token", "add", "schemathesis", "--role", "operator"];
    let made = room.site.json(&token);
    let bearer = format!("Authorization: Bearer {}", made["secret"].as_str().unwrap());
    let by_token = ["--header", &bearer, "--exclude-tag", "accounts"];
    // First while there is something to look at and to change.
    let no_removals = [&by_token[..], &["--exclude-method", "DELETE"]].concat();
    let connected = room.boot();
    run("changes", server, &no_removals);
    drop(connected);
    let _connected = room.boot();
    run("all", server, &by_token);
    // Accounts are managed by people, and not by tokens.
    let admin = server.log_in("admin");
    let cookie = format!("Cookie: {}", admin.cookie);
    let csrf = format!("X-CSRF-Token: {}", admin.csrf);
    // Made-up tokens beside the cookie would be asked first, and refused.
    let alone = ["--generation-with-security-parameters", "false"];
    let by_hand = [
        "--header",
        &cookie,
        "--header",
        &csrf,
        "--include-tag",
        "accounts",
    ];
    run("accounts", server, &[&by_hand[..], &alone].concat());
}

/// Lets schemathesis ask the server, in one of its users' names.
fn run(name: &str, server: &Server, options: &[&str]) {
    let document = format!("http://{}/api/v1/openapi.json", server.admin);
    let mut command = schemathesis::command(name).unwrap();
    command.args(options).arg(&document);
    let mut asking = Background::start(&mut command).unwrap();
    let status = asking.wait(PATIENCE).unwrap();
    assert!(
        status.success(),
        "{name}: {status}; what it found stands above, and in {}",
        schemathesis::reports().join(name).display()
    );
}

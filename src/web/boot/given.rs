//! What a client is given that nobody else may have: the secrets of its boot, and its identity.
//!
//! Both go to an address that is known to be the client's, and over HTTPS only where the configuration says
//! so. A boot that has to prove a secret is told nothing without it; an identity is left out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::boot::{IdentityFiles, takes_identity};
use crate::daemon::{AskedFrom, Peer, Scheme, Server, Unproven, Whereabouts};
use crate::library::config::SecretsOver;
use crate::library::manifest::BootFrom;
use crate::library::{
    BootId, BootTicket, Client, Error, Library, MacAddr, Proof, Secrets, Settings, Switch,
    VersionId,
};
use crate::web::{Problem, blocking_for_client};

/// What stands in place of a secret where people look.
const MASK: &str = "\u{2026}";

/// What a boot.cfg gives to its client alone.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// What is proved at the login.
    pub secrets: Secrets,
    /// Where the initramfs with the client's identity is.
    pub identity: Option<String>,
}

impl Given {
    /// For people: where there are secrets, and not which.
    pub fn shown(library: &Library, ticket: &BootTicket, base: &str) -> Result<Given, Error> {
        let mut secrets = library.boot_secrets(&ticket.client, &ticket.id, ticket.proof)?;
        for chap in secrets.chap.iter_mut().chain(&mut secrets.mutual) {
            chap.secret = MASK.to_owned();
        }
        let client = library.client(&ticket.client)?;
        let has_identity = has_identity(library, &client, &ticket.version)?;
        // Where a person is going to be nobody knows yet.
        let place = client.person.map(|_| format!("{MASK}/{MASK}"));
        let identity = has_identity.then(|| identity_url(base, ticket, place));
        Ok(Given { secrets, identity })
    }
}

/// Who asks for what is a client's alone.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    from: IpAddr,
    over: Scheme,
    at: Whereabouts,
    /// Whether a system runs on the machine that it says it is.
    runs: bool,
}

/// Why somebody is not given what is a client's alone.
enum Withheld {
    /// It is no boot of the client that asks for it, but another machine, or somebody on a system that
    /// runs.
    NoBoot(String),
    /// It may be one.
    Unproven(String),
}

impl Asker {
    /// Whoever is at the other end of a connection over the network, and asks as the machine with this
    /// hardware address.
    pub(super) async fn of(
        server: &Arc<Server>,
        peer: &Peer,
        mac: MacAddr,
    ) -> Result<Self, Problem> {
        Self::within(Duration::MAX, server, peer, mac).await
    }

    /// The same, for whoever does not wait for longer and gets nothing: a system that comes back later is not
    /// seen.
    pub(super) async fn within(
        patience: Duration,
        server: &Arc<Server>,
        peer: &Peer,
        mac: MacAddr,
    ) -> Result<Self, Problem> {
        match peer {
            Peer::Network { from, over, .. } => {
                let at = server.whereabouts(*from).await;
                Ok(Asker {
                    from: from.ip().to_canonical(),
                    over: *over,
                    runs: server.is_running(mac, &at, patience).await,
                    at,
                })
            }
            Peer::Local { .. } => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "what is a client's alone is for clients on the network",
            )),
        }
    }

    /// Where he asks from, who says that he is this client.
    pub(super) fn asks_as(&self, client: &Client) -> AskedFrom {
        match self.at.is(client) {
            Ok(()) if self.runs => AskedFrom::NoBoot,
            Ok(()) => AskedFrom::Own(self.from),
            Err(Unproven::Another(..)) => AskedFrom::NoBoot,
            Err(_) => AskedFrom::Said(self.from),
        }
    }

    /// Whether he may be given what is this client's alone, or why not.
    fn may_have(&self, server: &Server, client: &Client) -> Result<(), Withheld> {
        match self.at.is(client) {
            Err(why @ Unproven::Another(..)) => return Err(Withheld::NoBoot(why.to_string())),
            Err(why) => return Err(Withheld::Unproven(why.to_string())),
            Ok(()) => {}
        }
        if self.runs {
            return Err(Withheld::NoBoot(String::from(
                "its system is running and answers, so it is not the machine's firmware that asks, and \
                 may be any of its users",
            )));
        }
        let over = server.library().config().boot.secrets;
        if over == SecretsOver::Https && self.over == Scheme::Http {
            return Err(Withheld::Unproven(String::from(
                "it asked over HTTP, and [boot] secrets in netroot.toml is \"https\": its loader has to \
                 know HTTPS and to trust the certificate of the boot service",
            )));
        }
        Ok(())
    }

    fn note_withheld(&self, server: &Server, client: &Client, what: &str, why: &str) {
        let library = server.library();
        library.note_withheld(what, &client.mac, self.from, why);
    }
}

impl Withheld {
    fn why(&self) -> &str {
        let (Withheld::NoBoot(why) | Withheld::Unproven(why)) = self;
        why
    }
}

/// What a client is given with the script of this ticket, at a machine whose address has to be known: its
/// own, or that where the person is whose disk it has.
///
/// # Errors
/// Inside, why there is no script for whoever asks: it has to have a secret that he may not be given.
pub(super) fn given(
    server: &Server,
    asker: &Asker,
    (client, machine): (&Client, &Client),
    ticket: &BootTicket,
    base: &str,
) -> Result<Result<Given, Problem>, Error> {
    let library = server.library();
    let has_identity = has_identity(library, client, &ticket.version)?;
    if ticket.proof == Proof::None && !has_identity {
        return Ok(Ok(Given::default()));
    }
    match asker.may_have(server, machine) {
        Ok(()) => {
            let place = place(library, (client, machine), ticket)?;
            Ok(Ok(Given {
                secrets: library.boot_secrets(&ticket.client, &ticket.id, ticket.proof)?,
                identity: has_identity.then(|| identity_url(base, ticket, place)),
            }))
        }
        Err(why) if ticket.proof == Proof::None => {
            asker.note_withheld(server, client, "its identity", why.why());
            Ok(Ok(Given::default()))
        }
        Err(withheld) => {
            let why = withheld.why();
            asker.note_withheld(server, client, "the secret of its boot", why);
            let told = format!("the boot.cfg of {} has a secret in it: {why}", client.name);
            if let Withheld::Unproven(_) = withheld {
                server.saw_nothing_to_boot(client.mac, asker.asks_as(machine), why);
            }
            Ok(Err(Problem::new(StatusCode::FORBIDDEN, told)))
        }
    }
}

/// The initramfs with a client's identity, for one of its boots.
pub(super) async fn identity(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path((mac, boot)): Path<(MacAddr, BootId)>,
) -> Result<Response, Problem> {
    packed(&server, &peer, boot, (mac, None)).await
}

/// The same for a person's disk, at the machine where they logged in.
pub(super) async fn identity_at(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path((person, boot, machine, place)): Path<(MacAddr, BootId, MacAddr, String)>,
) -> Result<Response, Problem> {
    packed(&server, &peer, boot, (machine, Some((person, place)))).await
}

/// A boot's identity, for the machine with this address; of its own client, or of a person whose boot was
/// issued there.
async fn packed(
    server: &Arc<Server>,
    peer: &Peer,
    boot: BootId,
    (mac, person): (MacAddr, Option<(MacAddr, String)>),
) -> Result<Response, Problem> {
    let asker = Asker::of(server, peer, mac).await?;
    let made = blocking_for_client(server, move |server| {
        let library = server.library();
        let machine = library.machine(&mac)?;
        let client = match &person {
            Some((person, place)) => library.person_at((person, &boot), &machine, place)?,
            None => machine.clone(),
        };
        let (version, mode) = match library.booting(&client, &boot)? {
            Ok(booting) => booting,
            Err(why) => return Ok(Err(Problem::new(StatusCode::FORBIDDEN, why))),
        };
        if !has_identity(library, &client, &version)? {
            let why = format!("{} is given no identity", client.name);
            return Ok(Err(Problem::new(StatusCode::NOT_FOUND, why)));
        }
        if let Err(withheld) = asker.may_have(server, &machine) {
            let why = withheld.why().to_owned();
            asker.note_withheld(server, &client, "its identity", &why);
            return Ok(Err(Problem::new(StatusCode::FORBIDDEN, why)));
        }
        let settings = library.settings(&client)?;
        let files = IdentityFiles {
            name: &client.name,
            identity: &library.identity(&client.mac)?,
            initiator: &library.initiator_name(&client.mac, &boot),
            mode,
            authorized_keys: settings.authorized_keys.as_deref().unwrap_or_default(),
        };
        let version = library.version(&version)?;
        let early = &version.manifest().facts.early;
        let packed = files.initramfs(early).map_err(|source| Error::Io {
            doing: format!("making the identity of {}", client.name),
            source,
        })?;
        server.saw_identity(&client.mac, asker.asks_as(&machine));
        Ok(Ok(packed))
    })
    .await??;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, made).into_response())
}

/// Whether a client is given an identity, and its image can take it.
fn has_identity(library: &Library, client: &Client, version: &VersionId) -> Result<bool, Error> {
    let Settings { identity, .. } = library.settings(client)?;
    if identity == Some(Switch::Off) {
        return Ok(false);
    }
    let version = library.version(version)?;
    let manifest = version.manifest();
    let has_kernel = !matches!(manifest.boot, BootFrom::Disk(_));
    Ok(has_kernel && takes_identity(&manifest.facts.early))
}

/// Where the machine is told to get the identity. A person's disk goes from machine to machine, and its own
/// address is nobody's neighbour: there it stands in the path where they are, and what tells that they are.
fn identity_url(base: &str, ticket: &BootTicket, place: Option<String>) -> String {
    let place = place.map(|place| format!("/{place}")).unwrap_or_default();
    let (client, boot) = (ticket.client.bare(), ticket.id);
    format!("{base}/identity/{client}/{boot}{place}/identity.img")
}

/// Where the person is whose disk it is, if it is a person's.
fn place(
    library: &Library,
    (client, machine): (&Client, &Client),
    ticket: &BootTicket,
) -> Result<Option<String>, Error> {
    if client.person.is_none() {
        return Ok(None);
    }
    let place = library.place_of_boot(&client.mac, &ticket.id, &machine.mac)?;
    Ok(Some(format!("{}/{place}", machine.mac.bare())))
}

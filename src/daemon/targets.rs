//! What the target asks, answered from the library.

use std::sync::Arc;

use jiff::Timestamp;

use super::attached::Presence;
use super::timeline::Initiates;
use super::{Server, visitors};
use crate::iscsi::{
    Authentication, BoxFuture, Directory, End, Guard, Initiator, IscsiName, Opened, Refusal,
    SessionControl,
};
use crate::library::LiveSession;
use crate::library::{Caller, Grant, LoginError};
use crate::scsi::Device;

/// The library's disks as targets.
pub struct Targets {
    server: Arc<Server>,
}

impl Targets {
    /// Those of a server's library.
    pub fn new(server: Arc<Server>) -> Self {
        Self { server }
    }
}

impl Directory for Targets {
    fn targets<'a>(&'a self, who: &'a Initiator) -> BoxFuture<'a, Vec<IscsiName>> {
        let who = who.clone();
        Box::pin(async move {
            let visible = self.server.call_for_client(move |server| {
                let caller = Caller {
                    initiator: who.name.as_str(),
                    peer: who.peer,
                };
                server.saw_discovery(&who);
                let mut names = server.library.visible(caller, &server.attached)?;
                names.extend(server.visible_volumes(&who)?);
                Ok::<_, crate::library::Error>(names)
            });
            match visible.await {
                Some(Ok(names)) => names.iter().filter_map(|name| name.parse().ok()).collect(),
                Some(Err(error)) => {
                    tracing::error!(error = told(&error), "cannot list targets");
                    Vec::new()
                }
                None => Vec::new(),
            }
        })
    }

    fn authentication<'a>(
        &'a self,
        who: &'a Initiator,
        target: Option<&'a IscsiName>,
    ) -> BoxFuture<'a, Authentication> {
        let (who, target) = (who.clone(), target.map(IscsiName::to_string));
        Box::pin(async move {
            let asked = self
                .server
                .call_for_client(move |server| server.proofs(&who, target.as_deref()));
            match asked.await {
                Some(Ok(authentication)) => authentication,
                Some(Err(error)) => {
                    tracing::error!(
                        error = told(&error),
                        "cannot tell what a login has to prove"
                    );
                    nothing_proves()
                }
                None => nothing_proves(),
            }
        })
    }

    /// Firmware may leave a login behind that has not come to its end, and has no system that could be kept out.
    fn knocks(&self, who: &Initiator) -> bool {
        Initiates::of(who.isid) == Initiates::System
    }

    fn unproven(&self, who: &Initiator, target: Option<&IscsiName>) {
        let is_named = self
            .server
            .library
            .client_named(who.name.as_str())
            .is_some();
        // Volumes are nothing that a machine boots from.
        if target.is_none() || !is_named {
            return;
        }
        let (server, who) = (self.server.clone(), who.clone());
        self.server.notes.spawn(async move {
            let why = "it did not prove the secret of this boot";
            server
                .call_for_client(move |server| server.saw_refusal(&who, why))
                .await;
        });
    }

    fn admits<'a>(
        &'a self,
        who: &'a Initiator,
        target: &'a IscsiName,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        let (who, target) = (who.clone(), target.to_string());
        Box::pin(async move {
            let admitted = self.server.call_for_client(move |server| {
                match server.library.target_head(&target) {
                    Ok(Some(head)) => visitors::admit(&server.library, &who, &head),
                    // Images and clones are decided under the library's lock, when they are opened.
                    Ok(None) => Ok(()),
                    Err(_) => Err(Refusal::TargetError),
                }
            });
            admitted.await.unwrap_or(Err(Refusal::TargetError))
        })
    }

    fn open<'a>(
        &'a self,
        who: &'a Initiator,
        target: &'a IscsiName,
        control: SessionControl,
    ) -> BoxFuture<'a, Result<Opened, Refusal>> {
        let (who, target) = (who.clone(), target.to_string());
        Box::pin(async move {
            // Before it waits for a place, as all do whose server begins anew.
            let presence = self.server.arrives(&who, control.clone()).await;
            let opened = self
                .server
                .call_for_client(move |server| open(server, &who, &target, control));
            let Opened { device, guard } = opened.await.unwrap_or(Err(Refusal::TargetError))?;
            let guard = Box::new(Present { presence, guard });
            Ok(Opened { device, guard })
        })
    }
}

/// A login about whose rules nothing is known gets nowhere.
fn nothing_proves() -> Authentication {
    Authentication::Chap {
        initiator: Vec::new(),
        target: None,
    }
}

/// Lets a session in and opens its disk. Blocks.
fn open(
    server: &Arc<Server>,
    who: &Initiator,
    target: &str,
    control: SessionControl,
) -> Result<Opened, Refusal> {
    match server.library.target_head(target) {
        Ok(Some(head)) => return visitors::open(server, who, &head, control),
        Ok(None) => {}
        Err(error) => {
            tracing::error!(target, error = told(&error), "cannot look a target up");
            return Err(Refusal::TargetError);
        }
    }
    let caller = Caller {
        initiator: who.name.as_str(),
        peer: who.peer,
    };
    let id = control.id();
    let login = server
        .library
        .login(caller, target, &server.attached, |grant| {
            let session = LiveSession {
                initiator: grant.initiator.clone(),
                peer: grant.peer,
                client: grant.client,
                boot: grant.boot,
                version: grant.version.clone(),
                since: Timestamp::now(),
                firmware: Initiates::of(who.isid) == Initiates::Firmware,
            };
            server.attached.enter(session, control);
        });
    let grant = login.map_err(|error| {
        server.saw_refusal(who, &told(&error));
        refusal(&error, who, target)
    })?;
    server.saw_login(who, id, &grant);
    // From here on somebody has to tell the library that the session is over, whatever happens.
    let guard = Box::new(Held {
        server: server.clone(),
        grant,
        id,
    });
    match device(server, &guard.grant) {
        Ok(device) => Ok(Opened { device, guard }),
        Err(error) => {
            let why = told(&error);
            tracing::error!(target, error = why, "cannot open a disk");
            server.saw_refusal(who, &why);
            guard.ended(End::Kicked);
            Err(Refusal::TargetError)
        }
    }
}

fn device(server: &Server, grant: &Grant) -> crate::library::Result<Arc<Device>> {
    server.devices.get(&grant.disk, &grant.identity, || {
        server.library.open_granted(grant)
    })
}

fn refusal(error: &LoginError, who: &Initiator, target: &str) -> Refusal {
    let refusal = match error {
        LoginError::NotFound(_) => Refusal::NotFound,
        LoginError::Forbidden(_) => Refusal::Forbidden,
        LoginError::Failed(_) => Refusal::TargetError,
    };
    let why = told(error);
    tracing::warn!(initiator = %who.name, peer = %who.peer, target, why, "a login was refused");
    refusal
}

/// An error with its causes, in one line of the log.
pub(super) fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A session on any disk.
struct Present {
    presence: Presence,
    guard: Box<dyn Guard>,
}

impl Guard for Present {
    fn ended(self: Box<Self>, end: End) {
        let Present { presence, guard } = *self;
        presence.ended(end);
        guard.ended(end);
    }
}

/// A session that was let in.
struct Held {
    server: Arc<Server>,
    grant: Grant,
    id: u64,
}

impl Guard for Held {
    fn ended(self: Box<Self>, end: End) {
        let Held { server, grant, id } = *self;
        // At once, so that whoever waits for the end finds it gone; the document may follow.
        server.attached.leave(id);
        if let Some(mac) = &grant.client {
            server.saw_end(mac, id, end);
        }
        server.nudge();
        // At shutdown the client goes on with the next server: its boot is as it was.
        if end == End::ShutDown {
            return;
        }
        let noting = server.clone();
        server.notes.spawn(async move {
            let left = move |server: &Arc<Server>| server.library.left(&grant, &server.attached);
            if let Some(Err(error)) = noting.call_for_client(left).await {
                tracing::error!(error = told(&error), "cannot note the end of a session");
            }
            noting.nudge();
        });
    }
}

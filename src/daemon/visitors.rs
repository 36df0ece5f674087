//! Who may have a volume, and who has one now.
//!
//! Whoever may not have a volume is answered as if it did not exist, at the same step and with the same
//! words. A right that is taken away ends the sessions that had it, and no login slips through between.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Server;
use super::targets::told;
use crate::iscsi::{
    Authentication, Credential, End, Guard, Initiator, IscsiName, Opened, Refusal, SessionControl,
};
use crate::library::{Caller, Chap, Library, Result, Secrets, Volume, VolumeName};

/// The sessions on volumes, from before their right to one is looked at for the last time until they
/// have settled.
#[derive(Default)]
pub(super) struct Visitors {
    // Held for a look or a change of the map, never across a wait.
    table: Mutex<HashMap<u64, Visitor>>,
}

struct Visitor {
    control: SessionControl,
    initiator: IscsiName,
    peer: IpAddr,
    head: VolumeName,
}

impl Visitors {
    fn table(&self) -> MutexGuard<'_, HashMap<u64, Visitor>> {
        // Each change is one call of the map, so a panic elsewhere cannot leave it half-changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session on a volume, until it has settled.
struct Visit {
    server: Arc<Server>,
    id: u64,
}

impl Guard for Visit {
    fn ended(self: Box<Self>, _: End) {}
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.server.visitors.table().remove(&self.id);
        self.server.nudge();
    }
}

impl Server {
    /// What an initiator has to prove for a target, or may prove in a discovery session.
    pub(super) fn proofs(&self, who: &Initiator, target: Option<&str>) -> Result<Authentication> {
        let Some(target) = target else {
            return self.offers(who);
        };
        let head = self.library.target_head(target)?;
        let known = match &head {
            Some(head) => is_for(head, who),
            None => {
                let known = self.library.parse_target(target);
                known.is_some_and(|known| self.library.has_target(&known))
            }
        };
        match head.filter(|head| head.chap.is_some()) {
            Some(head) if known => {
                let (initiator, target) = credentials(self.library.volume_secrets(&head.name)?);
                let initiator = initiator.into_iter().collect();
                Ok(Authentication::Chap { initiator, target })
            }
            None if known => self.proofs_of_boot(who),
            _ if !self.asks_chap()? => Ok(Authentication::None),
            _ => Ok(Authentication::Chap {
                initiator: vec![unprovable()],
                target: None,
            }),
        }
    }

    /// What a boot proves for its disk. Whoever is no boot, or none that is let in, has nothing to prove:
    /// whether he is let in is decided when the disk is opened.
    fn proofs_of_boot(&self, who: &Initiator) -> Result<Authentication> {
        let secrets = self.library.secrets_of_initiator(who.name.as_str())?;
        if secrets.chap.is_none() {
            return Ok(Authentication::None);
        }
        let (initiator, target) = credentials(secrets);
        let initiator = initiator.into_iter().collect();
        Ok(Authentication::Chap { initiator, target })
    }

    /// Whoever proves to know a volume's secret sees it in discovery, although no list names him. Nobody
    /// has to: machines that boot cannot prove anything.
    fn offers(&self, who: &Initiator) -> Result<Authentication> {
        if !self.asks_chap()? {
            return Ok(Authentication::None);
        }
        let mut known = Vec::new();
        for head in self.library.readable_volumes()?.volumes {
            if head.chap.is_some() && is_for(&head, who) {
                let (theirs, ours) = credentials(self.library.volume_secrets(&head.name)?);
                known.extend(theirs.map(|theirs| (theirs, ours)));
            }
        }
        if known.is_empty() {
            known.push((unprovable(), None));
        }
        Ok(Authentication::Offered(known))
    }

    fn asks_chap(&self) -> Result<bool> {
        let volumes = self.library.readable_volumes()?.volumes;
        Ok(volumes.iter().any(|volume| volume.chap.is_some()))
    }

    /// The targets of volumes that a discovery session sees.
    pub(super) fn visible_volumes(&self, who: &Initiator) -> Result<Vec<String>> {
        let caller = Caller {
            initiator: who.name.as_str(),
            peer: who.peer,
        };
        let mut names = self.library.visible_volumes(caller)?;
        if who.proved.is_some() {
            for head in self.library.readable_volumes()?.volumes {
                let name = self.library.volume_target(&head.name);
                if head.chap.is_some()
                    && admit(&self.library, who, &head).is_ok()
                    && !names.contains(&name)
                {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    /// Ends the sessions that may not have their volumes any more, and waits until they have settled.
    /// `renewed` are volumes whose secrets are others, or that are others themselves. Blocks.
    pub(super) fn end_strangers(&self, volumes: &[Volume], renewed: &[VolumeName]) {
        let is_stranger = |visitor: &Visitor| {
            let head = volumes.iter().find(|volume| volume.name == visitor.head);
            renewed.contains(&visitor.head)
                || !head.is_some_and(|head| {
                    // With the proof that it has shown.
                    let proved = head.chap.as_deref();
                    head.admits(visitor.initiator.as_str(), visitor.peer, proved)
                })
        };
        let table = self.visitors.table();
        let strangers = table.values().filter(|visitor| is_stranger(visitor));
        let controls: Vec<_> = strangers.map(|visitor| visitor.control.clone()).collect();
        drop(table);
        for control in &controls {
            control.end(End::Kicked);
        }
        self.attached.runtime().block_on(async {
            for control in &controls {
                control.ended().await;
            }
        });
    }
}

/// Whether this initiator may have the volume, as far as lists tell; it may have something to prove.
fn is_for(head: &Volume, who: &Initiator) -> bool {
    head.admits(who.name.as_str(), who.peer.ip(), head.chap.as_deref())
}

/// What an initiator proves, and what the target does.
fn credentials(secrets: Secrets) -> (Option<Credential>, Option<Credential>) {
    let credential = |chap: Chap| Credential::new(chap.user, chap.secret).ok();
    let Secrets { chap, mutual } = secrets;
    (chap.and_then(credential), mutual.and_then(credential))
}

/// What nobody knows: it is drawn, and not kept.
fn unprovable() -> Credential {
    // A secret of 32 digits is one.
    Credential::new("nobody", super::drawn()).unwrap_or_else(|error| panic!("{error}"))
}

/// Whether a login may have a volume, with what it has proved. Whoever may not is told what he is told
/// of one that does not exist.
pub(super) fn admit(
    library: &Library,
    who: &Initiator,
    head: &Volume,
) -> std::result::Result<(), Refusal> {
    let proved = who.proved.as_ref();
    if !head.admits(
        who.name.as_str(),
        who.peer.ip(),
        proved.map(Credential::name),
    ) {
        return Err(Refusal::NotFound);
    }
    if head.chap.is_none() {
        return Ok(());
    }
    match library.volume_secrets(&head.name).map(credentials) {
        // The secret of today, and not one that it was when the login began.
        Ok((theirs, _)) if theirs.is_some() && theirs.as_ref() == proved => Ok(()),
        Ok(_) => Err(Refusal::AuthenticationFailed),
        Err(error) => {
            tracing::error!(volume = %head.name, error = told(&error), "cannot read a volume's secrets");
            Err(Refusal::TargetError)
        }
    }
}

/// Lets a session in to a volume. Blocks.
pub(super) fn open(
    server: &Arc<Server>,
    who: &Initiator,
    head: &Volume,
    control: SessionControl,
) -> std::result::Result<Opened, Refusal> {
    let refused = |refusal| {
        tracing::warn!(initiator = %who.name, peer = %who.peer, volume = %head.name, ?refusal, "a login was refused");
        refusal
    };
    admit(&server.library, who, head).map_err(refused)?;
    if server.volumes.device(&head.name).is_none() {
        // A file that was missing may be there again. Not once this session can be found: what looks
        // at the documents anew waits for the sessions that it ends. And not while somebody else looks:
        // storage that hangs must not hold up one login after the other.
        if let Some(Err(error)) = server.try_refresh_volumes() {
            tracing::error!(error = told(&error), "cannot look at the volumes");
        }
    }
    let visit = enter(server, who, head, control);
    // Whoever has taken the right away before this session could be found has written so before.
    let now = match server.library.find_head(&head.name) {
        Ok(Some(now)) if now.id == head.id => admit(&server.library, who, &now),
        Ok(_) => Err(Refusal::NotFound),
        Err(_) => Err(Refusal::TargetError),
    };
    now.map_err(refused)?;
    let device = server.volumes.device(&head.name);
    let device = device.ok_or(Refusal::Unavailable)?;
    server.nudge();
    Ok(Opened {
        device,
        guard: Box::new(visit),
    })
}

/// From here on the session is found by those who end it.
fn enter(server: &Arc<Server>, who: &Initiator, head: &Volume, control: SessionControl) -> Visit {
    let id = control.id();
    let visitor = Visitor {
        control,
        initiator: who.name.clone(),
        peer: who.peer.ip(),
        head: head.name.clone(),
    };
    server.visitors.table().insert(id, visitor);
    Visit {
        server: server.clone(),
        id,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::daemon::Doors;
    use crate::iscsi::Isid;
    use crate::library::{Actor, Allow, Kept, NewVolume, Paths, VolumeEdit};

    const SECRET: &str = "secret of anna";

    fn chap(secret: &str) -> Chap {
        Chap::new("anna", secret).unwrap()
    }

    /// A server with a volume that is for `iqn.a:i`, which has to prove a secret.
    async fn server() -> (tempfile::TempDir, Arc<Server>) {
        let (dir, library) = Library::temporary();
        let new = NewVolume {
            name: name(),
            kept: Kept::Library,
            paths: Paths::Any,
            size: Some(1 << 20),
            block_size: 512,
            direct: false,
            physical_block_size: None,
            read_only: false,
            allow: vec!["iqn.a:i".parse().unwrap()],
            secrets: Secrets {
                chap: Some(chap(SECRET)),
                mutual: None,
            },
            target: None,
            lun: None,
            allow_sanitize: false,
            force: false,
        };
        let doors = Doors::configured(&library.config());
        let server = Server::new(library, tokio::runtime::Handle::current(), doors);
        let adding = server.clone();
        let added = tokio::task::spawn_blocking(move || {
            adding.library.add_volume(&new, &*adding, &Actor::Server)
        });
        added.await.unwrap().unwrap();
        (dir, server)
    }

    fn name() -> VolumeName {
        "vault".parse().unwrap()
    }

    fn who(server: &Server) -> (Initiator, IscsiName, Volume) {
        let who = Initiator {
            name: "iqn.a:i".parse().unwrap(),
            isid: Isid([1; 6]),
            peer: ([192, 0, 2, 1], 4000).into(),
            local: ([192, 0, 2, 2], 3260).into(),
            proved: Some(Credential::new("anna", SECRET).unwrap()),
        };
        let target = server.library.volume_target(&name()).parse().unwrap();
        (who, target, server.library.volume(&name()).unwrap())
    }

    /// Lets the login in as it does between the directory's look and the session's listing.
    async fn let_in(
        server: &Arc<Server>,
        (who, _, head): &(Initiator, IscsiName, Volume),
        control: SessionControl,
    ) -> std::result::Result<Opened, Refusal> {
        let (server, who, head) = (server.clone(), who.clone(), head.clone());
        let opened = tokio::task::spawn_blocking(move || open(&server, &who, &head, control));
        opened.await.unwrap()
    }

    async fn taken_away(edit: VolumeEdit, afterwards: Refusal) {
        let (_dir, server) = server().await;
        let login = who(&server);

        let place = server.sessions.enter(&login.0, &login.1).await;
        let opened = let_in(&server, &login, place.control().clone()).await;
        let opened = opened.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert!(
            server.sessions.list().is_empty(),
            "its login is not answered"
        );
        let changing = server.clone();
        let change = tokio::task::spawn_blocking(move || {
            let library = &changing.library;
            library.edit_volume(&name(), None, &edit, &*changing, &Actor::Server)
        });
        let asked = tokio::time::timeout(Duration::from_secs(10), place.control().asked());
        assert_eq!(asked.await, Ok(End::Kicked));
        assert!(!change.is_finished(), "it waits until the session settles");
        drop(opened);
        drop(place);
        change.await.unwrap().unwrap();

        // The other way round: what this login has seen of the document was before the change.
        let place = server.sessions.enter(&login.0, &login.1).await;
        let late = let_in(&server, &login, place.control().clone()).await;
        assert_eq!(late.err(), Some(afterwards));
        assert!(server.visitors.table().is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_login_slips_past_a_list_that_is_changed() {
        let allow: Vec<Allow> = vec!["iqn.a:other".parse().unwrap()];
        let edit = VolumeEdit {
            allow: Some(allow),
            ..VolumeEdit::default()
        };
        taken_away(edit, Refusal::NotFound).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_login_slips_past_a_secret_that_is_changed() {
        let edit = VolumeEdit {
            chap: Some(Some(chap("another secret"))),
            ..VolumeEdit::default()
        };
        taken_away(edit, Refusal::AuthenticationFailed).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_document_that_cannot_be_read_holds_up_no_other_volume() {
        let (dir, server) = server().await;
        let edit = |read_only| {
            let server = server.clone();
            let edit = VolumeEdit {
                read_only: Some(read_only),
                ..VolumeEdit::default()
            };
            tokio::task::spawn_blocking(move || {
                let library = &server.library;
                library.edit_volume(&name(), None, &edit, &*server, &Actor::Server)
            })
        };
        let units = || server.volumes.device(&name()).unwrap().units();
        let is_sealed = || {
            let disks = units().into_iter().filter_map(|unit| unit.disk);
            disks.map(|disk| disk.read_only).collect::<Vec<_>>()
        };
        assert_eq!(is_sealed(), [false]);
        let volumes = dir.path().join("library/volumes");
        std::fs::write(volumes.join("broken.json"), "{").unwrap();
        edit(true).await.unwrap().unwrap();
        assert_eq!(is_sealed(), [true]);
        // Of the volume itself nothing is known then: it goes on as it was.
        let document = volumes.join("vault.json");
        let whole = std::fs::read(&document).unwrap();
        std::fs::write(&document, "{").unwrap();
        let looking = server.clone();
        let rows = tokio::task::spawn_blocking(move || looking.refresh_volumes());
        let rows = rows.await.unwrap().unwrap();
        assert_eq!(rows.len(), 1);
        assert!(
            rows[0].failed.as_ref().unwrap().contains("vault.json"),
            "{rows:?}"
        );
        assert_eq!(is_sealed(), [true]);
        std::fs::write(&document, whole).unwrap();
        edit(false).await.unwrap().unwrap();
        assert_eq!(is_sealed(), [false]);
    }
}

//! What the parts of a server that talk to machines tell of them while they boot, and what is written down
//! of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};

use super::Server;
use super::targets::told;
use super::timeline::{AskedFrom, Boots, Entered, Fetch, Initiates, Instead, ToKeep, Whose};
use crate::iscsi::{End, Initiator, SessionInfo};
use crate::library::{
    Actor, BootFailure, BootLine, BootStage, BootTicket, Client, Entry, Event, Firmware, Grant,
    Hardware, KernelFrom, MacAddr, MenuSeconds, Result, VersionId, mask_boot_ids, merged_boots,
    printable,
};

/// No name of a file that a loader has here is longer.
const LONGEST_NAME: usize = 128;

impl Server {
    /// Firmware at this hardware address has asked by DHCP what to boot, and from where where that is
    /// known. Machines that are nobody's clients are not followed. May block.
    pub fn saw_dhcp(&self, mac: &MacAddr, peer: Option<IpAddr>, firmware: Firmware) {
        if let Some(client) = self.client_with(mac) {
            let now = Timestamp::now();
            self.watch.timelines().dhcp(client, peer, firmware, now);
            self.nudge();
        }
    }

    /// A loader was fetched, over TFTP or HTTP. May block.
    pub fn saw_loader(&self, whose: Whose, file: &str) {
        let file: String = printable(file).chars().take(LONGEST_NAME).collect();
        let whose = match whose {
            Whose::Mac(mac) => self.client_with(&mac).map(Whose::Mac),
            peer => Some(peer),
        };
        if let Some(whose) = whose {
            self.watch
                .timelines()
                .loader(whose, &file, Timestamp::now());
            self.nudge();
        }
    }

    /// A client was shown its menu, which goes on by itself after this time.
    pub fn saw_menu(&self, client: &MacAddr, waits: MenuSeconds, from: AskedFrom) {
        let now = Timestamp::now();
        let waits = SignedDuration::from_millis(waits.millis().into());
        self.watch.timelines().menu(*client, waits, from, now);
        self.nudge();
    }

    /// A client has fetched its script, with this ticket and a kernel from there.
    pub fn saw_script(&self, ticket: &BootTicket, kernel: KernelFrom, from: AskedFrom) {
        let now = Timestamp::now();
        self.watch.timelines().script((ticket, kernel), from, now);
        self.nudge();
    }

    /// A client's machine goes on to its local disk.
    pub fn saw_local_disk(&self, client: &MacAddr, from: AskedFrom) {
        self.saw_instead(client, Instead::LocalDisk, from);
    }

    /// A person has logged in at a client's machine, and has fetched their own client's script there.
    pub fn saw_person(&self, at: &MacAddr, person: &Client, ticket: &BootTicket, from: AskedFrom) {
        self.saw_instead(at, Instead::Person(ticket, &person.name), from);
    }

    fn saw_instead(&self, client: &MacAddr, to: Instead<'_>, from: AskedFrom) {
        let now = Timestamp::now();
        self.watch.timelines().gave_way(*client, to, from, now);
        self.nudge();
    }

    /// A client has asked for its script, and there is nothing that it could boot.
    pub fn saw_nothing_to_boot(&self, client: MacAddr, from: AskedFrom, why: &str) {
        let why = format!("it asked what to boot, and there is nothing for it: {why}");
        let now = Timestamp::now();
        if self.watch.timelines().nothing(client, from, &why, now) {
            self.nudge();
        }
    }

    /// A client has fetched the files that make it itself.
    pub fn saw_identity(&self, client: &MacAddr, from: AskedFrom) {
        self.saw_stage(client, BootStage::Identity, from);
    }

    fn saw_stage(&self, client: &MacAddr, stage: BootStage, from: AskedFrom) {
        let now = Timestamp::now();
        self.watch.timelines().reached(*client, stage, from, now);
        self.nudge();
    }

    /// Somebody has asked for the script of a machine that is nobody's client. Tells whether that is
    /// worth a word in the log.
    pub fn saw_stranger(&self, mac: MacAddr, hardware: Hardware, peer: IpAddr) -> bool {
        let now = Timestamp::now();
        self.library.saw_stranger(mac, hardware, peer, now)
    }

    /// Somebody begins to fetch the kernel of a version, of so many bytes.
    pub fn saw_kernel(&self, peer: IpAddr, version: &VersionId, size: u64) -> Fetch {
        self.saw_file(peer, version, (BootStage::Kernel, size))
    }

    /// Somebody begins to fetch the initramfs of a version, of so many bytes.
    pub fn saw_initramfs(&self, peer: IpAddr, version: &VersionId, size: u64) -> Fetch {
        self.saw_file(peer, version, (BootStage::Initramfs, size))
    }

    fn saw_file(&self, peer: IpAddr, version: &VersionId, file: (BootStage, u64)) -> Fetch {
        let now = Timestamp::now();
        self.watch.timelines().fetched(peer, version, file, now)
    }

    /// iPXE says that a machine's boot cannot go on. Tells whether that is worth a word in the log: it is
    /// believed only of a boot that goes on where it says so. May block.
    pub fn saw_failed(&self, mac: &MacAddr, from: AskedFrom, failure: BootFailure) -> bool {
        let now = Timestamp::now();
        let Some(client) = self.client_with(mac) else {
            return match from {
                AskedFrom::Own(peer) | AskedFrom::Said(peer) => {
                    self.library.stranger_failed(mac, peer, failure)
                }
                AskedFrom::NoBoot => false,
            };
        };
        let failed = self.watch.timelines().failure(client, from, failure, now);
        if failed {
            self.nudge();
        }
        failed
    }

    /// The client that has this hardware address. May block.
    fn client_with(&self, mac: &MacAddr) -> Option<MacAddr> {
        let found = self.library.client_with(mac);
        found.unwrap_or_else(|error| {
            tracing::error!(error = told(&error), "cannot read the clients");
            None
        })
    }

    /// An initiator asks which targets there are.
    pub(super) fn saw_discovery(&self, who: &Initiator) {
        let name = who.name.as_str();
        let client = self.library.client_named(name);
        let mut timelines = self.watch.timelines();
        let name = mask_boot_ids(name);
        timelines.discovery(client, &name, who.peer.ip(), Timestamp::now());
    }

    /// A session was let in.
    pub(super) fn saw_login(&self, who: &Initiator, session: u64, grant: &Grant) {
        let (now, peer) = (Timestamp::now(), who.peer.ip());
        if let (Some(mac), Some(boot)) = (grant.client, grant.boot) {
            let begins = grant.entry == Entry::NewBoot;
            if !begins && !self.watch.timelines().knows(&mac, &boot) {
                self.resume_boot(&mac, &boot, now);
            }
            let entered = Entered {
                boot,
                session,
                who: Initiates::of(who.isid),
                peer,
                begins,
            };
            self.watch.timelines().entered(mac, entered, now);
        } else {
            let name = mask_boot_ids(who.name.as_str());
            self.watch.timelines().other_name(&name, peer, now);
        }
        self.nudge();
    }

    /// Goes on with the boots that were on their way when the server ended. May block.
    pub(super) fn resume_boots(&self) {
        let now = Timestamp::now();
        match self.library.boots_on_their_way() {
            Ok(lines) => {
                let mut timelines = self.watch.timelines();
                for (mac, line) in lines {
                    timelines.resume(mac, line, now);
                }
            }
            Err(error) => {
                tracing::error!(
                    error = told(&error),
                    "cannot read which clients were on their way"
                );
            }
        }
    }

    /// Goes on with what an earlier run of the server saw of a boot.
    fn resume_boot(&self, mac: &MacAddr, boot: &crate::library::BootId, now: Timestamp) {
        let name = mask_boot_ids(&boot.to_string());
        // Without its history it is told from here on.
        let kept = self.library.boot_lines(mac).unwrap_or_default();
        let line = kept
            .into_iter()
            .find(|line| line.boot.as_deref() == Some(name.as_str()));
        if let Some(line) = line {
            self.watch.timelines().resume(*mac, line, now);
        }
    }

    /// A session of a client is over.
    pub(super) fn saw_end(&self, mac: &MacAddr, session: u64, end: End) {
        // It is still listed: what it did in its last second counts, too.
        if let Some(info) = self.sessions.info(session) {
            self.saw_io(mac, &info);
        }
        let now = Timestamp::now();
        self.watch.timelines().left(mac, session, end, now);
    }

    /// What a client's session has done so far.
    pub(super) fn saw_io(&self, mac: &MacAddr, session: &SessionInfo) {
        let moment = |at: Option<SystemTime>| Timestamp::try_from(at?).ok();
        let first = session.counters.first();
        let first = (moment(first.read), moment(first.written));
        self.watch.timelines().io(mac, session.id, first);
    }

    /// A login was refused. One that names no client may be the wrong name of a machine that boots.
    pub(super) fn saw_refusal(&self, who: &Initiator, why: &str) {
        let (name, now) = (who.name.as_str(), Timestamp::now());
        let named = self.library.client_named(name);
        let client = named.map(|mac| self.library.client(&mac));
        let news = match client {
            Some(Ok(client)) => {
                let why = format!("its login was refused: {why}");
                let boot = self.library.boot_named(name);
                let mut timelines = self.watch.timelines();
                timelines.refused(client.mac, boot.as_ref(), &why, now)
            }
            _ => {
                let name = mask_boot_ids(name);
                self.watch.timelines().other_name(&name, who.peer.ip(), now)
            }
        };
        if news {
            self.nudge();
        }
    }

    /// How boots came out since it began.
    pub fn boots(&self) -> Boots {
        self.watch.timelines().boots(Timestamp::now())
    }

    /// The last boots of a client, the latest first: what goes on, and what was written down. May block.
    pub fn boots_of(&self, mac: &MacAddr) -> Result<Vec<BootLine>> {
        let kept = self.library.boot_lines(mac)?;
        let seen = self.watch.timelines().lines(mac);
        Ok(merged_boots(kept, seen))
    }

    /// Writes down what boots have come to.
    pub(super) async fn keep_boots(self: &Arc<Self>) {
        let due = self.watch.timelines().due(Timestamp::now());
        self.write_down(due).await;
    }

    /// Writes down what there is, at the end of the server.
    pub(super) async fn keep_all_boots(self: &Arc<Self>) {
        let rest = self.watch.timelines().rest(Timestamp::now());
        self.write_down(rest).await;
    }

    async fn write_down(self: &Arc<Self>, boots: Vec<ToKeep>) {
        if boots.is_empty() {
            return;
        }
        let boots = Arc::new(boots);
        let all = boots.clone();
        let keep = move |server: &Arc<Self>| -> Vec<Result<()>> {
            all.iter().map(|one| server.keep_boots_of(one)).collect()
        };
        // A panic in it is in the log: all of them are tried again.
        let kept = self.call_for_client(keep).await.unwrap_or_default();
        let mut timelines = self.watch.timelines();
        for (at, one) in boots.iter().enumerate() {
            match kept.get(at) {
                Some(Ok(())) => timelines.kept(&one.mac),
                Some(Err(_)) | None => timelines.not_kept(one),
            }
        }
        drop(timelines);
        // One of them stands for all: it is the disk, most often.
        if let Some(Err(error)) = kept.iter().find(|kept| kept.is_err()) {
            tracing::error!(
                error = told(error),
                "cannot write down how clients booted, and tries again"
            );
        }
        self.nudge();
    }

    /// Writes down what boots of a client have come to, and tells of those that have failed.
    fn keep_boots_of(&self, boots: &ToKeep) -> Result<()> {
        self.library
            .keep_boot_lines(&boots.mac, boots.lines.clone())?;
        for line in &boots.failed {
            let event = Event::new(&Actor::Server, "boot-failed").of(&boots.mac);
            self.library.note(&event.with("why", line.told.as_str()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;
    use crate::daemon::Doors;
    use crate::library::{
        BootOutcome, FailedAt, Filter, Library, Mode, NewClient, Quiet, Settings, VersionFacts,
        VersionSpec,
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn who_cannot_be_written_down_keeps_nobody_else_from_it_and_is_tried_again() {
        let (dir, library) = Library::temporary();
        let image: VersionSpec = "fc28".parse().unwrap();
        let mut draft = library.draft(&image.image).unwrap();
        draft.create_sparse(1 << 20).unwrap();
        draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
        draft.add_initramfs(&mut &b"an initramfs"[..]).unwrap();
        draft.seal(VersionFacts::default(), &Quiet).unwrap();
        let doors = Doors::configured(&library.config());
        let server = Server::new(library, Handle::current(), doors);
        let macs = [1, 2, 3].map(|last| MacAddr::new([0x52, 0x54, 0, 0, 0, last]).unwrap());
        for (mac, host) in macs.iter().zip(1..) {
            let new = NewClient {
                mac: *mac,
                name: None,
                image: image.clone(),
                mode: Mode::Shared,
                args: Vec::new(),
                groups: [].into(),
                settings: Settings::default(),
            };
            let live = server.live();
            server
                .library
                .add_client(&new, live, &Actor::Server)
                .unwrap();
            let client = server.library.client(mac).unwrap();
            let ticket = server.library.issue_boot(&client).unwrap();
            let from = AskedFrom::Said(IpAddr::from([192, 0, 2, host]));
            server.saw_script(&ticket, KernelFrom::Server, from);
            let at = FailedAt::Kernel;
            assert!(server.saw_failed(mac, from, BootFailure { at, errno: None }));
        }
        let events = |mac: &MacAddr| {
            let filter = Filter {
                what: Some("boot-failed".to_owned()),
                to: Some(mac.to_string()),
                ..Filter::default()
            };
            server.library.events(&filter).unwrap().events.len()
        };
        // What is in the way of its document is in that of nobody else's.
        let [blocked, others @ ..] = macs;
        let in_the_way = dir
            .path()
            .join(format!("library/boots/{}.json", blocked.bare()));
        std::fs::create_dir_all(in_the_way.join("full")).unwrap();
        server.keep_all_boots().await;
        for mac in &others {
            let kept = server.library.boot_lines(mac).unwrap();
            assert_eq!(kept[0].outcome, BootOutcome::Failed);
            assert_eq!(events(mac), 1);
        }
        assert_eq!(events(&blocked), 0, "it was not written down");
        std::fs::remove_dir_all(&in_the_way).unwrap();
        server.keep_all_boots().await;
        assert_eq!(server.library.boot_lines(&blocked).unwrap().len(), 1);
        assert!(macs.iter().all(|mac| events(mac) == 1));
    }
}

//! A library in a temporary directory, and a room of clients that log in to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use netroot::block::Disk;
use netroot::exec::{Cancel, Program, in_private_mounts};
use netroot::library::*;

pub(crate) const MIB: u64 = 1 << 20;

/// Who has sessions, as a server would know it.
#[derive(Default)]
pub(crate) struct Room {
    sessions: Mutex<Vec<LiveSession>>,
    pub(crate) fenced: Mutex<Vec<MacAddr>>,
}

impl Live for Room {
    fn sessions(&self) -> Vec<LiveSession> {
        self.sessions.lock().unwrap().clone()
    }

    fn fence(&self, client: &MacAddr, but: Option<&BootId>) {
        let mut sessions = self.sessions.lock().unwrap();
        let before = sessions.len();
        sessions.retain(|session| {
            session.client.as_ref() != Some(client)
                || (but.is_some() && session.boot.as_ref() == but)
        });
        if sessions.len() < before {
            self.fenced.lock().unwrap().push(*client);
        }
    }

    fn evict(&self, versions: &[VersionId]) {
        let mut sessions = self.sessions.lock().unwrap();
        sessions.retain(|session| !versions.contains(&session.version));
    }
}

impl Room {
    fn enter(&self, session: LiveSession) {
        self.sessions.lock().unwrap().push(session);
    }

    pub(crate) fn leave(&self, grant: &Grant) {
        let mut sessions = self.sessions.lock().unwrap();
        let at = sessions
            .iter()
            .position(|session| session.initiator == grant.initiator && session.peer == grant.peer);
        if let Some(at) = at {
            sessions.remove(at);
        }
    }

    /// What a killed server knows afterwards.
    pub(crate) fn forget(&self) {
        self.sessions.lock().unwrap().clear();
    }
}

/// A system's session.
fn session_of(grant: &Grant) -> LiveSession {
    LiveSession {
        initiator: grant.initiator.clone(),
        peer: grant.peer,
        client: grant.client,
        boot: grant.boot,
        version: grant.version.clone(),
        since: jiff::Timestamp::now(),
        firmware: false,
    }
}

pub(crate) struct Lab {
    pub(crate) lib: Library,
    pub(crate) room: Room,
    runtime: tokio::runtime::Runtime,
    home: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

/// Runs `test` on this machine's file system, where clones are overlays unless it can do better,
/// and on an XFS.
pub(crate) fn everywhere(test: impl Fn(Lab) + Send + Sync) {
    test(Lab::new());
    on_xfs(test);
}

/// Runs `test` in a library on a fresh XFS of 2 GiB that is gone afterwards.
pub(crate) fn on_xfs(test: impl Fn(Lab) + Send + Sync) {
    on("xfs", &[], test);
}

/// Runs `test` in a library on a fresh file system of 2 GiB, mounted with these options, that is gone
/// afterwards.
pub(crate) fn on(kind: &str, options: &[&str], test: impl Fn(Lab) + Send + Sync) {
    let mkfs = format!("mkfs.{kind}");
    for program in [mkfs.as_str(), "mount"] {
        assert!(
            netroot::exec::find_program(program).is_some(),
            "`{program}` is missing: apt-get install xfsprogs btrfs-progs util-linux"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("library.img");
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(2048 * MIB).unwrap();
    Program::new(&mkfs).arg("-q").arg(&image).run().unwrap();
    let target = dir.path().join("mnt");
    std::fs::create_dir(&target).unwrap();
    in_private_mounts(|mounts| {
        let mount = mounts
            .image(&image, kind, options, &target, &Cancel::new())
            .unwrap();
        test(Lab::at(&target.join("library"), None));
        mount.unmount().unwrap();
    })
    .expect("these tests make mounts: run them as root");
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        Lab::at(&dir.path().join("library"), Some(dir))
    }

    fn at(home: &Path, dir: Option<tempfile::TempDir>) -> Lab {
        let options = InitOptions {
            host: "server-01.example.edu".parse().unwrap(),
            iqn_prefix: Some("iqn.2026-01.edu.example.server-01".parse().unwrap()),
            // A temporary directory could not be removed; a mount goes as a whole.
            immutable: dir.is_none(),
        };
        Library::init(home, &options).unwrap();
        Lab {
            _dir: dir,
            ..Lab::of(home)
        }
    }

    /// Of a library that is there already.
    pub(crate) fn of(home: &Path) -> Lab {
        Lab {
            lib: Library::open(home, None).unwrap(),
            room: Room::default(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
            home: home.to_owned(),
            _dir: None,
        }
    }

    /// The same library, opened by the next process.
    pub(crate) fn reopen(&mut self) {
        self.lib = Library::open(&self.home, None).unwrap();
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Seals a version whose disk begins with `text`.
    pub(crate) fn seal(&self, image: &str, text: &str) -> VersionId {
        self.seal_sized(image, text, 8 * MIB)
    }

    pub(crate) fn seal_sized(&self, image: &str, text: &str, size: u64) -> VersionId {
        self.try_seal(image, text, size, "xfs").unwrap()
    }

    /// Seals a version that says to have the file system `kind`.
    pub(crate) fn try_seal(
        &self,
        image: &str,
        text: &str,
        size: u64,
        kind: &str,
    ) -> Result<VersionId> {
        let mut draft = self.lib.draft(&image.parse().unwrap()).unwrap();
        draft.create_sparse(size).unwrap();
        let disk = std::fs::OpenOptions::new()
            .write(true)
            .open(draft.disk_path())
            .unwrap();
        std::os::unix::fs::FileExt::write_all_at(&disk, text.as_bytes(), 0).unwrap();
        draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
        draft.add_initramfs(&mut &b"an initramfs"[..]).unwrap();
        let facts = VersionFacts {
            kernel_version: "6.1.0".into(),
            filesystem: manifest::FileSystemFacts {
                kind: kind.into(),
                ..manifest::FileSystemFacts::default()
            },
            ..VersionFacts::default()
        };
        Ok(draft.seal(facts, &Quiet)?.id().clone())
    }

    pub(crate) fn add(&self, mac: &str, image: &str, mode: Mode) -> MacAddr {
        self.try_add(mac, image, mode).unwrap().plan.mac
    }

    pub(crate) fn try_add(&self, mac: &str, image: &str, mode: Mode) -> Result<Done> {
        let new = NewClient {
            mac: mac.parse()?,
            name: None,
            image: image.parse()?,
            mode,
            args: Vec::new(),
            groups: Default::default(),
            settings: Default::default(),
        };
        self.lib.add_client(&new, &self.room, &Actor::command())
    }

    pub(crate) fn client(&self, mac: &MacAddr) -> Client {
        self.lib.client(mac).unwrap()
    }

    pub(crate) fn act(&self, mac: &MacAddr, act: Act, when: When) -> Result<Done> {
        self.lib
            .perform(mac, &act, when, &self.room, &Actor::command())
    }

    /// What the client's script would say now.
    pub(crate) fn script(&self, mac: &MacAddr) -> BootTicket {
        self.lib.issue_boot(&self.client(mac)).unwrap()
    }

    /// Logs in as a script says, from a port of its own.
    pub(crate) fn enter(&self, ticket: &BootTicket) -> std::result::Result<Grant, LoginError> {
        self.login(&ticket.initiator, &ticket.target)
    }

    pub(crate) fn login(
        &self,
        initiator: &str,
        target: &str,
    ) -> std::result::Result<Grant, LoginError> {
        self.login_as((initiator, target), session_of)
    }

    /// The same by the firmware, before there is a system.
    pub(crate) fn enter_firmware(&self, ticket: &BootTicket) -> Grant {
        let session = |grant: &Grant| LiveSession {
            firmware: true,
            ..session_of(grant)
        };
        let login = self.login_as((&ticket.initiator, &ticket.target), session);
        login.unwrap()
    }

    fn login_as(
        &self,
        (initiator, target): (&str, &str),
        session: impl FnOnce(&Grant) -> LiveSession,
    ) -> std::result::Result<Grant, LoginError> {
        static PORT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(1024);
        let port = PORT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let caller = Caller {
            initiator,
            peer: SocketAddr::from(([192, 0, 2, 7], port)),
        };
        self.lib.login(caller, target, &self.room, |grant| {
            self.room.enter(session(grant));
        })
    }

    pub(crate) fn visible(&self, initiator: &str) -> Vec<String> {
        let caller = Caller {
            initiator,
            peer: SocketAddr::from(([192, 0, 2, 7], 1000)),
        };
        self.lib.visible(caller, &self.room).unwrap()
    }

    /// A session ends while the server lives.
    pub(crate) fn leave(&self, grant: &Grant) {
        self.room.leave(grant);
        self.lib.left(grant, &self.room).unwrap();
    }

    /// A whole boot: script, login.
    pub(crate) fn boot(&self, mac: &MacAddr) -> Grant {
        self.enter(&self.script(mac)).unwrap()
    }

    /// The client writes to its disk, as far as the server is concerned durably.
    pub(crate) fn write(&self, mac: &MacAddr, text: &str) {
        let disk = self.lib.open_clone(mac).unwrap();
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(512, 0);
        let extent = disk.geometry().extent(0, 1).unwrap();
        self.runtime.block_on(async {
            disk.write(extent, vec![bytes.into()]).wait().await.unwrap();
            disk.flush().wait().await.unwrap();
        });
    }

    /// The client writes `bytes`, whole blocks, and unmaps `unmapped` blocks from there on.
    pub(crate) fn change(&self, mac: &MacAddr, lba: u64, bytes: Vec<u8>, unmapped: u64) {
        let disk = self.lib.open_clone(mac).unwrap();
        let blocks = bytes.len() as u64 / 512;
        let extent = |lba, blocks| disk.geometry().extent(lba, blocks).unwrap();
        self.runtime.block_on(async {
            let written = disk.write(extent(lba, blocks), vec![bytes.into()]);
            written.wait().await.unwrap();
            let gone = extent(lba + blocks, unmapped);
            disk.unmap(gone).wait().await.unwrap();
            disk.flush().wait().await.unwrap();
        });
    }

    /// All that is on a client's disk.
    pub(crate) fn whole(&self, mac: &MacAddr) -> Vec<u8> {
        let disk = self.lib.open_clone(mac).unwrap();
        let geometry = disk.geometry();
        let extent = geometry.extent(0, geometry.blocks).unwrap();
        let bytes = self.runtime.block_on(async {
            let segments = disk.read(extent).wait().await.unwrap();
            netroot::block::load(segments).wait().await.unwrap()
        });
        bytes.to_vec()
    }

    /// What the client finds at the beginning of its disk.
    pub(crate) fn read(&self, mac: &MacAddr) -> String {
        self.text_of(self.lib.open_clone(mac).unwrap().as_ref())
    }

    pub(crate) fn text_of(&self, disk: &dyn Disk) -> String {
        let extent = disk.geometry().extent(0, 1).unwrap();
        let bytes = self.runtime.block_on(async {
            let segments = disk.read(extent).wait().await.unwrap();
            netroot::block::load(segments).wait().await.unwrap()
        });
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    }

    /// Everything in the library but events, to see that nothing changed.
    pub(crate) fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = walkdir::WalkDir::new(&self.home)
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| !entry.path().starts_with(self.home.join("events")))
            .map(|entry| {
                let bytes = if entry.file_type().is_file() {
                    std::fs::read(entry.path()).unwrap()
                } else {
                    Vec::new()
                };
                (entry.path().to_owned(), bytes)
            })
            .collect();
        files.sort();
        files
    }
}

pub(crate) fn assign(image: Option<&str>, mode: Option<Mode>) -> Act {
    Act::Assign(AssignTo {
        image: image.map(|image| image.parse().unwrap()),
        mode,
    })
}

pub(crate) fn forbidden(login: std::result::Result<Grant, LoginError>) -> String {
    match login {
        Err(LoginError::Forbidden(why)) => why,
        other => panic!("not forbidden: {other:?}"),
    }
}

pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(error @ Error::Refused { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

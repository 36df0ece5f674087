//! Machines that asked what to boot and are nobody's clients: remembered, so that somebody can adopt
//! them with one click, also after a restart of the server.
//!
//! Names and addresses are free, and whoever reaches the boot service can make them up: so few are
//! remembered, fewer of one network, and they are written down together, now and then. Each server has
//! a document of its own in `strangers/`, and begins with what it finds in all of them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::document;
use super::error::{Result, chain};
use super::lock::WriteLock;
use super::network::network;
use super::printable::printable;
use super::timeline::BootFailure;
use super::{Library, MacAddr};

/// Machines that are remembered which nobody knows.
const MOST: usize = 256;

/// How many of them may be of one address of IPv4, or of one network of IPv6, which a whole room is in.
/// Nobody pushes out those of others with addresses that he makes up.
const MOST_OF_IPV4: usize = 8;
const MOST_OF_IPV6: usize = 64;

/// How long they are remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// One that asks again after less is still trying.
const TRYING: SignedDuration = SignedDuration::from_mins(3);

/// How exactly it is written down when they asked last: one that tries again and again costs a write in
/// so long.
const NOTED: SignedDuration = SignedDuration::from_mins(10);

/// Characters of what a machine's maker wrote into it.
const LONGEST: usize = 64;

/// A machine that asked what to boot and is nobody's client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stranger {
    /// The hardware address that it told.
    pub mac: MacAddr,
    /// What it told of itself besides.
    #[serde(default)]
    pub hardware: Hardware,
    /// Where it asked from last.
    #[schema(value_type = String)]
    pub peer: IpAddr,
    /// When it asked first.
    pub first: Timestamp,
    /// When it asked last.
    pub last: Timestamp,
    /// How often.
    pub times: u64,
    /// What its iPXE said last that it could not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<BootFailure>,
}

/// What a machine's firmware tells of it: short text without what would change the text around it, and
/// nothing where it tells nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Hardware {
    /// Its UUID (SMBIOS).
    pub uuid: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// The tag that its owner gave it.
    pub asset: Option<String>,
    /// `pcbios` or `efi`, as iPXE calls them.
    pub platform: Option<String>,
    /// Its processors, such as `x86_64` or `arm64`.
    pub arch: Option<String>,
}

impl Hardware {
    /// Each of them by its word, those that are told.
    pub fn told(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("UUID", &self.uuid),
            ("serial number", &self.serial),
            ("asset tag", &self.asset),
            ("firmware", &self.platform),
            ("processors", &self.arch),
        ];
        all.into_iter()
            .filter_map(|(word, value)| Some((word, value.as_deref()?)))
    }

    /// The same, from texts that anybody may have written.
    pub fn harmless(self) -> Self {
        Hardware {
            uuid: short(self.uuid),
            serial: short(self.serial),
            asset: short(self.asset),
            platform: short(self.platform),
            arch: short(self.arch),
        }
    }
}

fn short(told: Option<String>) -> Option<String> {
    let text: String = told?.trim().chars().take(LONGEST).collect();
    (!text.is_empty()).then(|| printable(&text))
}

/// What a server remembers of them.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    // Held for a look or a change in memory, and while what was written down is read for the first time.
    book: Mutex<Option<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    seen: HashMap<MacAddr, Seen>,
    /// Somebody came or went since it was written down.
    is_other: bool,
    /// Somebody asked again.
    is_later: bool,
    written: Option<Timestamp>,
}

/// One of them, and the network that it asked from first: it counts for that one wherever it asks from
/// later, as anybody may say that he is it.
#[derive(Debug)]
struct Seen {
    stranger: Stranger,
    net: IpAddr,
}

/// The document of one server.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    strangers: Vec<Stranger>,
}

impl Book {
    /// Takes one in. Tells whether that is news.
    fn saw(&mut self, mac: MacAddr, hardware: Hardware, peer: IpAddr, now: Timestamp) -> bool {
        if let Some(Seen {
            stranger: known, ..
        }) = self.seen.get_mut(&mac)
        {
            let news = now.duration_since(known.last) >= TRYING;
            self.is_other |= known.hardware != hardware;
            self.is_later = true;
            (known.hardware, known.peer) = (hardware, peer);
            (known.last, known.times) = (now, known.times.saturating_add(1));
            return news;
        }
        self.forget_old(now);
        let net = network(peer);
        let most_of_one = match net {
            IpAddr::V4(_) => MOST_OF_IPV4,
            IpAddr::V6(_) => MOST_OF_IPV6,
        };
        self.make_room(most_of_one, |one| one.net == net);
        self.make_room(MOST, |_| true);
        let stranger = Stranger {
            mac,
            hardware,
            peer,
            first: now,
            last: now,
            times: 1,
            failure: None,
        };
        self.seen.insert(mac, Seen { stranger, net });
        self.is_other = true;
        true
    }

    /// Forgets who asked longest ago of those that are meant, where there are so many.
    fn make_room(&mut self, most: usize, is_meant: impl Fn(&Seen) -> bool) {
        let meant = || self.seen.values().filter(|one| is_meant(one));
        if meant().count() < most {
            return;
        }
        if let Some(oldest) = meant().min_by_key(|one| one.stranger.last) {
            let oldest = oldest.stranger.mac;
            self.seen.remove(&oldest);
        }
    }

    /// Notes why one of them could not go on. Tells whether that is news.
    fn failed(&mut self, mac: &MacAddr, peer: IpAddr, failure: BootFailure) -> bool {
        let known = self.seen.get_mut(mac).map(|one| &mut one.stranger);
        let known = known.filter(|one| one.peer == peer);
        let news = known.is_some_and(|known| known.failure.replace(failure) != Some(failure));
        self.is_later |= news;
        news
    }

    fn forget_old(&mut self, now: Timestamp) {
        let before = self.seen.len();
        self.seen.retain(|_, one| is_remembered(&one.stranger, now));
        self.is_other |= self.seen.len() != before;
    }

    /// What is to be written down now, if anything is.
    fn due(&mut self, now: Timestamp) -> Option<Kept> {
        self.forget_old(now);
        let long_ago = self
            .written
            .is_none_or(|last| now.duration_since(last) >= NOTED);
        let is_due = self.is_other || (self.is_later && long_ago);
        if !is_due {
            return None;
        }
        (self.is_other, self.is_later, self.written) = (false, false, Some(now));
        Some(Kept {
            strangers: self.latest_first(),
        })
    }

    fn latest_first(&self) -> Vec<Stranger> {
        let all = self.seen.values().map(|one| one.stranger.clone());
        let mut all: Vec<Stranger> = all.collect();
        all.sort_by_key(|one| (std::cmp::Reverse(one.last), one.mac));
        all
    }
}

fn is_remembered(one: &Stranger, now: Timestamp) -> bool {
    now.duration_since(one.last) < REMEMBERED
}

impl Library {
    /// A machine asks what to boot, and is nobody's client. Tells whether that is news, and is quick:
    /// it is written down later, by [`keep_strangers`](Self::keep_strangers).
    pub fn saw_stranger(
        &self,
        mac: MacAddr,
        hardware: Hardware,
        peer: IpAddr,
        now: Timestamp,
    ) -> bool {
        let mut book = self.strangers_book();
        book.get_or_insert_default()
            .saw(mac, hardware.harmless(), peer, now)
    }

    /// iPXE of one of them says that it could not go on. Only who asked last from this address may say so.
    /// Tells whether that is news.
    pub fn stranger_failed(&self, mac: &MacAddr, peer: IpAddr, failure: BootFailure) -> bool {
        let mut book = self.strangers_book();
        book.get_or_insert_default().failed(mac, peer, failure)
    }

    /// Machines that asked what to boot and are nobody's clients: those who asked last first.
    pub fn strangers(&self, now: Timestamp) -> Vec<Stranger> {
        // Who lists clients is told why they cannot be read.
        let clients = self.shown_clients().unwrap_or_default();
        let known: HashSet<&MacAddr> = clients
            .iter()
            .flat_map(|client| std::iter::once(&client.mac).chain(&client.more_macs))
            .collect();
        let mut all = self.strangers_book().get_or_insert_default().latest_first();
        all.retain(|one| is_remembered(one, now) && !known.contains(&one.mac));
        all
    }

    /// Writes down who asked, if it is time to. For a server, every few seconds and at its end.
    pub fn keep_strangers(&self, now: Timestamp) -> Result<()> {
        let due = self.strangers_book().get_or_insert_default().due(now);
        let Some(kept) = due else { return Ok(()) };
        let write = || {
            let lock = self.write_lock()?;
            self.make_dir(&self.places().strangers())?;
            document::put(&lock, &self.own_strangers(), &kept)
        };
        let written = write();
        if written.is_err() {
            self.strangers_book().get_or_insert_default().is_other = true;
        }
        written
    }

    /// A machine became somebody's client. That it did does not fail because of what is still
    /// remembered here.
    pub(super) fn forget_stranger(&self, lock: &WriteLock, mac: &MacAddr) {
        if let Err(error) = self.try_to_forget(lock, mac) {
            tracing::warn!(%mac, "cannot forget that it was unknown: {}", chain(&error));
        }
    }

    fn try_to_forget(&self, lock: &WriteLock, mac: &MacAddr) -> Result<()> {
        if let Some(book) = self.strangers_book().as_mut() {
            book.is_other |= book.seen.remove(mac).is_some();
        }
        for path in self.all_strangers()? {
            let Some(mut kept) = document::read::<Kept>(&path)? else {
                continue;
            };
            let before = kept.strangers.len();
            kept.strangers.retain(|one| one.mac != *mac);
            if kept.strangers.len() != before {
                document::put(lock, &path, &kept)?;
            }
        }
        Ok(())
    }

    fn strangers_book(&self) -> MutexGuard<'_, Option<Book>> {
        // A panic beside it loses one machine's mark at most.
        let book = self.strangers.book.lock();
        let mut book = book.unwrap_or_else(PoisonError::into_inner);
        if book.is_none() {
            *book = Some(self.read_strangers());
        }
        book
    }

    /// What all servers wrote down. They are only a help for adoption: what cannot be read is told, and
    /// those machines will ask again.
    fn read_strangers(&self) -> Book {
        let mut book = Book::default();
        let paths = self.all_strangers().unwrap_or_else(|error| {
            tracing::warn!("unknown machines are not remembered: {}", chain(&error));
            Vec::new()
        });
        for path in paths {
            match document::read::<Kept>(&path) {
                Ok(kept) => {
                    let found = kept.unwrap_or_default().strangers.into_iter();
                    for mut one in found.take(MOST) {
                        one.hardware = one.hardware.harmless();
                        let there = book.seen.get(&one.mac);
                        if there.is_none_or(|there| there.stranger.last < one.last) {
                            let net = network(one.peer);
                            book.seen.insert(one.mac, Seen { stranger: one, net });
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!("unknown machines are not remembered: {}", chain(&error));
                }
            }
        }
        book
    }

    fn all_strangers(&self) -> Result<Vec<PathBuf>> {
        let dir = self.places().strangers();
        let names = document::names(&dir)?.into_iter();
        Ok(names.map(|name| dir.join(format!("{name}.json"))).collect())
    }

    fn own_strangers(&self) -> PathBuf {
        let name = format!("{}.json", self.server_name());
        self.places().strangers().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn mac(last: u16) -> MacAddr {
        let [high, low] = last.to_be_bytes();
        MacAddr::new([2, 0, 0, 0, high, low]).unwrap()
    }

    fn peer(last: u16) -> IpAddr {
        let [high, low] = last.to_be_bytes();
        IpAddr::from([192, 0, high, low])
    }

    fn saw(book: &mut Book, of: u16, from: u16, seconds: i64) -> bool {
        book.saw(mac(of), Hardware::default(), peer(from), at(seconds))
    }

    #[test]
    fn they_are_bounded_in_all_and_of_one_network() {
        let mut book = Book::default();
        assert!(saw(&mut book, 1, 1, 0));
        assert!(!saw(&mut book, 1, 2, 1), "no news");
        let first = &book.latest_first()[0];
        assert_eq!((first.times, first.peer), (2, peer(2)));
        let of = |book: &Book, net| {
            let mut of: Vec<MacAddr> = book
                .seen
                .values()
                .filter(|one| one.net == net)
                .map(|one| one.stranger.mac)
                .collect();
            of.sort();
            of
        };
        for n in 10..1000 {
            assert!(saw(&mut book, n, 9, 3 + i64::from(n)));
        }
        let latest: Vec<MacAddr> = (992..1000).map(mac).collect();
        assert_eq!(
            of(&book, peer(9)),
            latest,
            "an address has the latest of its own"
        );
        let net = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
        for n in 1000..1100 {
            book.saw(mac(n), Hardware::default(), net(n), at(2000));
        }
        assert_eq!(
            of(&book, net(0)).len(),
            MOST_OF_IPV6,
            "an IPv6 network counts as one place"
        );
        // Who says that he is another's machine takes no place of his, and none from it.
        saw(&mut book, 1, 9, 2001);
        assert_eq!(
            (of(&book, peer(9)), of(&book, peer(1))),
            (latest, vec![mac(1)])
        );
        for n in 2000..3000 {
            assert!(saw(&mut book, n, n, 2000 + i64::from(n)));
        }
        assert_eq!(book.seen.len(), MOST);
        assert_eq!(book.latest_first()[0].mac, mac(2999), "the latest first");
        book.forget_old(at(4999) + REMEMBERED);
        assert!(book.seen.is_empty());
    }

    #[test]
    fn they_are_written_down_when_somebody_came_and_now_and_then() {
        let mut book = Book::default();
        assert!(book.due(at(0)).is_none(), "nobody is there");
        saw(&mut book, 1, 1, 0);
        assert_eq!(book.due(at(5)).unwrap().strangers.len(), 1);
        saw(&mut book, 1, 1, 6);
        assert!(book.due(at(10)).is_none(), "it only asked again");
        assert_eq!(book.due(at(605)).unwrap().strangers[0].times, 2);
        assert!(book.due(at(9999)).is_none());
        assert!(book.due(at(6) + REMEMBERED).unwrap().strangers.is_empty());
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let (_dir, library) = Library::temporary();
        assert!(library.saw_stranger(mac(1), Hardware::default(), peer(1), at(0)));
        let place = library.places().strangers();
        std::fs::remove_dir(&place).unwrap();
        std::fs::write(&place, "in the way").unwrap();
        assert!(library.keep_strangers(at(1)).is_err());
        std::fs::remove_file(&place).unwrap();
        library.keep_strangers(at(2)).unwrap();
        assert!(library.own_strangers().is_file());
    }

    #[test]
    fn what_they_tell_is_short_and_steers_nothing() {
        let told = Hardware {
            uuid: Some("\u{1b}[2J".repeat(1000)),
            serial: Some("  ".into()),
            asset: Some(" 4711\u{202e}\n".into()),
            ..Hardware::default()
        }
        .harmless();
        assert_eq!(told.uuid.unwrap().chars().count(), LONGEST);
        assert_eq!(
            (told.serial, told.asset),
            (None, Some("4711\u{fffd}".into()))
        );
    }
}

//! Who has the connections of a listener. Nobody keeps others out: when all places are taken, those who
//! have most of them give way, and first with what they do nothing with.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::network;
use super::peer::Peer;

/// The connections of a listener.
pub(super) struct Seats {
    most: usize,
    // Held for a look or a change in memory, never across an await.
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    by_number: HashMap<u64, Connection>,
    next: u64,
}

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    /// Whoever has this address, or this network of IPv6.
    Network(IpAddr),
    /// A user of this host.
    User(u32),
}

struct Connection {
    owner: Owner,
    /// A request was heard whole, and its answer is not sent yet.
    answering: bool,
    /// Since when that is so.
    since: Instant,
    gives_way: Arc<Notify>,
}

/// The place of a connection, until it is dropped.
#[derive(Clone)]
pub(super) struct Seat(Arc<Held>);

struct Held {
    seats: Arc<Seats>,
    number: u64,
    gives_way: Arc<Notify>,
}

/// An answer is on its way until this is dropped.
pub(super) struct Answering(Seat);

impl Seats {
    /// So many connections at a time.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Seats {
            most,
            taken: Mutex::default(),
        })
    }

    /// A place for a new connection. Where none is free, another connection gives way; nothing where all
    /// have as good a right to theirs.
    pub(super) fn enter(self: &Arc<Self>, peer: &Peer) -> Option<Seat> {
        let owner = Owner::of(peer);
        let mut taken = self.taken();
        if taken.by_number.len() >= self.most {
            let leaves = taken.gives_way_to(owner)?;
            // It counts no more from now on, however long its end takes.
            let leaves = taken.by_number.remove(&leaves);
            leaves.inspect(|connection| connection.gives_way.notify_one());
        }
        let number = taken.next;
        taken.next += 1;
        let gives_way = Arc::new(Notify::new());
        let connection = Connection {
            owner,
            answering: false,
            since: Instant::now(),
            gives_way: gives_way.clone(),
        };
        taken.by_number.insert(number, connection);
        Some(Seat(Arc::new(Held {
            seats: self.clone(),
            number,
            gives_way,
        })))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // A panic elsewhere leaves the map whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The connection that somebody else needs more.
    fn gives_way_to(&self, newcomer: Owner) -> Option<u64> {
        let mut of_owner: HashMap<Owner, usize> = HashMap::new();
        for connection in self.by_number.values() {
            *of_owner.entry(connection.owner).or_default() += 1;
        }
        let count = |owner: &Owner| of_owner.get(owner).copied().unwrap_or(0);
        let most = of_owner.values().copied().max()?;
        let has_most = |connection: &Connection| count(&connection.owner) == most;
        let idle = self.oldest(|one| !one.answering && has_most(one));
        // Two with as many places take none from each other.
        let unfair = most > count(&newcomer) + 1;
        let busy = || self.oldest(has_most).filter(|_| unfair);
        idle.or_else(busy)
            .or_else(|| self.oldest(|one| !one.answering))
    }

    fn oldest(&self, of: impl Fn(&Connection) -> bool) -> Option<u64> {
        let candidates = self.by_number.iter().filter(|(_, one)| of(one));
        let oldest = candidates.min_by_key(|(number, one)| (one.since, **number));
        oldest.map(|(number, _)| *number)
    }
}

impl Owner {
    fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Network { from, .. } => Owner::Network(network(from.ip())),
            Peer::Local { uid, .. } => Owner::User(*uid),
        }
    }
}

impl Seat {
    /// A request was heard whole; what is returned goes with its answer.
    pub(super) fn answers(&self) -> Answering {
        self.set(true);
        Answering(self.clone())
    }

    /// Resolves when the connection has to end for the sake of another.
    pub(super) async fn gives_way(&self) {
        self.0.gives_way.notified().await;
    }

    fn set(&self, answering: bool) {
        if let Some(own) = self.0.seats.taken().by_number.get_mut(&self.0.number) {
            own.answering = answering;
            own.since = Instant::now();
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.seats.taken().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: &str) -> Peer {
        Peer::Network {
            from: (ip.parse::<IpAddr>().unwrap(), 4000).into(),
            local: (IpAddr::from([192, 0, 2, 1]), 80).into(),
            over: super::super::peer::Scheme::Http,
        }
    }

    fn is_gone(seat: &Seat) -> bool {
        let gone = seat.0.gives_way.notified();
        futures_util::FutureExt::now_or_never(gone).is_some()
    }

    #[test]
    fn who_has_most_gives_way_and_first_what_is_idle() {
        let seats = Seats::new(4);
        let (greedy, other) = (peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        let honest = seats.enter(&other).unwrap();
        let first = seats.enter(&greedy).unwrap();
        // Of the same network, whatever its address.
        let second = seats.enter(&peer("2001:db8::2")).unwrap();
        let third = seats.enter(&greedy).unwrap();
        let answers = first.answers();
        let newcomer = seats.enter(&other).unwrap();
        assert!(is_gone(&second), "the oldest that does nothing");
        assert!(!is_gone(&first) && !is_gone(&third) && !is_gone(&honest));
        drop((answers, newcomer));
        let again = seats.enter(&greedy).unwrap();
        assert!(!is_gone(&first), "there was a place");
        let answering: Vec<_> = [&first, &third, &again].map(Seat::answers).into();
        let news = seats.enter(&other).unwrap();
        assert!(is_gone(&first), "three are more than two");
        let mine = [&honest, &news].map(Seat::answers);
        assert!(seats.enter(&other).is_none(), "two each is fair");
        assert!(seats.enter(&greedy).is_none());
        drop((answering, mine));
    }

    #[test]
    fn a_crowd_of_idle_ones_gives_way_to_anybody() {
        let seats = Seats::new(2);
        let one = seats.enter(&peer("192.0.2.7")).unwrap();
        let other = seats.enter(&peer("192.0.2.8")).unwrap();
        let _new = seats.enter(&peer("192.0.2.9")).unwrap();
        assert!(is_gone(&one) && !is_gone(&other));
    }
}

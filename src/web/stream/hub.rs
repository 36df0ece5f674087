//! Who watches what, and the one task that draws for all of them.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::Stream;
use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::drawing::{Drawing, Patch, Topic};
use crate::daemon::{Peer, Place, Places, Server, network};
use crate::web::Who;

/// Pages that may be kept up to date at a time: of one login,
const OF_LOGIN: u64 = 16;
/// of one user in several browsers,
const OF_USER: u64 = 48;
/// from one network, which may be everybody's where a proxy stands before the server,
const OF_NETWORK: u64 = 512;
/// and of all.
const OF_ALL: u64 = 2048;

/// How often what is watched is drawn again, if nothing nudges the server.
const EVERY: Duration = Duration::from_secs(1);

/// However often it is nudged, others get the processor too.
const PAUSE: Duration = Duration::from_millis(100);

/// Where so many pieces have changed at once, a whole room is booting: nobody reads ten such drawings a
/// second, and all who watch have to be sent them.
const MANY: usize = 100;

/// Drawings that may wait for a slow watcher.
const WAITING: usize = 16;

/// What is gone is told for so long to pages that were drawn before; and so long after a page was shown
/// it may still begin to watch.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A drawing takes a while, and may have begun before a page that knows less: in milliseconds.
const WHILE_DRAWN: i64 = 1000;

/// The changes of one drawing, each as JSON.
type Batch = Arc<[Arc<str>]>;

/// All topics that are watched.
pub(in crate::web) struct Hub {
    of_login: Arc<Places<String>>,
    of_user: Arc<Places<String>>,
    of_network: Arc<Places<Option<IpAddr>>>,
    // Held for a look or a change in memory, never across an await or a drawing.
    board: Arc<Mutex<Board>>,
}

#[derive(Default)]
struct Board {
    watched: HashMap<String, Watched>,
    /// Whether the task runs.
    drawing: bool,
}

struct Watched {
    topic: Arc<dyn Topic>,
    sender: broadcast::Sender<Batch>,
    /// Nothing before it was drawn first.
    drawn: Option<Arc<Drawing>>,
    /// Pages that were drawn before cannot be told what they have missed: in milliseconds since the
    /// epoch. 0: no drawing was there, and the first one told everything.
    begun: i64,
    /// When a page of it was shown last, which may not watch yet.
    shown: Option<Instant>,
    /// When each piece changed last, in milliseconds since the epoch.
    changed: HashMap<String, i64>,
}

/// What a watcher hears.
pub(super) enum Heard {
    /// A change, as JSON.
    Patch(Arc<str>),
    /// It was too slow, and has missed some.
    Missed,
}

/// A page that is kept up to date while this lives.
pub(super) struct Watcher {
    missed: bool,
    queue: VecDeque<Arc<str>>,
    receiver: broadcast::Receiver<Batch>,
    _places: Watching,
}

/// The places that a watcher takes.
type Watching = (Place<String>, Place<String>, Place<Option<IpAddr>>);

impl Default for Hub {
    fn default() -> Self {
        Hub {
            of_login: Places::new(OF_LOGIN, OF_ALL),
            of_user: Places::new(OF_USER, OF_ALL),
            of_network: Places::new(OF_NETWORK, OF_ALL),
            board: Arc::default(),
        }
    }
}

impl Hub {
    /// A page shows a topic as `draw` draws it, and was asked for at `asked`: what changes from now on
    /// is all that it will have to be told. Else the first drawing of a topic tells everything.
    pub(in crate::web) fn shows(
        &self,
        name: &str,
        topic: Arc<dyn Topic>,
        asked: i64,
        draw: impl Fn(&mut Drawing),
    ) {
        loop {
            let before = match lock(&self.board).watched.get_mut(name) {
                Some(watched) if watched.is_watched() => {
                    // The task compares with what it drew at most a second ago.
                    watched.shown = Some(Instant::now());
                    return;
                }
                Some(watched) => watched.drawn.clone(),
                None => None,
            };
            let mut drawing = match &before {
                Some(_) => Drawing::after(before.clone()),
                None => Drawing::sketch(),
            };
            draw(&mut drawing);
            let mut board = lock(&self.board);
            board.forget();
            let watched = board
                .watched
                .entry(name.to_owned())
                .or_insert_with(|| Watched::new(topic.clone()));
            if watched.follows(before.as_ref()) {
                watched.shown = Some(Instant::now());
                watched.shown_as(drawing.finished(), asked);
                return;
            }
        }
    }

    /// Watches a topic from the page on that was drawn at `since`; nothing where `who` watches too many
    /// from `peer`.
    pub(super) fn watch(
        &self,
        server: &Arc<Server>,
        (who, peer): (&Who, &Peer),
        name: &str,
        topic: Arc<dyn Topic>,
        since: i64,
    ) -> Option<Watcher> {
        let places = self.take(who, peer)?;
        let mut board = lock(&self.board);
        let watched = board
            .watched
            .entry(name.to_owned())
            .or_insert_with(|| Watched::new(topic));
        if since == 0 && watched.begun > 0 {
            watched.tell_everything();
        }
        let watcher = Watcher {
            missed: watched.drawn.is_some() && since + WHILE_DRAWN < watched.begun,
            queue: watched.since(since),
            receiver: watched.sender.subscribe(),
            _places: places,
        };
        if watched.drawn.is_none() {
            server.nudge();
        }
        if !board.drawing {
            board.drawing = true;
            tokio::spawn(draw_all(server.clone(), self.board.clone()));
        }
        Some(watcher)
    }

    /// Nobody keeps pages of others from being kept up to date.
    fn take(&self, who: &Who, peer: &Peer) -> Option<Watching> {
        // Users of this host have no login of their own.
        let login = format!("{} {}", who.name, who.csrf);
        let from = match peer {
            Peer::Network { from, .. } => Some(network(from.ip())),
            Peer::Local { .. } => None,
        };
        Some((
            self.of_login.take(login, 1)?,
            self.of_user.take(who.name.clone(), 1)?,
            self.of_network.take(from, 1)?,
        ))
    }
}

impl Watcher {
    /// What changes, for ever, or until something was missed.
    pub(super) fn heard(self) -> impl Stream<Item = Heard> {
        futures_util::stream::unfold(Some(self), |watcher| async move {
            let mut watcher = watcher?;
            if watcher.missed {
                return Some((Heard::Missed, None));
            }
            loop {
                if let Some(patch) = watcher.queue.pop_front() {
                    return Some((Heard::Patch(patch), Some(watcher)));
                }
                match watcher.receiver.recv().await {
                    Ok(batch) => watcher.queue.extend(batch.iter().cloned()),
                    Err(RecvError::Lagged(_)) => return Some((Heard::Missed, None)),
                    Err(RecvError::Closed) => return None,
                }
            }
        })
    }
}

impl Watched {
    fn new(topic: Arc<dyn Topic>) -> Self {
        Watched {
            topic,
            sender: broadcast::Sender::new(WAITING),
            drawn: None,
            begun: 0,
            shown: None,
            changed: HashMap::new(),
        }
    }

    fn is_watched(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Whether somebody watches, or may be about to.
    fn is_wanted(&self) -> bool {
        let shown = self.shown.is_some_and(|at| at.elapsed() < REMEMBERED);
        shown || self.is_watched()
    }

    /// Whether this is the drawing that the next one is to be compared with: nobody was quicker.
    fn follows(&self, before: Option<&Arc<Drawing>>) -> bool {
        match (&self.drawn, before) {
            (Some(drawn), Some(before)) => Arc::ptr_eq(drawn, before),
            (drawn, before) => drawn.is_none() && before.is_none(),
        }
    }

    /// Takes in what a page shows that was asked for at `asked`.
    fn shown_as(&mut self, drawing: Drawing, asked: i64) {
        match self.drawn {
            Some(_) => {
                self.redrawn(drawing, Timestamp::now().as_millisecond());
            }
            None => (self.begun, self.drawn) = (asked, Some(Arc::new(drawing))),
        }
    }

    /// The next drawing is a first one: somebody wants to hear all of it.
    fn tell_everything(&mut self) {
        (self.begun, self.drawn) = (0, None);
        self.changed.clear();
    }

    /// What a page has missed that was drawn at `since`.
    fn since(&self, since: i64) -> VecDeque<Arc<str>> {
        let Some(drawn) = &self.drawn else {
            return VecDeque::new();
        };
        let since = since.saturating_sub(WHILE_DRAWN);
        let missed = self.changed.iter().filter(|(_, at)| **at >= since);
        let mut missed: Vec<&String> = missed.map(|(id, _)| id).collect();
        missed.sort();
        missed.into_iter().flat_map(|id| told(drawn, id)).collect()
    }

    /// Takes in a new drawing, and tells everybody what is new in it; the number of these pieces.
    fn redrawn(&mut self, drawing: Drawing, now: i64) -> usize {
        let before = self.drawn.take().unwrap_or_default();
        let changed = drawing.changed_since(&before);
        let number = changed.len();
        let patches = changed.iter().flat_map(|id| match before.has(id) {
            // Whoever watches has it, or shows only a part.
            true => drawing.patches(id).into_iter().take(1),
            false => drawing.patches(id).into_iter().take(usize::MAX),
        });
        let batch: Batch = patches.filter_map(|patch| json(&patch)).collect();
        for id in changed {
            self.changed.insert(id.to_owned(), now);
        }
        let old = now - i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX);
        self.changed.retain(|id, at| *at > old || drawing.has(id));
        self.drawn = Some(Arc::new(drawing));
        if !batch.is_empty() {
            // Whoever watched may have left meanwhile.
            let _ = self.sender.send(batch);
        }
        number
    }
}

/// What a page is told of a piece that it may have or not.
fn told(drawing: &Drawing, id: &str) -> impl Iterator<Item = Arc<str>> + use<> {
    let patches = drawing.patches(id).into_iter();
    patches.filter_map(|patch| json(&patch))
}

fn json(patch: &Patch) -> Option<Arc<str>> {
    Some(serde_json::to_string(patch).ok()?.into())
}

/// Draws what is watched until nobody watches anything, or the server ends.
async fn draw_all(server: Arc<Server>, board: Arc<Mutex<Board>>) {
    loop {
        let Some(topics) = lock(&board).watched() else {
            return;
        };
        let mut most = 0;
        for (name, topic, before) in topics {
            let mut drawing = Drawing::after(before.clone());
            let drawn = server.call(move |server| {
                let drawn = topic.draw(server, &mut drawing);
                drawn.map(|()| drawing.finished())
            });
            match drawn.await {
                Some(Ok(drawing)) => {
                    let now = Timestamp::now().as_millisecond();
                    let mut board = lock(&board);
                    match board.watched.get_mut(&name) {
                        Some(watched) if watched.follows(before.as_ref()) => {
                            most = most.max(watched.redrawn(drawing, now));
                        }
                        // It is made of another one than it would be compared with.
                        Some(_) => server.nudge(),
                        None => {}
                    }
                }
                // What is shown stays as it is; a page that is loaded anew says what is wrong.
                Some(Err(error)) => tracing::debug!(%error, topic = name, "cannot be drawn"),
                None => {}
            }
        }
        let pause = if most > MANY { EVERY } else { PAUSE };
        tokio::select! {
            () = server.ending() => break,
            () = tokio::time::sleep(pause) => {}
        }
        tokio::select! {
            () = server.ending() => break,
            () = server.nudged() => {}
            () = tokio::time::sleep(EVERY - pause) => {}
        }
    }
    lock(&board).drawing = false;
}

/// A topic to be drawn, and what it is compared with.
type ToDraw = (String, Arc<dyn Topic>, Option<Arc<Drawing>>);

impl Board {
    /// The topics that somebody watches; nothing where there is none, and then the task is over.
    fn watched(&mut self) -> Option<Vec<ToDraw>> {
        self.forget();
        let watched = self.watched.iter().filter(|(_, it)| it.is_watched());
        let topics: Vec<ToDraw> = watched
            .map(|(name, it)| (name.clone(), it.topic.clone(), it.drawn.clone()))
            .collect();
        self.drawing = !topics.is_empty();
        self.drawing.then_some(topics)
    }

    /// Lets go of what nobody wants any more.
    fn forget(&mut self) {
        self.watched.retain(|_, it| it.is_wanted());
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    // A panic elsewhere leaves the board whole: each drawing is put into it in one go.
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library;
    use askama::Template;
    use futures_util::StreamExt;

    #[derive(Template)]
    #[template(source = "<b>{{ number }}</b>", ext = "html")]
    struct Number {
        number: usize,
    }

    /// Drawn by the tests themselves.
    struct Nothing;

    impl Topic for Nothing {
        fn draw(&self, _: &Server, _: &mut Drawing) -> library::Result<()> {
            Ok(())
        }
    }

    fn drawing(numbers: &[(&str, usize)]) -> Drawing {
        let mut drawing = Drawing::default();
        for (id, number) in numbers {
            drawing.piece(*id, &Number { number: *number });
        }
        drawing
    }

    fn watcher(watched: &Watched, since: i64) -> Watcher {
        Watcher {
            missed: false,
            queue: watched.since(since),
            receiver: watched.sender.subscribe(),
            _places: Hub::default().take(&who("alice", "a"), &SOCKET).unwrap(),
        }
    }

    const SOCKET: Peer = Peer::Local { uid: 0, pid: 1 };

    fn who(name: &str, login: &str) -> Who {
        Who {
            name: name.to_owned(),
            role: library::Role::Viewer,
            actor: library::Actor::Server,
            csrf: login.to_owned(),
            login: None,
        }
    }

    #[test]
    fn nobody_watches_so_much_that_others_cannot() {
        let hub = Hub::default();
        let at = |host: u8| Peer::Network {
            from: ([192, 0, 2, host], 4000).into(),
            local: ([192, 0, 2, 1], 8081).into(),
            over: crate::daemon::Scheme::Http,
        };
        let all = |name: &str, login: &str| {
            let who = who(name, login);
            let taken = (0..1000).map_while(|_| hub.take(&who, &at(7)));
            taken.collect::<Vec<_>>()
        };
        let of_alice = all("alice", "a");
        assert_eq!(of_alice.len() as u64, OF_LOGIN);
        let more = ["b", "c", "d"].map(|login| all("alice", login));
        let more: usize = more.iter().map(Vec::len).sum();
        assert_eq!((of_alice.len() + more) as u64, OF_USER);
        assert!(hub.take(&who("bob", "z"), &at(7)).is_some());
        drop(of_alice);
        assert!(hub.take(&who("alice", "a"), &at(7)).is_some());
        let crowd: Vec<_> = (0..100).map(|n| all(&format!("user-{n}"), "x")).collect();
        let crowd: usize = crowd.iter().map(Vec::len).sum();
        assert!(crowd as u64 <= OF_NETWORK);
    }

    /// All that a watcher hears until the topic is gone.
    async fn all(watcher: Watcher) -> Vec<String> {
        let heard = watcher.heard().map(|heard| match heard {
            Heard::Patch(patch) => patch.to_string(),
            Heard::Missed => "missed".to_owned(),
        });
        heard.collect().await
    }

    #[tokio::test]
    async fn a_page_hears_what_it_missed_and_what_changes() {
        let mut watched = Watched::new(Arc::new(Nothing));
        watched.redrawn(drawing(&[("a", 1), ("b", 1), ("c", 1)]), 10_000);
        watched.redrawn(drawing(&[("a", 2), ("b", 1)]), 20_000);
        let (late, early) = (watcher(&watched, 20_500), watcher(&watched, 15_000));
        watched.redrawn(drawing(&[("a", 2), ("b", 2)]), 30_000);
        let newest = watcher(&watched, 40_000);
        drop(watched);
        let op = |op: &str, id: &str, html: &str| {
            format!("{{\"op\":\"{op}\",\"id\":\"{id}\",\"html\":\"{html}\"}}")
        };
        let told = [
            op("replace", "a", "<b>2</b>"),
            op("remove", "c", ""),
            op("replace", "b", "<b>2</b>"),
        ];
        assert_eq!(all(early).await, told);
        let why = "a drawing may be older than its page";
        assert_eq!(all(late).await, told, "{why}");
        assert!(all(newest).await.is_empty());
    }

    fn moment() -> i64 {
        Timestamp::now().as_millisecond()
    }

    #[test]
    fn a_topic_that_a_page_just_showed_is_not_told_all_over_again() {
        let hub = Hub::default();
        let shows = |hub: &Hub, number: usize| {
            hub.shows("n", Arc::new(Nothing), moment(), |drawing| {
                drawing.piece_of("a", &1, &Number { number: 1 });
                drawing.piece_of("b", &number, &Number { number });
            });
        };
        let told = |hub: &Hub, since: i64| {
            let board = lock(&hub.board);
            board.watched["n"].since(since)
        };
        let first = moment();
        shows(&hub, 1);
        assert!(told(&hub, first).is_empty());
        shows(&hub, 2);
        let changes = told(&hub, first);
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].contains("<b>2</b>"), "{changes:?}");
        assert_eq!(lock(&hub.board).watched().map(|all| all.len()), None);
        assert_eq!(lock(&hub.board).watched.len(), 1, "it may still be watched");
        let long_ago = Instant::now().checked_sub(REMEMBERED);
        lock(&hub.board).watched.get_mut("n").unwrap().shown = long_ago;
        lock(&hub.board).forget();
        assert!(lock(&hub.board).watched.is_empty());
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_to_look_anew() {
        let mut watched = Watched::new(Arc::new(Nothing));
        let slow = watcher(&watched, 0);
        for number in 0..WAITING * 2 {
            watched.redrawn(drawing(&[("a", number)]), 1000);
        }
        assert_eq!(all(slow).await, ["missed"]);
    }
}

//! Requests over HTTP, counted without locks and read by whoever watches.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a request was for. Few, so that whoever keeps the counts keeps few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// A script of the boot service.
    BootScript,
    /// A kernel or an initramfs.
    BootFile,
    /// The API.
    Api,
    /// What keeps pages up to date.
    Stream,
    /// Style and script of pages.
    Asset,
    /// What watches the server.
    Watch,
    /// Everything else: pages and their forms.
    Page,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Endpoint; 7] = [
        Endpoint::BootScript,
        Endpoint::BootFile,
        Endpoint::Api,
        Endpoint::Stream,
        Endpoint::Asset,
        Endpoint::Watch,
        Endpoint::Page,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Endpoint::BootScript => "boot-script",
            Endpoint::BootFile => "boot-file",
            Endpoint::Api => "api",
            Endpoint::Stream => "stream",
            Endpoint::Asset => "asset",
            Endpoint::Watch => "watch",
            Endpoint::Page => "page",
        }
    }
}

/// Answers, by what was asked for and by the class of their status.
#[derive(Debug, Default)]
pub struct Requests([[AtomicU64; Requests::CLASSES.len()]; Endpoint::ALL.len()]);

impl Requests {
    /// The classes of statuses that end a request (RFC 9110 §15).
    pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

    /// One was answered with this status.
    pub fn answered(&self, endpoint: Endpoint, status: u16) {
        let class = usize::from(status / 100).checked_sub(2);
        let of_it = self.0.get(endpoint as usize);
        if let Some(count) = class.and_then(|class| of_it?.get(class)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// All counts: endpoint, class, how many.
    pub fn counts(&self) -> impl Iterator<Item = (Endpoint, &'static str, u64)> {
        let endpoints = Endpoint::ALL.into_iter().zip(&self.0);
        endpoints.flat_map(|(endpoint, classes)| {
            let classes = Self::CLASSES.into_iter().zip(classes);
            classes.map(move |(class, count)| (endpoint, class, count.load(Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class() {
        let requests = Requests::default();
        for status in [200, 201, 304, 404, 503, 101, 99, 600] {
            requests.answered(Endpoint::Page, status);
        }
        let counts: Vec<_> = requests.counts().filter(|(.., count)| *count > 0).collect();
        let page = |class, count| (Endpoint::Page, class, count);
        assert_eq!(
            counts,
            [
                page("2xx", 2),
                page("3xx", 1),
                page("4xx", 1),
                page("5xx", 1)
            ]
        );
        assert_eq!(requests.counts().count(), 28);
        // Their places are their order.
        assert!((0..).zip(Endpoint::ALL).all(|(at, one)| one as usize == at));
    }
}

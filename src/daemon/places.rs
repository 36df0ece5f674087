//! Something that there is so much of: each has a share of it, and all together no more than there is.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is shared, by who has it.
pub struct Places<K> {
    of_one: u64,
    of_all: u64,
    // Held for a look or a change in memory, never across an await.
    taken: Mutex<Taken<K>>,
}

struct Taken<K> {
    by: HashMap<K, u64>,
    all: u64,
}

/// What somebody has of it, until it is dropped.
pub struct Place<K: Hash + Eq> {
    places: Arc<Places<K>>,
    who: K,
    many: u64,
}

impl<K: Hash + Eq + Clone> Places<K> {
    /// So much for each, and for all together.
    pub fn new(of_one: u64, of_all: u64) -> Arc<Self> {
        let taken = Taken {
            by: HashMap::new(),
            all: 0,
        };
        Arc::new(Places {
            of_one,
            of_all,
            taken: Mutex::new(taken),
        })
    }

    /// So much of it for `who`; nothing where that is more than is left for them. Whoever has nothing yet
    /// gets what they need, however much more than their share.
    pub fn take(self: &Arc<Self>, who: K, many: u64) -> Option<Place<K>> {
        let many = many.min(self.of_one);
        let mut taken = self.taken();
        let own = taken.by.get(&who).copied().unwrap_or(0);
        if own + many > self.of_one || taken.all + many > self.of_all {
            return None;
        }
        taken.all += many;
        taken.by.insert(who.clone(), own + many);
        drop(taken);
        Some(Place {
            places: self.clone(),
            who,
            many,
        })
    }
}

impl<K> Places<K> {
    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        // A panic elsewhere leaves the counts whole: each change is made in one go.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(self.many);
        if let Some(own) = taken.by.get_mut(&self.who) {
            *own = own.saturating_sub(self.many);
            if *own == 0 {
                taken.by.remove(&self.who);
            }
        }
    }
}

impl<K: Hash + Eq> fmt::Debug for Place<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.many).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_a_share_and_all_no_more_than_there_is() {
        let places = Places::new(2, 3);
        let one = places.take("a", 1).unwrap();
        let _two = places.take("a", 1).unwrap();
        assert!(places.take("a", 1).is_none(), "the share of one");
        let three = places.take("b", 1).unwrap();
        assert!(places.take("c", 1).is_none(), "all are taken");
        drop(one);
        let four = places.take("c", 1).unwrap();
        drop((three, four));
        assert_eq!(places.taken().by.len(), 1, "who has none is forgotten");
    }

    #[test]
    fn what_is_larger_than_a_share_is_had_alone() {
        let places = Places::new(10, 20);
        let large = places.take("a", 1000).unwrap();
        assert!(places.take("a", 1).is_none());
        drop(large);
        assert!(places.take("a", 1).is_some());
    }
}

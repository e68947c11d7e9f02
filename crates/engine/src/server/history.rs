//! What ended, in memory only: the newest ten thousand prompts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use serde_json::Value as Json;

const LIMIT: usize = 10_000;

/// Ended prompts by id, oldest first.
#[derive(Debug, Default)]
pub struct History {
    entries: Mutex<IndexMap<String, Arc<Json>>>,
}

impl History {
    /// Adds an entry. A second prompt of the same id takes the place of the first.
    pub fn insert(&self, id: &str, entry: Json) {
        let mut entries = self.lock();
        if entries.len() >= LIMIT && !entries.contains_key(id) {
            entries.shift_remove_index(0);
        }
        entries.insert(id.to_owned(), Arc::new(entry));
    }

    /// One entry.
    pub fn get(&self, id: &str) -> Option<Arc<Json>> {
        self.lock().get(id).cloned()
    }

    /// `max_items` entries from `offset`; without an offset the newest ones.
    pub fn list(&self, max_items: Option<i64>, offset: Option<i64>) -> IndexMap<String, Arc<Json>> {
        let entries = self.lock();
        let skip = match (offset.filter(|o| *o >= 0), max_items) {
            (Some(offset), _) => offset,
            (None, Some(max)) => entries.len() as i64 - max,
            (None, None) => 0,
        };
        let skip = usize::try_from(skip).unwrap_or(0);
        // The original adds first and counts then: even a limit of 0 gives one entry where one is left.
        let take = max_items.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(0).max(1));
        entries
            .iter()
            .skip(skip)
            .take(take)
            .map(|(id, entry)| (id.clone(), Arc::clone(entry)))
            .collect()
    }

    /// Forgets one.
    pub fn remove(&self, id: &str) {
        self.lock().shift_remove(id);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, IndexMap<String, Arc<Json>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_from_the_oldest_or_the_newest() {
        let history = History::default();
        ["a", "b", "c", "d"]
            .iter()
            .for_each(|id| history.insert(id, Json::Null));
        let ids = |max, offset| history.list(max, offset).into_keys().collect::<String>();
        assert_eq!(ids(None, None), "abcd");
        assert_eq!(ids(Some(2), None), "cd");
        assert_eq!(ids(Some(2), Some(1)), "bc");
        assert_eq!(ids(None, Some(3)), "d");
        assert_eq!(ids(Some(9), None), "abcd");
    }

    #[test]
    fn the_oldest_makes_room() {
        let history = History::default();
        (0..=LIMIT).for_each(|i| history.insert(&i.to_string(), Json::Null));
        assert!(history.get("0").is_none() && history.get("1").is_some());
    }
}

//! Versions that were called lately, in memory: they never change.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use darkroom_core::workflow::Version;

use super::{Loaded, WorkflowKey};

/// Versions that are kept, in bytes of what they hold as JSON; in memory they take about three times that.
const MOST_BYTES: usize = 32 << 20;

/// The versions that were called last.
#[derive(Debug, Default)]
pub struct Cache(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    versions: HashMap<(WorkflowKey, Version), Kept>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    loaded: Loaded,
    last_use: u64,
}

impl Cache {
    /// A version that is kept.
    pub(super) fn get(&self, key: &WorkflowKey, version: Version) -> Option<Loaded> {
        let mut known = self.lock();
        known.uses += 1;
        let now = known.uses;
        let kept = known.versions.get_mut(&(key.clone(), version))?;
        kept.last_use = now;
        Some(kept.loaded.clone())
    }

    /// Keeps one, in place of those that were not used for longest. One that would fill a quarter alone is not kept.
    pub(super) fn put(&self, key: &WorkflowKey, loaded: &Loaded) {
        if loaded.size > MOST_BYTES / 4 {
            return;
        }
        let mut known = self.lock();
        let place = (key.clone(), loaded.record.version);
        known.forget(&place);
        while known.bytes + loaded.size > MOST_BYTES {
            let oldest = known.versions.iter().min_by_key(|(_, kept)| kept.last_use);
            let Some(oldest) = oldest.map(|(place, _)| place.clone()) else {
                break;
            };
            known.forget(&oldest);
        }
        known.uses += 1;
        known.bytes += loaded.size;
        let kept = Kept {
            loaded: loaded.clone(),
            last_use: known.uses,
        };
        known.versions.insert(place, kept);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget(&mut self, place: &(WorkflowKey, Version)) {
        if let Some(gone) = self.versions.remove(place) {
            self.bytes -= gone.loaded.size;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use darkroom_comfy::published::Published;
    use darkroom_core::Timestamp;

    use super::*;
    use crate::service::published::{Definition, VersionRecord};

    fn loaded(number: u32, size: usize) -> Loaded {
        Loaded {
            record: VersionRecord {
                version: Version::new(number).unwrap(),
                endpoint: "default".parse().unwrap(),
                note: String::new(),
                published_at: Timestamp::ZERO,
                published_by: String::new(),
                size: size as u64,
            },
            definition: Arc::new(Definition {
                description: String::new(),
                published: Published {
                    graph: serde_json::json!({}),
                    inputs: vec![],
                    outputs: vec![],
                    seeds: vec![],
                },
                workflow: None,
                unchecked: false,
            }),
            size,
        }
    }

    #[test]
    fn it_is_bounded_by_bytes_and_what_is_used_stays() {
        let cache = Cache::default();
        let key = WorkflowKey {
            tenant: "t".parse().unwrap(),
            id: "w".parse().unwrap(),
        };
        let has = |number| cache.get(&key, Version::new(number).unwrap()).is_some();
        for number in 1..=4 {
            cache.put(&key, &loaded(number, MOST_BYTES / 4));
        }
        assert!(has(1) && has(2) && has(3) && has(4));
        assert!(has(1));
        cache.put(&key, &loaded(5, MOST_BYTES / 4));
        assert!(has(1) && !has(2) && has(5), "what was not used for longest went");
        cache.put(&key, &loaded(6, MOST_BYTES / 4 + 1));
        assert!(!has(6) && has(1), "one alone does not drive out the rest");
        // The same again is not counted twice.
        cache.put(&key, &loaded(5, 10));
        assert_eq!(cache.lock().bytes, MOST_BYTES / 4 * 3 + 10);
        for number in 10..2000 {
            cache.put(&key, &loaded(number, 100));
        }
        assert!(has(1), "many small ones fit");
    }
}

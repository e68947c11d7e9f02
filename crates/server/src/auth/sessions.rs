//! Sessions of browsers and one-time links, in memory: random ids that stand for a key. They end with the process,
//! with their key, and with time.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use darkroom_core::{Ids, Timestamp};

use super::keyring::{KeyHash, hash_key};

/// A browser stays logged in for this long.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// A link from `darkroom open` is good for this long, once.
pub const LINK_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// More than any installation has browsers; the one that ends first makes room.
const MOST: usize = 10_000;

/// Random ids that stand for keys. The ids are kept only as their hashes.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    entries: Mutex<HashMap<KeyHash, Entry>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: KeyHash,
    ends: Timestamp,
}

impl Sessions {
    /// A new id for this key.
    pub(super) fn open(&self, key: KeyHash, ids: &dyn Ids, now: Timestamp, lifetime: Duration) -> String {
        let mut bytes = [0_u8; 32];
        ids.fill(&mut bytes);
        let id = URL_SAFE_NO_PAD.encode(bytes);
        let mut entries = self.lock();
        if entries.len() >= MOST {
            entries.retain(|_, entry| entry.ends > now);
        }
        if entries.len() >= MOST
            && let Some(first) = entries
                .iter()
                .min_by_key(|(_, entry)| entry.ends)
                .map(|(id, _)| *id)
        {
            entries.remove(&first);
        }
        entries.insert(
            hash_key(&id),
            Entry {
                key,
                ends: now.plus(lifetime),
            },
        );
        id
    }

    /// The key that an id stands for.
    pub(super) fn get(&self, id: &str, now: Timestamp) -> Option<KeyHash> {
        self.get_by_hash(&hash_key(id), now)
    }

    /// The same by the id's hash, which is all that is kept of it.
    pub(super) fn get_by_hash(&self, id: &KeyHash, now: Timestamp) -> Option<KeyHash> {
        let entry = *self.lock().get(id)?;
        (entry.ends > now).then_some(entry.key)
    }

    /// The same, once.
    pub(super) fn take(&self, id: &str, now: Timestamp) -> Option<KeyHash> {
        let entry = self.lock().remove(&hash_key(id))?;
        (entry.ends > now).then_some(entry.key)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<KeyHash, Entry>> {
        // Nothing panics while it is held, and a map of ids is never half-changed.
        self.entries
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use darkroom_ambient::SystemIds;

    use super::*;

    #[test]
    fn ids_end_with_time_and_links_after_one_use() {
        let sessions = Sessions::default();
        let now = Timestamp::from_millis(1_000);
        let id = sessions.open([7; 32], &SystemIds, now, LINK_LIFETIME);
        assert_eq!(sessions.get(&id, now), Some([7; 32]));
        assert_eq!(sessions.get("guess", now), None);
        assert_eq!(sessions.get(&id, now.plus(LINK_LIFETIME)), None);
        assert_eq!(sessions.take(&id, now), Some([7; 32]));
        assert_eq!(sessions.take(&id, now), None);
    }

    #[test]
    fn their_number_is_bounded() {
        let sessions = Sessions::default();
        let now = Timestamp::from_millis(1_000);
        for _ in 0..MOST + 10 {
            sessions.open([7; 32], &SystemIds, now, LINK_LIFETIME);
        }
        assert_eq!(sessions.lock().len(), MOST);
    }
}

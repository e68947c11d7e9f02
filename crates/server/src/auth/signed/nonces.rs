//! Nonces that were used: a signed request counts once.
//!
//! They are remembered in memory, which refuses a repeated request before its signature is even computed, and each is noted in
//! the store as well ([`Verified::nonce`](super::Verified)), so that a restart makes no recorded request good again.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use darkroom_core::Timestamp;

use super::SignatureError;

/// A nonce is remembered for two to three of these: longer than the half hour that a request's time may be off to either side.
const GENERATION_MS: i64 = 15 * 60 * 1000;
const GENERATIONS: usize = 3;
/// Nonces of one app in one generation: 500,000 are 550 requests a second for a quarter of an hour, and 16 MB.
const MOST: usize = 500_000;

/// One nonce of one app, hashed: clients choose their length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce {
    app_key: String,
    hash: [u8; 16],
}

impl Nonce {
    /// The nonce of an app.
    pub fn of(app_key: &str, nonce: &str) -> Nonce {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(app_key.len() as u64).to_le_bytes());
        hasher.update(app_key.as_bytes());
        hasher.update(nonce.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Nonce {
            app_key: app_key.to_owned(),
            hash,
        }
    }

    /// What stands for it, unlike that of any other app's.
    pub fn hash(&self) -> [u8; 16] {
        self.hash
    }
}

/// Used nonces of all apps, in memory. Each app has room of its own, so that none keeps another from being heard.
#[derive(Debug)]
pub struct Nonces {
    remembered: Mutex<Remembered>,
    most: usize,
}

impl Default for Nonces {
    fn default() -> Self {
        Nonces {
            remembered: Mutex::default(),
            most: MOST,
        }
    }
}

#[derive(Debug, Default)]
struct Remembered {
    /// By app key, the newest generation first.
    apps: BTreeMap<String, [HashSet<[u8; 16]>; GENERATIONS]>,
    newest: i64,
}

impl Nonces {
    /// Whether it was used lately.
    pub fn is_used(&self, nonce: &Nonce, now: Timestamp) -> bool {
        self.at(now).has(nonce)
    }

    /// Uses it.
    ///
    /// # Errors
    /// [`SignatureError::NonceUsed`] when somebody was faster, [`SignatureError::Throttled`] when its app has no room left.
    pub fn take(&self, nonce: &Nonce, now: Timestamp) -> Result<(), SignatureError> {
        let mut remembered = self.at(now);
        if remembered.has(nonce) {
            return Err(SignatureError::NonceUsed);
        }
        let of_app = remembered.apps.entry(nonce.app_key.clone()).or_default();
        if of_app[0].len() >= self.most {
            return Err(SignatureError::Throttled);
        }
        of_app[0].insert(nonce.hash);
        Ok(())
    }

    /// As of now: generations that are over are forgotten. A clock that was set back forgets nothing.
    fn at(&self, now: Timestamp) -> MutexGuard<'_, Remembered> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = now.as_millis().div_euclid(GENERATION_MS);
        let passed = usize::try_from(generation.saturating_sub(remembered.newest)).unwrap_or(0);
        if passed > 0 {
            remembered.apps.retain(|_, generations| {
                for _ in 0..passed.min(GENERATIONS) {
                    generations.rotate_right(1);
                    generations[0] = HashSet::new();
                }
                generations.iter().any(|generation| !generation.is_empty())
            });
            remembered.newest = generation;
        }
        remembered
    }
}

impl Remembered {
    fn has(&self, nonce: &Nonce) -> bool {
        let of_app = self.apps.get(&nonce.app_key).into_iter().flatten();
        of_app
            .into_iter()
            .any(|generation| generation.contains(&nonce.hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(n: i64) -> Timestamp {
        Timestamp::from_millis(n * 60_000)
    }

    #[test]
    fn a_nonce_counts_once_for_half_an_hour_and_apps_do_not_share_them() {
        let nonces = Nonces::default();
        let one = Nonce::of("ak", "n");
        assert!(!nonces.is_used(&one, minutes(14)));
        assert_eq!(nonces.take(&one, minutes(14)), Ok(()));
        assert_eq!(nonces.take(&one, minutes(14)), Err(SignatureError::NonceUsed));
        assert!(nonces.is_used(&one, minutes(44)));
        assert!(!nonces.is_used(&one, minutes(14 + 46)));
        assert!(!nonces.is_used(&Nonce::of("other", "n"), minutes(44)));
        assert_ne!(Nonce::of("a", "bc").hash(), Nonce::of("ab", "c").hash());
    }

    #[test]
    fn an_app_that_sends_too_much_is_throttled_alone() {
        let nonces = Nonces {
            most: 2,
            ..Nonces::default()
        };
        let take = |app: &str, n: u32, at| nonces.take(&Nonce::of(app, &n.to_string()), minutes(at));
        assert_eq!((take("loud", 1, 0), take("loud", 2, 1)), (Ok(()), Ok(())));
        assert_eq!(take("loud", 3, 2), Err(SignatureError::Throttled));
        assert_eq!(take("quiet", 1, 2), Ok(()));
        assert_eq!(take("loud", 1, 2), Err(SignatureError::NonceUsed));
        assert_eq!(take("loud", 3, 16), Ok(()), "there is room again");
        nonces.is_used(&Nonce::of("any", ""), minutes(100));
        assert!(
            nonces.at(minutes(100)).apps.is_empty(),
            "who is not heard of takes no memory"
        );
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nothing() {
        let nonces = Nonces::default();
        let one = Nonce::of("ak", "n");
        nonces.take(&one, minutes(600)).unwrap();
        assert!(nonces.is_used(&one, minutes(1)));
        assert!(nonces.is_used(&one, minutes(601)));
    }
}

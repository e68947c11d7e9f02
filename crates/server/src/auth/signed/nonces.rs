//! Nonces that were used: a signed request counts once.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use darkroom_core::Timestamp;

use super::SignatureError;

/// A nonce is remembered for two to three of these: longer than the half hour that a request's time may be off to either side.
const GENERATION_MS: i64 = 15 * 60 * 1000;
const GENERATIONS: usize = 3;
/// Nonces of one generation: 500,000 are 550 requests a second for a quarter of an hour, and 16 MB.
const MOST: usize = 500_000;

/// One nonce of one app, hashed: clients choose their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce([u8; 16]);

/// Used nonces, in memory: after a restart a request that is younger than a quarter of an hour could be sent once more.
#[derive(Debug, Default)]
pub struct Nonces(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// The newest first.
    generations: [HashSet<Nonce>; GENERATIONS],
    newest: i64,
}

impl Nonces {
    /// The nonce of an app.
    pub fn of(app_key: &str, nonce: &str) -> Nonce {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(app_key.len() as u64).to_le_bytes());
        hasher.update(app_key.as_bytes());
        hasher.update(nonce.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Nonce(hash)
    }

    /// Whether it was used lately.
    pub fn is_used(&self, nonce: &Nonce, now: Timestamp) -> bool {
        let remembered = self.at(now);
        remembered
            .generations
            .iter()
            .any(|generation| generation.contains(nonce))
    }

    /// Uses it.
    ///
    /// # Errors
    /// [`SignatureError::NonceUsed`] when somebody was faster, [`SignatureError::Throttled`] when there is no room.
    pub fn take(&self, nonce: Nonce, now: Timestamp) -> Result<(), SignatureError> {
        let mut remembered = self.at(now);
        if remembered
            .generations
            .iter()
            .any(|generation| generation.contains(&nonce))
        {
            return Err(SignatureError::NonceUsed);
        }
        if remembered.generations[0].len() >= MOST {
            return Err(SignatureError::Throttled);
        }
        remembered.generations[0].insert(nonce);
        Ok(())
    }

    /// As of now: generations that are over are forgotten. A clock that was set back forgets nothing.
    fn at(&self, now: Timestamp) -> MutexGuard<'_, Remembered> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = now.as_millis().div_euclid(GENERATION_MS);
        let passed = usize::try_from(generation.saturating_sub(remembered.newest)).unwrap_or(0);
        if passed > 0 {
            for _ in 0..passed.min(GENERATIONS) {
                remembered.generations.rotate_right(1);
                remembered.generations[0] = HashSet::new();
            }
            remembered.newest = generation;
        }
        remembered
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
        let one = Nonces::of("ak", "n");
        assert!(!nonces.is_used(&one, minutes(14)));
        assert_eq!(nonces.take(one, minutes(14)), Ok(()));
        assert_eq!(nonces.take(one, minutes(14)), Err(SignatureError::NonceUsed));
        assert!(nonces.is_used(&one, minutes(44)));
        assert!(!nonces.is_used(&one, minutes(14 + 46)));
        assert!(!nonces.is_used(&Nonces::of("other", "n"), minutes(44)));
        assert_ne!(Nonces::of("a", "bc"), Nonces::of("ab", "c"));
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nothing() {
        let nonces = Nonces::default();
        let one = Nonces::of("ak", "n");
        nonces.take(one, minutes(600)).unwrap();
        assert!(nonces.is_used(&one, minutes(1)));
        assert!(nonces.is_used(&one, minutes(601)));
    }
}

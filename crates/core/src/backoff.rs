//! How long to wait before trying again: exponential, bounded, without randomness.

use std::time::Duration;

/// A doubling delay between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub first: Duration,
    /// Never longer than this.
    pub longest: Duration,
}

impl Backoff {
    /// The delay after this many failures in a row; zero after none.
    pub fn after(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 2u32.checked_pow(doublings).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: Backoff = Backoff {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(60),
    };

    #[test]
    fn doubles_up_to_the_bound() {
        let seconds: Vec<u64> = (0..9).map(|n| EXAMPLE.after(n).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }

    proptest! {
        #[test]
        fn never_shrinks_and_never_leaves_its_bounds(a: u32, b: u32, first_ms in 1u64..100_000, longest_ms in 1u64..10_000_000) {
            let backoff = Backoff {
                first: Duration::from_millis(first_ms),
                longest: Duration::from_millis(longest_ms),
            };
            let (fewer, more) = (a.min(b), a.max(b));
            prop_assert!(backoff.after(fewer) <= backoff.after(more));
            prop_assert!(backoff.after(more) <= backoff.longest);
        }
    }
}

//! A token bucket: so many per second on average, so many at once.

use std::time::Duration;

use crate::Timestamp;

/// Allows `per_second` on average and bursts of `burst`. Starts full.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Timestamp,
}

/// Not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("rate limit reached; try again in {}s", retry_after.as_secs_f64().ceil())]
pub struct Limited {
    /// When the same request would be let through, if nobody else takes the tokens. `Duration::MAX`: never.
    pub retry_after: Duration,
}

impl TokenBucket {
    /// A full bucket. A rate or burst that is negative or no number counts as 0.
    pub fn new(per_second: f64, burst: f64, now: Timestamp) -> Self {
        let burst = burst.max(0.0);
        TokenBucket {
            per_second: per_second.max(0.0),
            burst,
            tokens: burst,
            filled_at: now,
        }
    }

    /// Takes `n` tokens, or none.
    ///
    /// # Errors
    /// [`Limited`] when fewer than `n` are there.
    pub fn take(&mut self, n: u32, now: Timestamp) -> Result<(), Limited> {
        let gained = now.since(self.filled_at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        // Also when the clock went back: else nothing would be gained until it had caught up.
        self.filled_at = now;
        let wanted = f64::from(n);
        if wanted <= self.tokens {
            self.tokens -= wanted;
            return Ok(());
        }
        let never = wanted > self.burst || self.per_second <= 0.0;
        let retry_after = if never {
            Duration::MAX
        } else {
            let seconds = (wanted - self.tokens) / self.per_second;
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        };
        Err(Limited { retry_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn lets_a_burst_through_and_then_the_rate() {
        let mut bucket = TokenBucket::new(2.0, 3.0, at(0));
        assert_eq!([(); 3].map(|()| bucket.take(1, at(0))), [Ok(()); 3]);
        let refused = bucket.take(1, at(0)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(500));
        assert_eq!(bucket.take(1, at(499)).map_err(|_| ()), Err(()));
        assert_eq!(bucket.take(1, at(500)), Ok(()));
        assert!(
            bucket.take(4, at(1_000_000)).is_err(),
            "never more than the burst"
        );
    }

    #[test]
    fn a_clock_that_goes_back_neither_blocks_nor_gives() {
        let mut bucket = TokenBucket::new(1.0, 1.0, at(3_600_000));
        assert!(bucket.take(1, at(3_600_000)).is_ok());
        assert!(bucket.take(1, at(0)).is_err());
        assert!(bucket.take(1, at(1_000)).is_ok());
    }

    #[test]
    fn what_can_never_be_granted_says_so() {
        let never = Err(Limited {
            retry_after: Duration::MAX,
        });
        assert_eq!(TokenBucket::new(5.0, 2.0, at(0)).take(3, at(0)), never);
        assert_eq!(TokenBucket::new(0.0, 0.0, at(0)).take(1, at(0)), never);
        assert_eq!(TokenBucket::new(f64::NAN, f64::NAN, at(0)).take(1, at(0)), never);
    }
}

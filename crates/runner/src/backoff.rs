//! How long to wait before trying again.

use std::time::Duration;

/// Doubling delays up to a bound.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// `first`, then twice as long each time, never more than `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Backoff { next: first, most }
    }

    /// The next delay.
    pub fn next(&mut self) -> Duration {
        let now = self.next.min(self.most);
        self.next = now.saturating_mul(2);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_and_stops_at_the_bound() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let delays: Vec<_> = (0..4).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(delays, [100, 200, 350, 350]);
    }
}

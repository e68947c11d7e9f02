//! How long to wait before asking again who did not answer.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// A server that restarts is back within two seconds; one that is away for hours is not asked too often.
const MOST: Duration = Duration::from_secs(3);

/// Doubling delays up to a bound.
#[derive(Debug)]
pub struct Pace(Duration);

impl Pace {
    /// From the beginning.
    pub fn new() -> Self {
        Pace(FIRST)
    }

    /// Whether nothing was waited for yet.
    pub fn is_first(&self) -> bool {
        self.0 == FIRST
    }

    /// Waits, the next time longer.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(MOST);
    }
}

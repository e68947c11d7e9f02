//! Time that runs evenly: one reading of the wall clock, and monotonic time added to it.

use std::{sync::Arc, time::Duration};

use darkroom_core::{Clock, Timestamp};

/// A session must not take a jump of the wall clock for a stall.
#[derive(Clone)]
pub struct EvenTime {
    clock: Arc<dyn Clock>,
    base: Timestamp,
    base_monotonic: Duration,
}

impl EvenTime {
    /// Starts at the wall clock's present.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        EvenTime {
            base: clock.now(),
            base_monotonic: clock.monotonic(),
            clock,
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.base
            .plus(self.clock.monotonic().saturating_sub(self.base_monotonic))
    }

    /// The wall clock itself, as time since the epoch; for comparison with file times only.
    pub fn wall(&self) -> Duration {
        self.clock.now().since(Timestamp::ZERO)
    }

    /// Sleeps until then; at least a moment, so that no caller can spin.
    pub async fn sleep_until(&self, then: Timestamp) {
        let left = then.since(self.now()).max(Duration::from_millis(1));
        tokio::time::sleep(left).await;
    }
}

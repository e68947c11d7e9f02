//! Measures how long things take, through the one clock of the project.

use std::time::Duration;

use darkroom_ambient::SystemClock;
use darkroom_core::Clock;

/// Runs since it was made.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(SystemClock);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Stopwatch(SystemClock::new())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.monotonic()
    }
}

//! A whole Darkroom in a few milliseconds: a seeded world with virtual time around the real decisions.
//!
//! The world (`world`) submits, cancels, crashes, stalls, restarts and moves clocks; an in-memory `store` applies the
//! real state machines and the real `pick`; the real `plan` decides on its counters. After every step `invariants`
//! looks at everything there is. A seed is a whole history: the same seed gives the same one.
//!
//! That the simulation can find anything is shown by planting bugs ([`Plant`]), each of which it must find.

mod invariants;
mod processes;
mod random;
mod scenario;
mod server;
mod store;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;

/// A bug put in on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// None: the simulation must find nothing.
    None,
    /// The store believes results of attempts that have ended.
    NoFenceCheck,
    /// Whoever carries a plan out stops where it should drain.
    StopBusyInstance,
    /// A lost attempt does not count towards `max_attempts`.
    LostNotCounted,
}

/// What happened in a run that found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Happenings.
    pub steps: u64,
    /// Jobs that were accepted.
    pub jobs: u64,
    /// Those that succeeded.
    pub succeeded: u64,
    /// Attempts.
    pub attempts: u64,
    /// Those that were lost.
    pub lost: u64,
    /// Those that were given back.
    pub released: u64,
    /// Results that were refused because their attempt had ended.
    pub stale: u64,
    /// Instances started.
    pub starts: u64,
    /// Starts that failed.
    pub failed_starts: u64,
    /// Actions of plans that were dropped because the world had moved on.
    pub dropped_actions: u64,
    /// Times the server crashed or was stopped for a while.
    pub server_away: u64,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The history in which.
    pub seed: u64,
    /// The step after which.
    pub step: u64,
    /// What is wrong.
    pub what: String,
    /// The last happenings before it, oldest first.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "seed {}, step {}: {}", self.seed, self.step, self.what)?;
        write!(
            f,
            "replay: DARKROOM_SIM_SEED={} cargo test -p darkroom-core --lib sim -- --nocapture",
            self.seed
        )
    }
}

/// Lives through one history.
///
/// # Errors
/// [`Violation`] of the first invariant that does not hold.
pub fn run(seed: u64, plant: Plant) -> Result<Summary, Violation> {
    // Telling the story costs more than living it, so it is told only of those worth telling: lived through again.
    let quick = world::World::new(seed, plant, false).run();
    quick.or_else(|_| world::World::new(seed, plant, true).run())
}

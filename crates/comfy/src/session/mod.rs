//! The conversation about one prompt on one instance, without any IO.
//!
//! The caller feeds what it observes (messages, frames, answers, failures) together with `now`, does what
//! [`Session::poll_action`] asks for, sleeps until [`Session::poll_timeout`] at most, and stops at a
//! [`Verdict`]. Two rules stand above all others: a prompt has succeeded only if its history entry says so, and
//! silence is never taken for an end.
//!
//! `now` has to run evenly: take one wall-clock reading and add monotonic time to it, or a jump of the clock
//! looks like a stall.

mod config;
mod event;
mod state;
mod verdict;

pub use self::config::Config;
pub use self::event::{Action, Failure, SessionEvent};
pub use self::state::Session;
pub use self::verdict::{LostReason, Verdict};

/// True for a line of ComfyUI's output that says that its worker thread died. The server goes on answering,
/// and runs nothing any more.
pub fn is_worker_death(line: &str) -> bool {
    line.starts_with("Exception in thread") && line.contains("(prompt_worker)")
}

#[cfg(test)]
mod tests;

//! How long a session waits for what.

use std::time::Duration;

/// Waiting times. The defaults find a dead worker within 16 s and a vanished prompt within 5 s, at the price of
/// one `GET /queue` per 3 s before the start and per 10 s of silence after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Between looks at the queue while the prompt has not started.
    pub waiting_poll: Duration,
    /// Silence of a running prompt before the queue is looked at, and between such looks.
    pub running_poll: Duration,
    /// Between looks at the queue when the socket is closed or the end was announced.
    pub closing_poll: Duration,
    /// A success is announced before its history entry exists, and normally followed by the end within
    /// milliseconds; how long to wait for that before asking.
    pub settle: Duration,
    /// First pause before a history entry that was not there yet is asked for again; doubles up to
    /// `closing_poll`.
    pub history_retry: Duration,
    /// Pause after a failed request, and between attempts to open the socket.
    pub failure_retry: Duration,
    /// Pending while nothing runs for this long: the worker thread is dead.
    pub worker_dead_after: Duration,
    /// Neither in the queue nor in the history for this long: the instance forgot the prompt.
    pub gone_after: Duration,
    /// Connections refused for this long: the instance is not there any more.
    pub unreachable_after: Duration,
    /// No usable answer to anything for this long while nothing of ours runs there (not begun, or announced as ended): no
    /// node can be the reason.
    pub unanswered_after: Duration,
    /// Answers that no ComfyUI gives for this long.
    pub garbage_after: Duration,
    /// No sign of life of the running prompt for this long. Nodes that load models are silent for minutes.
    pub stall_timeout: Duration,
    /// A request without an answer for this long is forgotten and made again.
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            waiting_poll: Duration::from_secs(3),
            running_poll: Duration::from_secs(10),
            closing_poll: Duration::from_secs(1),
            settle: Duration::from_millis(100),
            history_retry: Duration::from_millis(50),
            failure_retry: Duration::from_secs(1),
            worker_dead_after: Duration::from_secs(10),
            gone_after: Duration::from_secs(2),
            unreachable_after: Duration::from_secs(20),
            unanswered_after: Duration::from_secs(60),
            garbage_after: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(15 * 60),
            request_timeout: Duration::from_secs(120),
        }
    }
}

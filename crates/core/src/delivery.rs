//! When a delivery that was not acknowledged is tried again. Pure.

use std::time::Duration;

use crate::backoff::Backoff;

/// The delay after the second try and later.
const PACE: Backoff = Backoff {
    first: Duration::from_secs(10),
    longest: Duration::from_secs(3600),
};
/// Nobody is told of something for longer than this.
pub const GIVES_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The delay after this many tries in vain; `None`: it is given up. The first three tries are 10 s apart, as RunPod's are
/// (`protocols/async-endpoints.md` §2.4), then the distances double up to an hour, until a day is over.
pub fn again_after(tries: u32) -> Option<Duration> {
    let waited: Duration = (1..tries).map(delay).sum();
    (waited < GIVES_UP_AFTER).then(|| delay(tries))
}

fn delay(tries: u32) -> Duration {
    PACE.after(tries.saturating_sub(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tries_come_quickly_and_the_last_after_a_day() {
        let delays: Vec<Duration> = (1..).map_while(again_after).collect();
        let seconds: Vec<u64> = delays.iter().map(Duration::as_secs).take(11).collect();
        assert_eq!(seconds, [10, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600]);
        let whole: Duration = delays.iter().sum();
        assert!(
            whole >= GIVES_UP_AFTER && whole < GIVES_UP_AFTER + PACE.longest,
            "{whole:?}"
        );
        assert!(delays.is_sorted());
    }
}

//! Waiting for something to become true, with a deadline; never a sleep that hopes.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Asks until `probe` gives something; panics with `what` after `limit`.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(POLL).await;
    }
}

/// The future's result; panics with `what` after `limit`.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    match timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

//! Callers that wait, without a job, until an instance of an endpoint answers. They are counted, the planner starts one
//! instance for however many they are, and none of them waits without end.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use darkroom_core::{EndpointName, InstanceState};
use darkroom_store::Topic;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Error, Service};

/// The longest that a caller is held, whatever `start_timeout` is (`protocols/kubeai.md` §8: its clients wait as long).
const LONGEST: Duration = Duration::from_secs(300);
/// Callers of one endpoint that are held at a time; each costs a connection.
const MOST: u64 = 256;
/// What changes is told; this is for what is not.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// An instance that answers is asked at once what it is. This long its caller waits for that as well.
const FACTS: Duration = Duration::from_secs(10);
/// Between two looks whether it has told.
const FACTS_EVERY: Duration = Duration::from_millis(100);
/// When those that were held in vain should come again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How many callers wait, by endpoint.
#[derive(Debug, Default)]
pub struct Holding(Mutex<BTreeMap<EndpointName, u64>>);

impl Service {
    /// Wakes an endpoint and returns when an instance of it answers, at the latest after its `start_timeout` (300 s if that
    /// is longer).
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`] when none came up in time, or too many callers wait already.
    pub async fn wake_and_hold(&self, name: &EndpointName) -> Result<(), Error> {
        let endpoint = self.endpoint(name)?;
        let deadline = Instant::now() + endpoint.scaling.start_timeout.min(LONGEST);
        // Before the first look: what changes in between is not missed.
        let mut woken = self.store.subscribe(Topic::Capacity);
        if self.answers(name).await? {
            return Ok(());
        }
        let _held = self.hold(name)?;
        self.plan_again();
        let until_it_answers = async {
            while !self.answers(name).await? {
                tokio::select! {
                    () = woken.woken() => {}
                    () = sleep(LOOK_AGAIN) => {}
                }
            }
            self.until_it_told(name).await
        };
        match timeout_at(deadline, until_it_answers).await {
            Ok(answered) => answered,
            Err(_) => Err(Error::Unavailable {
                reason: self.why_none_answers(name),
                retry_after: RETRY_AFTER,
            }),
        }
    }

    /// Endpoints that callers wait for.
    pub fn endpoints_called_for(&self) -> Vec<EndpointName> {
        self.lock_holding().keys().cloned().collect()
    }

    /// How many callers wait for an instance of an endpoint.
    pub fn callers_waiting(&self, endpoint: &EndpointName) -> u64 {
        self.lock_holding().get(endpoint).copied().unwrap_or(0)
    }

    async fn answers(&self, name: &EndpointName) -> Result<bool, Error> {
        let live = self.store.instances(false).await?;
        Ok(live
            .iter()
            .any(|i| i.endpoint == *name && i.state == InstanceState::Ready))
    }

    /// It tells beside its first job; a caller who woke it should not read that nothing is known.
    async fn until_it_told(&self, name: &EndpointName) -> Result<(), Error> {
        if self.endpoint(name)?.runs_embedded_engine() {
            // Nobody asks it: what it is, this build knows.
            return Ok(());
        }
        let deadline = Instant::now() + FACTS;
        while self.facts(name).await?.system_stats.is_null() && Instant::now() < deadline {
            sleep(FACTS_EVERY).await;
        }
        Ok(())
    }

    fn why_none_answers(&self, name: &EndpointName) -> String {
        match self.start_trouble(name) {
            // What it printed is for operators.
            Some(trouble) => format!(
                "no instance of '{name}' came up in time: the last {} starts failed",
                trouble.in_a_row
            ),
            None => format!("no instance of '{name}' came up in time"),
        }
    }

    /// Something changed that the store does not know of.
    pub(super) fn plan_again(&self) {
        if let Some(planner) = self.planner.get() {
            planner.look_again();
        }
    }

    fn hold<'a>(&'a self, endpoint: &'a EndpointName) -> Result<Held<'a>, Error> {
        let mut all = self.lock_holding();
        let waiting = all.entry(endpoint.clone()).or_default();
        if *waiting >= MOST {
            return Err(Error::Unavailable {
                reason: format!("{MOST} callers wait for an instance of '{endpoint}' already"),
                retry_after: RETRY_AFTER,
            });
        }
        *waiting += 1;
        Ok(Held {
            service: self,
            endpoint,
        })
    }

    fn lock_holding(&self) -> std::sync::MutexGuard<'_, BTreeMap<EndpointName, u64>> {
        self.holding.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One caller that waits; gone when dropped, also when the caller hangs up.
struct Held<'a> {
    service: &'a Service,
    endpoint: &'a EndpointName,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut all = self.service.lock_holding();
        let left = all.get(self.endpoint).map_or(0, |waiting| waiting - 1);
        match left {
            0 => all.remove(self.endpoint),
            left => all.insert(self.endpoint.clone(), left),
        };
        drop(all);
        self.service.plan_again();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::testing::Bench;

    #[tokio::test]
    async fn callers_are_counted_while_they_wait_and_bounded_in_time_and_number() {
        let bench = Bench::configured("[endpoints.default.scaling]\nstart_timeout = \"50ms\"\n");
        let (service, endpoint) = (&bench.service, bench.endpoint());
        let error = service.wake_and_hold(&endpoint).await.unwrap_err();
        assert!(error.to_string().contains("came up in time"), "{error}");
        assert_eq!(service.callers_waiting(&endpoint), 0);

        let all: Vec<Held<'_>> = (0..MOST).map(|_| service.hold(&endpoint).unwrap()).collect();
        assert_eq!(service.endpoints_called_for(), std::slice::from_ref(&endpoint));
        let refused = service.wake_and_hold(&endpoint).await.unwrap_err();
        assert!(refused.to_string().contains("callers wait"), "{refused}");
        drop(all);
        assert!(service.endpoints_called_for().is_empty());
    }

    #[tokio::test]
    async fn who_finds_an_instance_that_answers_does_not_wait() {
        let bench = Bench::new();
        bench.instance().await;
        bench.service.wake_and_hold(&bench.endpoint()).await.unwrap();
        let nobody = "nobody".parse().unwrap();
        let unknown = bench.service.wake_and_hold(&nobody).await.unwrap_err();
        assert_eq!(unknown.code(), "not_found");
    }
}

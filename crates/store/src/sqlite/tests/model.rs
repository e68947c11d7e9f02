//! Random lives of a few jobs, against a model that fits on a page; the process dies now and then in between.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use darkroom_core::{
    AttemptOutcome, Clock, JobId, JobState, Timestamp,
    attempt::Lease,
    event::EventKind,
    job::{self, Life},
    retry,
};
use proptest::prelude::*;

use super::super::{Options, SqliteStore};
use crate::{
    Jobs,
    conformance::{
        TestClock, TestIds, claim_for, done, endpoint, event, external, failed, lost, released, tenant,
    },
    jobs::{Cancelled, Finish, JobFilter, NewJob, OnDuplicate, Page, Submitted},
};

const TTL: Duration = Duration::from_secs(100);
const LEASE: Duration = Duration::from_secs(30);
const RETENTION: Duration = Duration::from_secs(200);

#[derive(Debug, Clone)]
enum Verb {
    Submit {
        priority: i32,
        tenant: u8,
        name: Option<u8>,
        rule: u8,
        ttl: bool,
    },
    Claim,
    Renew(usize),
    Collect(usize),
    Append(usize),
    Finish(usize, u8),
    Cancel(usize),
    Retry(usize),
    Advance(u64),
    Expire,
    Sweep,
    /// kill -9 and a new start.
    Crash,
}

fn verbs() -> impl Strategy<Value = Vec<Verb>> {
    let verb = prop_oneof![
        4 => (-1..2, 0..3u8, proptest::option::of(0..3u8), 0..3u8, any::<bool>()).prop_map(
            |(priority, tenant, name, rule, ttl)| Verb::Submit { priority, tenant, name, rule, ttl }),
        4 => Just(Verb::Claim),
        1 => (0..9usize).prop_map(Verb::Renew),
        1 => (0..9usize).prop_map(Verb::Collect),
        1 => (0..9usize).prop_map(Verb::Append),
        4 => (0..9usize, 0..5u8).prop_map(|(n, how)| Verb::Finish(n, how)),
        1 => (0..9usize).prop_map(Verb::Cancel),
        1 => (0..9usize).prop_map(Verb::Retry),
        1 => (1..60u64).prop_map(Verb::Advance),
        1 => Just(Verb::Expire),
        1 => Just(Verb::Sweep),
        1 => Just(Verb::Crash),
    ];
    proptest::collection::vec(verb, 1..60)
}

struct Model {
    jobs: BTreeMap<JobId, Modelled>,
    names: BTreeMap<(u8, u8), JobId>,
    leases: Vec<Lease>,
}

struct Modelled {
    new: NewJob,
    name: Option<(u8, u8)>,
    life: Life,
    attempts: u32,
    held: Option<Held>,
    expires_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    events: u64,
}

struct Held {
    lease: Lease,
    until: Timestamp,
    collecting: bool,
}

impl Modelled {
    fn apply(&mut self, event: job::Event, now: Timestamp) {
        let limits = retry::Limits {
            max_attempts: self.new.max_attempts,
        };
        let (next, _) = job::apply(&self.life, event, limits).unwrap();
        let changed = next.state != self.life.state;
        self.life = next;
        if changed {
            self.events += 1;
            self.expires_at = None;
            self.finished_at = None;
            match self.life.state {
                JobState::Queued => self.expires_at = self.new.queue_ttl.map(|ttl| now.plus(ttl)),
                JobState::Running => {}
                _ => self.finished_at = Some(now),
            }
        }
    }

    fn end(&mut self, outcome: AttemptOutcome, now: Timestamp) {
        self.held = None;
        self.apply(job::Event::AttemptEnded(outcome), now);
    }
}

struct Run {
    store: SqliteStore,
    clock: Arc<TestClock>,
    ids: TestIds,
    model: Model,
    dir: tempfile::TempDir,
    generation: u32,
}

fn open(path: &Path, clock: &Arc<TestClock>) -> SqliteStore {
    let mut options = Options::new(clock.clone());
    // Speed; power cuts are tested elsewhere.
    options.durability = super::super::Durability::Never;
    SqliteStore::open(path, options).unwrap()
}

impl Run {
    fn new() -> Run {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock::new();
        Run {
            store: open(&dir.path().join("db-0"), &clock),
            clock,
            ids: TestIds::default(),
            model: Model {
                jobs: BTreeMap::new(),
                names: BTreeMap::new(),
                leases: Vec::new(),
            },
            dir,
            generation: 0,
        }
    }

    async fn step(&mut self, verb: Verb) {
        let now = self.clock.now();
        match verb {
            Verb::Submit {
                priority,
                tenant: whose,
                name,
                rule,
                ttl,
            } => {
                self.submit(priority, whose, name, rule, ttl).await;
            }
            Verb::Claim => self.claim().await,
            Verb::Renew(n) => {
                let Some(lease) = self.lease(n) else { return };
                let renewed = self.store.renew(lease, LEASE).await.unwrap();
                match self.holder(lease) {
                    Some(job) => {
                        assert_eq!(renewed.unwrap().cancel_requested, job.life.cancel_requested);
                        job.held.as_mut().unwrap().until = now.plus(LEASE);
                    }
                    None => assert!(renewed.is_err()),
                }
            }
            Verb::Collect(n) => {
                let Some(lease) = self.lease(n) else { return };
                let answer = self.store.collecting(lease).await.unwrap();
                match self.holder(lease) {
                    Some(job) => {
                        answer.unwrap();
                        job.held.as_mut().unwrap().collecting = true;
                    }
                    None => assert!(answer.is_err()),
                }
            }
            Verb::Append(n) => {
                let Some(lease) = self.lease(n) else { return };
                let logs = vec![event(EventKind::Log, "1"), event(EventKind::Log, "2")];
                let answer = self.store.append_events(lease, logs).await.unwrap();
                match self.holder(lease) {
                    Some(job) => {
                        job.events += 2;
                        assert_eq!(answer.unwrap(), job.events);
                    }
                    None => assert!(answer.is_err()),
                }
            }
            Verb::Finish(n, how) => {
                let Some(lease) = self.lease(n) else { return };
                let finish: Finish = match how {
                    0 | 1 => done(),
                    2 => failed(),
                    3 => lost(),
                    _ => released(),
                };
                let outcome = finish.outcome.clone();
                let answer = self.store.finish(lease, finish).await.unwrap();
                match self.holder(lease) {
                    Some(job) => {
                        job.end(outcome, now);
                        assert_eq!(answer.unwrap(), job.life.state);
                    }
                    None => assert!(answer.is_err()),
                }
            }
            Verb::Cancel(n) => {
                let Some(id) = self.any(n) else { return };
                let answer = self.store.cancel(None, id).await.unwrap().unwrap();
                let job = self.model.jobs.get_mut(&id).unwrap();
                let expected = match job.life.state {
                    JobState::Queued => Cancelled::Now,
                    JobState::Running => Cancelled::Requested,
                    state => Cancelled::AlreadyFinal(state),
                };
                assert_eq!(answer, expected);
                if !job.life.state.is_final() {
                    job.apply(job::Event::CancelRequested, now);
                }
            }
            Verb::Retry(n) => {
                let Some(id) = self.any(n) else { return };
                let answer = self.store.retry(None, id).await.unwrap().unwrap();
                let job = self.model.jobs.get_mut(&id).unwrap();
                assert_eq!(answer, job.life.state.is_final());
                if answer {
                    job.apply(job::Event::RetryRequested, now);
                }
            }
            Verb::Advance(seconds) => self.clock.advance(Duration::from_secs(seconds)),
            Verb::Expire => self.expire().await,
            Verb::Sweep => {
                let swept = self.store.sweep_finished(&endpoint(), RETENTION).await.unwrap();
                let before = now.minus(RETENTION);
                let due = |job: &Modelled| job.finished_at.is_some_and(|at| at <= before);
                let gone: Vec<JobId> = self
                    .model
                    .jobs
                    .iter()
                    .filter(|(_, job)| due(job))
                    .map(|(id, _)| *id)
                    .collect();
                assert_eq!(swept.rows, gone.len() as u64);
                for id in gone {
                    let job = self.model.jobs.remove(&id).unwrap();
                    if let Some(name) = job.name
                        && self.model.names.get(&name) == Some(&id)
                    {
                        self.model.names.remove(&name);
                    }
                }
            }
            Verb::Crash => self.crash(),
        }
    }

    async fn submit(&mut self, priority: i32, whose: u8, name: Option<u8>, rule: u8, ttl: bool) {
        let rule = [OnDuplicate::Reject, OnDuplicate::Existing, OnDuplicate::Replace][usize::from(rule)];
        let mut new = crate::conformance::job(&self.ids);
        new.priority = priority;
        new.tenant = tenant(&format!("t{whose}"));
        new.queue_ttl = ttl.then_some(TTL);
        new.max_queued = 6;
        new.external_id = name.and_then(|name| external(&name.to_string(), rule));
        let name = name.map(|name| (whose, name));
        let answer = self.store.submit(new.clone()).await.unwrap();
        let holder = name.and_then(|name| self.model.names.get(&name).copied());
        let queued = self
            .model
            .jobs
            .values()
            .filter(|j| j.life.state == JobState::Queued)
            .count() as u64;
        let expected = match (holder, rule) {
            (Some(first), OnDuplicate::Reject) => Submitted::Duplicate(first),
            (Some(first), OnDuplicate::Existing) => Submitted::Existing(first),
            _ if queued >= 6 => Submitted::QueueFull { queued },
            _ => Submitted::Accepted {
                instance_ready: false,
            },
        };
        assert_eq!(answer, expected);
        if matches!(answer, Submitted::Accepted { .. }) {
            if let Some(name) = name {
                self.model.names.insert(name, new.id);
            }
            let modelled = Modelled {
                name,
                life: Life::queued(),
                attempts: 0,
                held: None,
                expires_at: new.queue_ttl.map(|ttl| self.clock.now().plus(ttl)),
                finished_at: None,
                events: 1,
                new,
            };
            self.model.jobs.insert(modelled.new.id, modelled);
        }
    }

    async fn claim(&mut self) {
        let answer = self.store.claim(claim_for(1)).await.unwrap();
        let now = self.clock.now();
        let waiting = self
            .model
            .jobs
            .values()
            .filter(|j| j.life.state == JobState::Queued);
        let top = waiting.map(|j| j.new.priority).max();
        assert_eq!(answer.as_ref().map(|claimed| claimed.job.priority), top);
        let Some(claimed) = answer else { return };
        let job = self.model.jobs.get_mut(&claimed.job.id).expect("a job we know");
        job.apply(job::Event::Claimed, now);
        job.attempts += 1;
        assert_eq!(claimed.attempt, job.attempts);
        let lease = crate::conformance::lease(&claimed);
        assert!(self.model.leases.iter().all(|older| older.fence < lease.fence));
        self.model.leases.push(lease);
        job.held = Some(Held {
            lease,
            until: now.plus(LEASE),
            collecting: false,
        });
    }

    async fn expire(&mut self) {
        let now = self.clock.now();
        let swept = self.store.expire().await.unwrap();
        let mut rows = 0;
        for job in self.model.jobs.values_mut() {
            if job.held.as_ref().is_some_and(|held| held.until <= now) {
                job.end(lost().outcome, now);
                rows += 1;
            } else if job.expires_at.is_some_and(|at| at <= now) {
                job.apply(job::Event::TtlPassed, now);
                rows += 1;
            }
        }
        assert_eq!(swept.rows, rows);
    }

    /// The files as kill -9 leaves them, opened by the next process.
    fn crash(&mut self) {
        let old = self.dir.path().join(format!("db-{}", self.generation));
        self.generation += 1;
        let new = self.dir.path().join(format!("db-{}", self.generation));
        for suffix in ["", "-wal"] {
            let from = old.with_file_name(format!("{}{suffix}", old.file_name().unwrap().to_str().unwrap()));
            let to = new.with_file_name(format!("{}{suffix}", new.file_name().unwrap().to_str().unwrap()));
            if from.exists() {
                std::fs::copy(from, to).unwrap();
            }
        }
        self.store = open(&new, &self.clock);
    }

    async fn check(&self) {
        let page = Page {
            limit: 1000,
            after: None,
        };
        let stored = self
            .store
            .jobs(
                JobFilter {
                    oldest_first: true,
                    ..JobFilter::default()
                },
                page,
            )
            .await
            .unwrap();
        let known: Vec<JobId> = self.model.jobs.keys().copied().collect();
        assert_eq!(stored.iter().map(|job| job.id).collect::<Vec<_>>(), known);
        for record in &stored {
            let job = &self.model.jobs[&record.id];
            assert_eq!(record.state, job.life.state);
            assert_eq!(
                (record.attempts, record.lost_attempts),
                (job.attempts, job.life.lost_attempts)
            );
            assert_eq!(record.cancel_requested, job.life.cancel_requested);
            assert_eq!(record.finished_at, job.finished_at);
            let events = self.store.events(record.id, 0, 1000).await.unwrap();
            let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
            assert_eq!(numbers, (1..=job.events).collect::<Vec<_>>());
        }
        let open: Vec<_> = self
            .store
            .open_attempts(None)
            .await
            .unwrap()
            .iter()
            .map(|a| (a.job, a.fence))
            .collect();
        let mut held: Vec<_> = self
            .model
            .jobs
            .values()
            .filter_map(|j| j.held.as_ref())
            .map(|h| (h.lease.job, h.lease.fence))
            .collect();
        held.sort_by_key(|(_, fence)| *fence);
        assert_eq!(open, held);
        let counters = self
            .store
            .counters()
            .await
            .unwrap()
            .remove(&endpoint())
            .unwrap_or_default();
        let of = |test: &dyn Fn(&Modelled) -> bool| {
            self.model.jobs.values().filter(|job| test(job)).count() as u64
        };
        let queued = |job: &Modelled| job.life.state == JobState::Queued;
        assert_eq!(counters.queued, of(&queued));
        assert_eq!(
            counters.queued_low_priority,
            of(&|job| queued(job) && job.new.priority < 0)
        );
        assert_eq!(
            counters.running,
            of(&|job| job.held.as_ref().is_some_and(|held| !held.collecting))
        );
        assert_eq!(
            counters.collecting,
            of(&|job| job.held.as_ref().is_some_and(|held| held.collecting))
        );
        let next = self.model.jobs.values().filter_map(|job| job.expires_at).min();
        assert_eq!(counters.next_expiry_at, next);
    }

    fn lease(&self, n: usize) -> Option<Lease> {
        self.model.leases.iter().rev().nth(n).copied()
    }

    fn any(&self, n: usize) -> Option<JobId> {
        self.model.jobs.keys().rev().nth(n).copied()
    }

    fn holder(&mut self, lease: Lease) -> Option<&mut Modelled> {
        let job = self.model.jobs.get_mut(&lease.job)?;
        (job.held.as_ref()?.lease == lease).then_some(job)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_store_lives_as_the_model_says(verbs in verbs()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            for verb in verbs {
                run.step(verb).await;
            }
            run.check().await;
            run.crash();
            run.check().await;
        });
    }
}

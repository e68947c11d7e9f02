//! A pull worker as the server sees it: what it holds, when it was heard of last, and what that means.
//!
//! A worker of the RunPod and PPIO SDKs says little: a poll tells whether it runs anything (`job_in_progress`), a ping
//! tells which jobs. From these [`Watch`] decides which jobs nobody works on any more, which run too long, and whether
//! the worker is gone (`protocols/async-endpoints.md` §5). Instants are monotonic, as [`crate::Clock::monotonic`] gives
//! them. What follows from a [`Judgement`] is the caller's business.

use std::{collections::BTreeMap, time::Duration};

use crate::JobId;

/// How often a worker pings unless it was told otherwise (`PPIO_PING_INTERVAL`, `RUNPOD_PING_INTERVAL`).
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Beside three missed pings: a ping is retried for about this long by the SDKs before the next one.
const GRACE: Duration = Duration::from_secs(15);

/// A worker's jobs and its last sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    ping_interval: Duration,
    seen_at: Duration,
    /// It pings at all: one that does not is silent while it works.
    pings: bool,
    jobs: BTreeMap<JobId, Job>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Job {
    taken_at: Duration,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Ours to wait for, until `ends_at`.
    Held {
        ends_at: Duration,
        /// Since when its pings do not name it.
        unnamed_since: Option<Duration>,
        missing: bool,
    },
    /// Ended by us; the worker may still be at it, which is too long from `stuck_at` on.
    Ended { stuck_at: Duration },
}

/// What a worker told of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It asks for work, and runs something or nothing.
    Take {
        /// `job_in_progress`.
        busy: bool,
    },
    /// It pings, and names the jobs it has.
    Ping {
        /// `job_id`, as far as they are ids of ours.
        jobs: Vec<JobId>,
    },
    /// Anything else: it lives.
    Sign,
}

/// What is to be done about a worker; all empty: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// It was not heard of for so long that it counts as gone.
    pub silent_for: Option<Duration>,
    /// Jobs it should have and says it has not: their results were lost, or never made.
    pub unaccounted: Vec<JobId>,
    /// Jobs that ran longer than they may.
    pub overdue: Vec<JobId>,
    /// Jobs that we ended and that it goes on with.
    pub stuck: Vec<JobId>,
}

impl Watch {
    /// A worker that was just heard of.
    pub fn new(ping_interval: Duration, now: Duration) -> Self {
        Watch {
            // The SDKs cannot ping more often than once a second.
            ping_interval: ping_interval.max(Duration::from_secs(1)),
            seen_at: now,
            pings: false,
            jobs: BTreeMap::new(),
        }
    }

    /// It pings this often.
    pub fn set_ping_interval(&mut self, ping_interval: Duration) {
        self.ping_interval = ping_interval.max(Duration::from_secs(1));
    }

    /// It was handed a job that may run until `ends_at`.
    pub fn took(&mut self, job: JobId, ends_at: Duration, now: Duration) {
        let standing = Standing::Held {
            ends_at,
            unnamed_since: None,
            missing: false,
        };
        self.jobs.insert(
            job,
            Job {
                taken_at: now,
                standing,
            },
        );
    }

    /// A job that it holds may run until `ends_at` and no longer.
    pub fn must_end(&mut self, job: JobId, ends_at: Duration) {
        if let Some(Standing::Held { ends_at: until, .. }) =
            self.jobs.get_mut(&job).map(|job| &mut job.standing)
        {
            *until = ends_at.min(*until);
        }
    }

    /// It is done with a job; `false` when it did not have it.
    pub fn is_done_with(&mut self, job: JobId) -> bool {
        self.jobs.remove(&job).is_some()
    }

    /// We ended a job; the worker may go on with it until `stuck_at`.
    pub fn ended(&mut self, job: JobId, stuck_at: Duration) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.standing = Standing::Ended { stuck_at };
        }
    }

    /// Jobs it may be at, whoever they belong to now: none of them may be handed to it again, since it knows jobs by
    /// their ids alone.
    pub fn has(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied()
    }

    /// Whether it may be at that job.
    pub fn may_be_at(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// How many jobs occupy it.
    pub fn occupied(&self) -> usize {
        self.jobs.len()
    }

    /// It said something.
    pub fn hear(&mut self, heard: &Heard, now: Duration) {
        self.seen_at = self.seen_at.max(now);
        self.pings |= matches!(heard, Heard::Ping { .. });
        // A job on its way to the worker is not in its list yet; two pings later it is. A ping comes from a process of its own,
        // which may be late with a list of yesterday: one alone proves nothing.
        let settled = 2 * self.ping_interval;
        let between_pings = self.ping_interval / 2;
        let absent = |id: &JobId| match heard {
            Heard::Take { busy } => !busy,
            Heard::Ping { jobs } => !jobs.contains(id),
            Heard::Sign => false,
        };
        self.jobs.retain(|id, job| {
            let absent = now.saturating_sub(job.taken_at) >= settled && absent(id);
            match (&mut job.standing, heard) {
                (Standing::Held { unnamed_since, .. }, Heard::Ping { .. }) if !absent => {
                    *unnamed_since = None
                }
                (
                    Standing::Held {
                        unnamed_since,
                        missing,
                        ..
                    },
                    Heard::Ping { .. },
                ) => {
                    let since = *unnamed_since.get_or_insert(now);
                    *missing |= now.saturating_sub(since) >= between_pings;
                }
                (Standing::Held { missing, .. }, Heard::Take { .. }) => *missing |= absent,
                (Standing::Held { .. }, Heard::Sign) => {}
                (Standing::Ended { .. }, _) => return !absent,
            }
            true
        });
    }

    /// Our own time had a gap: nobody could be heard in it.
    pub fn forgive(&mut self, gap: Duration) {
        self.seen_at += gap;
        for job in self.jobs.values_mut() {
            job.taken_at += gap;
            match &mut job.standing {
                Standing::Held {
                    ends_at,
                    unnamed_since,
                    ..
                } => {
                    *ends_at = ends_at.saturating_add(gap);
                    if let Some(since) = unnamed_since {
                        *since += gap;
                    }
                }
                Standing::Ended { stuck_at } => *stuck_at = stuck_at.saturating_add(gap),
            }
        }
    }

    /// What follows. `listening`: a connection of the worker is open and waits for us, which is a sign of life.
    pub fn judge(&self, listening: bool, now: Duration) -> Judgement {
        let silent_for = now.saturating_sub(self.seen_at);
        let patience = 3 * self.ping_interval + GRACE;
        let mut judgement = Judgement {
            silent_for: (!listening && silent_for >= patience && (self.pings || self.jobs.is_empty()))
                .then_some(silent_for),
            ..Judgement::default()
        };
        for (&id, job) in &self.jobs {
            match job.standing {
                Standing::Held { missing: true, .. } => judgement.unaccounted.push(id),
                Standing::Held { ends_at, .. } if now >= ends_at => judgement.overdue.push(id),
                Standing::Ended { stuck_at } if now >= stuck_at => judgement.stuck.push(id),
                Standing::Held { .. } | Standing::Ended { .. } => {}
            }
        }
        judgement
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::MAX;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn job(n: u128) -> JobId {
        JobId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn holding(jobs: &[u128]) -> Watch {
        let mut watch = Watch::new(PING_INTERVAL, at(0));
        for &n in jobs {
            watch.took(job(n), NEVER, at(0));
        }
        watch
    }

    fn ping(jobs: &[u128]) -> Heard {
        Heard::Ping {
            jobs: jobs.iter().map(|&n| job(n)).collect(),
        }
    }

    #[test]
    fn a_job_whose_time_is_shortened_is_overdue_then_and_never_later_than_it_was() {
        let mut watch = holding(&[]);
        watch.took(job(1), at(100), at(0));
        watch.must_end(job(1), at(500));
        watch.must_end(job(2), at(1));
        assert_eq!(watch.judge(true, at(99)).overdue, []);
        assert_eq!(watch.judge(true, at(100)).overdue, [job(1)]);
        watch.must_end(job(1), at(50));
        assert_eq!(watch.judge(true, at(50)).overdue, [job(1)]);
    }

    #[test]
    fn a_ping_that_was_late_accuses_nobody() {
        let mut watch = holding(&[1]);
        for (jobs, seconds) in [(&[][..], 21), (&[1], 30), (&[], 31), (&[], 32)] {
            watch.hear(&ping(jobs), at(seconds));
            assert_eq!(watch.judge(true, at(seconds)), Judgement::default(), "{seconds}");
        }
        watch.hear(&ping(&[]), at(41));
        assert_eq!(watch.judge(true, at(41)).unaccounted, [job(1)]);
    }

    #[test]
    fn a_job_that_its_worker_does_not_name_is_unaccounted_for_after_two_pings() {
        let mut watch = holding(&[1, 2]);
        watch.hear(&ping(&[]), at(10));
        watch.hear(&Heard::Take { busy: false }, at(19));
        assert_eq!(
            watch.judge(true, at(19)),
            Judgement::default(),
            "it may be on its way"
        );
        watch.hear(&ping(&[2]), at(20));
        watch.hear(&ping(&[2]), at(30));
        assert_eq!(watch.judge(true, at(30)).unaccounted, [job(1)]);
        watch.hear(&Heard::Take { busy: true }, at(31));
        assert_eq!(
            watch.judge(true, at(31)).unaccounted,
            [job(1)],
            "a busy one may be at any"
        );
        watch.hear(&Heard::Take { busy: false }, at(32));
        assert_eq!(watch.judge(true, at(32)).unaccounted, [job(1), job(2)]);
    }

    #[test]
    fn silence_is_three_pings_and_a_grace_unless_it_listens() {
        let mut watch = holding(&[1]);
        assert_eq!(
            watch.judge(false, at(1000)),
            Judgement::default(),
            "it works, and never pinged"
        );
        watch.hear(&ping(&[1]), at(0));
        assert_eq!(watch.judge(false, at(44)), Judgement::default());
        assert_eq!(watch.judge(false, at(45)).silent_for, Some(at(45)));
        assert_eq!(watch.judge(true, at(1000)), Judgement::default());
        watch.hear(&Heard::Sign, at(44));
        assert_eq!(watch.judge(false, at(88)), Judgement::default());
        watch.forgive(at(100));
        assert_eq!(watch.judge(false, at(188)), Judgement::default());
        assert_eq!(watch.judge(false, at(189)).silent_for, Some(at(45)));
    }

    #[test]
    fn what_happened_in_a_gap_of_ours_is_held_against_nobody() {
        let mut watch = Watch::new(PING_INTERVAL, at(0));
        watch.took(job(1), at(30), at(0));
        watch.took(job(2), NEVER, at(0));
        watch.took(job(3), NEVER, at(0));
        watch.ended(job(3), at(40));
        watch.hear(&ping(&[1, 3]), at(25));
        watch.forgive(at(100));
        watch.hear(&ping(&[1, 3]), at(126));
        assert_eq!(
            watch.judge(true, at(129)),
            Judgement::default(),
            "two pings around the gap, and deadlines within it"
        );
        watch.hear(&ping(&[1, 3]), at(130));
        let judged = watch.judge(true, at(140));
        assert_eq!((judged.overdue, judged.stuck), (vec![job(1)], vec![job(3)]));
        assert_eq!(judged.unaccounted, [job(2)]);
    }

    #[test]
    fn what_runs_too_long_is_overdue_and_what_was_ended_may_get_stuck() {
        let mut watch = Watch::new(PING_INTERVAL, at(0));
        watch.took(job(1), at(30), at(0));
        assert_eq!(watch.judge(true, at(29)), Judgement::default());
        assert_eq!(watch.judge(true, at(30)).overdue, [job(1)]);
        watch.ended(job(1), at(40));
        assert_eq!(watch.judge(true, at(39)), Judgement::default());
        assert_eq!(
            watch.has().collect::<Vec<_>>(),
            [job(1)],
            "not to be handed to it again"
        );
        watch.hear(&ping(&[1]), at(40));
        assert_eq!(watch.judge(true, at(40)).stuck, [job(1)]);
        watch.hear(&ping(&[]), at(41));
        assert_eq!(watch.judge(true, at(41)), Judgement::default());
        assert_eq!(watch.occupied(), 0);
    }

    #[test]
    fn a_result_ends_it_once() {
        let mut watch = holding(&[1]);
        assert!(watch.is_done_with(job(1)));
        assert!(!watch.is_done_with(job(1)));
        watch.ended(job(1), at(1));
        watch.hear(&Heard::Take { busy: false }, at(100));
        assert_eq!(watch.judge(true, at(100)), Judgement::default());
    }
}

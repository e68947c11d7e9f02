//! How long a job will wait: from the slots that work for its line, and how long jobs and starts took lately.

use std::time::Duration;

use super::{
    autoscale::{backing_off, wanted},
    plan::{Counters, EndpointPolicy},
};
use crate::{EndpointName, InstanceState, Timestamp};

/// What overran its known duration is taken to need this part of it still.
const OVERRUN: u32 = 4;

/// What is known of an endpoint's durations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// How long a job holds a slot; `None`: none has run yet.
    pub run: Option<Duration>,
    /// How long an instance takes to start; `None`: none has started yet.
    pub start: Option<Duration>,
    /// Since when the jobs that run have run.
    pub running_since: Vec<Timestamp>,
}

/// When slots become free, and how long a job keeps one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    free_in: Vec<Duration>,
    run: Option<Duration>,
}

impl Outlook {
    /// The outlook of an endpoint's line; `None` while it is paused.
    pub fn new(
        endpoint: &EndpointName,
        known: &Known,
        counters: &Counters,
        of: &EndpointPolicy,
        now: Timestamp,
    ) -> Option<Outlook> {
        let here = counters.endpoints.get(endpoint)?;
        if here.paused {
            return None;
        }
        let mut free_in = Vec::new();
        let mut busy = known.running_since.iter();
        for instance in &here.instances {
            match instance.state {
                InstanceState::Ready => {
                    for slot in 0..instance.slots {
                        if slot >= instance.busy {
                            free_in.push(Duration::ZERO);
                        } else if let Some(run) = known.run {
                            let began = busy.next().copied().unwrap_or(now);
                            free_in.push(rest(run, now.since(began)));
                        }
                    }
                }
                // A server of somebody else that is down comes up when it likes.
                InstanceState::Starting if !of.managed => {}
                InstanceState::Starting => {
                    let start = known
                        .start
                        .map(|start| rest(start, now.since(instance.state_since)));
                    free_in.extend(start);
                }
                InstanceState::Draining
                | InstanceState::Stopping
                | InstanceState::Stopped
                | InstanceState::Failed => {}
            }
        }
        let serving = here.instances.iter().filter(|i| i.is_serving()).count();
        if of.managed
            && let Some(start) = known.start
        {
            let delay = backing_off(here, now).map_or(Duration::ZERO, |(until, _)| until.since(now));
            let missing = wanted(here, of).saturating_sub(serving);
            free_in.extend(std::iter::repeat_n(delay + start, missing));
        }
        Some(Outlook {
            free_in,
            run: known.run,
        })
    }

    /// How long the job waits that has so many before it; `None`: nothing is known to tell it from.
    pub fn starts_in(&self, ahead: u64) -> Option<Duration> {
        let soonest = *self.free_in.iter().min()?;
        if ahead == 0 {
            return Some(soonest);
        }
        let run = millis(self.run?).max(1);
        let free: Vec<u64> = self.free_in.iter().map(|free| millis(*free)).collect();
        // How many jobs have begun by then: the first moment when that is one more than stand before it.
        let begun = |at: u64| -> u64 {
            let of_slot = |free: &u64| at.checked_sub(*free).map_or(0, |since| since / run + 1);
            free.iter().map(of_slot).fold(0, u64::saturating_add)
        };
        let (mut low, mut high) = (0, millis(soonest).saturating_add(run.saturating_mul(ahead)));
        while low < high {
            let middle = low + (high - low) / 2;
            if begun(middle) > ahead {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Some(Duration::from_millis(low))
    }
}

/// What of a usual duration is left after some time; what overran it is taken to need a part of it still.
pub fn rest(known: Duration, elapsed: Duration) -> Duration {
    known.saturating_sub(elapsed).max(if elapsed > known {
        known / OVERRUN
    } else {
        Duration::ZERO
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn outlook(free_in: &[u64], run: u64) -> Outlook {
        Outlook {
            free_in: free_in.iter().map(|n| seconds(*n)).collect(),
            run: Some(seconds(run)),
        }
    }

    #[test]
    fn a_line_moves_one_place_per_run_and_slot() {
        let one = outlook(&[4], 10);
        assert_eq!(
            [0, 1, 5].map(|ahead| one.starts_in(ahead)),
            [Some(seconds(4)), Some(seconds(14)), Some(seconds(54))]
        );
        let three = outlook(&[0, 5, 30], 10);
        let places: Vec<_> = (0..7)
            .map(|ahead| three.starts_in(ahead).unwrap().as_secs())
            .collect();
        assert_eq!(places, [0, 5, 10, 15, 20, 25, 30]);
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(outlook(&[], 10).starts_in(0), None);
        let unknown = Outlook {
            free_in: vec![seconds(1)],
            run: None,
        };
        assert_eq!(
            (unknown.starts_in(0), unknown.starts_in(1)),
            (Some(seconds(1)), None)
        );
    }

    #[test]
    fn what_overran_is_expected_to_end_soon() {
        assert_eq!(rest(seconds(8), seconds(3)), seconds(5));
        assert_eq!(rest(seconds(8), seconds(8)), seconds(0));
        assert_eq!(rest(seconds(8), seconds(60)), seconds(2));
    }

    proptest! {
        /// The same as handing out the line job by job.
        #[test]
        fn it_is_what_a_simulation_says(
            free in proptest::collection::vec(0u64..100, 1..6),
            run in 1u64..50,
            ahead in 0u64..200,
        ) {
            let mut slots = free.clone();
            let mut begins = 0;
            for _ in 0..=ahead {
                let next = slots.iter_mut().min().expect("there are slots");
                begins = *next;
                *next += run;
            }
            prop_assert_eq!(outlook(&free, run).starts_in(ahead), Some(seconds(begins)));
        }
    }
}

//! How long a job's data is kept beside its endpoint's retention: what its caller wished, or its protocol promises.

use std::time::Duration;

use crate::Timestamp;

/// A job that its own time ended is shown for this long, so that who asks for it learns why: as long as the vendors keep a
/// result at least (`protocols/runpod.md` §2).
pub const TOLD_FOR: Duration = Duration::from_secs(60);

/// What is known at a submit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Its whole life from the submit on, running time included; `None`: without a bound.
    pub life: Option<Duration>,
    /// How long it is kept after its end; `None`: as long as its endpoint says.
    pub after_end: Option<Duration>,
}

/// When the data of a job that ended is to be deleted; `None`: its endpoint's retention alone counts. `lives_until`: when its
/// own time is over; `kept`: what is added to its end.
pub fn delete_at(
    lives_until: Option<Timestamp>,
    kept: Option<Duration>,
    ended: Timestamp,
) -> Option<Timestamp> {
    let by_life = lives_until.map(|over| match ended < over {
        true => over,
        false => ended.plus(TOLD_FOR),
    });
    let by_end = kept.map(|kept| ended.plus(kept));
    by_life.into_iter().chain(by_end).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn whichever_is_sooner_counts() {
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(delete_at(None, None, at(5)), None);
        assert_eq!(delete_at(Some(at(100)), None, at(5)), Some(at(100)));
        assert_eq!(delete_at(None, hour, at(5)), Some(at(3605)));
        assert_eq!(delete_at(Some(at(100)), hour, at(5)), Some(at(100)));
        assert_eq!(delete_at(Some(at(9000)), hour, at(5)), Some(at(3605)));
    }

    #[test]
    fn what_its_own_time_ended_can_be_asked_for_a_minute_longer() {
        assert_eq!(delete_at(Some(at(100)), None, at(100)), Some(at(160)));
        assert_eq!(delete_at(Some(at(100)), None, at(101)), Some(at(161)));
        let soon = Some(Duration::from_secs(10));
        assert_eq!(delete_at(Some(at(100)), soon, at(101)), Some(at(111)));
    }
}

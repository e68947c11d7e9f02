//! The middle and the edges of a set of durations.

use std::time::Duration;

/// Durations, sorted.
#[derive(Debug, Clone, Default)]
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Of any order.
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Spread(durations)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds that `percent` of them do not exceed; not a number when there are none.
    pub fn ms(&self, percent: usize) -> f64 {
        let last = self.0.len().checked_sub(1);
        last.map_or(f64::NAN, |last| in_ms(self.0[last * percent / 100]))
    }
}

/// Milliseconds with fractions.
pub fn in_ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The middle value of a few; not a number when there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let spread = Spread::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(
            (spread.ms(0), spread.ms(50), spread.ms(99), spread.ms(100)),
            (1.0, 50.0, 99.0, 100.0)
        );
        assert!(Spread::default().ms(50).is_nan());
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(vec![]).is_nan());
    }
}

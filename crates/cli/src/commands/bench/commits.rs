//! What the server's own metrics say about its commits.

/// Durable commits so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Commits {
    /// How many.
    pub count: f64,
    /// How long they took together, in milliseconds.
    pub total_ms: f64,
}

impl Commits {
    /// Out of the text of `/metrics`.
    pub fn read(metrics: &str) -> Self {
        Commits {
            count: value(
                metrics,
                "darkroom_store_commit_duration_seconds_count{kind=\"durable\"}",
            ),
            total_ms: 1000.0
                * value(
                    metrics,
                    "darkroom_store_commit_duration_seconds_sum{kind=\"durable\"}",
                ),
        }
    }

    /// Those since an earlier look.
    pub fn since(self, earlier: Commits) -> Self {
        Commits {
            count: self.count - earlier.count,
            total_ms: self.total_ms - earlier.total_ms,
        }
    }
}

fn value(metrics: &str, series: &str) -> f64 {
    let text = metrics.lines().find_map(|line| line.strip_prefix(series));
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_commits_are_told_from_those_that_ride_along() {
        let text = "darkroom_store_commit_duration_seconds_sum{kind=\"durable\"} 0.25\n\
                    darkroom_store_commit_duration_seconds_count{kind=\"durable\"} 50\n\
                    darkroom_store_commit_duration_seconds_count{kind=\"ride_along\"} 7\n";
        let commits = Commits::read(text);
        assert_eq!((commits.count, commits.total_ms), (50.0, 250.0));
        assert_eq!(commits.since(commits), Commits::default());
    }
}

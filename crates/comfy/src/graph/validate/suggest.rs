//! "Did you mean": the nearest known names, with a bound on the work one request can cause.

/// Names at most this far apart are worth showing (0 = nothing in common, 1 = equal).
const NEAR: f64 = 0.6;
const SHOWN: usize = 3;
/// Comparing costs the product of both lengths, times the names.
const MAX_CHARS: usize = 64;
const MAX_NAMES: usize = 5_000;
/// A graph with thousands of wrong names gets suggestions for the first few.
const MAX_ASKED: usize = 10;

/// Finds near names for the first few questions of one validation.
#[derive(Debug, Default)]
pub(super) struct Suggester {
    asked: usize,
}

impl Suggester {
    /// As [`nearest`], for the first few questions.
    pub(super) fn nearest<'a>(&mut self, wrong: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
        if self.asked >= MAX_ASKED || wrong.chars().nth(MAX_CHARS).is_some() {
            return Vec::new();
        }
        self.asked += 1;
        nearest(wrong, names, MAX_CHARS)
    }
}

/// Up to three of `names` that look like `wrong`, nearest first, then in their own order. Names of more than `max_chars`
/// characters are not compared.
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>, max_chars: usize) -> Vec<String> {
    let is_short = |name: &str| name.chars().nth(max_chars).is_none();
    if !is_short(wrong) {
        return Vec::new();
    }
    let wrong = wrong.to_lowercase();
    let mut near: Vec<(f64, &str)> = names
        .take(MAX_NAMES)
        .filter(|name| is_short(name))
        .map(|name| {
            (
                strsim::normalized_damerau_levenshtein(&wrong, &name.to_lowercase()),
                name,
            )
        })
        .filter(|(score, _)| *score >= NEAR)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter()
        .take(SHOWN)
        .map(|(_, name)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_nearest_first_and_far_ones_not_at_all() {
        let names = ["PreviewImage", "SaveImage", "KSampler", "SaveImages"];
        assert_eq!(
            Suggester::default().nearest("saveimage", names.into_iter()),
            ["SaveImage", "SaveImages"]
        );
        assert!(Suggester::default().nearest("Zzz", names.into_iter()).is_empty());
    }

    #[test]
    fn only_the_first_questions_are_answered() {
        let mut suggester = Suggester::default();
        for _ in 0..MAX_ASKED {
            assert_eq!(suggester.nearest("aa", ["aa"].into_iter()).len(), 1);
        }
        assert!(suggester.nearest("aa", ["aa"].into_iter()).is_empty());
        assert!(
            Suggester::default()
                .nearest(&"a".repeat(65), ["aa"].into_iter())
                .is_empty()
        );
    }
}

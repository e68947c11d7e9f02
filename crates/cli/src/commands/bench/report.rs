//! What a scenario found: figures, and one verdict against a target. The same for people and for machines.

use serde_json::{Map, Value, json};

use crate::ui;

/// One number.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its key in the JSON; ends in its unit (`p50_ms`, `per_second`).
    pub key: &'static str,
    /// The value, in that unit.
    pub value: f64,
}

/// Which side of the target is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The value must not be above it.
    AtMost,
    /// The value must not be below it.
    AtLeast,
}

/// The value that the target is about, and what it is compared with.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What the value is, in words.
    pub what: &'static str,
    /// The value.
    pub value: f64,
    /// Unit of value, target and baseline.
    pub unit: &'static str,
    /// The target.
    pub target: f64,
    /// Which side of it is good.
    pub bound: Bound,
    /// A ceiling or a baseline of the same run.
    pub baseline: f64,
    /// What that is, in words.
    pub baseline_is: &'static str,
}

/// All that one scenario found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its name on the command line and in the JSON.
    pub scenario: &'static str,
    /// How it was measured, in one sentence.
    pub how: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// Everything measured, baselines included.
    pub figures: Vec<Figure>,
}

impl Verdict {
    /// Whether the target is reached.
    pub fn met(&self) -> bool {
        match self.bound {
            Bound::AtMost => self.value <= self.target,
            Bound::AtLeast => self.value >= self.target,
        }
    }

    /// Value over baseline; nothing when there is nothing to divide by.
    pub fn ratio(&self) -> Option<f64> {
        (self.baseline != 0.0).then(|| self.value / self.baseline)
    }
}

impl Report {
    /// Everything, with the keys of docs/performance.md.
    pub fn to_json(&self) -> Value {
        let v = &self.verdict;
        let bound = match v.bound {
            Bound::AtMost => "at_most",
            Bound::AtLeast => "at_least",
        };
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|figure| (figure.key.to_owned(), json!(rounded(figure.value))))
            .collect();
        json!({
            "how": self.how,
            "what": v.what, "value": rounded(v.value), "unit": v.unit,
            "target": v.target, "bound": bound, "met": v.met(),
            "baseline": rounded(v.baseline), "baseline_is": v.baseline_is, "ratio": v.ratio().map(rounded),
            "figures": figures,
        })
    }

    /// A paragraph for a person.
    pub fn human(&self) -> String {
        let v = &self.verdict;
        let (sign, met) = (
            match v.bound {
                Bound::AtMost => "≤",
                Bound::AtLeast => "≥",
            },
            if v.met() { "met" } else { "MISSED" },
        );
        let ratio = v.ratio().map_or(String::new(), |r| format!(" = {r:.2} of it"));
        let mut text = format!(
            "{}: {} {} {} (target {sign} {}: {met})\n  beside: {} {} {}{ratio}\n  {}\n",
            self.scenario,
            v.what,
            short(v.value),
            v.unit,
            v.target,
            v.baseline_is,
            short(v.baseline),
            v.unit,
            self.how,
        );
        let rows: Vec<Vec<String>> = self
            .figures
            .iter()
            .map(|figure| vec![format!("    {}", figure.key), short(figure.value)])
            .collect();
        let table = ui::table(&["", ""], &rows);
        text.push_str(table.trim_start_matches('\n'));
        text
    }
}

/// Three digits after the point: below the noise of any of this.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn short(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(value: f64, bound: Bound) -> Verdict {
        Verdict {
            what: "x",
            value,
            unit: "ms",
            target: 3.0,
            bound,
            baseline: 2.0,
            baseline_is: "y",
        }
    }

    #[test]
    fn a_target_is_met_on_its_own_side() {
        assert!(verdict(3.0, Bound::AtMost).met());
        assert!(!verdict(3.1, Bound::AtMost).met());
        assert!(verdict(3.0, Bound::AtLeast).met());
        assert!(!verdict(2.9, Bound::AtLeast).met());
        assert!(
            !verdict(f64::NAN, Bound::AtMost).met(),
            "nothing measured is nothing met"
        );
        assert_eq!(verdict(3.0, Bound::AtMost).ratio(), Some(1.5));
    }

    #[test]
    fn people_and_machines_read_the_same() {
        let report = Report {
            scenario: "s",
            how: "somehow",
            verdict: verdict(2.71949, Bound::AtMost),
            figures: vec![Figure {
                key: "p50_ms",
                value: 1.0,
            }],
        };
        let json = report.to_json();
        assert_eq!(json["value"], 2.719);
        assert_eq!(json["met"], true);
        assert_eq!(json["figures"]["p50_ms"], 1.0);
        assert!(
            report.human().contains("2.72 ms (target ≤ 3: met)"),
            "{}",
            report.human()
        );
    }
}

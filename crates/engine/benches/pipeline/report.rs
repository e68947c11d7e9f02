//! Figures, as a table in Markdown.

use std::time::Duration;

use darkroom_engine::pixels::decode;

/// The phases, which are also the nodes' ids.
pub const PHASES: [&str; 5] = ["load", "scale", "blur", "blend", "save"];

/// One time for each of [`PHASES`].
pub type Phases = [Duration; PHASES.len()];

/// The largest image of the pipeline, in bytes: 2048 x 2048 RGB as 32-bit floats.
const LARGEST_IMAGE: f64 = 2048.0 * 2048.0 * 3.0 * 4.0;

/// One run of one server.
#[derive(Debug, Clone)]
pub struct Sample {
    /// How long each phase took.
    pub phases: Phases,
    /// The size of the saved file.
    pub png_bytes: usize,
    /// How much more the process had at its most than when it was idle, where that is known.
    pub peak_bytes: Option<u64>,
}

/// Says how far apart the servers' pictures are.
pub fn same_pixels(round: usize, pictures: &[Vec<u8>]) {
    let Some((first, others)) = pictures.split_first() else {
        return;
    };
    let first = &decode::frames(first).expect("a PNG")[0].rgb;
    for other in others {
        let other = &decode::frames(other).expect("a PNG")[0].rgb;
        assert_eq!(first.len(), other.len());
        let apart = first.iter().zip(other).map(|(a, b)| a.abs_diff(*b));
        let differing = apart.clone().filter(|apart| *apart > 0).count();
        let worst = apart.max().unwrap_or(0);
        assert!(worst <= 1, "the pictures differ by {worst} of 255");
        let share = 100.0 * differing as f64 / first.len() as f64;
        println!(
            "round {round}: the pictures differ by at most {worst} of 255, in {share:.3} % of the samples"
        );
    }
}

/// Medians of all runs.
pub fn print(radius: usize, names: &[&str], samples: &[Vec<Sample>]) {
    println!(
        "\nBlur radius {radius}; medians of {} runs in milliseconds, the fastest in brackets\n",
        samples[0].len()
    );
    println!(
        "| phase | {} |{}",
        names.join(" | "),
        if names.len() > 1 { " times faster |" } else { "" }
    );
    println!(
        "|---|{}",
        "---|".repeat(names.len() + names.len().saturating_sub(1))
    );
    for (at, phase) in PHASES.iter().enumerate() {
        row(phase, samples, |sample| sample.phases[at]);
    }
    row("load to blend", samples, |sample| sample.phases[..4].iter().sum());
    row("all", samples, |sample| sample.phases.iter().sum());
    for (name, samples) in names.iter().zip(samples) {
        let sizes = median(samples.iter().map(|sample| sample.png_bytes));
        println!("\n{name}: PNG of {} kB", sizes >> 10);
        if let Some(peak) = samples.iter().filter_map(|sample| sample.peak_bytes).max() {
            let copies = peak as f64 / LARGEST_IMAGE;
            println!(
                "{name}: at most {} MB more than idle, {copies:.2} times the largest image",
                peak >> 20
            );
        }
    }
}

fn row(name: &str, samples: &[Vec<Sample>], time: impl Fn(&Sample) -> Duration) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let medians: Vec<f64> = samples
        .iter()
        .map(|s| milliseconds(median(s.iter().map(&time))))
        .collect();
    let fastest = samples
        .iter()
        .map(|s| s.iter().map(&time).min().map_or(0.0, milliseconds));
    let cells: Vec<String> = medians
        .iter()
        .zip(fastest)
        .map(|(m, f)| format!("{m:.1} ({f:.1})"))
        .collect();
    let times = medians
        .get(1)
        .map_or(String::new(), |other| format!(" {:.1} |", other / medians[0]));
    println!("| {name} | {} |{times}", cells.join(" | "));
}

fn median<T: Ord + Default + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

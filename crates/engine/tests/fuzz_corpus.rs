//! Replays the fuzzers' committed corpus through the very functions the fuzzers call (`fuzz/README.md`), within bounds
//! of time and memory: what is refused must be refused at once.

#[path = "../../../fuzz/properties/graph.rs"]
mod graph;
#[path = "../../../fuzz/properties/image.rs"]
mod image;

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    time::Duration,
};

use darkroom_ambient::SystemClock;
use darkroom_core::Clock;

/// One small file takes milliseconds; one that claims to be large, and is believed, takes minutes. Between them, with room for
/// a debug build on a machine that has much else to do.
const LONGEST: Duration = Duration::from_secs(30);
/// What this process may have taken at most after all of it: the corpus has no file whose pixels take more than a
/// few megabytes, only files that claim to.
const MOST_MEMORY_KB: u64 = 512 << 10;

fn corpus(target: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(
        files.len() >= 40,
        "{} files in {}",
        files.len(),
        directory.display()
    );
    files
}

fn replay(target: &str, check: fn(&[u8])) {
    let clock = SystemClock::new();
    let mut failed = Vec::new();
    for file in corpus(target) {
        let bytes = fs::read(&file).unwrap();
        let began = clock.monotonic();
        let outcome = catch_unwind(|| check(&bytes));
        let took = clock.monotonic() - began;
        if outcome.is_err() || took > LONGEST {
            failed.push(format!(
                "{}: panicked {}, took {took:?}",
                file.display(),
                outcome.is_err()
            ));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    if let Some(peak) = peak_kb() {
        assert!(peak < MOST_MEMORY_KB, "{peak} kB were in use");
    }
}

/// The most memory this process ever had, where Linux tells.
fn peak_kb() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn images_of_the_corpus_keep_the_promises() {
    replay("decode_image", image::check);
}

#[test]
fn graphs_of_the_corpus_keep_the_promises() {
    replay("parse_graph", graph::check);
}

//! Many histories without a bug, and each planted bug found.
//!
//! `DARKROOM_SIM_SEEDS=100000` lives through more; `DARKROOM_SIM_SEED=7` through one, and prints it.

use super::{Plant, Summary, run};

const DEFAULT_SEEDS: u64 = 2_000;
/// A planted bug must show within so many.
const SEEDS_FOR_A_PLANT: u64 = 10_000;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

#[test]
fn nothing_is_found_without_a_bug() {
    if let Some(seed) = variable("DARKROOM_SIM_SEED") {
        match run(seed, Plant::None) {
            Ok(summary) => println!("seed {seed}: {summary:#?}"),
            Err(violation) => panic!("\n{violation}"),
        }
        return;
    }
    let mut all = Summary::default();
    for seed in 0..variable("DARKROOM_SIM_SEEDS").unwrap_or(DEFAULT_SEEDS) {
        match run(seed, Plant::None) {
            Ok(one) => add(&mut all, &one),
            Err(violation) => panic!("\n{violation}"),
        }
    }
    println!("{all:#?}");
    // A simulation in which nothing goes wrong would find nothing.
    for (what, n) in [
        ("lost", all.lost),
        ("released", all.released),
        ("stale", all.stale),
        ("failed starts", all.failed_starts),
        ("dropped actions", all.dropped_actions),
        ("server away", all.server_away),
    ] {
        assert!(n > 10, "hardly any {what}: {n}");
    }
    assert!(all.succeeded * 2 > all.jobs, "most jobs succeed: {all:?}");
}

#[test]
fn a_seed_is_a_whole_history() {
    for seed in 0..20 {
        assert_eq!(run(seed, Plant::None), run(seed, Plant::None));
    }
}

#[test]
fn finds_a_store_that_does_not_check_fences() {
    found(Plant::NoFenceCheck);
}

#[test]
fn finds_that_a_busy_instance_is_stopped() {
    found(Plant::StopBusyInstance);
}

#[test]
fn finds_that_lost_attempts_are_not_counted() {
    found(Plant::LostNotCounted);
}

fn found(plant: Plant) {
    let violation = (0..SEEDS_FOR_A_PLANT).find_map(|seed| run(seed, plant).err());
    let violation =
        violation.unwrap_or_else(|| panic!("{plant:?} was not found in {SEEDS_FOR_A_PLANT} seeds"));
    println!("{plant:?}: seed {}: {}", violation.seed, violation.what);
}

fn add(all: &mut Summary, one: &Summary) {
    all.steps += one.steps;
    all.jobs += one.jobs;
    all.succeeded += one.succeeded;
    all.attempts += one.attempts;
    all.lost += one.lost;
    all.released += one.released;
    all.stale += one.stale;
    all.starts += one.starts;
    all.failed_starts += one.failed_starts;
    all.dropped_actions += one.dropped_actions;
    all.server_away += one.server_away;
}

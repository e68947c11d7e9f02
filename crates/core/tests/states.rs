//! `docs/states.md` and the state machines say the same.

use darkroom_core::{
    AttemptOutcome, AttemptState, Failure, InstanceState, JobState, attempt,
    failure::FailureCode,
    instance,
    job::{self, Life},
    retry,
};

const DOCUMENT: &str = include_str!("../../../docs/states.md");
const LIMITS: retry::Limits = retry::Limits { max_attempts: 2 };

#[test]
fn the_table_of_jobs_is_true() {
    let ended = |outcome| job::Event::AttemptEnded(outcome);
    // Name, event, and before it: lost attempts, released ones, those out of memory.
    let columns = [
        ("claimed", job::Event::Claimed, [0, 0, 0]),
        ("attempt done", ended(AttemptOutcome::Done), [0, 0, 0]),
        (
            "attempt failed",
            ended(AttemptOutcome::Failed(failure())),
            [0, 0, 0],
        ),
        ("attempt out of memory", ended(out_of_memory()), [0, 0, 0]),
        (
            "last attempt out of memory",
            ended(out_of_memory()),
            [0, 0, retry::MAX_OUT_OF_MEMORY - 1],
        ),
        ("attempt lost", ended(lost()), [0, 0, 0]),
        (
            "last attempt lost",
            ended(lost()),
            [LIMITS.max_attempts - 1, 0, 0],
        ),
        ("attempt released", ended(released()), [0, 0, 0]),
        (
            "last attempt released",
            ended(released()),
            [0, retry::MAX_RELEASED - 1, 0],
        ),
        ("attempt cancelled", ended(AttemptOutcome::Cancelled), [0, 0, 0]),
        ("cancel requested", job::Event::CancelRequested, [0, 0, 0]),
        ("ttl passed", job::Event::TtlPassed, [0, 0, 0]),
        ("retry requested", job::Event::RetryRequested, [0, 0, 0]),
    ];
    let rows = JobState::ALL.into_iter().flat_map(|state| {
        let both = [(state, false), (state, true)];
        both.into_iter()
            .filter(|&(state, asked)| !asked || state == JobState::Running)
    });
    let name = |state: JobState, asked| {
        format!(
            "{}{}",
            state.as_str(),
            if asked { ", cancel requested" } else { "" }
        )
    };
    let table = rows.map(|(state, cancel_requested)| {
        let cells = columns
            .iter()
            .map(|(_, event, [lost_attempts, released_attempts, out_of_memory])| {
                let life = Life {
                    state,
                    lost_attempts: *lost_attempts,
                    released_attempts: *released_attempts,
                    out_of_memory: *out_of_memory,
                    cancel_requested,
                };
                let next = job::apply(&life, event.clone(), LIMITS).ok();
                next.map(|(next, _)| name(next.state, next.cancel_requested && !next.state.is_final()))
            });
        (name(state, cancel_requested), cells.collect())
    });
    let names = columns.iter().map(|(name, ..)| *name).collect();
    compare("## Job", names, table.collect());
}

#[test]
fn the_table_of_attempts_is_true() {
    let events = [
        attempt::Event::Started,
        attempt::Event::CollectingBegan,
        attempt::Event::Ended(AttemptOutcome::Done),
        attempt::Event::Ended(AttemptOutcome::Failed(failure())),
        attempt::Event::Ended(lost()),
        attempt::Event::Ended(released()),
        attempt::Event::Ended(AttemptOutcome::Cancelled),
    ];
    let table = AttemptState::ALL.into_iter().map(|state| {
        let next = |event| attempt::apply(state, event).ok();
        let cells = events
            .iter()
            .map(|event| next(event).map(|s| s.as_str().to_owned()));
        (state.as_str().to_owned(), cells.collect())
    });
    compare(
        "## Attempt",
        events.iter().map(|e| e.name()).collect(),
        table.collect(),
    );
}

#[test]
fn the_table_of_instances_is_true() {
    let table = InstanceState::ALL.into_iter().map(|state| {
        let next = |event| instance::apply(state, event).ok();
        let cells = instance::Event::ALL
            .into_iter()
            .map(|event| next(event).map(|s| s.as_str().to_owned()));
        (state.as_str().to_owned(), cells.collect())
    });
    let names = instance::Event::ALL.into_iter().map(|e| e.name()).collect();
    compare("## Instance", names, table.collect());
}

type Row = (String, Vec<Option<String>>);

fn compare(heading: &str, events: Vec<&str>, rows: Vec<Row>) {
    let line = |first: &str, cells: &mut dyn Iterator<Item = String>| {
        let mut line = format!("| {first} |");
        for cell in cells {
            line.push_str(&format!(" {cell} |"));
        }
        line
    };
    let mut code = vec![
        line("state", &mut events.iter().map(|e| (*e).to_owned())),
        line("---", &mut events.iter().map(|_| "---".to_owned())),
    ];
    for (state, cells) in rows {
        let cells = cells.into_iter().map(|c| c.unwrap_or_else(|| "-".to_owned()));
        code.push(line(&state, &mut cells.into_iter()));
    }
    let section = DOCUMENT.split_once(heading).map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or("");
    let document: Vec<&str> = section.lines().filter(|l| l.starts_with('|')).collect();
    assert!(
        document == code,
        "docs/states.md differs from the code under '{heading}'; as the code has it:\n{}\n",
        code.join("\n")
    );
}

fn failure() -> Failure {
    Failure::new(FailureCode::ExecutionError, "raised")
}

fn out_of_memory() -> AttemptOutcome {
    AttemptOutcome::Failed(Failure::new(FailureCode::OutOfMemory, "raised"))
}

fn lost() -> AttemptOutcome {
    AttemptOutcome::Lost {
        reason: "it died".to_owned(),
    }
}

fn released() -> AttemptOutcome {
    AttemptOutcome::Released {
        reason: "restart".to_owned(),
    }
}

//! Looks into the data directory of a server that has stopped: the database, the blobs, and the processes must agree.
//!
//! The one place in the tests that knows the database's tables. What it asserts are the promises of the design: one
//! final state and one result for each job, no row whose blob is missing, no blob that nothing names, nothing running.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use rusqlite::{Connection, OpenFlags};

use crate::processes;

/// What was found, for tests that want to say more.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Jobs of any kind.
    pub jobs: i64,
    /// Attempts of all jobs.
    pub attempts: i64,
}

/// Asserts all of it for a directory that no server has open.
pub fn audit(data_dir: &Path) -> Found {
    let database =
        Connection::open_with_flags(data_dir.join("darkroom.db"), OpenFlags::SQLITE_OPEN_READ_WRITE)
            .expect("the database opens");
    assert_eq!(none(&database, "PRAGMA integrity_check"), vec!["ok".to_owned()]);
    jobs(&database);
    counters(&database);
    blobs(&database, &data_dir.join("blobs").join("data"));
    let running = processes::marked(data_dir);
    assert!(
        running.is_empty(),
        "processes of the directory still run: {running:?}"
    );
    Found {
        jobs: count(&database, "SELECT count(*) FROM jobs"),
        attempts: count(&database, "SELECT count(*) FROM attempts"),
    }
}

/// How often a job's prompt was begun, as its durable events tell.
pub fn executions(data_dir: &Path, job: &str) -> i64 {
    let database =
        Connection::open_with_flags(data_dir.join("darkroom.db"), OpenFlags::SQLITE_OPEN_READ_WRITE)
            .expect("the database opens");
    let id = uuid::Uuid::parse_str(job).expect("a job's id is a UUID");
    database
        .query_row(
            "SELECT count(*) FROM events e JOIN jobs j ON j.nr = e.job WHERE j.id = ?1 AND e.kind = 'execution_start'",
            [id.as_bytes().as_slice()],
            |row| row.get(0),
        )
        .expect("events are counted")
}

/// Every job, also one whose submit was never answered, is in a final state, entered once, with at most one result.
fn jobs(database: &Connection) {
    let wrong = none(
        database,
        "SELECT hex(id) || ' is ' || state FROM jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')",
    );
    assert!(wrong.is_empty(), "unfinished jobs: {wrong:?}");
    let wrong = none(
        database,
        "SELECT hex(j.id) || ' ends ' || count(e.seq) || ' times' FROM jobs j LEFT JOIN events e \
         ON e.job = j.nr AND e.kind = 'state' \
         AND json_extract(e.data, '$.state') IN ('succeeded', 'failed', 'cancelled', 'expired') \
         GROUP BY j.nr HAVING count(e.seq) <> 1",
    );
    assert!(wrong.is_empty(), "not one final event: {wrong:?}");
    let wrong = none(
        database,
        "SELECT hex(j.id) || ' was done ' || count(a.fence) || ' times' FROM jobs j LEFT JOIN attempts a \
         ON a.job = j.nr AND a.state = 'done' WHERE j.state = 'succeeded' GROUP BY j.nr HAVING count(a.fence) <> 1",
    );
    assert!(wrong.is_empty(), "not completed once: {wrong:?}");
    let wrong = none(
        database,
        "SELECT hex(id) FROM jobs WHERE state = 'succeeded' AND nr NOT IN (SELECT job FROM results)",
    );
    assert!(wrong.is_empty(), "succeeded without a result: {wrong:?}");
    let wrong = none(
        database,
        "SELECT 'fence ' || fence FROM attempts WHERE ended_at IS NULL",
    );
    assert!(wrong.is_empty(), "attempts that never ended: {wrong:?}");
    let wrong = none(
        database,
        "SELECT hex(j.id) FROM jobs j WHERE j.last_event <> (SELECT count(*) FROM events e WHERE e.job = j.nr)",
    );
    assert!(wrong.is_empty(), "gaps in the numbers of events: {wrong:?}");
}

/// The planner's counters say what the rows say.
fn counters(database: &Connection) {
    let wrong = none(
        database,
        "SELECT endpoint || ': ' || queued || ' ' || running || ' ' || collecting FROM queues \
         WHERE queued <> 0 OR queued_low <> 0 OR running <> 0 OR collecting <> 0",
    );
    assert!(wrong.is_empty(), "counters of nothing: {wrong:?}");
    let wrong = none(database, "SELECT endpoint || ' ' || tenant FROM lanes");
    assert!(wrong.is_empty(), "lanes without jobs: {wrong:?}");
    let wrong = none(
        database,
        "SELECT hex(id) || ' is ' || state FROM instances WHERE gone = 0",
    );
    assert!(wrong.is_empty(), "instances that are still wanted: {wrong:?}");
}

/// Rows and files: each names the other, intents aside.
fn blobs(database: &Connection, data: &Path) {
    let mut stored = BTreeMap::new();
    walk(data, "", &mut stored);
    let mut named = BTreeSet::new();
    for (blob, size) in pairs(database, "SELECT blob, size FROM file_refs") {
        match stored.get(&blob) {
            Some(there) => assert_eq!(*there, size, "the size of {blob}"),
            None => panic!("the blob of a row is missing: {blob}"),
        }
        named.insert(blob);
    }
    for table in ["inputs", "results"] {
        for (blob, _) in pairs(
            database,
            &format!("SELECT blob, size FROM {table} WHERE blob IS NOT NULL"),
        ) {
            assert!(
                named.contains(&blob),
                "{table} names a blob without a reference: {blob}"
            );
        }
    }
    for (blob, _) in pairs(database, "SELECT blob, 0 FROM trash") {
        assert!(!named.contains(&blob), "referred to and in the trash: {blob}");
        named.insert(blob);
    }
    let unknown: Vec<&String> = stored.keys().filter(|blob| !named.contains(*blob)).collect();
    assert!(unknown.is_empty(), "blobs that nothing names: {unknown:?}");
}

fn walk(folder: &Path, prefix: &str, found: &mut BTreeMap<String, i64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata().expect("a blob's metadata");
        if metadata.is_dir() {
            walk(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name, i64::try_from(metadata.len()).expect("files are smaller"));
        }
    }
}

/// The rows of a query of one text column; none when all is well.
fn none(database: &Connection, sql: &str) -> Vec<String> {
    let mut statement = database.prepare(sql).expect("the tables are as expected");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("texts")
}

fn pairs(database: &Connection, sql: &str) -> Vec<(String, i64)> {
    let mut statement = database.prepare(sql).expect("the tables are as expected");
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("rows");
    rows.collect::<Result<_, _>>().expect("a text and a number")
}

fn count(database: &Connection, sql: &str) -> i64 {
    database.query_row(sql, [], |row| row.get(0)).expect("a number")
}

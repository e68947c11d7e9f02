//! The disk itself: synced bytes stay, others go, and SQLite's own promise holds on it.

use darkroom_store_powerloss::{Disk, Survivors};
use rusqlite::{Connection, OpenFlags};

fn open(disk: &Disk, file: &std::path::Path, synchronous: &str) -> Connection {
    let conn = Connection::open_with_flags_and_vfs(file, OpenFlags::default(), disk.vfs()).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous};"
    ))
    .unwrap();
    conn
}

fn count(conn: &Connection) -> i64 {
    conn.query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0))
        .unwrap()
}

/// Commits 50 rows, cuts the power, and tells how many are there afterwards; the rest is checked on the way.
fn rows_after_a_cut(disk: &Disk, synchronous: &str, survivors: Survivors) -> i64 {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("db.sqlite");
    let conn = open(disk, &file, "FULL");
    conn.execute_batch("CREATE TABLE t (x INTEGER); PRAGMA wal_checkpoint(TRUNCATE);")
        .unwrap();
    drop(conn);
    let conn = open(disk, &file, synchronous);
    for n in 0..50 {
        conn.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
    }
    disk.cut(survivors).unwrap();
    assert!(
        conn.execute("INSERT INTO t VALUES (99)", []).is_err(),
        "no power, no write"
    );
    drop(conn);
    disk.power_on();
    let conn = open(disk, &file, "FULL");
    let sound: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok");
    count(&conn)
}

#[test]
fn what_was_synced_survives_and_what_was_not_goes() {
    let disk = Disk::register("power-rows");
    assert_eq!(rows_after_a_cut(disk, "FULL", Survivors::None), 50);
    assert_eq!(
        rows_after_a_cut(disk, "NORMAL", Survivors::None),
        0,
        "the log was not synced"
    );
    assert_eq!(rows_after_a_cut(disk, "OFF", Survivors::None), 0);
    for seed in 1..20 {
        assert_eq!(rows_after_a_cut(disk, "FULL", Survivors::Some(seed)), 50);
        assert!(rows_after_a_cut(disk, "NORMAL", Survivors::Some(seed)) < 50);
    }
}

#[test]
fn a_failing_sync_fails_the_commit() {
    let disk = Disk::register("power-fail");
    let dir = tempfile::tempdir().unwrap();
    let conn = open(disk, &dir.path().join("db.sqlite"), "FULL");
    conn.execute_batch("CREATE TABLE t (x INTEGER);").unwrap();
    let before = disk.syncs();
    conn.execute("INSERT INTO t VALUES (1)", []).unwrap();
    assert!(disk.syncs() > before);
    disk.fail_syncs(true);
    assert!(conn.execute("INSERT INTO t VALUES (2)", []).is_err());
    disk.fail_syncs(false);
}

//! Brings a database file to the newest schema: forward only, after a backup, never onto a newer one.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::sql;
use crate::Error;

/// The steps, in order; step `n` (from 1) leads to `user_version = n`. Never edit one that was released.
pub(super) const STEPS: &[&str] = &[
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_queues.sql"),
    include_str!("migrations/0003_sealed.sql"),
    include_str!("migrations/0004_events_per_attempt.sql"),
    include_str!("migrations/0005_webhook_tries.sql"),
    include_str!("migrations/0006_history.sql"),
    include_str!("migrations/0007_lifecycle.sql"),
    include_str!("migrations/0008_boxes.sql"),
    include_str!("migrations/0009_streams.sql"),
    include_str!("migrations/0010_workflows.sql"),
    include_str!("migrations/0011_app_keys.sql"),
    include_str!("migrations/0012_told.sql"),
    include_str!("migrations/0013_keep.sql"),
    include_str!("migrations/0014_workflow_rights.sql"),
    include_str!("migrations/0015_nonces.sql"),
    include_str!("migrations/0016_items.sql"),
    include_str!("migrations/0017_assets.sql"),
    include_str!("migrations/0018_labels.sql"),
    include_str!("migrations/0019_asset_uploads.sql"),
    include_str!("migrations/0020_assets_of_strangers.sql"),
];

/// Applies the steps that the file lacks. A database that holds something is backed up first, to
/// `<file>.backup-v<from>`.
///
/// # Errors
/// [`Error::NewerSchema`] when the file was written by a newer program; nothing is changed then.
pub(super) fn migrate(conn: &Connection, file: &Path, steps: &[&str]) -> Result<(), Error> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = i64::try_from(steps.len()).expect("a handful of migrations");
    if found > known {
        return Err(Error::NewerSchema { found, known });
    }
    if found == known {
        return Ok(());
    }
    if found > 0 {
        back_up(conn, file, found)?;
    }
    for (step, version) in steps.iter().zip(1i64..) {
        if version <= found {
            continue;
        }
        // Schema and version number in one transaction: a crash leaves either the old or the new.
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let applied = conn
            .execute_batch(step)
            .and_then(|()| conn.pragma_update(None, "user_version", version))
            .and_then(|()| conn.execute_batch("COMMIT"));
        if let Err(error) = applied {
            if !conn.is_autocommit() {
                conn.execute_batch("ROLLBACK")?;
            }
            return Err(error.into());
        }
        tracing::info!(version, "store schema migrated");
    }
    Ok(())
}

fn back_up(conn: &Connection, file: &Path, from: i64) -> Result<(), Error> {
    let backup = with_suffix(file, &format!(".backup-v{from}"));
    let unfinished = with_suffix(file, &format!(".backup-v{from}.tmp"));
    let io = |error: std::io::Error| Error::Driver(Box::new(error));
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let target = unfinished.to_str().ok_or_else(|| Error::Inconsistent {
        table: "path",
        what: format!("{} is not UTF-8", unfinished.display()),
    })?;
    sql::execute(conn, "VACUUM INTO ?1", [target])?;
    std::fs::File::open(&unfinished)
        .and_then(|f| f.sync_all())
        .map_err(io)?;
    std::fs::rename(&unfinished, &backup).map_err(io)?;
    let directory = backup.parent().filter(|p| !p.as_os_str().is_empty());
    std::fs::File::open(directory.unwrap_or(Path::new(".")))
        .and_then(|d| d.sync_all())
        .map_err(io)?;
    tracing::info!(backup = %backup.display(), "store backed up before its migration");
    Ok(())
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1);";
    const TWO: &str = "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 7;";

    fn version(conn: &Connection) -> i64 {
        conn.pragma_query_value(None, "user_version", |r| r.get(0))
            .unwrap()
    }

    #[test]
    fn a_database_with_content_is_backed_up_before_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it's a db.sqlite");
        let conn = Connection::open(&file).unwrap();
        migrate(&conn, &file, &[ONE]).unwrap();
        assert!(
            !with_suffix(&file, ".backup-v0").exists(),
            "an empty file needs no backup"
        );
        migrate(&conn, &file, &[ONE, TWO]).unwrap();
        assert_eq!(version(&conn), 2);
        let backup = Connection::open(with_suffix(&file, ".backup-v1")).unwrap();
        assert_eq!(version(&backup), 1);
        assert!(
            backup
                .query_row("SELECT y FROM a", [], |r| r.get::<_, i64>(0))
                .is_err()
        );
        assert_eq!(
            conn.query_row("SELECT y FROM a", [], |r| r.get::<_, i64>(0))
                .unwrap(),
            7
        );
    }

    #[test]
    fn a_failing_step_leaves_the_old_schema() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("db.sqlite");
        let conn = Connection::open(&file).unwrap();
        migrate(&conn, &file, &[ONE]).unwrap();
        assert!(migrate(&conn, &file, &[ONE, "DROP TABLE a; SELECT nonsense;"]).is_err());
        assert_eq!(version(&conn), 1);
        assert_eq!(
            conn.query_row("SELECT x FROM a", [], |r| r.get::<_, i64>(0))
                .unwrap(),
            1
        );
    }

    #[test]
    fn a_newer_schema_is_refused_by_name_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("db.sqlite");
        let conn = Connection::open(&file).unwrap();
        conn.pragma_update(None, "user_version", 9).unwrap();
        let refused = migrate(&conn, &file, &[ONE]).unwrap_err();
        assert!(matches!(refused, Error::NewerSchema { found: 9, known: 1 }));
        assert_eq!(version(&conn), 9);
    }
}

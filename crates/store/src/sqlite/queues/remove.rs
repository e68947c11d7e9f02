//! Removing items: the row, its deliveries, its blob's reference, and the job behind it.

use darkroom_core::{JobId, JobState};
use rusqlite::params;

use super::{
    super::{files, jobs::end, sql, tx::Tx},
    Head,
};
use crate::{Error, jobs::Swept, queues::QueueId};

/// Items removed at most in one step of a truncation.
const TRUNCATE_ROWS: u64 = 500;

pub(super) fn delete(tx: &Tx<'_>, queue: &QueueId, indexes: &[u64]) -> Result<u64, Error> {
    let Some(head) = Head::find(tx.conn, queue)? else {
        return Ok(0);
    };
    let mut removed = 0;
    for index in indexes {
        let index = sql::int(*index);
        forget_job(tx, &head, index)?;
        removed += u64::from(remove(tx, &head, index)?);
    }
    if removed > 0 {
        // Windows have room again.
        head.wake(tx);
    }
    Ok(removed)
}

pub(super) fn truncate(tx: &Tx<'_>, queue: &QueueId, before: u64) -> Result<Swept, Error> {
    let Some(head) = Head::find(tx.conn, queue)? else {
        return Ok(Swept::default());
    };
    let indexes: Vec<u64> = sql::rows(
        tx.conn,
        "SELECT idx FROM items WHERE queue = ?1 AND idx < ?2 ORDER BY idx LIMIT ?3",
        params![head.nr, sql::int(before), sql::int(TRUNCATE_ROWS)],
        |row| sql::unsigned(row, "idx"),
    )?;
    let found = indexes.len() as u64;
    let rows = delete(tx, queue, &indexes)?;
    Ok(Swept {
        rows,
        more: found == TRUNCATE_ROWS,
    })
}

/// Removes one item; `false` when it is not there.
pub(super) fn remove(tx: &Tx<'_>, head: &Head, index: i64) -> Result<bool, Error> {
    let gone: Option<(bool, bool)> = sql::row(
        tx.conn,
        "DELETE FROM items WHERE queue = ?1 AND idx = ?2 RETURNING taken_until IS NULL, blob IS NOT NULL",
        [head.nr, index],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let Some((counted, has_blob)) = gone else {
        return Ok(false);
    };
    sql::execute(
        tx.conn,
        "DELETE FROM deliveries WHERE queue = ?1 AND idx = ?2",
        [head.nr, index],
    )?;
    if counted {
        head.change_length(tx, -1)?;
    }
    if has_blob {
        files::drop_item(tx, &head.owner(), index)?;
    }
    Ok(true)
}

/// The job behind an item ends without a result, where it has not ended.
fn forget_job(tx: &Tx<'_>, head: &Head, index: i64) -> Result<(), Error> {
    let job = sql::row(
        tx.conn,
        "SELECT j.id, j.state FROM items i JOIN jobs j ON j.nr = i.job WHERE i.queue = ?1 AND i.idx = ?2",
        [head.nr, index],
        |row| {
            let id = JobId::from_uuid(sql::uuid(row, "id", "jobs")?);
            Ok((id, sql::parsed(row, "state", "jobs", JobState::parse)?))
        },
    )?;
    let Some((job, state)) = job else { return Ok(()) };
    sql::execute(
        tx.conn,
        "UPDATE jobs SET sink = NULL WHERE id = ?1",
        [job.as_uuid().as_bytes().as_slice()],
    )?;
    // Its end must not look for the item that is just going.
    sql::execute(
        tx.conn,
        "UPDATE items SET job = NULL WHERE queue = ?1 AND idx = ?2",
        [head.nr, index],
    )?;
    if !state.is_final() {
        end::cancel(tx, None, job)?;
    }
    Ok(())
}

//! Retention: forgetting finished jobs with all that belongs to them. One whose end is still to be told waits for that.

use std::time::Duration;

use darkroom_core::{EndpointName, JobId};
use rusqlite::params;

use super::{
    super::{files, sql, tx::Tx},
    end::SWEEP_ROWS,
    life::micros,
};
use crate::{Error, jobs::Swept};

/// Events removed at most in one step (a job with the most events still fits).
const MAX_EVENTS: u64 = 4_000;

pub(super) fn sweep_finished(
    tx: &Tx<'_>,
    endpoint: &EndpointName,
    retention: Duration,
) -> Result<Swept, Error> {
    let before = tx.now.as_micros().saturating_sub(micros(retention));
    let due = sql::rows(
        tx.conn,
        "SELECT nr, id, last_event FROM jobs \
         WHERE endpoint = ?1 AND finished_at IS NOT NULL AND finished_at <= ?2 \
         AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.job = jobs.id) ORDER BY finished_at LIMIT ?3",
        params![endpoint.as_str(), before, sql::int(SWEEP_ROWS)],
        |row| {
            Ok((
                row.get::<_, i64>("nr")?,
                JobId::from_uuid(sql::uuid(row, "id", "jobs")?),
                sql::unsigned::<u64>(row, "last_event")?,
            ))
        },
    )?;
    let found = due.len();
    let mut swept = Swept::default();
    let mut events = 0;
    for (nr, id, last_event) in due {
        events += last_event;
        if swept.rows > 0 && events > MAX_EVENTS {
            break;
        }
        for statement in [
            "DELETE FROM events WHERE job = ?1",
            "DELETE FROM attempts WHERE job = ?1",
            "DELETE FROM external_ids WHERE job = ?1",
            "DELETE FROM inputs WHERE job = ?1",
            "DELETE FROM results WHERE job = ?1",
            "DELETE FROM jobs WHERE nr = ?1",
        ] {
            sql::execute(tx.conn, statement, [nr])?;
        }
        sql::execute(
            tx.conn,
            "DELETE FROM webhook_tries WHERE job = ?1",
            [id.as_uuid().as_bytes().as_slice()],
        )?;
        files::drop_owner(tx, &files::owner(id))?;
        swept.rows += 1;
    }
    swept.more = swept.rows == SWEEP_ROWS || swept.rows < found as u64;
    // An account that the endpoint's clock has passed says no more than none does.
    sql::execute(
        tx.conn,
        "DELETE FROM shares WHERE endpoint = ?1 AND weight = 1 \
         AND vtime <= (SELECT clock FROM queues WHERE endpoint = ?1)",
        [endpoint.as_str()],
    )?;
    Ok(swept)
}

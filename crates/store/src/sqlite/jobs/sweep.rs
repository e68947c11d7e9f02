//! Retention: forgetting finished jobs with all that belongs to them. One whose end is still to be told waits for that.

use std::time::Duration;

use darkroom_core::{EndpointName, JobId, TenantId};
use rusqlite::{Row, params};

use super::{
    super::{files, sql, tx::Tx},
    end::SWEEP_ROWS,
    life::{Head, micros},
};
use crate::{
    Error,
    jobs::{Deleted, Swept},
};

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
        Due::read,
    )?;
    let swept = remove(tx, due)?;
    // An account that the endpoint's clock has passed says no more than none does.
    sql::execute(
        tx.conn,
        "DELETE FROM shares WHERE endpoint = ?1 AND weight = 1 \
         AND vtime <= (SELECT clock FROM queues WHERE endpoint = ?1)",
        [endpoint.as_str()],
    )?;
    Ok(swept)
}

pub(super) fn sweep_expired(tx: &Tx<'_>) -> Result<Swept, Error> {
    let due = sql::rows(
        tx.conn,
        "SELECT nr, id, last_event FROM jobs INDEXED BY jobs_delete \
         WHERE delete_at IS NOT NULL AND delete_at <= ?1 \
         AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.job = jobs.id) ORDER BY delete_at LIMIT ?2",
        params![tx.now.as_micros(), sql::int(SWEEP_ROWS)],
        Due::read,
    )?;
    remove(tx, due)
}

pub(super) fn delete_job(
    tx: &Tx<'_>,
    tenant: Option<&TenantId>,
    job: JobId,
) -> Result<Option<Deleted>, Error> {
    let Some(head) = Head::load(tx, tenant, job)? else {
        return Ok(None);
    };
    if !head.life.state.is_final() {
        return Ok(Some(Deleted::NotEnded));
    }
    let due = sql::rows(
        tx.conn,
        "SELECT nr, id, last_event FROM jobs WHERE nr = ?1 \
         AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.job = jobs.id)",
        [head.nr],
        Due::read,
    )?;
    let removed = remove(tx, due)?;
    Ok(Some(match removed.rows {
        0 => Deleted::StillTold,
        _ => Deleted::Now,
    }))
}

/// A job whose time has come.
struct Due {
    nr: i64,
    id: JobId,
    events: u64,
}

impl Due {
    fn read(row: &Row<'_>) -> Result<Due, Error> {
        Ok(Due {
            nr: row.get("nr")?,
            id: JobId::from_uuid(sql::uuid(row, "id", "jobs")?),
            events: sql::unsigned(row, "last_event")?,
        })
    }
}

/// Removes as many of them as one step may.
fn remove(tx: &Tx<'_>, due: Vec<Due>) -> Result<Swept, Error> {
    let found = due.len() as u64;
    let mut swept = Swept::default();
    let mut events = 0;
    for job in due {
        events += job.events;
        if swept.rows > 0 && events > MAX_EVENTS {
            break;
        }
        for statement in [
            "DELETE FROM events WHERE job = ?1",
            "DELETE FROM attempts WHERE job = ?1",
            "DELETE FROM external_ids WHERE job = ?1",
            "DELETE FROM labels WHERE job = ?1",
            "DELETE FROM inputs WHERE job = ?1",
            "DELETE FROM results WHERE job = ?1",
            "DELETE FROM jobs WHERE nr = ?1",
        ] {
            sql::execute(tx.conn, statement, [job.nr])?;
        }
        sql::execute(
            tx.conn,
            "DELETE FROM webhook_tries WHERE job = ?1",
            [job.id.as_uuid().as_bytes().as_slice()],
        )?;
        files::drop_owner(tx, &files::owner(job.id))?;
        swept.rows += 1;
    }
    swept.more = swept.rows == SWEEP_ROWS || swept.rows < found;
    Ok(swept)
}

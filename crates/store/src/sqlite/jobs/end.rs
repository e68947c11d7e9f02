//! What callers and time do to a job: cancel, retry, expire.

use std::time::Duration;

use darkroom_core::{AttemptOutcome, JobId, JobState, TenantId, job::Event};
use rusqlite::params;
use serde_json::Map;

use super::{
    super::{files, sql, tx::Tx},
    lease::{Held, held_columns},
    life::{HEAD, Head, micros},
};
use crate::{
    Error,
    jobs::{Cancelled, Swept},
    wake::Topic,
};

/// Rows a sweeping operation changes at most, so that whatever waits behind it waits a few milliseconds.
pub(in super::super) const SWEEP_ROWS: u64 = 200;

pub(in super::super) fn cancel(
    tx: &Tx<'_>,
    tenant: Option<&TenantId>,
    job: JobId,
) -> Result<Option<Cancelled>, Error> {
    let Some(mut head) = Head::load(tx, tenant, job)? else {
        return Ok(None);
    };
    match head.life.state {
        JobState::Queued => {
            head.apply(tx, Event::CancelRequested, Map::new())?;
            Ok(Some(Cancelled::Now))
        }
        JobState::Running => {
            head.apply(tx, Event::CancelRequested, Map::new())?;
            Ok(Some(Cancelled::Requested))
        }
        state @ (JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired) => {
            Ok(Some(Cancelled::AlreadyFinal(state)))
        }
    }
}

pub(super) fn cancel_waiting(tx: &Tx<'_>, tenant: Option<&TenantId>, job: JobId) -> Result<bool, Error> {
    let Some(mut head) = Head::load(tx, tenant, job)?.filter(|head| head.life.state == JobState::Queued)
    else {
        return Ok(false);
    };
    head.apply(tx, Event::CancelRequested, Map::new())?;
    Ok(true)
}

pub(super) fn retry(tx: &Tx<'_>, tenant: Option<&TenantId>, job: JobId) -> Result<Option<bool>, Error> {
    let Some(mut head) = Head::load(tx, tenant, job)? else {
        return Ok(None);
    };
    if !head.life.state.is_final() {
        return Ok(Some(false));
    }
    head.avoid = None;
    head.apply(tx, Event::RetryRequested, Map::new())?;
    sql::execute(tx.conn, "DELETE FROM results WHERE job = ?1", [head.nr])?;
    files::drop_results(tx, head.id)?;
    Ok(Some(true))
}

pub(super) fn shorten_life(
    tx: &Tx<'_>,
    tenant: Option<&TenantId>,
    job: JobId,
    rest: Duration,
) -> Result<Option<()>, Error> {
    let Some(mut head) = Head::load(tx, tenant, job)? else {
        return Ok(None);
    };
    let over = tx.now.as_micros().saturating_add(micros(rest));
    head.lives_until = Some(head.lives_until.map_or(over, |sooner| sooner.min(over)));
    if head.life.state == JobState::Queued {
        head.expires_at = head.expires_at.into_iter().chain(head.lives_until).min();
        tx.wake(Topic::Capacity);
    }
    head.plan_deletion();
    sql::execute(
        tx.conn,
        "UPDATE jobs SET lives_until = ?2, expires_at = ?3, delete_at = ?4 WHERE nr = ?1",
        params![head.nr, head.lives_until, head.expires_at, head.delete_at],
    )?;
    Ok(Some(()))
}

pub(super) fn expire(tx: &Tx<'_>) -> Result<Swept, Error> {
    let now = tx.now.as_micros();
    let limit = sql::int(SWEEP_ROWS);
    let lost = sql::rows(
        tx.conn,
        &format!(
            "SELECT {} FROM queues q JOIN attempts a INDEXED BY attempts_open \
             ON a.endpoint = q.endpoint AND a.ended_at IS NULL AND a.lease_until <= ?1 \
             JOIN jobs j ON j.nr = a.job LIMIT ?2",
            held_columns()
        ),
        [now, limit],
        Held::read,
    )?;
    let waited = sql::rows(
        tx.conn,
        &format!(
            "SELECT {HEAD} FROM queues q JOIN jobs j INDEXED BY jobs_expiry ON j.endpoint = q.endpoint \
             AND j.state = 'queued' AND j.expires_at IS NOT NULL AND j.expires_at <= ?1 LIMIT ?2"
        ),
        [now, limit],
        Head::read,
    )?;
    let more = lost.len() as u64 == SWEEP_ROWS || waited.len() as u64 == SWEEP_ROWS;
    let rows = (lost.len() + waited.len()) as u64;
    for mut held in lost {
        let reason = "its lease ran out".to_owned();
        held.end(tx, AttemptOutcome::Lost { reason })?;
    }
    for mut head in waited {
        head.apply(tx, Event::TtlPassed, Map::new())?;
    }
    Ok(Swept { rows, more })
}

/// Moves the end of every open lease by `gap`, later or earlier.
pub(super) fn move_leases(tx: &Tx<'_>, gap: Duration, later: bool) -> Result<(), Error> {
    let by = if later { micros(gap) } else { -micros(gap) };
    sql::execute(
        tx.conn,
        "UPDATE attempts SET lease_until = lease_until + ?1 WHERE ended_at IS NULL",
        [by],
    )?;
    Ok(())
}

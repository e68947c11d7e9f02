//! The outbox, and the log of what was tried.

use std::time::Duration;

use darkroom_core::{JobId, JobState, TenantId, Timestamp};
use rusqlite::{Connection, Row, params};
use serde_json::json;

use super::{jobs::micros, sql, tx::Tx};
use crate::{
    Error,
    access::{Delivery, Due, Lanes, OutboxRow, Redelivery, WebhookLog},
    wake::Topic,
};

/// The kind of rows that tell of a job's end.
pub(super) const WEBHOOK: &str = "webhook";
/// Deliveries of a job that are kept: a day of tries is about thirty.
const KEPT: i64 = 100;
const COLUMNS: &str = "id, job, kind, lane, body, tries, due_at";

/// Tells of a job's final state, which is event number `seq` of it.
pub(super) fn tell(
    tx: &Tx<'_>,
    job: JobId,
    tenant: &TenantId,
    state: JobState,
    seq: u64,
    url: &str,
) -> Result<(), Error> {
    let body = json!({ "url": url, "job": job, "state": state, "message": format!("msg_{job}_{seq}") });
    sql::execute(
        tx.conn,
        "INSERT INTO outbox (job, kind, lane, body, due_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            bytes(&job),
            WEBHOOK,
            lane(tenant, url),
            body.to_string(),
            tx.now.as_micros()
        ],
    )?;
    tx.wake(Topic::Outbox);
    Ok(())
}

/// What waits to tell of an end that is none any more: the job runs again.
pub(super) fn forget(tx: &Tx<'_>, job: JobId) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "DELETE FROM outbox WHERE job = ?1 AND kind = ?2",
        params![bytes(&job), WEBHOOK],
    )?;
    Ok(())
}

pub(super) fn due(
    conn: &Connection,
    kind: &str,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<OutboxRow>, Error> {
    sql::rows(
        conn,
        &format!("SELECT {COLUMNS} FROM outbox WHERE kind = ?1 AND due_at <= ?2 ORDER BY id LIMIT ?3"),
        params![kind, now.as_micros(), limit],
        read,
    )
}

pub(super) fn lanes(conn: &Connection, kind: &str, asked: &Lanes, now: Timestamp) -> Result<Due, Error> {
    let mut due = Due {
        rows: Vec::new(),
        next_at: sql::value(
            conn,
            "SELECT due_at FROM outbox WHERE due_at > ?2 AND kind = ?1 ORDER BY due_at LIMIT 1",
            params![kind, now.as_micros()],
        )?
        .map(Timestamp::from_micros),
    };
    // Once around, from the lane after `after`; the first lane is the empty text, which is after nothing.
    let mut begin = (asked.after.clone(), false);
    let mut around = false;
    while due.rows.len() < asked.limit {
        let comparison = if begin.1 { ">=" } else { ">" };
        let next: Option<String> = sql::value(
            conn,
            &format!(
                "SELECT lane FROM outbox WHERE kind = ?1 AND lane {comparison} ?2 ORDER BY lane LIMIT 1"
            ),
            params![kind, begin.0],
        )?;
        match next {
            Some(lane) if around && lane > asked.after => break,
            Some(lane) => {
                of_lane(conn, kind, &lane, asked, now, &mut due.rows)?;
                begin = (lane, false);
            }
            None if around => break,
            None => {
                around = true;
                begin = (String::new(), true);
            }
        }
    }
    Ok(due)
}

fn of_lane(
    conn: &Connection,
    kind: &str,
    lane: &str,
    asked: &Lanes,
    now: Timestamp,
    into: &mut Vec<OutboxRow>,
) -> Result<(), Error> {
    // Those in somebody's hands became due first, so they stand in front.
    let first = sql::rows(
        conn,
        &format!(
            "SELECT {COLUMNS} FROM outbox WHERE kind = ?1 AND lane = ?2 AND due_at <= ?3 ORDER BY due_at, id LIMIT ?4"
        ),
        params![kind, lane, now.as_micros(), sql::int(2 * asked.per_lane as u64)],
        read,
    )?;
    let (taken, free): (Vec<_>, Vec<_>) = first.into_iter().partition(|row| asked.taken.contains(&row.id));
    let room = asked
        .per_lane
        .saturating_sub(taken.len())
        .min(asked.limit - into.len());
    into.extend(free.into_iter().take(room));
    Ok(())
}

pub(super) fn tried(tx: &Tx<'_>, id: i64, delivery: &Delivery) -> Result<(), Error> {
    let job = bytes(&delivery.job);
    let next_at = delivery.next_at.map(Timestamp::as_micros);
    match next_at {
        Some(due_at) => {
            sql::execute(
                tx.conn,
                "UPDATE outbox SET tries = tries + 1, due_at = ?2 WHERE id = ?1",
                params![id, due_at],
            )?;
            tx.wake(Topic::Outbox);
        }
        None => {
            sql::execute(tx.conn, "DELETE FROM outbox WHERE id = ?1", [id])?;
        }
    }
    // A job that was swept meanwhile has no log any more.
    sql::execute(
        tx.conn,
        "INSERT INTO webhook_tries (job, message, at, took, status, problem, next_at) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?1)",
        params![
            job,
            delivery.message,
            delivery.at.as_micros(),
            micros(delivery.took),
            delivery.status,
            delivery.problem,
            next_at
        ],
    )?;
    sql::execute(
        tx.conn,
        "DELETE FROM webhook_tries WHERE job = ?1 AND nr <= \
         (SELECT nr FROM webhook_tries WHERE job = ?1 ORDER BY nr DESC LIMIT 1 OFFSET ?2)",
        params![job, KEPT],
    )?;
    Ok(())
}

pub(super) fn webhook(conn: &Connection, job: JobId) -> Result<WebhookLog, Error> {
    let tries = sql::rows(
        conn,
        "SELECT message, at, took, status, problem, next_at FROM webhook_tries WHERE job = ?1 ORDER BY nr",
        [bytes(&job)],
        |row| {
            Ok(Delivery {
                job,
                message: row.get("message")?,
                at: sql::instant(row, "at")?,
                took: Duration::from_micros(sql::unsigned(row, "took")?),
                status: row.get("status")?,
                problem: row.get("problem")?,
                next_at: sql::instant_opt(row, "next_at")?,
            })
        },
    )?;
    let waiting = sql::row(
        conn,
        &format!("SELECT {COLUMNS} FROM outbox WHERE job = ?1 AND kind = ?2 ORDER BY id LIMIT 1"),
        params![bytes(&job), WEBHOOK],
        read,
    )?;
    Ok(WebhookLog { tries, waiting })
}

pub(super) fn redeliver(
    tx: &Tx<'_>,
    tenant: Option<&TenantId>,
    job: JobId,
) -> Result<Option<Redelivery>, Error> {
    let head = sql::row(
        tx.conn,
        "SELECT nr, tenant, state, webhook FROM jobs WHERE id = ?1",
        [bytes(&job)],
        |row| {
            let tenant: TenantId = sql::parsed(row, "tenant", "jobs", |t| t.parse().ok())?;
            let state = sql::parsed(row, "state", "jobs", JobState::parse)?;
            Ok((
                row.get::<_, i64>("nr")?,
                tenant,
                state,
                row.get::<_, Option<String>>("webhook")?,
            ))
        },
    )?;
    let Some((nr, owner, state, webhook)) = head.filter(|head| tenant.is_none_or(|t| *t == head.1)) else {
        return Ok(None);
    };
    let Some(url) = webhook else {
        return Ok(Some(Redelivery::NoWebhook));
    };
    if !state.is_final() {
        return Ok(Some(Redelivery::NotEnded));
    }
    let hurried = sql::execute(
        tx.conn,
        "UPDATE outbox SET due_at = min(due_at, ?3) WHERE job = ?1 AND kind = ?2",
        params![bytes(&job), WEBHOOK, tx.now.as_micros()],
    )?;
    if hurried == 0 {
        let seq: Option<i64> = sql::value(
            tx.conn,
            "SELECT seq FROM events WHERE job = ?1 AND kind = 'state' ORDER BY seq DESC LIMIT 1",
            [nr],
        )?;
        let seq = seq.and_then(|seq| u64::try_from(seq).ok()).unwrap_or_default();
        tell(tx, job, &owner, state, seq, &url)?;
    }
    tx.wake(Topic::Outbox);
    Ok(Some(Redelivery::Queued))
}

/// The lane of a receiver: its tenant and the authority of its address.
fn lane(tenant: &TenantId, url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{tenant} {}", authority.to_ascii_lowercase())
}

fn bytes(job: &JobId) -> &[u8] {
    job.as_uuid().as_bytes().as_slice()
}

fn read(row: &Row<'_>) -> Result<OutboxRow, Error> {
    Ok(OutboxRow {
        id: row.get("id")?,
        job: JobId::from_uuid(sql::uuid(row, "job", "outbox")?),
        kind: row.get("kind")?,
        lane: row.get("lane")?,
        body: row.get("body")?,
        tries: sql::unsigned(row, "tries")?,
        due_at: sql::instant(row, "due_at")?,
    })
}

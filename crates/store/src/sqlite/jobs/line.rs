//! What an operator does to an endpoint's line: hold it, let it go on, move a job in it, clear it; and where jobs stand
//! in it.

use std::collections::BTreeMap;

use darkroom_core::{EndpointName, JobId, JobState, TenantId, Timestamp, job::Event, scheduler::Needs};
use rusqlite::{Connection, params};
use serde_json::Map;

use super::{
    super::{sql, tx::Tx},
    end::SWEEP_ROWS,
    life::{self, HEAD, Head},
    read,
};
use crate::{
    Error,
    jobs::{Moved, Place, Swept},
    wake::Topic,
};

pub(super) fn pause(tx: &Tx<'_>, endpoint: &EndpointName) -> Result<bool, Error> {
    let changed = sql::execute(
        tx.conn,
        "INSERT INTO queues (endpoint, paused_since) VALUES (?1, ?2) \
         ON CONFLICT (endpoint) DO UPDATE SET paused_since = excluded.paused_since WHERE paused_since IS NULL",
        params![endpoint.as_str(), tx.now.as_micros()],
    )?;
    tx.wake(Topic::Capacity);
    Ok(changed > 0)
}

pub(super) fn resume(tx: &Tx<'_>, endpoint: &EndpointName) -> Result<bool, Error> {
    let changed = sql::execute(
        tx.conn,
        "UPDATE queues SET paused_since = NULL WHERE endpoint = ?1 AND paused_since IS NOT NULL",
        [endpoint.as_str()],
    )?;
    tx.wake(Topic::Queue(endpoint.clone()));
    tx.wake(Topic::Capacity);
    Ok(changed > 0)
}

/// Moves a waiting job. Its priority becomes that of its new neighbours, and is raised above theirs where it goes first and
/// others' jobs wait there too: within a priority tenants take turns, so the first place alone would not be the next turn.
pub(super) fn move_job(
    tx: &Tx<'_>,
    tenant: Option<&TenantId>,
    job: JobId,
    place: Place,
) -> Result<Option<Moved>, Error> {
    let Some(mut head) = Head::load(tx, tenant, job)? else {
        return Ok(None);
    };
    if head.life.state != JobState::Queued {
        return Ok(Some(Moved::NotWaiting(head.life.state)));
    }
    let (priority, ord) = match place {
        Place::First => first(tx, &head)?,
        Place::Last => last(tx, &head)?,
        Place::Before(other) if other == job => return Ok(Some(Moved::Now)),
        Place::Before(other) => {
            // In somebody else's line, or unknown to this tenant: there is no such place.
            let found = Head::load(tx, tenant, other)?.filter(|other| other.endpoint == head.endpoint);
            match found {
                None => return Ok(Some(Moved::NoSuchPlace)),
                Some(other) if other.life.state != JobState::Queued => return Ok(Some(Moved::NoSuchPlace)),
                Some(other) => before(tx, &other)?,
            }
        }
    };
    // Out of its lane and into another, or the same again; the deadline of its wait stays.
    let expires_at = head.expires_at;
    life::leave_line(tx, &mut head)?;
    (head.priority, head.ord) = (priority, ord);
    life::count_in(tx, &head.endpoint, &head.tenant, head.priority, head.ord)?;
    sql::execute(
        tx.conn,
        "UPDATE jobs SET priority = ?2, ord = ?3, expires_at = ?4, skipped = 0 WHERE nr = ?1",
        params![head.nr, priority, ord, expires_at],
    )?;
    tx.wake(Topic::Job(head.id));
    Ok(Some(Moved::Now))
}

fn first(tx: &Tx<'_>, head: &Head) -> Result<(i32, i64), Error> {
    let endpoint = head.endpoint.as_str();
    let top: i32 = sql::value(
        tx.conn,
        "SELECT MAX(priority) FROM lanes WHERE endpoint = ?1",
        [endpoint],
    )?
    .unwrap_or(head.priority);
    let others: Option<bool> = sql::value(
        tx.conn,
        "SELECT EXISTS (SELECT 1 FROM lanes WHERE endpoint = ?1 AND priority = ?2 AND tenant <> ?3)",
        params![endpoint, top, head.tenant.as_str()],
    )?;
    let priority = if others == Some(true) {
        top.saturating_add(1)
    } else {
        top
    };
    let lowest: i64 = sql::value(
        tx.conn,
        "SELECT MIN((SELECT j.ord FROM jobs j WHERE j.endpoint = l.endpoint AND j.tenant = l.tenant \
         AND j.priority = l.priority AND j.state = 'queued' ORDER BY j.ord LIMIT 1)) FROM lanes l WHERE l.endpoint = ?1",
        [endpoint],
    )?
    .unwrap_or(head.ord);
    Ok((priority, lowest.saturating_sub(1)))
}

fn last(tx: &Tx<'_>, head: &Head) -> Result<(i32, i64), Error> {
    let lowest: i32 = sql::value(
        tx.conn,
        "SELECT MIN(priority) FROM lanes WHERE endpoint = ?1",
        [head.endpoint.as_str()],
    )?
    .unwrap_or(head.priority);
    // Behind all, but not among those that start no instance, unless it was one of them.
    let priority = if head.priority >= 0 { lowest.max(0) } else { lowest };
    Ok((priority, life::next_place(tx, &head.endpoint)?))
}

/// Room right before a job: all that stand before it move one place ahead. They are as many as stand before it, which an
/// operator who orders by hand can count.
fn before(tx: &Tx<'_>, other: &Head) -> Result<(i32, i64), Error> {
    sql::execute(
        tx.conn,
        "UPDATE jobs SET ord = ord - 1 WHERE endpoint = ?1 AND state = 'queued' AND ord < ?2",
        params![other.endpoint.as_str(), other.ord],
    )?;
    Ok((other.priority, other.ord - 1))
}

/// Cancels waiting jobs that were accepted before `accepted_before`, at most [`SWEEP_ROWS`] at a time.
pub(super) fn clear(
    tx: &Tx<'_>,
    endpoint: &EndpointName,
    tenant: Option<&TenantId>,
    accepted_before: Timestamp,
) -> Result<Swept, Error> {
    let waiting = sql::rows(
        tx.conn,
        &format!(
            "SELECT {HEAD} FROM lanes l JOIN jobs j INDEXED BY jobs_queued ON j.endpoint = l.endpoint \
             AND j.tenant = l.tenant AND j.priority = l.priority AND j.state = 'queued' \
             WHERE l.endpoint = ?1 AND (?2 IS NULL OR l.tenant = ?2) AND j.created_at < ?3 LIMIT ?4"
        ),
        params![
            endpoint.as_str(),
            tenant.map(TenantId::as_str),
            accepted_before.as_micros(),
            sql::int(SWEEP_ROWS)
        ],
        Head::read,
    )?;
    let rows = waiting.len() as u64;
    for mut head in waiting {
        head.apply(tx, Event::CancelRequested, Map::new())?;
    }
    Ok(Swept {
        rows,
        more: rows == SWEEP_ROWS,
    })
}

/// Where each of these stands; those that do not wait are left out. One pass along the index, however many are asked for.
pub(super) fn positions(conn: &Connection, jobs: &[JobId]) -> Result<BTreeMap<JobId, u64>, Error> {
    let ids: Vec<String> = jobs.iter().map(|id| hex(id.as_uuid().as_bytes())).collect();
    let waiting = sql::rows(
        conn,
        "SELECT j.id, j.endpoint, j.priority, j.ord FROM json_each(?1) w JOIN jobs j ON j.id = unhex(w.value) \
         WHERE j.state = 'queued' ORDER BY j.endpoint, j.priority DESC, j.ord",
        [sql::to_json(&ids)],
        |row| {
            Ok((
                JobId::from_uuid(sql::uuid(row, "id", "jobs")?),
                row.get::<_, String>(1)?,
                row.get::<_, i32>(2)?,
                row.get::<_, i64>(3)?,
            ))
        },
    )?;
    let mut places = BTreeMap::new();
    let mut last: Option<(String, i32, i64, u64)> = None;
    for (id, endpoint, priority, ord) in waiting {
        let (from, before) = match &last {
            // Only what stands between the one before and this one is counted.
            Some((e, p, from, place)) if *e == endpoint && *p == priority => (*from, *place),
            _ => (i64::MIN, above(conn, &endpoint, priority)?),
        };
        let place = before + between(conn, &endpoint, priority, from, ord)?;
        places.insert(id, place);
        last = Some((endpoint, priority, ord, place));
    }
    Ok(places)
}

/// Higher priorities, from the lanes' counters.
fn above(conn: &Connection, endpoint: &str, priority: i32) -> Result<u64, Error> {
    let above: i64 = sql::value(
        conn,
        "SELECT COALESCE(SUM(queued), 0) FROM lanes WHERE endpoint = ?1 AND priority > ?2",
        params![endpoint, priority],
    )?
    .unwrap_or(0);
    Ok(u64::try_from(above).unwrap_or(0))
}

fn between(conn: &Connection, endpoint: &str, priority: i32, from: i64, to: i64) -> Result<u64, Error> {
    let between: i64 = sql::value(
        conn,
        "SELECT COALESCE(SUM((SELECT COUNT(*) FROM jobs j WHERE j.endpoint = ?1 AND j.tenant = l.tenant \
           AND j.priority = ?2 AND j.state = 'queued' AND j.ord >= ?3 AND j.ord < ?4)), 0) \
         FROM lanes l WHERE l.endpoint = ?1 AND l.priority = ?2",
        params![endpoint, priority, from, to],
    )?
    .unwrap_or(0);
    Ok(u64::try_from(between).unwrap_or(0))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tenants that hold as many attempts of the endpoint as they may, and how many.
pub(super) fn at_quota(
    conn: &Connection,
    endpoint: &EndpointName,
    per_tenant: u32,
) -> Result<BTreeMap<TenantId, u64>, Error> {
    let running = running_per_tenant(conn, endpoint)?;
    Ok(running
        .into_iter()
        .filter(|(_, running)| *running >= u64::from(per_tenant))
        .collect())
}

fn running_per_tenant(conn: &Connection, endpoint: &EndpointName) -> Result<BTreeMap<TenantId, u64>, Error> {
    // Open attempts are about as many as instances.
    let running = sql::rows(
        conn,
        "SELECT j.tenant, COUNT(*) AS n FROM attempts a INDEXED BY attempts_open JOIN jobs j ON j.nr = a.job \
         WHERE a.endpoint = ?1 AND a.ended_at IS NULL AND a.state <> 'collecting' GROUP BY j.tenant",
        [endpoint.as_str()],
        |row| {
            let tenant = sql::parsed(row, "tenant", "jobs", |t| t.parse().ok())?;
            Ok((tenant, sql::unsigned(row, "n")?))
        },
    )?;
    Ok(running.into_iter().collect())
}

/// Waiting jobs of normal and higher priority that their tenants' quota holds back, whatever slots are free.
pub(super) fn over_quota(conn: &Connection, endpoint: &EndpointName, per_tenant: u32) -> Result<u64, Error> {
    let running = running_per_tenant(conn, endpoint)?;
    let waiting: Vec<(TenantId, u64)> = sql::rows(
        conn,
        "SELECT tenant, SUM(queued) AS n FROM lanes WHERE endpoint = ?1 AND priority >= 0 GROUP BY tenant",
        [endpoint.as_str()],
        |row| {
            let tenant = sql::parsed(row, "tenant", "lanes", |t| t.parse().ok())?;
            Ok((tenant, sql::unsigned(row, "n")?))
        },
    )?;
    let held_back = |(tenant, queued): &(TenantId, u64)| {
        let free = u64::from(per_tenant).saturating_sub(running.get(tenant).copied().unwrap_or(0));
        queued.saturating_sub(free)
    };
    Ok(waiting.iter().map(held_back).sum())
}

pub(super) fn waiting_needs(conn: &Connection, endpoint: &EndpointName) -> Result<Vec<(Needs, u64)>, Error> {
    let counted: Vec<(i64, u64)> = sql::rows(
        conn,
        "SELECT needs, COUNT(*) AS n FROM jobs WHERE endpoint = ?1 AND state = 'queued' AND priority >= 0 \
         AND needs IS NOT NULL GROUP BY needs",
        [endpoint.as_str()],
        |row| Ok((row.get("needs")?, sql::unsigned(row, "n")?)),
    )?;
    let read = |(nr, jobs): (i64, u64)| Ok((read::needs(conn, nr)?, jobs));
    counted.into_iter().map(read).collect()
}

/// How long the newest jobs that succeeded on the endpoint took, from claim to end, in microseconds, newest first.
pub(super) fn recent_runs(conn: &Connection, endpoint: &EndpointName, limit: u32) -> Result<Vec<u64>, Error> {
    sql::rows(
        conn,
        "SELECT MAX(finished_at - started_at, 0) AS took FROM jobs WHERE endpoint = ?1 AND finished_at IS NOT NULL \
         AND state = 'succeeded' AND started_at IS NOT NULL ORDER BY finished_at DESC LIMIT ?2",
        params![endpoint.as_str(), limit],
        |row| sql::unsigned(row, "took"),
    )
}

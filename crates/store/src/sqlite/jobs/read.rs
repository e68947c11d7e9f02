//! Reading jobs, attempts, events, counters.

use std::collections::BTreeMap;

use darkroom_core::{
    AttemptState, EndpointName, Fence, InstanceId, JobId, JobState, NodeName, TenantId, Timestamp,
    attempt::RunningOn,
    event::{Event, EventKind},
    scheduler::Needs,
};
use rusqlite::{Connection, Row, params};

use super::super::{sql, sql::InOrder};
use crate::{
    Error,
    jobs::{AttemptRecord, JobRecord, QueueCounters},
};

/// Columns of [`record`], in its order, and where they come from.
pub(in super::super) const RECORD: &str = "SELECT j.id, j.tenant, j.endpoint, j.priority, j.ord, j.state, j.meta, j.created_at, \
     j.started_at, j.finished_at, j.lives_until, j.delete_at, j.attempts, j.lost, j.out_of_memory, j.cancel_requested, j.failure, \
     (SELECT a.instance FROM attempts a WHERE a.job = j.nr ORDER BY a.number DESC LIMIT 1), \
     i.inline, i.blob, i.size, r.inline, r.blob, r.size, r.outputs, j.ext_dialect, j.ext_id \
     FROM jobs j JOIN inputs i ON i.job = j.nr LEFT JOIN results r ON r.job = j.nr";

pub(super) fn record(row: &Row<'_>) -> Result<JobRecord, Error> {
    let mut column = InOrder::from(0);
    let mut next = || column.next();
    // In the order of `RECORD`.
    Ok(JobRecord {
        id: JobId::from_uuid(sql::uuid(row, next(), "jobs")?),
        tenant: sql::parsed(row, next(), "jobs", |t| t.parse().ok())?,
        endpoint: sql::parsed(row, next(), "jobs", |t| t.parse().ok())?,
        priority: row.get(next())?,
        place: row.get(next())?,
        state: sql::parsed(row, next(), "jobs", JobState::parse)?,
        meta: sql::json(row, next(), "jobs")?,
        created_at: sql::instant(row, next())?,
        started_at: sql::instant_opt(row, next())?,
        finished_at: sql::instant_opt(row, next())?,
        lives_until: sql::instant_opt(row, next())?,
        delete_at: sql::instant_opt(row, next())?,
        attempts: sql::unsigned(row, next())?,
        lost_attempts: sql::unsigned(row, next())?,
        out_of_memory: sql::unsigned(row, next())?,
        cancel_requested: row.get(next())?,
        failure: sql::json_opt(row, next(), "jobs")?,
        last_instance: sql::uuid_opt(row, next(), "attempts")?.map(InstanceId::from_uuid),
        input: sql::payload(row, [next(), next(), next()], "inputs")?.ok_or_else(|| Error::Inconsistent {
            table: "inputs",
            what: "a job without a body".to_owned(),
        })?,
        result: sql::payload(row, [next(), next(), next()], "results")?,
        outputs: sql::json_opt(row, next(), "results")?.unwrap_or_default(),
        external_id: row
            .get::<_, Option<String>>(next())?
            .zip(row.get::<_, Option<String>>(next())?),
    })
}

pub(in crate::sqlite) fn job(
    conn: &Connection,
    tenant: Option<&TenantId>,
    id: JobId,
) -> Result<Option<JobRecord>, Error> {
    let record = sql::row(
        conn,
        &format!("{RECORD} WHERE j.id = ?1"),
        [id.as_uuid().as_bytes().as_slice()],
        record,
    )?;
    Ok(record.filter(|record| tenant.is_none_or(|tenant| *tenant == record.tenant)))
}

pub(super) fn sealed(conn: &Connection, id: JobId) -> Result<Option<Vec<u8>>, Error> {
    sql::row(
        conn,
        "SELECT s.bytes FROM sealed s JOIN jobs j ON j.nr = s.job WHERE j.id = ?1",
        [id.as_uuid().as_bytes().as_slice()],
        |row| Ok(row.get("bytes")?),
    )
}

pub(super) fn by_external_id(
    conn: &Connection,
    tenant: &TenantId,
    endpoint: Option<&EndpointName>,
    dialect: &str,
    id: &str,
) -> Result<Option<JobId>, Error> {
    // The newest, where several endpoints know the name.
    sql::row(
        conn,
        "SELECT j.id FROM external_ids e JOIN jobs j ON j.nr = e.job \
         WHERE e.tenant = ?1 AND e.dialect = ?2 AND e.id = ?3 AND (?4 IS NULL OR e.endpoint = ?4) \
         ORDER BY e.job DESC LIMIT 1",
        params![tenant.as_str(), dialect, id, endpoint.map(EndpointName::as_str)],
        |row| Ok(JobId::from_uuid(sql::uuid(row, "id", "jobs")?)),
    )
}

pub(super) fn events(conn: &Connection, id: JobId, after: u64, limit: u32) -> Result<Vec<Event>, Error> {
    sql::rows(
        conn,
        "SELECT e.seq, e.at, e.attempt, e.kind, e.data FROM events e \
         WHERE e.job = (SELECT nr FROM jobs WHERE id = ?1) AND e.seq > ?2 ORDER BY e.seq LIMIT ?3",
        params![id.as_uuid().as_bytes().as_slice(), sql::int(after), limit],
        |row| {
            Ok(Event {
                seq: sql::unsigned(row, "seq")?,
                at: sql::instant(row, "at")?,
                attempt: sql::unsigned(row, "attempt")?,
                kind: sql::parsed(row, "kind", "events", EventKind::parse)?,
                data: row.get("data")?,
            })
        },
    )
}

const ATTEMPT: &str = "SELECT j.id, a.number, a.fence, a.state, a.endpoint, a.instance, a.owner, a.client_id, \
     a.prompt_id, a.claimed_at, a.ended_at, a.lease_until, a.reason FROM attempts a JOIN jobs j ON j.nr = a.job";

fn attempt(row: &Row<'_>) -> Result<AttemptRecord, Error> {
    let instance = InstanceId::from_uuid(sql::uuid(row, "instance", "attempts")?);
    let told: (Option<String>, Option<String>) = (row.get("client_id")?, row.get("prompt_id")?);
    Ok(AttemptRecord {
        job: JobId::from_uuid(sql::uuid(row, "id", "jobs")?),
        number: sql::unsigned(row, "number")?,
        fence: Fence(row.get("fence")?),
        state: sql::parsed(row, "state", "attempts", AttemptState::parse)?,
        endpoint: sql::parsed(row, "endpoint", "attempts", |t| t.parse().ok())?,
        instance,
        owner: sql::parsed(row, "owner", "attempts", |t| t.parse().ok())?,
        running_on: told.0.zip(told.1).map(|(client_id, prompt_id)| RunningOn {
            instance,
            client_id,
            prompt_id,
        }),
        claimed_at: sql::instant(row, "claimed_at")?,
        ended_at: sql::instant_opt(row, "ended_at")?,
        lease_until: sql::instant(row, "lease_until")?,
        reason: row.get("reason")?,
    })
}

pub(super) fn attempts(conn: &Connection, id: JobId) -> Result<Vec<AttemptRecord>, Error> {
    sql::rows(
        conn,
        &format!("{ATTEMPT} WHERE j.id = ?1 ORDER BY a.number"),
        [id.as_uuid().as_bytes().as_slice()],
        attempt,
    )
}

pub(super) fn open_attempts(
    conn: &Connection,
    owner: Option<&NodeName>,
) -> Result<Vec<AttemptRecord>, Error> {
    sql::rows(
        conn,
        &format!("{ATTEMPT} WHERE a.ended_at IS NULL AND (?1 IS NULL OR a.owner = ?1) ORDER BY a.fence"),
        [owner.map(NodeName::as_str)],
        attempt,
    )
}

pub(super) fn counters(conn: &Connection) -> Result<BTreeMap<EndpointName, QueueCounters>, Error> {
    let at = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    let all = sql::rows(
        conn,
        // The first of each lane is the oldest of it; lanes are few.
        "SELECT q.endpoint, q.queued, q.queued_low, q.running, q.collecting, q.paused_since, q.completed, q.failed, q.retried, \
         (SELECT MIN((SELECT j.created_at FROM jobs j WHERE j.endpoint = l.endpoint AND j.tenant = l.tenant \
           AND j.priority = l.priority AND j.state = 'queued' ORDER BY j.ord LIMIT 1)) \
           FROM lanes l WHERE l.endpoint = q.endpoint) AS oldest, \
         (SELECT MIN(j.expires_at) FROM jobs j INDEXED BY jobs_expiry WHERE j.endpoint = q.endpoint AND j.state = 'queued' \
           AND j.expires_at IS NOT NULL) AS next_expiry, \
         (SELECT MIN(a.lease_until) FROM attempts a INDEXED BY attempts_open WHERE a.endpoint = q.endpoint AND a.ended_at IS NULL) AS next_lease \
         FROM queues q",
        [],
        |row| {
            let endpoint = sql::parsed(row, "endpoint", "queues", |t| t.parse().ok())?;
            let counters = QueueCounters {
                queued: sql::unsigned(row, "queued")?,
                queued_low_priority: sql::unsigned(row, "queued_low")?,
                running: sql::unsigned(row, "running")?,
                collecting: sql::unsigned(row, "collecting")?,
                paused_since: at(row.get("paused_since")?),
                completed: sql::unsigned(row, "completed")?,
                failed: sql::unsigned(row, "failed")?,
                retried: sql::unsigned(row, "retried")?,
                oldest_queued_at: at(row.get("oldest")?),
                next_expiry_at: at(row.get("next_expiry")?),
                next_lease_expiry_at: at(row.get("next_lease")?),
            };
            Ok((endpoint, counters))
        },
    )?;
    Ok(all.into_iter().collect())
}

pub(super) fn queued(conn: &Connection, endpoint: &EndpointName) -> Result<u64, Error> {
    let queued: Option<u64> = sql::row(
        conn,
        "SELECT queued FROM queues WHERE endpoint = ?1",
        [endpoint.as_str()],
        |row| sql::unsigned(row, "queued"),
    )?;
    Ok(queued.unwrap_or(0))
}

/// Whether [`super::end::expire`] would change anything now.
pub(super) fn is_anything_due(conn: &Connection, now: Timestamp) -> Result<bool, Error> {
    let found: Option<bool> = sql::value(
        conn,
        "SELECT EXISTS (SELECT 1 FROM queues q JOIN attempts a INDEXED BY attempts_open \
           ON a.endpoint = q.endpoint AND a.ended_at IS NULL AND a.lease_until <= ?1) \
         OR EXISTS (SELECT 1 FROM queues q JOIN jobs j INDEXED BY jobs_expiry ON j.endpoint = q.endpoint \
           AND j.state = 'queued' AND j.expires_at IS NOT NULL AND j.expires_at <= ?1)",
        [now.as_micros()],
    )?;
    Ok(found.unwrap_or(false))
}

/// What the graph of a job needs.
pub(super) fn needs_of(conn: &Connection, job: JobId) -> Result<Needs, Error> {
    let nr: Option<Option<i64>> = sql::value(
        conn,
        "SELECT needs FROM jobs WHERE id = ?1",
        [job.as_uuid().as_bytes().as_slice()],
    )?;
    match nr.flatten() {
        Some(nr) => needs(conn, nr),
        None => Ok(Needs::default()),
    }
}

/// A row of needs.
pub(super) fn needs(conn: &Connection, nr: i64) -> Result<Needs, Error> {
    let needs = sql::row(conn, "SELECT json FROM needs WHERE nr = ?1", [nr], |row| {
        sql::json(row, "json", "needs")
    })?;
    Ok(needs.unwrap_or_default())
}

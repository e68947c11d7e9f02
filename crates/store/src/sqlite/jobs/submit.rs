//! Accepting a job: its row, body, external id, first event and place in the line, or the reason why not.

use darkroom_core::{JobId, JobState, event::EventKind};
use rusqlite::params;

use super::{
    super::{catalog, files, sql, tx::Tx},
    life::{self, micros},
};
use crate::{
    Error,
    jobs::{ExternalId, NewJob, OnDuplicate, Submitted},
};

/// About how much a submit writes.
pub(super) fn bytes(job: &NewJob) -> usize {
    let inline = match &job.input {
        darkroom_core::Payload::Inline(bytes) => bytes.len(),
        darkroom_core::Payload::Blob { .. } => 0,
    };
    inline + 2048
}

pub(in super::super) fn submit(tx: &Tx<'_>, job: &NewJob) -> Result<Submitted, Error> {
    if let Some(external) = &job.external_id
        && let Some((first, state, accepted_at)) = holder(tx, job, external)?
    {
        match external.on_duplicate {
            OnDuplicate::Reject => return Ok(Submitted::Duplicate(first)),
            OnDuplicate::RejectWithin(life)
                if tx.now.as_micros() < accepted_at.saturating_add(micros(life)) =>
            {
                return Ok(Submitted::Duplicate(first));
            }
            OnDuplicate::Existing => return Ok(Submitted::Existing(first)),
            OnDuplicate::WhileLive if !state.is_final() => return Ok(Submitted::Existing(first)),
            OnDuplicate::WhileLive | OnDuplicate::RejectWithin(_) | OnDuplicate::Replace => {}
        }
    }
    tx.check_disk()?;
    let queued: i64 = sql::value(
        tx.conn,
        "SELECT queued FROM queues WHERE endpoint = ?1",
        [job.endpoint.as_str()],
    )?
    .unwrap_or(0);
    let queued = u64::try_from(queued).unwrap_or(0);
    if queued >= job.max_queued {
        return Ok(Submitted::QueueFull { queued });
    }

    let ord = life::enter_new(tx, &job.endpoint, &job.tenant, job.priority, job.entry)?;
    let nr = insert_job(tx, job, ord)?;
    let (inline, blob, size) = sql::payload_columns(&job.input);
    sql::execute(
        tx.conn,
        "INSERT INTO inputs (job, inline, blob, size) VALUES (?1, ?2, ?3, ?4)",
        params![nr, inline, blob, size],
    )?;
    if let Some(sealed) = &job.sealed {
        sql::execute(
            tx.conn,
            "INSERT INTO sealed (job, bytes) VALUES (?1, ?2)",
            params![nr, sealed],
        )?;
    }
    if let Some(key) = job.input.blob() {
        files::refer_to_payload(tx, job.id, &job.tenant, "input", key, job.input.size())?;
    }
    files::refer_to_inputs(tx, job.id, &job.tenant, &job.input_files)?;
    for (key, value) in &job.meta.labels {
        sql::execute(
            tx.conn,
            "INSERT INTO labels (job, tenant, key, value, id) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                nr,
                job.tenant.as_str(),
                key,
                value,
                job.id.as_uuid().as_bytes().as_slice()
            ],
        )?;
    }
    if let Some(external) = &job.external_id {
        sql::execute(
            tx.conn,
            "INSERT OR REPLACE INTO external_ids (tenant, dialect, id, endpoint, job) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                job.tenant.as_str(),
                external.dialect,
                external.id,
                job.endpoint.as_str(),
                nr
            ],
        )?;
    }
    sql::execute(
        tx.conn,
        "INSERT INTO events (job, seq, at, attempt, kind, data) VALUES (?1, 1, ?2, 0, ?3, ?4)",
        params![
            nr,
            tx.now.as_micros(),
            EventKind::State.as_str(),
            r#"{"state":"queued"}"#
        ],
    )?;
    Ok(Submitted::Accepted {
        instance_ready: catalog::has_ready(tx.conn, &job.endpoint)?,
    })
}

/// The job that has the name, its state, and when it was accepted.
fn holder(tx: &Tx<'_>, job: &NewJob, external: &ExternalId) -> Result<Option<(JobId, JobState, i64)>, Error> {
    sql::row(
        tx.conn,
        "SELECT j.id, j.state, j.created_at FROM external_ids e JOIN jobs j ON j.nr = e.job \
         WHERE e.tenant = ?1 AND e.dialect = ?2 AND e.id = ?3 AND e.endpoint = ?4",
        params![
            job.tenant.as_str(),
            external.dialect,
            external.id,
            job.endpoint.as_str()
        ],
        |row| {
            let state = sql::parsed(row, "state", "jobs", JobState::parse)?;
            let id = JobId::from_uuid(sql::uuid(row, "id", "jobs")?);
            Ok((id, state, row.get("created_at")?))
        },
    )
}

fn insert_job(tx: &Tx<'_>, job: &NewJob, ord: i64) -> Result<i64, Error> {
    let models = (!job.meta.models.is_empty()).then(|| sql::to_json(&job.meta.models));
    let needs = needs(tx, job)?;
    let ttl = job.queue_ttl.map(micros);
    let now = tx.now.as_micros();
    let lives_until = job.keep.life.map(|life| now.saturating_add(micros(life)));
    let waits_until = ttl.map(|ttl| now.saturating_add(ttl));
    let nr = sql::value(
        tx.conn,
        "INSERT INTO jobs (id, tenant, endpoint, priority, state, ord, models, needs, meta, dialect, webhook, ext_dialect, \
         ext_id, created_at, queue_ttl, expires_at, max_attempts, lives_until, kept, last_event) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, 1) RETURNING nr",
        params![
            job.id.as_uuid().as_bytes().as_slice(),
            job.tenant.as_str(),
            job.endpoint.as_str(),
            job.priority,
            JobState::Queued.as_str(),
            ord,
            models,
            needs,
            sql::to_json(&job.meta),
            job.meta.dialect,
            job.meta.webhook,
            job.external_id.as_ref().map(|e| &e.dialect),
            job.external_id.as_ref().map(|e| &e.id),
            now,
            ttl,
            waits_until.into_iter().chain(lives_until).min(),
            job.max_attempts,
            lives_until,
            job.keep.after_end.map(micros),
        ],
    )?;
    nr.ok_or(Error::Inconsistent {
        table: "jobs",
        what: "an insert returned nothing".to_owned(),
    })
}

/// The row of what the job needs; jobs that need the same share it.
fn needs(tx: &Tx<'_>, job: &NewJob) -> Result<Option<i64>, Error> {
    if job.meta.needs.is_empty() {
        return Ok(None);
    }
    let json = sql::to_json(&job.meta.needs);
    let known = sql::value(tx.conn, "SELECT nr FROM needs WHERE json = ?1", [&json])?;
    if known.is_some() {
        return Ok(known);
    }
    sql::value(
        tx.conn,
        "INSERT INTO needs (json) VALUES (?1) RETURNING nr",
        [&json],
    )
}

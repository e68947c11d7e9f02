//! What an attempt may do under its lease: start, renew, append events, collect, end.

use std::time::Duration;

use darkroom_core::{
    AttemptOutcome, AttemptState, JobState, NodeName, Payload,
    attempt::{self, Lease, RunningOn, Stale},
    event::{EventKind, NewEvent},
    job,
};
use rusqlite::{Row, params};

use super::{
    super::{files, options::Ended, sql, sql::InOrder, tx::Tx},
    events,
    life::{self, HEAD, Head, micros},
};
use crate::{
    Error,
    jobs::{Finish, Renewed, Told},
    wake::Topic,
};

/// An open attempt and the job it holds.
pub(super) struct Held {
    pub(super) head: Head,
    pub(super) fence: i64,
    pub(super) state: AttemptState,
    pub(super) instance: Vec<u8>,
}

/// Columns that [`Held::read`] wants, in its order, of `attempts a JOIN jobs j`.
pub(super) fn held_columns() -> String {
    format!("a.fence, a.state, a.instance, {HEAD}")
}

impl Held {
    /// What the lease holds; `Err(Stale)` when it holds nothing any more.
    fn load(tx: &Tx<'_>, lease: Lease) -> Result<Result<Held, Stale>, Error> {
        let held = sql::row(
            tx.conn,
            &format!(
                "SELECT {} FROM attempts a JOIN jobs j ON j.nr = a.job WHERE a.fence = ?1 AND a.ended_at IS NULL",
                held_columns()
            ),
            [lease.fence.0],
            Held::read,
        )?;
        Ok(held
            .filter(|held| held.head.id == lease.job && held.head.fence == Some(lease.fence))
            .ok_or(Stale))
    }

    pub(super) fn read(row: &Row<'_>) -> Result<Held, Error> {
        Ok(Held {
            fence: row.get(0)?,
            state: sql::parsed(row, 1, "attempts", AttemptState::parse)?,
            instance: row.get(2)?,
            head: Head::read_from(row, InOrder::from(3))?,
        })
    }

    /// Moves the attempt on; does not write.
    fn apply(&mut self, event: &attempt::Event) -> Result<(), Error> {
        self.state = attempt::apply(self.state, event).map_err(|refused| Error::Inconsistent {
            table: "attempts",
            what: format!("fence {}: {refused}", self.fence),
        })?;
        Ok(())
    }

    /// Ends the attempt and tells the job.
    pub(super) fn end(&mut self, tx: &Tx<'_>, outcome: AttemptOutcome) -> Result<JobState, Error> {
        let was = self.state;
        self.apply(&attempt::Event::Ended(outcome.clone()))?;
        let how = match &outcome {
            AttemptOutcome::Done => "done".to_owned(),
            AttemptOutcome::Failed(failure) => format!("failed: {}", failure.message),
            AttemptOutcome::Lost { reason } => {
                self.head.avoid = Some(self.instance.clone());
                tx.ended(Ended::LostAttempt(self.head.endpoint.clone()));
                format!("lost: {reason}")
            }
            AttemptOutcome::Released { reason } => format!("released: {reason}"),
            AttemptOutcome::Cancelled => "cancelled".to_owned(),
        };
        sql::execute(
            tx.conn,
            "UPDATE attempts SET state = ?2, ended_at = ?3, reason = reason || '; ' || ?4 WHERE fence = ?1",
            params![self.fence, self.state.as_str(), tx.now.as_micros(), how],
        )?;
        sql::execute(
            tx.conn,
            "UPDATE instances SET jobs_done = jobs_done + 1 WHERE id = ?1",
            [&self.instance],
        )?;
        let column = if was == AttemptState::Collecting {
            "UPDATE queues SET collecting = collecting - 1 WHERE endpoint = ?1"
        } else {
            "UPDATE queues SET running = running - 1 WHERE endpoint = ?1"
        };
        sql::execute(tx.conn, column, [self.head.endpoint.as_str()])?;
        let facts = life::facts_of(&outcome);
        self.head.apply(tx, job::Event::AttemptEnded(outcome), facts)?;
        Ok(self.head.life.state)
    }
}

pub(super) fn start(tx: &Tx<'_>, lease: Lease, on: &RunningOn) -> Result<Result<(), Stale>, Error> {
    let mut held = match Held::load(tx, lease)? {
        Ok(held) => held,
        Err(stale) => return Ok(Err(stale)),
    };
    held.apply(&attempt::Event::Started)?;
    sql::execute(
        tx.conn,
        "UPDATE attempts SET state = ?2, instance = ?3, client_id = ?4, prompt_id = ?5 WHERE fence = ?1",
        params![
            held.fence,
            held.state.as_str(),
            on.instance.as_uuid().as_bytes().as_slice(),
            on.client_id,
            on.prompt_id
        ],
    )?;
    Ok(Ok(()))
}

pub(super) fn collecting(tx: &Tx<'_>, lease: Lease) -> Result<Result<(), Stale>, Error> {
    let mut held = match Held::load(tx, lease)? {
        Ok(held) => held,
        Err(stale) => return Ok(Err(stale)),
    };
    let was = held.state;
    held.apply(&attempt::Event::CollectingBegan)?;
    if was == held.state {
        return Ok(Ok(()));
    }
    sql::execute(
        tx.conn,
        "UPDATE attempts SET state = ?2 WHERE fence = ?1",
        params![held.fence, held.state.as_str()],
    )?;
    sql::execute(
        tx.conn,
        "UPDATE queues SET running = running - 1, collecting = collecting + 1 WHERE endpoint = ?1",
        [held.head.endpoint.as_str()],
    )?;
    tx.wake(Topic::Capacity);
    tx.wake(Topic::Job(held.head.id));
    Ok(Ok(()))
}

pub(super) fn renew(tx: &Tx<'_>, lease: Lease, ttl: Duration) -> Result<Result<Renewed, Stale>, Error> {
    let held = match Held::load(tx, lease)? {
        Ok(held) => held,
        Err(stale) => return Ok(Err(stale)),
    };
    extend(tx, held.fence, ttl)?;
    Ok(Ok(Renewed {
        cancel_requested: held.head.life.cancel_requested,
    }))
}

pub(super) fn adopt(
    tx: &Tx<'_>,
    lease: Lease,
    owner: &NodeName,
    ttl: Duration,
) -> Result<Result<(), Stale>, Error> {
    let held = match Held::load(tx, lease)? {
        Ok(held) => held,
        Err(stale) => return Ok(Err(stale)),
    };
    extend(tx, held.fence, ttl)?;
    sql::execute(
        tx.conn,
        "UPDATE attempts SET owner = ?2 WHERE fence = ?1",
        params![held.fence, owner.as_str()],
    )?;
    Ok(Ok(()))
}

fn extend(tx: &Tx<'_>, fence: i64, ttl: Duration) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "UPDATE attempts SET lease_until = ?2 WHERE fence = ?1",
        params![fence, tx.now.as_micros().saturating_add(micros(ttl))],
    )?;
    Ok(())
}

pub(super) fn append_events(
    tx: &Tx<'_>,
    lease: Lease,
    new: &[NewEvent],
) -> Result<Result<u64, Stale>, Error> {
    let mut held = match Held::load(tx, lease)? {
        Ok(held) => held,
        Err(stale) => return Ok(Err(stale)),
    };
    events::append(tx, &mut held.head, new)?;
    events::save_counter(tx, &held.head)?;
    Ok(Ok(held.head.last_event))
}

pub(super) fn append_told(tx: &Tx<'_>, lease: Lease, told: &Told) -> Result<Result<u64, Stale>, Error> {
    let mut held = match Held::load(tx, lease)? {
        Ok(held) => held,
        Err(stale) => return Ok(Err(stale)),
    };
    let taken = sql::row(
        tx.conn,
        "SELECT told FROM attempts WHERE fence = ?1 AND teller = ?2",
        params![held.fence, told.teller.as_bytes().as_slice()],
        |row| Ok(row.get::<_, i64>("told")?),
    )?;
    let taken = taken.map_or(0, i64::unsigned_abs);
    let repeated = taken.saturating_sub(told.first);
    let new = told.events.get(usize::try_from(repeated).unwrap_or(usize::MAX)..);
    if let Some(new) = new.filter(|new| !new.is_empty()) {
        events::append(tx, &mut held.head, new)?;
        events::save_counter(tx, &held.head)?;
        let count = told.first.saturating_add(told.events.len() as u64);
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        sql::execute(
            tx.conn,
            "UPDATE attempts SET teller = ?2, told = ?3 WHERE fence = ?1",
            params![held.fence, told.teller.as_bytes().as_slice(), count],
        )?;
    }
    Ok(Ok(held.head.last_event))
}

/// About how much chunks write.
pub(super) fn chunk_bytes(chunks: &[Payload]) -> usize {
    let inline = |chunk: &Payload| match chunk {
        Payload::Inline(bytes) => bytes.len(),
        Payload::Blob { .. } => 256,
    };
    chunks.iter().map(|chunk| inline(chunk) + 128).sum()
}

pub(super) fn append_chunks(
    tx: &Tx<'_>,
    lease: Lease,
    chunks: &[Payload],
) -> Result<Result<u64, Stale>, Error> {
    let mut held = match Held::load(tx, lease)? {
        Ok(held) => held,
        Err(stale) => return Ok(Err(stale)),
    };
    for chunk in chunks {
        let data = match chunk {
            Payload::Inline(json) => format!("{{\"output\":{}}}", String::from_utf8_lossy(json)),
            Payload::Blob { key, size } => {
                // Its number tells it from every other of the job, also of an earlier attempt.
                let name = format!("chunk/{}", held.head.last_event + 1);
                files::refer_to_payload(tx, held.head.id, &held.head.tenant, &name, key, *size)?;
                serde_json::json!({ "blob": key, "size": size }).to_string()
            }
        };
        let kind = EventKind::Chunk;
        events::append(tx, &mut held.head, &[NewEvent { kind, data }])?;
    }
    events::save_counter(tx, &held.head)?;
    Ok(Ok(held.head.last_event))
}

/// About how much a finish writes.
pub(super) fn finish_bytes(finish: &Finish) -> usize {
    let result = match &finish.result {
        Some(darkroom_core::Payload::Inline(bytes)) => bytes.len(),
        Some(darkroom_core::Payload::Blob { .. }) | None => 0,
    };
    let events: usize = finish.events.iter().map(|e| e.data.len() + 64).sum();
    result + events + finish.outputs.len() * 512 + 1024
}

pub(super) fn finish(tx: &Tx<'_>, lease: Lease, finish: &Finish) -> Result<Result<JobState, Stale>, Error> {
    let mut held = match Held::load(tx, lease)? {
        Ok(held) => held,
        Err(stale) => return Ok(Err(stale)),
    };
    let Finish {
        outcome,
        outputs,
        result,
        events: last,
    } = finish;
    events::append(tx, &mut held.head, last)?;
    let state = held.end(tx, outcome.clone())?;
    if state.is_final() && (result.is_some() || !outputs.is_empty()) {
        let (inline, blob, size) = match result {
            Some(payload) => {
                let (inline, blob, size) = sql::payload_columns(payload);
                (inline, blob, Some(size))
            }
            None => (None, None, None),
        };
        sql::execute(
            tx.conn,
            "INSERT OR REPLACE INTO results (job, inline, blob, size, outputs) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![held.head.nr, inline, blob, size, sql::to_json(outputs)],
        )?;
        let (id, tenant) = (held.head.id, &held.head.tenant);
        if let Some(payload) = result
            && let Some(key) = payload.blob()
        {
            files::refer_to_payload(tx, id, tenant, "result", key, payload.size())?;
        }
        files::refer_to_outputs(tx, id, tenant, outputs)?;
    }
    tx.failpoint("record");
    Ok(Ok(state))
}

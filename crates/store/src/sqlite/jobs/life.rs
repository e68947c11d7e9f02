//! How a job changes: every transition goes through `core::job::apply`, and what follows from it is written here, in one
//! place and one transaction: the row, the queue's numbers, the `state` event, the outbox, the wake-ups.

use std::time::Duration;

use darkroom_core::{
    AttemptOutcome, EndpointName, Failure, JobId, JobState, TenantId, Timestamp,
    attempt::Fence,
    event::{EventKind, NewEvent},
    failure::FailureCode,
    job::{self, Effect, Life},
    keep, retry,
};
use rusqlite::{Row, params};
use serde_json::{Map, Value};

use super::{
    super::{options::Ended, outbox, queues, sql, sql::InOrder, tx::Tx},
    history,
};
use crate::{Error, jobs::Entry, wake::Topic};

/// The part of a job's row that transitions read and write.
pub(super) struct Head {
    pub(super) nr: i64,
    pub(super) id: JobId,
    pub(super) tenant: TenantId,
    pub(super) endpoint: EndpointName,
    pub(super) priority: i32,
    pub(super) life: Life,
    pub(super) ord: i64,
    pub(super) avoid: Option<Vec<u8>>,
    pub(super) queue_ttl: Option<i64>,
    pub(super) expires_at: Option<i64>,
    pub(super) lives_until: Option<i64>,
    kept: Option<i64>,
    pub(super) delete_at: Option<i64>,
    pub(super) started_at: Option<i64>,
    pub(super) finished_at: Option<i64>,
    /// When it ended, as long as it stands in history.
    pub(super) history: Option<i64>,
    pub(super) attempts: u32,
    pub(super) fence: Option<Fence>,
    pub(super) failure: Option<Failure>,
    pub(super) last_event: u64,
    /// `last_event` when the attempt began; its cap counts from there, as `event_bytes` and `truncated` do.
    pub(super) events_from: u64,
    pub(super) event_bytes: u64,
    pub(super) truncated: bool,
    max_attempts: u32,
    webhook: Option<String>,
    sink: Option<String>,
}

/// Columns that [`Head::read`] wants, in its order, of a table named `j`.
pub(super) const HEAD: &str = "j.nr, j.id, j.tenant, j.endpoint, j.priority, j.state, j.lost, j.released, j.out_of_memory, j.cancel_requested, \
     j.ord, j.avoid, j.queue_ttl, j.expires_at, j.lives_until, j.kept, j.delete_at, j.started_at, j.finished_at, j.history, \
     j.attempts, j.fence, j.failure, j.last_event, j.events_from, j.event_bytes, j.truncated, j.max_attempts, j.webhook, j.sink";

impl Head {
    /// The job with that id; `tenant: None` is an operator.
    pub(super) fn load(tx: &Tx<'_>, tenant: Option<&TenantId>, id: JobId) -> Result<Option<Head>, Error> {
        let head = sql::row(
            tx.conn,
            &format!("SELECT {HEAD} FROM jobs j WHERE j.id = ?1"),
            [id.as_uuid().as_bytes().as_slice()],
            Head::read,
        )?;
        Ok(head.filter(|head| tenant.is_none_or(|tenant| *tenant == head.tenant)))
    }

    /// Reads the columns of [`HEAD`], which are a row's first.
    pub(super) fn read(row: &Row<'_>) -> Result<Head, Error> {
        Head::read_from(row, InOrder::from(0))
    }

    /// Reads the columns of [`HEAD`] from somewhere in a row.
    pub(super) fn read_from(row: &Row<'_>, mut column: InOrder) -> Result<Head, Error> {
        let mut next = || column.next();
        // In the order of `HEAD`.
        Ok(Head {
            nr: row.get(next())?,
            id: JobId::from_uuid(sql::uuid(row, next(), "jobs")?),
            tenant: sql::parsed(row, next(), "jobs", |t| t.parse().ok())?,
            endpoint: sql::parsed(row, next(), "jobs", |t| t.parse().ok())?,
            priority: row.get(next())?,
            life: Life {
                state: sql::parsed(row, next(), "jobs", JobState::parse)?,
                lost_attempts: sql::unsigned(row, next())?,
                released_attempts: sql::unsigned(row, next())?,
                out_of_memory: sql::unsigned(row, next())?,
                cancel_requested: row.get(next())?,
            },
            ord: row.get(next())?,
            avoid: row.get(next())?,
            queue_ttl: row.get(next())?,
            expires_at: row.get(next())?,
            lives_until: row.get(next())?,
            kept: row.get(next())?,
            delete_at: row.get(next())?,
            started_at: row.get(next())?,
            finished_at: row.get(next())?,
            history: row.get(next())?,
            attempts: sql::unsigned(row, next())?,
            fence: row.get::<_, Option<i64>>(next())?.map(Fence),
            failure: sql::json_opt(row, next(), "jobs")?,
            last_event: sql::unsigned(row, next())?,
            events_from: sql::unsigned(row, next())?,
            event_bytes: sql::unsigned(row, next())?,
            truncated: row.get(next())?,
            max_attempts: sql::unsigned(row, next())?,
            webhook: row.get(next())?,
            sink: row.get(next())?,
        })
    }

    /// Applies an event to the job and writes all that follows. `facts` go into the `state` event.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when the event cannot happen: callers look before.
    pub(super) fn apply(
        &mut self,
        tx: &Tx<'_>,
        event: job::Event,
        facts: Map<String, Value>,
    ) -> Result<(), Error> {
        let limits = retry::Limits {
            max_attempts: self.max_attempts,
        };
        let (next, effects) =
            job::apply(&self.life, event, limits).map_err(|refused| Error::Inconsistent {
                table: "jobs",
                what: format!("{}: {refused}", self.id),
            })?;
        let before = std::mem::replace(&mut self.life, next);
        let changed = before.state != self.life.state;
        if changed {
            if before.state == JobState::Queued {
                leave_line(tx, self)?;
            }
            if before.state == JobState::Running {
                self.fence = None;
            }
            if before.state.is_final() {
                self.finished_at = None;
                self.delete_at = None;
                self.history = None;
                self.failure = None;
                outbox::forget(tx, self.id)?;
                sql::execute(
                    tx.conn,
                    "UPDATE queues SET retried = retried + 1 WHERE endpoint = ?1",
                    [self.endpoint.as_str()],
                )?;
                // An explicit wish is a new place in the line.
                self.ord = next_place(tx, &self.endpoint)?;
            }
            match self.life.state {
                JobState::Queued => enter_line(tx, self)?,
                JobState::Running => self.started_at = Some(tx.now.as_micros()),
                JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired => {
                    self.finished_at = Some(tx.now.as_micros());
                    self.plan_deletion();
                    let belongs = history::belongs(self.life.state, self.started_at.is_some());
                    self.history = self.finished_at.filter(|_| belongs);
                }
            }
        }
        for effect in effects {
            match effect {
                Effect::Ended { failure } => self.failure = failure,
                // Entered the line above.
                Effect::Requeued => {}
                // Whoever holds the attempt listens to the job.
                Effect::TellAttemptToStop => tx.wake(Topic::Job(self.id)),
            }
        }
        if changed {
            self.state_event(tx, facts)?;
            if self.life.state.is_final() {
                sql::execute(tx.conn, "DELETE FROM sealed WHERE job = ?1", [self.nr])?;
                count_end(tx, self)?;
                tx.tell_end(self.id);
                tx.ended(Ended::Job(self.endpoint.clone(), self.life.state));
                self.tell_outside(tx)?;
            }
            tx.wake(Topic::Capacity);
        }
        self.save(tx)
    }

    /// Says when its data is to be deleted, once it has ended.
    pub(super) fn plan_deletion(&mut self) {
        let instant = |micros: Option<i64>| micros.map(Timestamp::from_micros);
        let kept = self
            .kept
            .map(|kept| Duration::from_micros(u64::try_from(kept).unwrap_or(0)));
        let ended = instant(self.finished_at);
        let at = ended.and_then(|ended| keep::delete_at(instant(self.lives_until), kept, ended));
        self.delete_at = at.map(Timestamp::as_micros);
    }

    fn state_event(&mut self, tx: &Tx<'_>, mut facts: Map<String, Value>) -> Result<(), Error> {
        let mut data = Map::new();
        data.insert("state".to_owned(), self.life.state.as_str().into());
        if self.attempts > 0 {
            data.insert("attempt".to_owned(), self.attempts.into());
        }
        data.append(&mut facts);
        if let Some(failure) = &self.failure {
            let Failure {
                code,
                message,
                node_id,
                node_type,
                detail: _,
            } = failure;
            data.insert("code".to_owned(), code.as_str().into());
            data.insert("message".to_owned(), message.as_str().into());
            for (name, value) in [("node_id", node_id), ("node_type", node_type)] {
                if let Some(value) = value {
                    data.insert(name.to_owned(), value.as_str().into());
                }
            }
        }
        let event = NewEvent {
            kind: EventKind::State,
            data: Value::Object(data).to_string(),
        };
        super::events::append(tx, self, &[event])
    }

    fn tell_outside(&self, tx: &Tx<'_>) -> Result<(), Error> {
        queues::job_ended(
            tx,
            self.nr,
            self.id,
            &self.tenant,
            self.life.state,
            self.sink.as_deref(),
        )?;
        let Some(url) = &self.webhook else {
            return Ok(());
        };
        outbox::tell(tx, self.id, &self.tenant, self.life.state, self.last_event, url)
    }

    fn save(&self, tx: &Tx<'_>) -> Result<(), Error> {
        sql::execute(
            tx.conn,
            "UPDATE jobs SET state = ?2, ord = ?3, avoid = ?4, started_at = ?5, finished_at = ?6, expires_at = ?7, \
             attempts = ?8, lost = ?9, released = ?10, cancel_requested = ?11, fence = ?12, failure = ?13, \
             last_event = ?14, event_bytes = ?15, truncated = ?16, events_from = ?17, history = ?18, \
             out_of_memory = ?19, delete_at = ?20 WHERE nr = ?1",
            params![
                self.nr,
                self.life.state.as_str(),
                self.ord,
                self.avoid,
                self.started_at,
                self.finished_at,
                self.expires_at,
                self.attempts,
                self.life.lost_attempts,
                self.life.released_attempts,
                self.life.cancel_requested,
                self.fence.map(|f| f.0),
                self.failure.as_ref().map(sql::to_json),
                sql::int(self.last_event),
                sql::int(self.event_bytes),
                self.truncated,
                sql::int(self.events_from),
                self.history,
                self.life.out_of_memory,
                self.delete_at,
            ],
        )?;
        Ok(())
    }
}

/// Counts a new job into its line; its place there.
pub(super) fn enter_new(
    tx: &Tx<'_>,
    endpoint: &EndpointName,
    tenant: &TenantId,
    priority: i32,
    entry: Entry,
) -> Result<i64, Error> {
    let next = sql::value(
        tx.conn,
        "INSERT INTO queues (endpoint, next_ord, queued, queued_low) VALUES (?1, 1, 1, ?2) \
         ON CONFLICT (endpoint) DO UPDATE SET next_ord = next_ord + 1, queued = queued + 1, queued_low = queued_low + ?2 \
         RETURNING next_ord",
        params![endpoint.as_str(), priority < 0],
    )?;
    let next: i64 = next.ok_or_else(no_place)?;
    let ord = match entry {
        Entry::Back => next,
        Entry::Front => -next,
        Entry::At(place) => place,
    };
    enter_lane(tx, endpoint, tenant, priority, ord)?;
    Ok(ord)
}

fn no_place() -> Error {
    Error::Inconsistent {
        table: "queues",
        what: "an upsert returned nothing".to_owned(),
    }
}

/// The next place at the end of an endpoint's line.
pub(super) fn next_place(tx: &Tx<'_>, endpoint: &EndpointName) -> Result<i64, Error> {
    let place = sql::value(
        tx.conn,
        "INSERT INTO queues (endpoint, next_ord) VALUES (?1, 1) \
         ON CONFLICT (endpoint) DO UPDATE SET next_ord = next_ord + 1 RETURNING next_ord",
        [endpoint.as_str()],
    )?;
    place.ok_or_else(no_place)
}

/// Counts a job into its line; it waits from now on.
pub(super) fn enter_line(tx: &Tx<'_>, head: &mut Head) -> Result<(), Error> {
    let waits_until = head.queue_ttl.map(|ttl| tx.now.as_micros().saturating_add(ttl));
    head.expires_at = waits_until.into_iter().chain(head.lives_until).min();
    count_in(tx, &head.endpoint, &head.tenant, head.priority, head.ord)
}

/// Counts one more waiting job at place `ord`.
pub(super) fn count_in(
    tx: &Tx<'_>,
    endpoint: &EndpointName,
    tenant: &TenantId,
    priority: i32,
    ord: i64,
) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "UPDATE queues SET queued = queued + 1, queued_low = queued_low + ?2 WHERE endpoint = ?1",
        params![endpoint.as_str(), priority < 0],
    )?;
    enter_lane(tx, endpoint, tenant, priority, ord)
}

fn enter_lane(
    tx: &Tx<'_>,
    endpoint: &EndpointName,
    tenant: &TenantId,
    priority: i32,
    ord: i64,
) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "INSERT INTO lanes (endpoint, priority, tenant, queued, since) VALUES (?1, ?2, ?3, 1, ?4) \
         ON CONFLICT DO UPDATE SET queued = queued + 1",
        params![endpoint.as_str(), priority, tenant.as_str(), ord],
    )?;
    tx.wake(Topic::Queue(endpoint.clone()));
    tx.wake(Topic::Capacity);
    Ok(())
}

/// Counts a job out of its line: to run, or for good.
pub(super) fn leave_line(tx: &Tx<'_>, head: &mut Head) -> Result<(), Error> {
    head.expires_at = None;
    let runs = head.life.state == JobState::Running;
    sql::execute(
        tx.conn,
        "UPDATE queues SET queued = queued - 1, queued_low = queued_low - ?2, running = running + ?3 WHERE endpoint = ?1",
        params![head.endpoint.as_str(), head.priority < 0, runs],
    )?;
    let lane = params![head.endpoint.as_str(), head.priority, head.tenant.as_str()];
    let left: Option<i64> = sql::value(
        tx.conn,
        "UPDATE lanes SET queued = queued - 1 WHERE endpoint = ?1 AND priority = ?2 AND tenant = ?3 RETURNING queued",
        lane,
    )?;
    if left == Some(0) {
        sql::execute(
            tx.conn,
            "DELETE FROM lanes WHERE endpoint = ?1 AND priority = ?2 AND tenant = ?3",
            lane,
        )?;
    }
    Ok(())
}

/// Counts an end, for who asks how an endpoint is.
fn count_end(tx: &Tx<'_>, head: &Head) -> Result<(), Error> {
    let statement = match head.life.state {
        JobState::Succeeded => "UPDATE queues SET completed = completed + 1 WHERE endpoint = ?1",
        JobState::Failed | JobState::Expired => "UPDATE queues SET failed = failed + 1 WHERE endpoint = ?1",
        JobState::Cancelled | JobState::Queued | JobState::Running => return Ok(()),
    };
    sql::execute(tx.conn, statement, [head.endpoint.as_str()])?;
    Ok(())
}

/// Facts for a `state` event about an attempt that did not bring a result.
pub(super) fn facts_of(outcome: &AttemptOutcome) -> Map<String, Value> {
    let mut facts = Map::new();
    match outcome {
        AttemptOutcome::Lost { reason } => {
            facts.insert("lost".to_owned(), reason.as_str().into());
        }
        AttemptOutcome::Released { reason } => {
            facts.insert("released".to_owned(), reason.as_str().into());
        }
        AttemptOutcome::Failed(failure) if failure.code == FailureCode::OutOfMemory => {
            facts.insert("out_of_memory".to_owned(), failure.message.as_str().into());
        }
        AttemptOutcome::Done | AttemptOutcome::Failed(_) | AttemptOutcome::Cancelled => {}
    }
    facts
}

/// Microseconds of a duration, as columns hold it.
pub(in super::super) fn micros(duration: std::time::Duration) -> i64 {
    Timestamp::ZERO.plus(duration).as_micros()
}

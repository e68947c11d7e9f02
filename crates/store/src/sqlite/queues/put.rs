//! Putting items: an index from the queue's counter, the row, the reference to a blob; alone, with a job, or for an outbox row.

use darkroom_core::{JobId, JobState, TenantId};
use rusqlite::params;

use super::{
    super::{files, jobs::submit, sql, tx::Tx},
    Head,
    remove::remove,
};
use crate::{
    Error, Topic,
    jobs::{NewJob, Submitted},
    queues::{NewItem, Put, QueueId, Side, Sink},
};

/// About how much a put writes.
pub(super) fn bytes(item: &NewItem) -> usize {
    let inline = match &item.payload {
        darkroom_core::Payload::Inline(bytes) => bytes.len(),
        darkroom_core::Payload::Blob { .. } => 0,
    };
    inline + 512
}

pub(super) fn put(tx: &Tx<'_>, queue: &QueueId, item: &NewItem) -> Result<Put, Error> {
    let head = Head::open(tx, queue)?;
    if let Some(index) = named(tx, &head, item)? {
        return Ok(Put::Existing(index));
    }
    tx.check_disk()?;
    if head.ended {
        return Ok(Put::Ended);
    }
    if head.length >= item.max_length {
        return Ok(Put::Full { length: head.length });
    }
    insert(tx, &head, item, None).map(Put::At)
}

pub(super) fn put_job(tx: &Tx<'_>, queue: &QueueId, item: &NewItem, job: &NewJob) -> Result<Put, Error> {
    let head = Head::open(tx, queue)?;
    if let Some(index) = named(tx, &head, item)? {
        return Ok(Put::Existing(index));
    }
    if head.ended {
        return Ok(Put::Ended);
    }
    match submit::submit(tx, job)? {
        Submitted::Accepted { .. } => {}
        Submitted::QueueFull { queued } => return Ok(Put::Full { length: queued }),
        Submitted::Existing(id) | Submitted::Duplicate(id) => {
            return Err(Error::Inconsistent {
                table: "external_ids",
                what: format!("a job of a queue has a name of its own: {id}"),
            });
        }
    }
    let sink = Sink {
        tags: item.tags.clone(),
        request_id: item.request_id.clone(),
        priority: item.priority,
    };
    let nr: Option<i64> = sql::value(
        tx.conn,
        "UPDATE jobs SET sink = ?2 WHERE id = ?1 RETURNING nr",
        params![job.id.as_uuid().as_bytes().as_slice(), sql::to_json(&sink)],
    )?;
    insert(tx, &head, item, nr).map(Put::At)
}

pub(super) fn put_result(
    tx: &Tx<'_>,
    outbox: i64,
    sink: &QueueId,
    item: &NewItem,
) -> Result<Option<Put>, Error> {
    let job: Option<Vec<u8>> = sql::value(
        tx.conn,
        "DELETE FROM outbox WHERE id = ?1 RETURNING job",
        [outbox],
    )?;
    let Some(job) = job else { return Ok(None) };
    let head = Head::open(tx, sink)?;
    // A job that was retried while its first result waits: the client sees one.
    let first: Option<i64> = sql::value(
        tx.conn,
        "SELECT idx FROM items WHERE queue = ?1 AND request_id = ?2 AND result_of = ?3 AND taken_until IS NULL \
         ORDER BY idx LIMIT 1",
        params![head.nr, item.request_id, job],
    )?;
    if let Some(index) = first {
        return Ok(Some(Put::Existing(index.unsigned_abs())));
    }
    let index = insert(tx, &head, item, None)?;
    sql::execute(
        tx.conn,
        "UPDATE items SET result_of = ?3 WHERE queue = ?1 AND idx = ?2",
        params![head.nr, sql::int(index), job],
    )?;
    Ok(Some(Put::At(index)))
}

/// A job reached its end: its item goes, and its result is asked for. In the transaction of the job's last change.
pub(in super::super) fn job_ended(
    tx: &Tx<'_>,
    nr: i64,
    job: JobId,
    tenant: &TenantId,
    state: JobState,
    sink: Option<&str>,
) -> Result<(), Error> {
    let item: Option<(i64, i64)> = sql::row(
        tx.conn,
        "SELECT queue, idx FROM items WHERE job = ?1",
        [nr],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if let Some((queue, index)) = item {
        let head = Head::numbered(tx.conn, queue)?;
        sql::execute(
            tx.conn,
            "UPDATE items SET job = NULL WHERE queue = ?1 AND idx = ?2",
            [queue, index],
        )?;
        remove(tx, &head, index)?;
    }
    let Some(sink) = sink else { return Ok(()) };
    let sink: serde_json::Value = serde_json::from_str(sink).map_err(|e| Error::Inconsistent {
        table: "jobs",
        what: format!("sink: {e}"),
    })?;
    let body = serde_json::json!({ "tenant": tenant, "state": state, "sink": sink });
    sql::execute(
        tx.conn,
        "INSERT INTO outbox (job, kind, body, due_at) VALUES (?1, 'sink', ?2, ?3)",
        params![
            job.as_uuid().as_bytes().as_slice(),
            body.to_string(),
            tx.now.as_micros()
        ],
    )?;
    tx.wake(Topic::Outbox);
    Ok(())
}

fn named(tx: &Tx<'_>, head: &Head, item: &NewItem) -> Result<Option<u64>, Error> {
    if !item.named {
        return Ok(None);
    }
    let index: Option<i64> = sql::value(
        tx.conn,
        "SELECT idx FROM item_names WHERE queue = ?1 AND name = ?2",
        params![head.nr, item.request_id],
    )?;
    Ok(index.map(i64::unsigned_abs))
}

/// The next index of a queue, and the item's row under it.
pub(super) fn insert(tx: &Tx<'_>, head: &Head, item: &NewItem, job: Option<i64>) -> Result<u64, Error> {
    let index: i64 = sql::value(
        tx.conn,
        "UPDATE item_queues SET next = next + 1, length = length + 1 WHERE nr = ?1 RETURNING next - 1",
        [head.nr],
    )?
    .ok_or(Error::Inconsistent {
        table: "item_queues",
        what: "a queue went away".to_owned(),
    })?;
    let (inline, blob, size) = sql::payload_columns(&item.payload);
    sql::execute(
        tx.conn,
        "INSERT INTO items (queue, idx, priority, put_at, job, request_id, tags, size, blob, inline) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            head.nr,
            index,
            item.priority,
            tx.now.as_micros(),
            job,
            item.request_id,
            sql::to_json(&item.tags),
            size,
            blob,
            inline,
        ],
    )?;
    if let Some(key) = item.payload.blob() {
        files::refer_to_item(
            tx,
            &head.owner(),
            index,
            &head.id.tenant,
            key,
            item.payload.size(),
        )?;
    }
    if item.named {
        sql::execute(
            tx.conn,
            "INSERT OR REPLACE INTO item_names (queue, name, idx, at) VALUES (?1, ?2, ?3, ?4)",
            params![head.nr, item.request_id, index, tx.now.as_micros()],
        )?;
    }
    // A job's item is nobody's to deliver.
    if job.is_none() || head.id.side != Side::Input {
        head.wake(tx);
    }
    Ok(index.unsigned_abs())
}

//! Durable events: numbered per job from a counter on its row, in the transaction of what they tell.

use darkroom_core::event::{EventKind, NewEvent};
use rusqlite::params;

use super::{
    super::{sql, tx::Tx},
    life::Head,
};
use crate::{Error, wake::Topic};

/// Appends events to a job. Of an attempt that has used up a kind's room ([`EventKind::room`]) one marker is written and
/// further events of that kind are dropped.
/// The caller saves the head, or calls [`save_counter`].
pub(super) fn append(tx: &Tx<'_>, head: &mut Head, events: &[NewEvent]) -> Result<(), Error> {
    for event in events {
        if let Some(room) = event.kind.room() {
            let events = head.last_event.saturating_sub(head.events_from);
            let bytes = head.event_bytes + event.data.len() as u64;
            if events >= room.events || bytes > room.bytes {
                if !head.truncated {
                    head.truncated = true;
                    insert(tx, head, EventKind::Truncated, "{}")?;
                }
                continue;
            }
            head.event_bytes = bytes;
        }
        insert(tx, head, event.kind, &event.data)?;
    }
    tx.wake(Topic::Job(head.id));
    Ok(())
}

/// Writes only what [`append`] changed of the row.
pub(super) fn save_counter(tx: &Tx<'_>, head: &Head) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "UPDATE jobs SET last_event = ?2, event_bytes = ?3, truncated = ?4 WHERE nr = ?1",
        params![
            head.nr,
            sql::int(head.last_event),
            sql::int(head.event_bytes),
            head.truncated
        ],
    )?;
    Ok(())
}

fn insert(tx: &Tx<'_>, head: &mut Head, kind: EventKind, data: &str) -> Result<(), Error> {
    head.last_event += 1;
    sql::execute(
        tx.conn,
        "INSERT INTO events (job, seq, at, attempt, kind, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            head.nr,
            sql::int(head.last_event),
            tx.now.as_micros(),
            head.attempts,
            kind.as_str(),
            data
        ],
    )?;
    Ok(())
}

//! Draining chunks: how far callers of one job were given what its handler yielded.

use darkroom_core::{
    JobId,
    event::{Event, EventKind},
};
use rusqlite::{Connection, params};

use super::super::{sql, tx::Tx};
use crate::{Error, jobs::Unstreamed};

pub(super) fn unstreamed(conn: &Connection, id: JobId, limit: u32) -> Result<Unstreamed, Error> {
    let job = sql::row(
        conn,
        "SELECT nr, streamed, attempts, truncated FROM jobs WHERE id = ?1",
        [id.as_uuid().as_bytes().as_slice()],
        |row| {
            Ok((
                row.get::<_, i64>("nr")?,
                sql::unsigned::<u64>(row, "streamed")?,
                sql::unsigned::<u32>(row, "attempts")?,
                row.get::<_, bool>("truncated")?,
            ))
        },
    )?;
    let Some((nr, after, attempt, truncated)) = job else {
        return Ok(Unstreamed::default());
    };
    let chunks = sql::rows(
        conn,
        "SELECT seq, at, data FROM events WHERE job = ?1 AND seq > ?2 AND attempt = ?3 AND kind = ?4 ORDER BY seq LIMIT ?5",
        params![nr, sql::int(after), attempt, EventKind::Chunk.as_str(), limit],
        |row| {
            Ok(Event {
                seq: sql::unsigned(row, "seq")?,
                at: sql::instant(row, "at")?,
                attempt,
                kind: EventKind::Chunk,
                data: row.get("data")?,
            })
        },
    )?;
    let truncated = truncated && chunks.len() < limit as usize;
    Ok(Unstreamed {
        after,
        chunks,
        truncated,
    })
}

pub(super) fn mark(tx: &Tx<'_>, id: JobId, after: u64, upto: u64) -> Result<bool, Error> {
    let changed = sql::execute(
        tx.conn,
        "UPDATE jobs SET streamed = ?3 WHERE id = ?1 AND streamed = ?2",
        params![
            id.as_uuid().as_bytes().as_slice(),
            sql::int(after),
            sql::int(upto)
        ],
    )?;
    Ok(changed == 1)
}

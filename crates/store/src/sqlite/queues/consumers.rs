//! Consumers come, go, and are taken over.

use darkroom_core::NodeName;
use rusqlite::{Connection, Row, params};

use super::{
    super::{sql, tx::Tx},
    Head,
};
use crate::{
    Error,
    queues::{Join, QueueId, Session, Start, Tags},
};

/// A connected consumer.
pub(super) struct Consumer {
    pub(super) queue: i64,
    pub(super) group: String,
    pub(super) name: String,
    pub(super) start: i64,
    pub(super) window: u32,
    pub(super) auto_commit: bool,
    pub(super) tags: Tags,
}

/// The consumer of a session, unless another connection took over or it left.
pub(super) fn session(conn: &Connection, session: Session) -> Result<Option<Consumer>, Error> {
    sql::row(
        conn,
        "SELECT queue, grp, name, start, window, auto_commit, tags FROM consumers \
         WHERE session = ?1 AND left_at IS NULL",
        [session.0],
        |row: &Row<'_>| {
            Ok(Consumer {
                queue: row.get("queue")?,
                group: row.get("grp")?,
                name: row.get("name")?,
                start: row.get("start")?,
                window: sql::unsigned(row, "window")?,
                auto_commit: row.get("auto_commit")?,
                tags: sql::json(row, "tags", "consumers")?,
            })
        },
    )
}

pub(super) fn join(tx: &Tx<'_>, queue: &QueueId, join: &Join) -> Result<Session, Error> {
    let head = Head::open(tx, queue)?;
    let now = tx.now.as_micros();
    let session: i64 = sql::value(
        tx.conn,
        "UPDATE counters SET value = value + 1 WHERE name = 'session' RETURNING value",
        [],
    )?
    .ok_or(Error::Inconsistent {
        table: "counters",
        what: "there is no counter of sessions".to_owned(),
    })?;
    seen(tx, head.nr, &join.group)?;
    let start = match join.start {
        Start::At(index) => sql::int(index),
        Start::New => sql::int(head.next),
    };
    sql::execute(
        tx.conn,
        "INSERT OR REPLACE INTO consumers (queue, grp, name, session, node, left_at, start, window, auto_commit, tags, \
         last_index, active_at) VALUES (?1, ?2, ?3, ?4, ?5, NULL, ?6, ?7, ?8, ?9, \
         COALESCE((SELECT last_index FROM consumers WHERE queue = ?1 AND grp = ?2 AND name = ?3), 0), ?10)",
        params![
            head.nr,
            join.group,
            join.consumer,
            session,
            join.node.as_str(),
            start,
            join.window,
            join.auto_commit,
            sql::to_json(&join.tags),
            now,
        ],
    )?;
    // What it held is kept for it, as far as it asks for it; the rest is anybody's.
    sql::execute(
        tx.conn,
        "UPDATE deliveries SET state = 'returned', consumer = CASE WHEN idx >= ?4 THEN consumer END, at = ?5 \
         WHERE queue = ?1 AND grp = ?2 AND consumer = ?3 AND state <> 'committed'",
        params![head.nr, join.group, join.consumer, start, now],
    )?;
    // The older connection hears of it, and others of what was let go.
    head.wake(tx);
    Ok(Session(session))
}

pub(super) fn leave(tx: &Tx<'_>, of: Session) -> Result<(), Error> {
    let Some(me) = session(tx.conn, of)? else {
        return Ok(());
    };
    sql::execute(
        tx.conn,
        "UPDATE consumers SET left_at = ?2 WHERE session = ?1",
        params![of.0, tx.now.as_micros()],
    )?;
    seen(tx, me.queue, &me.group)?;
    // Others learn when they may have what it held.
    Head::numbered(tx.conn, me.queue)?.wake(tx);
    Ok(())
}

pub(super) fn end(tx: &Tx<'_>, queue: &QueueId, ended: bool) -> Result<(), Error> {
    let head = Head::open(tx, queue)?;
    sql::execute(
        tx.conn,
        "UPDATE item_queues SET ended = ?2 WHERE nr = ?1",
        params![head.nr, ended],
    )?;
    head.wake(tx);
    Ok(())
}

pub(super) fn recover(tx: &Tx<'_>, node: &NodeName) -> Result<(), Error> {
    let now = tx.now.as_micros();
    let node = node.as_str();
    // Our end is not the consumer's: what it held was not delivered once more.
    sql::execute(
        tx.conn,
        "UPDATE deliveries SET times = MAX(times - 1, 0) WHERE state = 'pending' AND EXISTS (SELECT 1 FROM consumers c \
         WHERE c.queue = deliveries.queue AND c.grp = deliveries.grp AND c.name = deliveries.consumer \
         AND c.node = ?1 AND c.left_at IS NULL)",
        [node],
    )?;
    sql::execute(
        tx.conn,
        "UPDATE consumers SET left_at = ?2 WHERE node = ?1 AND left_at IS NULL",
        params![node, now],
    )?;
    sql::execute(
        tx.conn,
        "UPDATE item_queues SET length = length + \
         (SELECT COUNT(*) FROM items i WHERE i.queue = item_queues.nr AND i.taken_until IS NOT NULL AND i.taken_by = ?1)",
        [node],
    )?;
    sql::execute(
        tx.conn,
        "UPDATE items SET taken_until = NULL, taken_by = NULL WHERE taken_until IS NOT NULL AND taken_by = ?1",
        [node],
    )?;
    Ok(())
}

fn seen(tx: &Tx<'_>, queue: i64, group: &str) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "INSERT INTO item_groups (queue, name, seen_at) VALUES (?1, ?2, ?3) \
         ON CONFLICT DO UPDATE SET seen_at = ?3",
        params![queue, group, tx.now.as_micros()],
    )?;
    Ok(())
}

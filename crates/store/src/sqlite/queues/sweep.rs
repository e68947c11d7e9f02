//! Forgetting groups and consumers that do not come back, and names that nobody repeats any more.

use std::time::Duration;

use rusqlite::params;

use super::{
    super::{
        jobs::{SWEEP_ROWS, micros},
        sql,
        tx::Tx,
    },
    Head,
    remove::remove,
};
use crate::{Error, jobs::Swept, queues::QueueId};

/// A put that is repeated later than this is a new one.
const KEEP_NAMES: Duration = Duration::from_secs(24 * 3600);

pub(super) fn sweep(tx: &Tx<'_>, queue: &QueueId, group_idle: Duration) -> Result<Swept, Error> {
    let Some(head) = Head::find(tx.conn, queue)? else {
        return Ok(Swept::default());
    };
    let now = tx.now.as_micros();
    let before = now.saturating_sub(micros(group_idle));
    let limit = sql::int(SWEEP_ROWS);
    let names = sql::execute(
        tx.conn,
        "DELETE FROM item_names WHERE (queue, name) IN \
         (SELECT queue, name FROM item_names WHERE at <= ?1 LIMIT ?2)",
        params![now.saturating_sub(micros(KEEP_NAMES)), limit],
    )?;
    let consumers = sql::execute(
        tx.conn,
        "DELETE FROM consumers WHERE (queue, grp, name) IN (SELECT queue, grp, name FROM consumers c \
         WHERE c.queue = ?1 AND c.left_at <= ?2 AND NOT EXISTS (SELECT 1 FROM deliveries d \
           WHERE d.queue = c.queue AND d.grp = c.grp AND d.consumer = c.name AND d.state <> 'committed') LIMIT ?3)",
        params![head.nr, before, limit],
    )?;
    let idle: Vec<String> = sql::rows(
        tx.conn,
        "SELECT name FROM item_groups g WHERE g.queue = ?1 AND g.seen_at <= ?2 AND NOT EXISTS \
         (SELECT 1 FROM consumers c WHERE c.queue = g.queue AND c.grp = g.name AND c.left_at IS NULL)",
        params![head.nr, before],
        |row| Ok(row.get("name")?),
    )?;
    let mut removed = 0;
    if !idle.is_empty() {
        removed = remove_committed(tx, &head, before)?;
        // A group is forgotten once nothing waits for it alone.
        if removed < SWEEP_ROWS {
            for group in &idle {
                forget_group(tx, &head, group)?;
            }
        }
    }
    let rows = (names + consumers) as u64 + removed;
    let more = removed == SWEEP_ROWS || names as u64 == SWEEP_ROWS || consumers as u64 == SWEEP_ROWS;
    Ok(Swept { rows, more })
}

fn forget_group(tx: &Tx<'_>, head: &Head, group: &str) -> Result<(), Error> {
    for statement in [
        "DELETE FROM item_groups WHERE queue = ?1 AND name = ?2",
        "DELETE FROM consumers WHERE queue = ?1 AND grp = ?2",
        // What only it had begun is as new; what it had done is remembered as long as other groups are there.
        "DELETE FROM deliveries WHERE queue = ?1 AND grp = ?2 AND state <> 'committed'",
    ] {
        sql::execute(tx.conn, statement, params![head.nr, group])?;
    }
    Ok(())
}

/// Items that every group which is not idle has committed, and any has.
fn remove_committed(tx: &Tx<'_>, head: &Head, before: i64) -> Result<u64, Error> {
    let done: Vec<i64> = sql::rows(
        tx.conn,
        "SELECT DISTINCT d.idx FROM deliveries d WHERE d.queue = ?1 AND d.state = 'committed' AND NOT EXISTS \
         (SELECT 1 FROM item_groups g WHERE g.queue = ?1 \
           AND (g.seen_at > ?3 OR EXISTS (SELECT 1 FROM consumers c \
             WHERE c.queue = g.queue AND c.grp = g.name AND c.left_at IS NULL)) \
           AND NOT EXISTS (SELECT 1 FROM deliveries o \
             WHERE o.queue = ?1 AND o.grp = g.name AND o.idx = d.idx AND o.state = 'committed')) LIMIT ?2",
        params![head.nr, sql::int(SWEEP_ROWS), before],
        |row| Ok(row.get(0)?),
    )?;
    for index in &done {
        remove(tx, head, *index)?;
    }
    Ok(done.len() as u64)
}

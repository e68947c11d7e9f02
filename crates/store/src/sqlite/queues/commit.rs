//! What consumers say of their deliveries: done, or not.

use rusqlite::params;

use super::{
    super::{sql, tx::Tx},
    Head,
    consumers::{Consumer, session},
    remove::remove,
};
use crate::{
    Error,
    queues::{Committed, QueueId, Session},
};

pub(super) fn commit(tx: &Tx<'_>, queue: &QueueId, group: &str, indexes: &[u64]) -> Result<Committed, Error> {
    let head = Head::find(tx.conn, queue)?;
    let mut committed = Committed::default();
    for index in indexes {
        match delivered(tx, head.as_ref(), group, *index)? {
            (Some(head), Found::Delivered) => commit_one(tx, head, group, sql::int(*index))?,
            (_, Found::Gone) => {}
            (_, Found::NotDelivered) => committed.not_delivered.push(*index),
            (_, _) => committed.never.push(*index),
        }
    }
    if let Some(head) = &head {
        head.wake(tx);
    }
    Ok(committed)
}

pub(super) fn commit_sent(tx: &Tx<'_>, of: Session, indexes: &[u64]) -> Result<(), Error> {
    let Some(me) = session(tx.conn, of)? else {
        return Ok(());
    };
    commit_all(tx, &me, indexes)
}

/// Commits what was sent to a session. Its window does not count, so that nobody has more room now: only the end of a queue
/// that was ended is news.
pub(super) fn commit_all(tx: &Tx<'_>, me: &Consumer, indexes: &[u64]) -> Result<(), Error> {
    if indexes.is_empty() {
        return Ok(());
    }
    let head = Head::numbered(tx.conn, me.queue)?;
    for index in indexes {
        // Deleted while it was sent: nothing is left to commit.
        if let Found::Delivered = find(tx, &head, &me.group, *index)? {
            commit_one(tx, &head, &me.group, sql::int(*index))?;
        }
    }
    if head.ended {
        head.wake(tx);
    }
    Ok(())
}

pub(super) fn refuse(
    tx: &Tx<'_>,
    queue: &QueueId,
    group: &str,
    indexes: &[u64],
    counts: bool,
) -> Result<Committed, Error> {
    let head = Head::find(tx.conn, queue)?;
    let mut refused = Committed::default();
    for index in indexes {
        match delivered(tx, head.as_ref(), group, *index)? {
            (Some(head), Found::Delivered) => {
                sql::execute(
                    tx.conn,
                    "UPDATE deliveries SET state = 'returned', consumer = NULL, at = ?4, times = MAX(times - ?5, 0) \
                     WHERE queue = ?1 AND grp = ?2 AND idx = ?3 AND state = 'pending'",
                    params![
                        head.nr,
                        group,
                        sql::int(*index),
                        tx.now.as_micros(),
                        i64::from(!counts)
                    ],
                )?;
            }
            (_, Found::Gone) => {}
            (_, Found::NotDelivered) => refused.not_delivered.push(*index),
            (_, _) => refused.never.push(*index),
        }
    }
    if let Some(head) = &head {
        head.wake(tx);
    }
    Ok(refused)
}

enum Found {
    Delivered,
    NotDelivered,
    Gone,
    Never,
}

fn delivered<'h>(
    tx: &Tx<'_>,
    head: Option<&'h Head>,
    group: &str,
    index: u64,
) -> Result<(Option<&'h Head>, Found), Error> {
    match head {
        None => Ok((None, Found::Never)),
        Some(head) => Ok((Some(head), find(tx, head, group, index)?)),
    }
}

fn find(tx: &Tx<'_>, head: &Head, group: &str, index: u64) -> Result<Found, Error> {
    if index == 0 || index >= head.next {
        return Ok(Found::Never);
    }
    let delivered: Option<bool> = sql::value(
        tx.conn,
        "SELECT EXISTS (SELECT 1 FROM deliveries d WHERE d.queue = i.queue AND d.grp = ?3 AND d.idx = i.idx) \
         FROM items i WHERE i.queue = ?1 AND i.idx = ?2",
        params![head.nr, sql::int(index), group],
    )?;
    Ok(match delivered {
        None => Found::Gone,
        Some(true) => Found::Delivered,
        Some(false) => Found::NotDelivered,
    })
}

/// The group is done with the item; the last group takes it along.
pub(super) fn commit_one(tx: &Tx<'_>, head: &Head, group: &str, index: i64) -> Result<(), Error> {
    let others: i64 = sql::value(
        tx.conn,
        "SELECT COUNT(*) FROM item_groups g WHERE g.queue = ?1 AND g.name <> ?2 AND NOT EXISTS \
         (SELECT 1 FROM deliveries d WHERE d.queue = ?1 AND d.grp = g.name AND d.idx = ?3 AND d.state = 'committed')",
        params![head.nr, group, index],
    )?
    .unwrap_or(0);
    if others == 0 {
        remove(tx, head, index)?;
        return Ok(());
    }
    sql::execute(
        tx.conn,
        "UPDATE deliveries SET state = 'committed', consumer = NULL, at = ?4 WHERE queue = ?1 AND grp = ?2 AND idx = ?3",
        params![head.nr, group, index, tx.now.as_micros()],
    )?;
    Ok(())
}

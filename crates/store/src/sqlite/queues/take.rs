//! Taking items away for a reader, and giving them back.

use rusqlite::params;

use super::{
    super::{sql, tx::Tx},
    Head, read,
};
use crate::{
    Error,
    queues::{Item, QueueId, Take},
};

pub(super) fn take(tx: &Tx<'_>, queue: &QueueId, take: &Take) -> Result<Vec<Item>, Error> {
    let Some(head) = Head::find(tx.conn, queue)? else {
        return Ok(Vec::new());
    };
    return_overdue(tx, &head)?;
    let items = read::free(tx.conn, head.nr, take)?;
    if items.len() < take.at_least as usize {
        return Ok(Vec::new());
    }
    for item in &items {
        sql::execute(
            tx.conn,
            "UPDATE items SET taken_until = ?3, taken_by = ?4 WHERE queue = ?1 AND idx = ?2",
            params![
                head.nr,
                sql::int(item.index),
                tx.now.plus(take.hold).as_micros(),
                take.node.as_str()
            ],
        )?;
    }
    head.change_length(tx, -i64::try_from(items.len()).unwrap_or(0))?;
    Ok(items)
}

pub(super) fn give_back(tx: &Tx<'_>, queue: &QueueId, indexes: &[u64]) -> Result<(), Error> {
    let Some(head) = Head::find(tx.conn, queue)? else {
        return Ok(());
    };
    let mut back = 0;
    for index in indexes {
        back += sql::execute(
            tx.conn,
            "UPDATE items SET taken_until = NULL, taken_by = NULL \
             WHERE queue = ?1 AND idx = ?2 AND taken_until IS NOT NULL",
            params![head.nr, sql::int(*index)],
        )?;
    }
    came_back(tx, &head, back)
}

/// What was taken and neither deleted nor given back in time.
pub(super) fn return_overdue(tx: &Tx<'_>, head: &Head) -> Result<(), Error> {
    let back = sql::execute(
        tx.conn,
        "UPDATE items SET taken_until = NULL, taken_by = NULL \
         WHERE queue = ?1 AND taken_until IS NOT NULL AND taken_until <= ?2",
        params![head.nr, tx.now.as_micros()],
    )?;
    came_back(tx, head, back)
}

fn came_back(tx: &Tx<'_>, head: &Head, back: usize) -> Result<(), Error> {
    if back > 0 {
        head.change_length(tx, i64::try_from(back).unwrap_or(0))?;
        head.wake(tx);
    }
    Ok(())
}

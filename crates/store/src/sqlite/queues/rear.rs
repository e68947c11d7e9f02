//! Items that were delivered too often.

use darkroom_core::Payload;

use super::{
    super::{sql, tx::Tx},
    Head,
    commit::commit_one,
    put::insert,
    read,
};
use crate::{
    Error,
    queues::{NewItem, QueueId, Side},
};

/// Moves an item that a group could not do to the rear of its queue, or drops it. Other groups still get it. The body is
/// referred to there before it is let go here.
pub(super) fn move_there(
    tx: &Tx<'_>,
    head: &Head,
    group: &str,
    rear: Side,
    index: i64,
    to_rear: bool,
) -> Result<(), Error> {
    let request_id: Option<String> = sql::value(
        tx.conn,
        "SELECT request_id FROM items WHERE queue = ?1 AND idx = ?2",
        [head.nr, index],
    )?;
    if to_rear && let Some(item) = read::one(tx.conn, head.nr, index, true)? {
        let there = Head::open(
            tx,
            &QueueId {
                side: rear,
                ..head.id.clone()
            },
        )?;
        let moved = NewItem {
            payload: item.payload.unwrap_or(Payload::Inline(Vec::new())),
            tags: item.tags,
            priority: item.priority,
            request_id: request_id.unwrap_or_default(),
            named: false,
            max_length: u64::MAX,
        };
        insert(tx, &there, &moved, None)?;
    }
    commit_one(tx, head, group, index)
}

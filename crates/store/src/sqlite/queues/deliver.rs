//! Handing items to a session: what came back and what is new, best first, as many as its window has room for.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{
    super::{jobs::micros, sql, tx::Tx},
    Head,
    commit::commit_all,
    consumers::{Consumer, session},
    read, rear, take,
};
use crate::{
    Error,
    queues::{Deliver, Delivered, Item, Policy, Scan, Tags, TakenOver},
};

/// New items looked at in one call; a filter that matches none of them must not hold the writer up.
const LOOK_AT: usize = 1_000;
/// Items moved to the rear in one call, for the same reason.
const TIRED_AT_MOST: usize = 256;

/// An item that could be handed out.
struct Candidate {
    priority: i32,
    index: i64,
    size: u64,
    /// How often it was delivered, where it came back.
    times: Option<u32>,
}

pub(super) fn deliver(tx: &Tx<'_>, deliver: &Deliver) -> Result<Result<Delivered, TakenOver>, Error> {
    let Some(me) = session(tx.conn, deliver.session)? else {
        return Ok(Err(TakenOver));
    };
    commit_all(tx, &me, &deliver.sent)?;
    let head = Head::numbered(tx.conn, me.queue)?;
    take::return_overdue(tx, &head)?;
    return_overdue(tx, &head, &me, &deliver.policy)?;

    let held: i64 = sql::value(
        tx.conn,
        "SELECT COUNT(*) FROM deliveries INDEXED BY deliveries_open \
         WHERE queue = ?1 AND grp = ?2 AND state = 'pending' AND consumer = ?3 AND state <> 'committed'",
        params![me.queue, me.group, me.name],
    )?
    .unwrap_or(0);
    let room = match me.auto_commit {
        true => deliver.at_most,
        false => me
            .window
            .saturating_sub(u32::try_from(held).unwrap_or(u32::MAX))
            .min(deliver.at_most),
    };
    let mut answer = Delivered {
        scan: deliver.scan.clone(),
        ..Delivered::default()
    };
    if room > 0 {
        let room = room as usize;
        let mut candidates = returned(tx, &head, &me, room, &deliver.policy)?;
        let (new, more) = new_ones(tx, &me, room, &mut answer.scan)?;
        answer.more = more;
        candidates.extend(new);
        candidates.sort_by_key(|c| (std::cmp::Reverse(c.priority), c.index));
        let mut bytes = 0;
        let mut over = false;
        for (place, candidate) in candidates.into_iter().enumerate() {
            bytes += candidate.size;
            over |= place >= room || (deliver.bodies && place > 0 && bytes > deliver.max_bytes);
            if over {
                // Not handed out: to be found again, and at once if only its size was in the way.
                answer.more |= place < room;
                if candidate.times.is_none() {
                    look_again(&mut answer.scan, &candidate);
                }
                continue;
            }
            answer.items.push(hand_out(tx, &me, &candidate, deliver.bodies)?);
        }
    }
    if let Some(last) = answer.items.iter().map(|item| item.index).max() {
        sql::execute(
            tx.conn,
            "UPDATE consumers SET last_index = ?2, active_at = ?3 WHERE session = ?1",
            params![deliver.session.0, sql::int(last), tx.now.as_micros()],
        )?;
    }
    answer.next_due = next_due(tx, &head, &me, &deliver.policy)?;
    answer.ended = head.ended && answer.items.is_empty() && !answer.more && head.length == 0;
    Ok(Ok(answer))
}

/// What others held too long, or left behind, may be anybody's now.
fn return_overdue(tx: &Tx<'_>, head: &Head, me: &Consumer, policy: &Policy) -> Result<(), Error> {
    let now = tx.now.as_micros();
    let left = now.saturating_sub(micros(policy.leave_grace));
    let mut returned = sql::execute(
        tx.conn,
        "UPDATE deliveries SET state = 'returned', consumer = NULL, at = ?4 \
         WHERE queue = ?1 AND grp = ?2 AND state <> 'committed' AND consumer IS NOT NULL AND consumer <> ?3 \
         AND NOT EXISTS (SELECT 1 FROM consumers c WHERE c.queue = ?1 AND c.grp = ?2 AND c.name = deliveries.consumer \
           AND (c.left_at IS NULL OR c.left_at > ?5))",
        params![head.nr, me.group, me.name, now, left],
    )?;
    if let Some(max_idle) = policy.max_idle {
        returned += sql::execute(
            tx.conn,
            "UPDATE deliveries SET state = 'returned', consumer = NULL, at = ?3 \
             WHERE queue = ?1 AND grp = ?2 AND state = 'pending' AND at <= ?4",
            params![head.nr, me.group, now, now.saturating_sub(micros(max_idle))],
        )?;
    }
    if returned > 0 {
        // More than this session has room for: the others of its group look as well.
        head.wake(tx);
    }
    Ok(())
}

/// The best of what came back; what was delivered too often goes to the rear instead.
fn returned(
    tx: &Tx<'_>,
    head: &Head,
    me: &Consumer,
    room: usize,
    policy: &Policy,
) -> Result<Vec<Candidate>, Error> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT i.priority, i.idx, i.size, d.times, i.tags FROM deliveries d JOIN items i \
         ON i.queue = d.queue AND i.idx = d.idx \
         WHERE d.queue = ?1 AND d.grp = ?2 AND d.state = 'returned' AND d.state <> 'committed' \
         AND (d.consumer IS NULL OR d.consumer = ?3) AND i.idx >= ?4 AND i.taken_until IS NULL AND i.job IS NULL \
         ORDER BY i.priority DESC, i.idx",
    )?;
    let mut rows = statement.query(params![head.nr, me.group, me.name, me.start])?;
    let (mut candidates, mut tired) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        if candidates.len() == room || tired.len() == TIRED_AT_MOST {
            break;
        }
        if !me.tags.is_empty() && !has_all(&sql::json(row, "tags", "items")?, &me.tags) {
            continue;
        }
        let (index, times) = (row.get("idx")?, sql::unsigned(row, "times")?);
        match head.id.side.rear() {
            Some(rear) if times >= policy.max_delivery => tired.push((rear, index)),
            Some(_) | None => candidates.push(Candidate {
                priority: row.get("priority")?,
                index,
                size: sql::unsigned(row, "size")?,
                times: Some(times),
            }),
        }
    }
    // Rows do not change under the statement that reads them.
    drop(rows);
    for (rear, index) in tired {
        rear::move_there(tx, head, &me.group, rear, index, policy.to_rear)?;
    }
    Ok(candidates)
}

/// The best of what the group was never given, and whether looking was cut short.
fn new_ones(
    tx: &Tx<'_>,
    me: &Consumer,
    room: usize,
    scan: &mut Scan,
) -> Result<(Vec<Candidate>, bool), Error> {
    // Each source gives as many as there is room for: the caller chooses the best of all.
    let back = given_back(tx, me, room, scan)?;
    let mut found = Vec::new();
    let mut looked = 0;
    let mut below: Option<i32> = None;
    loop {
        let level: Option<i32> = sql::value(
            tx.conn,
            "SELECT priority FROM items WHERE queue = ?1 AND (?2 IS NULL OR priority < ?2) \
             ORDER BY priority DESC LIMIT 1",
            params![me.queue, below],
        )?;
        let Some(level) = level else {
            found.extend(back);
            return Ok((found, false));
        };
        below = Some(level);
        let after = scan.seen.get(&level).copied().unwrap_or(0);
        let mut statement = tx.conn.prepare_cached(
            "SELECT i.idx, i.size, i.tags, i.taken_until IS NOT NULL AS taken FROM items i INDEXED BY items_line \
             WHERE i.queue = ?1 AND i.priority = ?2 AND i.idx > ?3 AND i.idx >= ?4 AND i.job IS NULL \
             AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.queue = i.queue AND d.grp = ?5 AND d.idx = i.idx) \
             ORDER BY i.idx",
        )?;
        let mut rows = statement.query(params![me.queue, level, sql::int(after), me.start, me.group])?;
        while let Some(row) = rows.next()? {
            if found.len() == room || looked == LOOK_AT {
                found.extend(back);
                return Ok((found, looked == LOOK_AT));
            }
            looked += 1;
            let index: i64 = row.get("idx")?;
            let taken: bool = row.get("taken")?;
            if taken {
                scan.taken.insert((level, index.unsigned_abs()));
            }
            let fits = !taken && (me.tags.is_empty() || has_all(&sql::json(row, "tags", "items")?, &me.tags));
            if fits {
                found.push(Candidate {
                    priority: level,
                    index,
                    size: sql::unsigned(row, "size")?,
                    times: None,
                });
            }
            scan.seen.insert(level, index.unsigned_abs());
        }
    }
}

/// The best of those that were taken when they were looked at, and are not any more.
fn given_back(tx: &Tx<'_>, me: &Consumer, room: usize, scan: &mut Scan) -> Result<Vec<Candidate>, Error> {
    let mut back = Vec::new();
    let mut taken: Vec<_> = std::mem::take(&mut scan.taken).into_iter().collect();
    taken.sort_by_key(|(priority, index)| (std::cmp::Reverse(*priority), *index));
    for (priority, index) in taken {
        let found = sql::row(
            tx.conn,
            "SELECT i.size, i.tags, i.taken_until IS NOT NULL AS taken FROM items i \
             WHERE i.queue = ?1 AND i.idx = ?2 AND i.job IS NULL AND NOT EXISTS \
             (SELECT 1 FROM deliveries d WHERE d.queue = i.queue AND d.grp = ?3 AND d.idx = i.idx)",
            params![me.queue, sql::int(index), me.group],
            |row| {
                let tags: Tags = sql::json(row, "tags", "items")?;
                Ok((row.get::<_, bool>("taken")?, tags, sql::unsigned(row, "size")?))
            },
        )?;
        match found {
            Some((taken, _, _)) if taken || back.len() == room => {
                scan.taken.insert((priority, index));
            }
            Some((_, tags, size)) if has_all(&tags, &me.tags) => back.push(Candidate {
                priority,
                index: sql::int(index),
                size,
                times: None,
            }),
            Some(_) | None => {}
        }
    }
    Ok(back)
}

fn look_again(scan: &mut Scan, candidate: &Candidate) {
    let before = candidate.index.unsigned_abs().saturating_sub(1);
    let seen = scan.seen.entry(candidate.priority).or_insert(before);
    *seen = (*seen).min(before);
    let seen = *seen;
    // What will be looked at again anyway would be found twice.
    scan.taken
        .retain(|(priority, index)| *priority != candidate.priority || *index <= seen);
}

fn hand_out(tx: &Tx<'_>, me: &Consumer, candidate: &Candidate, bodies: bool) -> Result<Item, Error> {
    sql::execute(
        tx.conn,
        "INSERT INTO deliveries (queue, grp, idx, state, consumer, times, at) VALUES (?1, ?2, ?3, 'pending', ?4, 1, ?5) \
         ON CONFLICT DO UPDATE SET state = 'pending', consumer = ?4, times = times + 1, at = ?5",
        params![me.queue, me.group, candidate.index, me.name, tx.now.as_micros()],
    )?;
    read::one(tx.conn, me.queue, candidate.index, bodies)?.ok_or(Error::Inconsistent {
        table: "items",
        what: "an item went away while it was handed out".to_owned(),
    })
}

/// When something that another consumer of the group holds may come back.
fn next_due(
    tx: &Tx<'_>,
    head: &Head,
    me: &Consumer,
    policy: &Policy,
) -> Result<Option<darkroom_core::Timestamp>, Error> {
    let grace = micros(policy.leave_grace);
    let idle = policy.max_idle.map(micros);
    let held: Option<Option<i64>> = sql::value(
        tx.conn,
        "SELECT MIN(MIN(COALESCE(c.left_at + ?4, 9223372036854775807), \
                       CASE WHEN d.state = 'pending' THEN COALESCE(d.at + ?5, 9223372036854775807) \
                            ELSE 9223372036854775807 END)) \
         FROM deliveries d LEFT JOIN consumers c ON c.queue = d.queue AND c.grp = d.grp AND c.name = d.consumer \
         WHERE d.queue = ?1 AND d.grp = ?2 AND d.state <> 'committed' AND d.consumer IS NOT NULL \
         AND (d.consumer <> ?3 OR ?5 IS NOT NULL)",
        params![head.nr, me.group, me.name, grace, idle],
    )?;
    let taken: Option<Option<i64>> = sql::value(
        tx.conn,
        "SELECT MIN(taken_until) FROM items WHERE queue = ?1 AND taken_until IS NOT NULL",
        [head.nr],
    )?;
    let due = [held.flatten(), taken.flatten()].into_iter().flatten().min();
    Ok(due
        .filter(|at| *at < i64::MAX)
        .map(darkroom_core::Timestamp::from_micros))
}

/// Whether an item has every tag that is asked for.
pub(super) fn has_all(tags: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| tags.get(key) == Some(value))
}

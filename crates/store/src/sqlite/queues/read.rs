//! Reading queues: items, where one stands, numbers, consumers.

use darkroom_core::{JobId, TenantId, Timestamp};
use rusqlite::{Connection, Row, params};

use super::{super::sql, Head, deliver::has_all};
use crate::{
    Error,
    queues::{ConsumerView, Item, Place, QueueId, QueueView, Take, There, Wanted},
};

const ITEM: &str = "i.idx, i.priority, i.tags, i.size, i.put_at, i.blob, i.inline, \
     (SELECT id FROM jobs WHERE nr = i.job) AS job";

fn read_item(row: &Row<'_>) -> Result<Item, Error> {
    let job = match row.get_ref("job")? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(JobId::from_uuid(sql::uuid(row, "job", "jobs")?)),
    };
    Ok(Item {
        index: sql::unsigned(row, "idx")?,
        priority: row.get("priority")?,
        tags: sql::json(row, "tags", "items")?,
        payload: sql::payload(row, ["inline", "blob", "size"], "items")?,
        put_at: sql::instant(row, "put_at")?,
        job,
    })
}

/// One item of a queue, with or without its body.
pub(super) fn one(conn: &Connection, queue: i64, index: i64, body: bool) -> Result<Option<Item>, Error> {
    let sql = match body {
        true => format!("SELECT {ITEM} FROM items i WHERE i.queue = ?1 AND i.idx = ?2"),
        false => {
            "SELECT i.idx, i.priority, i.tags, i.size, i.put_at, NULL AS blob, NULL AS inline, NULL AS job \
                  FROM items i WHERE i.queue = ?1 AND i.idx = ?2"
                .to_owned()
        }
    };
    sql::row(conn, &sql, [queue, index], read_item)
}

pub(super) fn items(
    conn: &Connection,
    queue: &QueueId,
    wanted: &Wanted,
    limit: u32,
) -> Result<Vec<Item>, Error> {
    match Head::find(conn, queue)? {
        Some(head) => first(conn, head.nr, &Look::at(wanted), limit),
        None => Ok(Vec::new()),
    }
}

/// Items that can be taken: those that stand for no job, and that no consumer of the group holds.
pub(super) fn free(conn: &Connection, queue: i64, take: &Take) -> Result<Vec<Item>, Error> {
    first(conn, queue, &Look::to_take(take), take.at_most)
}

/// Whether so many could be taken.
pub(super) fn there(conn: &Connection, queue: &QueueId, take: &Take, now: Timestamp) -> Result<There, Error> {
    let Some(head) = Head::find(conn, queue)? else {
        return Ok(There {
            enough: false,
            first: 0,
            free_from: 0,
        });
    };
    let wants = Look {
        now: Some(now),
        ..Look::to_take(take)
    };
    let (mut free, mut first, mut free_from) = (0u32, None, None);
    look(conn, head.nr, &wants, |row| {
        let index: u64 = sql::unsigned(row, "idx")?;
        first.get_or_insert(index);
        if row.get("free")? {
            free += 1;
            free_from.get_or_insert(index);
        }
        Ok(free < take.at_least)
    })?;
    // What is found along the indexes, from the oldest on, is looked at once.
    let along = !take.wanted.newest && take.wanted.request_id.is_none();
    Ok(There {
        enough: free >= take.at_least,
        first: if along { first.unwrap_or(head.next) } else { 0 },
        free_from: free_from.filter(|_| along).unwrap_or(0),
    })
}

fn first(conn: &Connection, queue: i64, wants: &Look<'_>, limit: u32) -> Result<Vec<Item>, Error> {
    let mut found = Vec::new();
    look(conn, queue, wants, |row| {
        if row.get("free")? {
            found.push(row.get::<_, i64>("idx")?);
        }
        Ok(found.len() < limit as usize)
    })?;
    let mut items = Vec::new();
    for index in found {
        items.extend(one(conn, queue, index, true)?);
    }
    // The newest are looked for from the end and told in order.
    items.sort_by_key(|item| item.index);
    Ok(items)
}

pub(super) fn count(conn: &Connection, queue: &QueueId, wanted: &Wanted) -> Result<u64, Error> {
    let Some(head) = Head::find(conn, queue)? else {
        return Ok(0);
    };
    let everything = Wanted::default();
    if *wanted == everything {
        return Ok(head.length);
    }
    let mut count = 0;
    look(conn, head.nr, &Look::at(wanted), |row| {
        count += u64::from(row.get::<_, bool>("free")?);
        Ok(true)
    })?;
    Ok(count)
}

/// Which items are looked at, and which of them are free.
struct Look<'a> {
    wanted: &'a Wanted,
    past: u64,
    /// What a consumer of it holds is not free.
    group: Option<&'a str>,
    /// Items that stand for jobs are not looked at.
    to_take: bool,
    /// What was taken until then is free again.
    now: Option<Timestamp>,
}

impl<'a> Look<'a> {
    fn at(wanted: &'a Wanted) -> Self {
        Look {
            wanted,
            past: 0,
            group: None,
            to_take: false,
            now: None,
        }
    }

    fn to_take(take: &'a Take) -> Self {
        Look {
            past: take.past,
            group: (!take.wanted.is_exact()).then_some(take.group.as_str()),
            to_take: true,
            ..Look::at(&take.wanted)
        }
    }
}

/// Shows items that are wanted, and whether each is free, until `visit` says stop.
fn look(
    conn: &Connection,
    queue: i64,
    wants: &Look<'_>,
    mut visit: impl FnMut(&Row<'_>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let wanted = wants.wanted;
    // One statement per way in: by request, by priority, or along the indexes; each has its own index.
    let (index, order) = match (&wanted.request_id, wanted.priority, wanted.newest) {
        (Some(_), _, _) => ("INDEXED BY items_request", "i.idx"),
        (None, Some(_), _) => ("INDEXED BY items_line", "i.idx"),
        (None, None, true) => ("INDEXED BY sqlite_autoindex_items_1", "i.idx DESC"),
        (None, None, false) => ("INDEXED BY sqlite_autoindex_items_1", "i.idx"),
    };
    let by_request = if wanted.request_id.is_some() {
        "i.request_id = ?3"
    } else {
        "?3 IS NULL"
    };
    let by_priority = if wanted.priority.is_some() {
        "i.priority = ?4"
    } else {
        "?4 IS NULL"
    };
    let unheld = match wants.group {
        Some(_) => {
            "NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.queue = i.queue AND d.grp = ?5 AND d.idx = i.idx \
             AND d.state = 'pending')"
        }
        None => "?5 IS NULL",
    };
    let for_nobody = if wants.to_take { "i.job IS NULL" } else { "1" };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT i.idx, i.tags, (i.taken_until IS NULL OR i.taken_until <= ?6) AND {unheld} AS free \
         FROM items i {index} WHERE i.queue = ?1 AND i.idx >= ?2 \
         AND {by_request} AND {by_priority} AND {for_nobody} ORDER BY {order}"
    ))?;
    let from = if wanted.newest {
        0
    } else {
        sql::int(wanted.from.max(wants.past))
    };
    let now = wants.now.map_or(i64::MIN, Timestamp::as_micros);
    let values = params![queue, from, wanted.request_id, wanted.priority, wants.group, now];
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        let fits = wanted.tags.is_empty() || has_all(&sql::json(row, "tags", "items")?, &wanted.tags);
        if fits && !visit(row)? {
            break;
        }
    }
    Ok(())
}

pub(super) fn place(conn: &Connection, queue: &QueueId, index: u64) -> Result<Option<Place>, Error> {
    let Some(head) = Head::find(conn, queue)? else {
        return Ok(None);
    };
    let Some(item) = one(conn, head.nr, sql::int(index), true)? else {
        return Ok(None);
    };
    if let Some(job) = item.job {
        return Ok(Some(Place::Job(job)));
    }
    let holder: Option<String> = sql::value(
        conn,
        "SELECT consumer FROM deliveries WHERE queue = ?1 AND idx = ?2 AND state = 'pending' LIMIT 1",
        params![head.nr, sql::int(index)],
    )?;
    if let Some(consumer) = holder {
        return Ok(Some(Place::Held { consumer }));
    }
    let before: i64 = sql::value(
        conn,
        "SELECT (SELECT COUNT(*) FROM items WHERE queue = ?1 AND priority > ?2) \
         + (SELECT COUNT(*) FROM items WHERE queue = ?1 AND priority = ?2 AND idx < ?3) \
         - (SELECT COUNT(DISTINCT d.idx) FROM deliveries d JOIN items i ON i.queue = d.queue AND i.idx = d.idx \
            WHERE d.queue = ?1 AND d.state = 'pending' AND (i.priority > ?2 OR i.priority = ?2 AND i.idx < ?3))",
        params![head.nr, item.priority, sql::int(index)],
    )?
    .unwrap_or(0);
    Ok(Some(Place::Waits(u64::try_from(before).unwrap_or(0))))
}

const VIEW: &str = "SELECT q.tenant, q.endpoint, q.side, q.next, q.length, q.ended, \
     (SELECT MIN(idx) FROM items WHERE queue = q.nr) AS first, \
     (SELECT put_at FROM items WHERE queue = q.nr ORDER BY idx LIMIT 1) AS oldest, \
     (SELECT COUNT(*) FROM deliveries d WHERE d.queue = q.nr AND d.state = 'pending' AND d.state <> 'committed') AS pending, \
     (SELECT COUNT(*) FROM consumers c WHERE c.queue = q.nr AND c.left_at IS NULL) AS consumers \
     FROM item_queues q";

fn read_view(row: &Row<'_>) -> Result<QueueView, Error> {
    let next: u64 = sql::unsigned(row, "next")?;
    Ok(QueueView {
        id: QueueId {
            tenant: sql::parsed(row, "tenant", "item_queues", |t| t.parse().ok())?,
            endpoint: sql::parsed(row, "endpoint", "item_queues", |t| t.parse().ok())?,
            side: sql::parsed(row, "side", "item_queues", crate::queues::Side::parse)?,
        },
        length: sql::unsigned(row, "length")?,
        first: row.get::<_, Option<i64>>("first")?.map(i64::unsigned_abs),
        last: next.saturating_sub(1),
        oldest_put_at: sql::instant_opt(row, "oldest")?,
        pending: sql::unsigned(row, "pending")?,
        consumers: sql::unsigned(row, "consumers")?,
        ended: row.get("ended")?,
    })
}

pub(super) fn queue(conn: &Connection, id: &QueueId) -> Result<Option<QueueView>, Error> {
    sql::row(
        conn,
        &format!("{VIEW} WHERE q.tenant = ?1 AND q.endpoint = ?2 AND q.side = ?3"),
        [id.tenant.as_str(), id.endpoint.as_str(), id.side.as_str()],
        read_view,
    )
}

pub(super) fn queues(conn: &Connection, tenant: Option<&TenantId>) -> Result<Vec<QueueView>, Error> {
    sql::rows(
        conn,
        &format!("{VIEW} WHERE ?1 IS NULL OR q.tenant = ?1 ORDER BY q.endpoint, q.side, q.tenant"),
        [tenant.map(TenantId::as_str)],
        read_view,
    )
}

pub(super) fn consumers(conn: &Connection, id: &QueueId) -> Result<Vec<ConsumerView>, Error> {
    let Some(head) = Head::find(conn, id)? else {
        return Ok(Vec::new());
    };
    sql::rows(
        conn,
        "SELECT c.grp, c.name, c.last_index, c.left_at, c.active_at, c.window, c.auto_commit, c.tags, \
         (SELECT COUNT(*) FROM deliveries d WHERE d.queue = c.queue AND d.grp = c.grp AND d.consumer = c.name \
           AND d.state = 'pending') AS pending \
         FROM consumers c WHERE c.queue = ?1 ORDER BY c.grp, c.name",
        [head.nr],
        |row| {
            Ok(ConsumerView {
                group: row.get("grp")?,
                name: row.get("name")?,
                last_index: sql::unsigned(row, "last_index")?,
                pending: sql::unsigned(row, "pending")?,
                left_at: sql::instant_opt(row, "left_at")?,
                active_at: sql::instant(row, "active_at")?,
                window: sql::unsigned(row, "window")?,
                auto_commit: row.get("auto_commit")?,
                tags: sql::json(row, "tags", "consumers")?,
            })
        },
    )
}

pub(super) fn groups(conn: &Connection, id: &QueueId) -> Result<Vec<(String, u64)>, Error> {
    let Some(head) = Head::find(conn, id)? else {
        return Ok(Vec::new());
    };
    sql::rows(
        conn,
        "SELECT g.name, (SELECT COUNT(*) FROM deliveries d WHERE d.queue = g.queue AND d.grp = g.name \
         AND d.state = 'committed') AS done FROM item_groups g WHERE g.queue = ?1 ORDER BY g.name",
        [head.nr],
        |row| {
            let done: u64 = sql::unsigned(row, "done")?;
            Ok((row.get("name")?, head.length.saturating_sub(done)))
        },
    )
}

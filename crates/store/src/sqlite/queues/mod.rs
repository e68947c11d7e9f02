//! The verbs of [`Queues`] on SQLite: each is one operation on the writer, or one read.

mod commit;
mod consumers;
mod deliver;
mod put;
mod read;
mod rear;
mod remove;
mod sweep;
mod take;

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::{NodeName, TenantId};
use rusqlite::{Connection, Row, params};

pub(super) use self::put::job_ended;
use super::{
    SqliteStore,
    queue::{Lane, Wait},
    sql,
    tx::Tx,
};
use crate::{
    Error, Queues, Topic,
    jobs::{NewJob, Swept},
    queues::{
        Committed, ConsumerView, Deliver, Delivered, Item, Join, NewItem, Place, Put, QueueId, QueueView,
        Session, Side, Take, TakenOver, There, Wanted,
    },
};

/// About how much a small operation writes.
const SMALL: usize = 512;

/// A queue's row, as operations on it need it.
struct Head {
    nr: i64,
    id: QueueId,
    next: u64,
    length: u64,
    ended: bool,
}

impl Head {
    /// The queue, made where there was none.
    fn open(tx: &Tx<'_>, id: &QueueId) -> Result<Head, Error> {
        if let Some(row) = Head::find(tx.conn, id)? {
            return Ok(row);
        }
        sql::execute(
            tx.conn,
            "INSERT INTO item_queues (tenant, endpoint, side) VALUES (?1, ?2, ?3)",
            [id.tenant.as_str(), id.endpoint.as_str(), id.side.as_str()],
        )?;
        Head::find(tx.conn, id)?.ok_or(Error::Inconsistent {
            table: "item_queues",
            what: "an inserted queue is not there".to_owned(),
        })
    }

    fn find(conn: &Connection, id: &QueueId) -> Result<Option<Head>, Error> {
        sql::row(
            conn,
            "SELECT nr, tenant, endpoint, side, next, length, ended FROM item_queues \
             WHERE tenant = ?1 AND endpoint = ?2 AND side = ?3",
            [id.tenant.as_str(), id.endpoint.as_str(), id.side.as_str()],
            Head::read,
        )
    }

    fn numbered(conn: &Connection, nr: i64) -> Result<Head, Error> {
        sql::row(
            conn,
            "SELECT nr, tenant, endpoint, side, next, length, ended FROM item_queues WHERE nr = ?1",
            [nr],
            Head::read,
        )?
        .ok_or(Error::Inconsistent {
            table: "item_queues",
            what: format!("queue {nr} is not there"),
        })
    }

    fn read(row: &Row<'_>) -> Result<Head, Error> {
        Ok(Head {
            nr: row.get("nr")?,
            id: QueueId {
                tenant: sql::parsed(row, "tenant", "item_queues", |t| t.parse().ok())?,
                endpoint: sql::parsed(row, "endpoint", "item_queues", |t| t.parse().ok())?,
                side: sql::parsed(row, "side", "item_queues", Side::parse)?,
            },
            next: sql::unsigned(row, "next")?,
            length: sql::unsigned(row, "length")?,
            ended: row.get("ended")?,
        })
    }

    /// Wakes who waits for items of it.
    fn wake(&self, tx: &Tx<'_>) {
        tx.wake(Topic::Items(self.id.clone()));
    }

    /// The owner of its items' references to blobs.
    fn owner(&self) -> String {
        format!("queue:{}", self.nr)
    }

    fn change_length(&self, tx: &Tx<'_>, by: i64) -> Result<(), Error> {
        sql::execute(
            tx.conn,
            "UPDATE item_queues SET length = length + ?2 WHERE nr = ?1",
            params![self.nr, by],
        )?;
        Ok(())
    }
}

#[async_trait]
impl Queues for SqliteStore {
    async fn put(&self, queue: &QueueId, item: NewItem) -> Result<Put, Error> {
        let queue = queue.clone();
        self.write(Lane::Submit, Wait::ForDisk, put::bytes(&item), move |tx| {
            put::put(tx, &queue, &item)
        })
        .await
    }

    async fn put_job(&self, queue: &QueueId, item: NewItem, job: NewJob) -> Result<Put, Error> {
        let queue = queue.clone();
        self.write(Lane::Submit, Wait::ForDisk, 2 * put::bytes(&item), move |tx| {
            put::put_job(tx, &queue, &item, &job)
        })
        .await
    }

    async fn put_result(&self, outbox: i64, sink: &QueueId, item: NewItem) -> Result<Option<Put>, Error> {
        let sink = sink.clone();
        self.durably(put::bytes(&item), move |tx| {
            put::put_result(tx, outbox, &sink, &item)
        })
        .await
    }

    async fn join(&self, queue: &QueueId, join: Join) -> Result<Session, Error> {
        let queue = queue.clone();
        self.riding(SMALL, move |tx| consumers::join(tx, &queue, &join))
            .await
    }

    async fn leave(&self, session: Session) -> Result<(), Error> {
        self.riding(SMALL, move |tx| consumers::leave(tx, session)).await
    }

    async fn deliver(&self, deliver: Deliver) -> Result<Result<Delivered, TakenOver>, Error> {
        self.riding(2048, move |tx| deliver::deliver(tx, &deliver)).await
    }

    async fn commit(&self, queue: &QueueId, group: &str, indexes: Vec<u64>) -> Result<Committed, Error> {
        let (queue, group) = (queue.clone(), group.to_owned());
        self.durably(SMALL, move |tx| commit::commit(tx, &queue, &group, &indexes))
            .await
    }

    async fn commit_sent(&self, session: Session, indexes: Vec<u64>) -> Result<(), Error> {
        self.riding(indexes.len() * 128, move |tx| {
            commit::commit_sent(tx, session, &indexes)
        })
        .await
    }

    async fn refuse(
        &self,
        queue: &QueueId,
        group: &str,
        indexes: Vec<u64>,
        counts: bool,
    ) -> Result<Committed, Error> {
        let (queue, group) = (queue.clone(), group.to_owned());
        self.durably(SMALL, move |tx| {
            commit::refuse(tx, &queue, &group, &indexes, counts)
        })
        .await
    }

    async fn delete(&self, queue: &QueueId, indexes: Vec<u64>) -> Result<u64, Error> {
        let queue = queue.clone();
        self.durably(indexes.len() * 128, move |tx| {
            remove::delete(tx, &queue, &indexes)
        })
        .await
    }

    async fn truncate(&self, queue: &QueueId, before: u64) -> Result<Swept, Error> {
        let queue = queue.clone();
        self.write(Lane::First, Wait::ForDisk, 64 * 1024, move |tx| {
            remove::truncate(tx, &queue, before)
        })
        .await
    }

    async fn take(&self, queue: &QueueId, take: Take) -> Result<Vec<Item>, Error> {
        let queue = queue.clone();
        self.riding(SMALL, move |tx| take::take(tx, &queue, &take)).await
    }

    async fn there(&self, queue: &QueueId, take: Take) -> Result<There, Error> {
        let (queue, now) = (queue.clone(), self.clock.now());
        self.readers
            .run(move |conn| read::there(conn, &queue, &take, now))
            .await
    }

    async fn give_back(&self, queue: &QueueId, indexes: Vec<u64>) -> Result<(), Error> {
        let queue = queue.clone();
        self.riding(SMALL, move |tx| take::give_back(tx, &queue, &indexes))
            .await
    }

    async fn items(&self, queue: &QueueId, wanted: Wanted, limit: u32) -> Result<Vec<Item>, Error> {
        let queue = queue.clone();
        self.readers
            .run(move |conn| read::items(conn, &queue, &wanted, limit))
            .await
    }

    async fn count(&self, queue: &QueueId, wanted: Wanted) -> Result<u64, Error> {
        let queue = queue.clone();
        self.readers
            .run(move |conn| read::count(conn, &queue, &wanted))
            .await
    }

    async fn place(&self, queue: &QueueId, index: u64) -> Result<Option<Place>, Error> {
        let queue = queue.clone();
        self.readers
            .run(move |conn| read::place(conn, &queue, index))
            .await
    }

    async fn end(&self, queue: &QueueId, ended: bool) -> Result<(), Error> {
        let queue = queue.clone();
        self.durably(SMALL, move |tx| consumers::end(tx, &queue, ended))
            .await
    }

    async fn queue(&self, queue: &QueueId) -> Result<Option<QueueView>, Error> {
        let queue = queue.clone();
        self.readers.run(move |conn| read::queue(conn, &queue)).await
    }

    async fn queues(&self, tenant: Option<&TenantId>) -> Result<Vec<QueueView>, Error> {
        let tenant = tenant.cloned();
        self.readers
            .run(move |conn| read::queues(conn, tenant.as_ref()))
            .await
    }

    async fn consumers(&self, queue: &QueueId) -> Result<Vec<ConsumerView>, Error> {
        let queue = queue.clone();
        self.readers.run(move |conn| read::consumers(conn, &queue)).await
    }

    async fn groups(&self, queue: &QueueId) -> Result<Vec<(String, u64)>, Error> {
        let queue = queue.clone();
        self.readers.run(move |conn| read::groups(conn, &queue)).await
    }

    async fn recover_queues(&self, node: &NodeName) -> Result<(), Error> {
        let node = node.clone();
        self.durably(SMALL, move |tx| consumers::recover(tx, &node)).await
    }

    async fn sweep_queue(&self, queue: &QueueId, group_idle: Duration) -> Result<Swept, Error> {
        let queue = queue.clone();
        self.write(Lane::Sweep, Wait::ForDisk, SMALL, move |tx| {
            sweep::sweep(tx, &queue, group_idle)
        })
        .await
    }
}

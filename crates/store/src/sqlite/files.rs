//! References to blobs and their trash. A blob is in the trash exactly when it was written, intended or dropped, and no
//! reference names it.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::{
    BlobKey, JobId, Payload, TenantId, Timestamp,
    output::{Output, OutputBody},
};
use rusqlite::{Row, params};

use super::{
    SqliteStore, assets,
    queue::{Lane, Wait},
    sql,
    tx::Tx,
};
use crate::{
    Error, Files,
    files::{AGES, FileRef, Usage},
    jobs::InputBlob,
};

/// An intended blob may be under way for long (a blob store that is away); only after a day nobody will name it.
const INTENT_DELAY: Duration = Duration::from_secs(24 * 3600);
const SMALL: usize = 512;

/// The owner of a job's references.
pub(super) fn owner(job: JobId) -> String {
    format!("job:{job}")
}

/// Refers to the blob of a job's input or result.
pub(super) fn refer_to_payload(
    tx: &Tx<'_>,
    job: JobId,
    tenant: &TenantId,
    name: &str,
    blob: &BlobKey,
    size: u64,
) -> Result<(), Error> {
    let reference = FileRef {
        owner: owner(job),
        name: name.to_owned(),
        tenant: tenant.clone(),
        blob: blob.clone(),
        size,
        content_type: "application/json".to_owned(),
        created_at: tx.now,
    };
    put(tx, &reference)
}

/// Refers to every file that a job's request names, as `input/<position>`.
pub(super) fn refer_to_inputs(
    tx: &Tx<'_>,
    job: JobId,
    tenant: &TenantId,
    inputs: &[InputBlob],
) -> Result<(), Error> {
    for (position, input) in inputs.iter().enumerate() {
        put(
            tx,
            &FileRef {
                owner: owner(job),
                name: format!("input/{position}"),
                tenant: tenant.clone(),
                blob: input.key.clone(),
                size: input.size,
                content_type: input.content_type.clone(),
                created_at: tx.now,
            },
        )?;
    }
    Ok(())
}

/// Refers to every file among a job's outputs, as `output/<position>`.
pub(super) fn refer_to_outputs(
    tx: &Tx<'_>,
    job: JobId,
    tenant: &TenantId,
    outputs: &[Output],
) -> Result<(), Error> {
    for (position, output) in outputs.iter().enumerate() {
        match &output.body {
            OutputBody::File {
                key,
                size,
                content_type,
                blake3: _,
            } => put(
                tx,
                &FileRef {
                    owner: owner(job),
                    name: format!("output/{position}"),
                    tenant: tenant.clone(),
                    blob: key.clone(),
                    size: *size,
                    content_type: content_type.clone(),
                    created_at: tx.now,
                },
            )?,
            OutputBody::Text { text: _ } => {}
        }
    }
    Ok(())
}

/// Refers to the blob of a queue's item.
pub(super) fn refer_to_item(
    tx: &Tx<'_>,
    owner: &str,
    index: i64,
    tenant: &TenantId,
    blob: &BlobKey,
    size: u64,
) -> Result<(), Error> {
    put(
        tx,
        &FileRef {
            owner: owner.to_owned(),
            name: index.to_string(),
            tenant: tenant.clone(),
            blob: blob.clone(),
            size,
            content_type: "application/octet-stream".to_owned(),
            created_at: tx.now,
        },
    )
}

/// Drops the reference of a queue's item.
pub(super) fn drop_item(tx: &Tx<'_>, owner: &str, index: i64) -> Result<(), Error> {
    drop_one(tx, owner, &index.to_string()).map(|_| ())
}

/// Refers to what a workflow's version or draft holds, where that is a blob.
pub(super) fn refer_to_definition(
    tx: &Tx<'_>,
    owner: &str,
    name: &str,
    tenant: &TenantId,
    definition: &Payload,
) -> Result<(), Error> {
    let Payload::Blob { key, size } = definition else {
        return Ok(());
    };
    put(
        tx,
        &FileRef {
            owner: owner.to_owned(),
            name: name.to_owned(),
            tenant: tenant.clone(),
            blob: key.clone(),
            size: *size,
            content_type: "application/json".to_owned(),
            created_at: tx.now,
        },
    )
}

/// Drops the reference of a workflow's version or draft, if there is one.
pub(super) fn drop_definition(tx: &Tx<'_>, owner: &str, name: &str) -> Result<(), Error> {
    drop_one(tx, owner, name).map(|_| ())
}

/// Drops what a job refers to but its input.
pub(super) fn drop_results(tx: &Tx<'_>, job: JobId) -> Result<(), Error> {
    for reference in of_owner(tx.conn, &owner(job))? {
        if reference.name != "input" && !reference.name.starts_with("input/") {
            drop_one(tx, &reference.owner, &reference.name)?;
        }
    }
    Ok(())
}

/// Drops all references of an owner.
pub(super) fn drop_owner(tx: &Tx<'_>, owner: &str) -> Result<(), Error> {
    let blobs: Vec<String> = sql::rows(
        tx.conn,
        "DELETE FROM file_refs WHERE owner = ?1 RETURNING blob",
        [owner],
        |row| Ok(row.get(0)?),
    )?;
    blobs.iter().try_for_each(|blob| trash_if_unreferenced(tx, blob))
}

/// Adds or replaces a reference.
pub(super) fn put(tx: &Tx<'_>, reference: &FileRef) -> Result<(), Error> {
    let replaced: Option<String> = sql::value(
        tx.conn,
        "SELECT blob FROM file_refs WHERE owner = ?1 AND name = ?2",
        [&reference.owner, &reference.name],
    )?;
    sql::execute(
        tx.conn,
        "INSERT OR REPLACE INTO file_refs (owner, name, tenant, blob, size, content_type, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            reference.owner,
            reference.name,
            reference.tenant.as_str(),
            reference.blob.as_str(),
            sql::int(reference.size),
            reference.content_type,
            reference.created_at.as_micros(),
        ],
    )?;
    sql::execute(
        tx.conn,
        "DELETE FROM trash WHERE blob = ?1",
        [reference.blob.as_str()],
    )?;
    match replaced {
        Some(old) if old != reference.blob.as_str() => trash_if_unreferenced(tx, &old),
        _ => Ok(()),
    }
}

/// Drops a reference; `false`: there was none.
pub(super) fn drop_one(tx: &Tx<'_>, owner: &str, name: &str) -> Result<bool, Error> {
    let blob: Option<String> = sql::value(
        tx.conn,
        "DELETE FROM file_refs WHERE owner = ?1 AND name = ?2 RETURNING blob",
        [owner, name],
    )?;
    match blob {
        Some(blob) => trash_if_unreferenced(tx, &blob).map(|()| true),
        None => Ok(false),
    }
}

/// Whether the owner has one of that name already.
pub(super) fn is_taken(tx: &Tx<'_>, reference: &FileRef) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM file_refs WHERE owner = ?1 AND name = ?2";
    let taken: Option<i64> = sql::value(tx.conn, sql, [&reference.owner, &reference.name])?;
    Ok(taken.is_some())
}

fn trash_if_unreferenced(tx: &Tx<'_>, blob: &str) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "INSERT OR REPLACE INTO trash (blob, since, intended) \
         SELECT ?1, ?2, 0 WHERE NOT EXISTS (SELECT 1 FROM file_refs WHERE blob = ?1)",
        params![blob, tx.now.as_micros()],
    )?;
    Ok(())
}

fn trash_if_unknown(tx: &Tx<'_>, blob: &BlobKey) -> Result<u64, Error> {
    let added = sql::execute(
        tx.conn,
        "INSERT OR IGNORE INTO trash (blob, since, intended) \
         SELECT ?1, ?2, 0 WHERE NOT EXISTS (SELECT 1 FROM file_refs WHERE blob = ?1)",
        params![blob.as_str(), tx.now.as_micros()],
    )?;
    Ok(added as u64)
}

fn intend(tx: &Tx<'_>, blob: &BlobKey) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "INSERT OR REPLACE INTO trash (blob, since, intended) \
         SELECT ?1, ?2, 1 WHERE NOT EXISTS (SELECT 1 FROM file_refs WHERE blob = ?1)",
        params![blob.as_str(), tx.now.as_micros()],
    )?;
    Ok(())
}

fn empty_trash(tx: &Tx<'_>, blob: &BlobKey) -> Result<bool, Error> {
    // Who means to refer to it says so again; that it lay in the trash before is no reason then.
    let forgotten = sql::execute(
        tx.conn,
        "DELETE FROM trash WHERE blob = ?1 AND (intended = 0 OR since <= ?2)",
        params![blob.as_str(), tx.now.minus(INTENT_DELAY).as_micros()],
    )?;
    let referenced: Option<i64> = sql::value(
        tx.conn,
        "SELECT 1 FROM file_refs WHERE blob = ?1 LIMIT 1",
        [blob.as_str()],
    )?;
    let given_up = forgotten > 0 && referenced.is_none();
    if given_up {
        assets::forget_content(tx, blob)?;
    }
    Ok(given_up)
}

/// A blob counts for whoever referred to it first by name. Owners are `job:ID`, `objects:ENDPOINT`, and
/// `FOLDER:TENANT:ENDPOINT`.
const USAGE: &str = "SELECT tenant, age, count(*) AS blobs, sum(size) AS bytes, CASE \
       WHEN owner LIKE 'job:%' THEN (SELECT endpoint FROM jobs WHERE jobs.id = unhex(replace(substr(owner, 5), '-', ''))) \
       WHEN owner LIKE 'objects:%' THEN substr(owner, 9) \
       WHEN owner LIKE 'input:%:%' THEN substr(substr(owner, 7), instr(substr(owner, 7), ':') + 1) \
       WHEN owner LIKE 'output:%:%' THEN substr(substr(owner, 8), instr(substr(owner, 8), ':') + 1) \
     END AS endpoint \
     FROM (SELECT min(owner) AS owner, min(tenant) AS tenant, max(size) AS size, \
           (min(created_at) <= ?1) + (min(created_at) <= ?2) + (min(created_at) <= ?3) AS age \
           FROM file_refs GROUP BY blob) \
     GROUP BY tenant, endpoint, age ORDER BY tenant, endpoint, age";

const FILE_REF: &str = "SELECT owner, name, tenant, blob, size, content_type, created_at FROM file_refs";

fn read(row: &Row<'_>) -> Result<FileRef, Error> {
    Ok(FileRef {
        owner: row.get("owner")?,
        name: row.get("name")?,
        tenant: sql::parsed(row, "tenant", "file_refs", |t| t.parse().ok())?,
        blob: sql::parsed(row, "blob", "file_refs", |t| t.parse().ok())?,
        size: sql::unsigned(row, "size")?,
        content_type: row.get("content_type")?,
        created_at: sql::instant(row, "created_at")?,
    })
}

/// All references of an owner, by name.
pub(super) fn of_owner(conn: &rusqlite::Connection, owner: &str) -> Result<Vec<FileRef>, Error> {
    sql::rows(
        conn,
        &format!("{FILE_REF} WHERE owner = ?1 ORDER BY name"),
        [owner],
        read,
    )
}

#[async_trait]
impl Files for SqliteStore {
    async fn intend(&self, blob: &BlobKey) -> Result<(), Error> {
        let blob = blob.clone();
        self.riding(SMALL, move |tx| intend(tx, &blob)).await
    }

    async fn intend_input(&self, blob: &BlobKey) -> Result<(), Error> {
        let blob = blob.clone();
        self.riding(SMALL, move |tx| {
            tx.check_disk()?;
            intend(tx, &blob)
        })
        .await
    }

    async fn withdraw(&self, blob: &BlobKey) -> Result<bool, Error> {
        let blob = blob.clone();
        // A reference deletes the intent, so an intent that is there has none.
        let sql = "DELETE FROM trash WHERE blob = ?1 AND intended = 1";
        self.durably(SMALL, move |tx| {
            let given_up = sql::execute(tx.conn, sql, [blob.as_str()])? > 0;
            if given_up {
                assets::forget_content(tx, &blob)?;
            }
            Ok(given_up)
        })
        .await
    }

    async fn put_ref(&self, reference: FileRef) -> Result<(), Error> {
        self.durably(SMALL, move |tx| put(tx, &reference)).await
    }

    async fn add_ref(&self, reference: FileRef) -> Result<bool, Error> {
        self.durably(SMALL, move |tx| match is_taken(tx, &reference)? {
            true => Ok(false),
            false => put(tx, &reference).map(|()| true),
        })
        .await
    }

    async fn file_ref(&self, owner: &str, name: &str) -> Result<Option<FileRef>, Error> {
        let (owner, name) = (owner.to_owned(), name.to_owned());
        self.readers
            .run(move |conn| {
                let sql = format!("{FILE_REF} WHERE owner = ?1 AND name = ?2");
                sql::row(conn, &sql, [owner, name], read)
            })
            .await
    }

    async fn refs_of(&self, owner: &str) -> Result<Vec<FileRef>, Error> {
        let owner = owner.to_owned();
        self.readers.run(move |conn| of_owner(conn, &owner)).await
    }

    async fn refs_page(&self, owner: &str, after: Option<&str>, limit: u32) -> Result<Vec<FileRef>, Error> {
        // Names are never empty, so all of them come after the empty one.
        let (owner, after) = (owner.to_owned(), after.unwrap_or_default().to_owned());
        self.readers
            .run(move |conn| {
                let sql = format!("{FILE_REF} WHERE owner = ?1 AND name > ?2 ORDER BY name LIMIT ?3");
                sql::rows(conn, &sql, params![owner, after, limit], read)
            })
            .await
    }

    async fn refs_to(&self, blob: &BlobKey) -> Result<Vec<FileRef>, Error> {
        let blob = blob.clone();
        self.readers
            .run(move |conn| {
                let sql = format!("{FILE_REF} WHERE blob = ?1 ORDER BY owner, name");
                sql::rows(conn, &sql, [blob.as_str()], read)
            })
            .await
    }

    async fn drop_ref(&self, owner: &str, name: &str) -> Result<bool, Error> {
        let (owner, name) = (owner.to_owned(), name.to_owned());
        self.durably(SMALL, move |tx| drop_one(tx, &owner, &name)).await
    }

    async fn drop_refs_before(&self, owner: &str, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let owner = owner.to_owned();
        let work = move |tx: &Tx<'_>| {
            let blobs: Vec<String> = sql::rows(
                tx.conn,
                "DELETE FROM file_refs WHERE owner = ?1 AND name IN (SELECT name FROM file_refs \
                 WHERE owner = ?1 AND created_at < ?2 LIMIT ?3) RETURNING blob",
                params![owner, before.as_micros(), limit],
                |row| Ok(row.get(0)?),
            )?;
            blobs
                .iter()
                .try_for_each(|blob| trash_if_unreferenced(tx, blob))?;
            Ok(blobs.len() as u64)
        };
        self.write(Lane::Sweep, Wait::ForDisk, SMALL, work).await
    }

    async fn trash_due(&self, delay: Duration, limit: u32) -> Result<Vec<BlobKey>, Error> {
        // The store's clock is read on the writer; a look at the trash is rare.
        self.riding(0, move |tx| {
            sql::rows(
                tx.conn,
                "SELECT blob FROM trash WHERE intended = 0 AND since <= ?1 \
                 UNION ALL SELECT blob FROM trash WHERE intended = 1 AND since <= ?2 LIMIT ?3",
                params![
                    tx.now.minus(delay).as_micros(),
                    tx.now.minus(delay.max(INTENT_DELAY)).as_micros(),
                    limit
                ],
                |row| sql::parsed(row, "blob", "trash", |t| t.parse().ok()),
            )
        })
        .await
    }

    async fn empty_trash(&self, blob: &BlobKey) -> Result<bool, Error> {
        let blob = blob.clone();
        self.durably(SMALL, move |tx| empty_trash(tx, &blob)).await
    }

    async fn usage(&self, now: Timestamp) -> Result<Vec<Usage>, Error> {
        let [day, week, month] = AGES.map(|age| now.minus(age).as_micros());
        self.readers
            .run(move |conn| {
                sql::rows(conn, USAGE, params![day, week, month], |row| {
                    Ok(Usage {
                        tenant: sql::parsed(row, "tenant", "file_refs", |t| t.parse().ok())?,
                        endpoint: row.get("endpoint")?,
                        age: sql::unsigned(row, "age")?,
                        blobs: sql::unsigned(row, "blobs")?,
                        bytes: sql::unsigned(row, "bytes")?,
                    })
                })
            })
            .await
    }

    async fn trash_unknown(&self, blobs: Vec<BlobKey>) -> Result<u64, Error> {
        let work = move |tx: &Tx<'_>| {
            let mut unknown = 0;
            for blob in &blobs {
                unknown += trash_if_unknown(tx, blob)?;
            }
            Ok(unknown)
        };
        self.write(Lane::Sweep, Wait::ForDisk, SMALL, work).await
    }
}

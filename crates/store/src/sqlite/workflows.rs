//! Published workflows on SQLite.

use async_trait::async_trait;
use darkroom_core::{
    EndpointName, Payload, TenantId, Timestamp,
    workflow::{AliasName, Version, WorkflowId},
};
use rusqlite::{Connection, Row, params};

use super::{SqliteStore, files, sql, tx::Tx};
use crate::{
    Error, Workflows,
    workflows::{
        AliasRecord, Content, Imported, MoveRecord, Moved, NewVersion, NewWorkflow, NewlyPublished, Resolved,
        Target, VersionRecord, Wanted, WorkflowKey, WorkflowRecord,
    },
};

const SMALL: usize = 1024;
const VERSION: &str = "v.version, v.endpoint, v.note, v.published_at, v.published_by, v.size";
const WORKFLOW: &str = "SELECT nr, tenant, id, created_at, updated_at, last_version, draft_at, draft_endpoint, \
     (SELECT endpoint FROM workflow_versions v WHERE v.workflow = workflows.nr AND v.version = last_version) AS endpoint \
     FROM workflows";
/// The draft among the references of a workflow; versions are `v1`, `v2`, …
const DRAFT: &str = "draft";

/// The owner of the references to what a workflow's versions hold.
fn owner(key: &WorkflowKey) -> String {
    format!("workflow:{}:{}", key.tenant, key.id)
}

fn number_of(conn: &Connection, key: &WorkflowKey) -> Result<Option<(i64, u32)>, Error> {
    sql::row(
        conn,
        "SELECT nr, last_version FROM workflows WHERE tenant = ?1 AND id = ?2",
        params![key.tenant.as_str(), key.id.as_str()],
        |row| Ok((row.get("nr")?, sql::unsigned(row, "last_version")?)),
    )
}

/// The workflow's number and last version; made if it is not there.
fn make(tx: &Tx<'_>, key: &WorkflowKey) -> Result<(i64, u32), Error> {
    if let Some(found) = number_of(tx.conn, key)? {
        return Ok(found);
    }
    sql::execute(
        tx.conn,
        "INSERT INTO workflows (tenant, id, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)",
        params![key.tenant.as_str(), key.id.as_str(), tx.now.as_micros()],
    )?;
    Ok((tx.conn.last_insert_rowid(), 0))
}

fn touch(tx: &Tx<'_>, nr: i64) -> Result<(), Error> {
    let sql = "UPDATE workflows SET updated_at = ?2 WHERE nr = ?1";
    sql::execute(tx.conn, sql, params![nr, tx.now.as_micros()]).map(drop)
}

fn publish(tx: &Tx<'_>, new: &NewVersion) -> Result<NewlyPublished, Error> {
    tx.check_disk()?;
    let (nr, last) = make(tx, &new.workflow)?;
    let version = add(tx, nr, last, &new.workflow, &new.content, &new.by)?;
    let mut aliases = Vec::new();
    if version.number() == 1 {
        aliases.push(AliasName::main());
    }
    aliases.extend(new.alias.clone().filter(|alias| !aliases.contains(alias)));
    for alias in &aliases {
        point(tx, nr, alias, version, &new.by, false)?;
    }
    if new.from_draft {
        forget_draft(tx, nr, &new.workflow)?;
    }
    Ok(NewlyPublished { version, aliases })
}

fn import(tx: &Tx<'_>, new: &NewWorkflow) -> Result<Imported, Error> {
    tx.check_disk()?;
    let (nr, had) = make(tx, &new.workflow)?;
    let mut versions: Vec<Version> = Vec::new();
    for content in &new.versions {
        let last = versions.last().map_or(had, |version| version.number());
        versions.push(add(tx, nr, last, &new.workflow, content, &new.by)?);
    }
    let mut wanted = new.aliases.clone();
    if had == 0 && !wanted.iter().any(|(alias, _)| *alias == AliasName::main()) {
        wanted.insert(0, (AliasName::main(), 0));
    }
    let mut aliases = Vec::new();
    for (alias, place) in wanted {
        let of_it = versions.get(place);
        let version = of_it.ok_or_else(|| inconsistent("an alias points at no version of its import"))?;
        if alias_of(tx.conn, nr, &alias)?.is_none() {
            point(tx, nr, &alias, *version, &new.by, false)?;
            aliases.push(alias);
        }
    }
    Ok(Imported { versions, aliases })
}

/// The version after `last`.
fn add(
    tx: &Tx<'_>,
    nr: i64,
    last: u32,
    workflow: &WorkflowKey,
    content: &Content,
    by: &str,
) -> Result<Version, Error> {
    let next = last.checked_add(1).and_then(Version::new);
    let version = next.ok_or_else(|| inconsistent("there are no more versions"))?;
    sql::execute(
        tx.conn,
        "UPDATE workflows SET last_version = ?2, updated_at = ?3 WHERE nr = ?1",
        params![nr, version.number(), tx.now.as_micros()],
    )?;
    let (inline, blob, size) = sql::payload_columns(&content.definition);
    sql::execute(
        tx.conn,
        "INSERT INTO workflow_versions (workflow, version, endpoint, note, published_at, published_by, inline, blob, size) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            nr,
            version.number(),
            content.endpoint.as_str(),
            content.note,
            tx.now.as_micros(),
            by,
            inline,
            blob,
            size,
        ],
    )?;
    files::refer_to_definition(
        tx,
        &owner(workflow),
        &version.to_string(),
        &workflow.tenant,
        &content.definition,
    )?;
    Ok(version)
}

fn alias_of(conn: &Connection, nr: i64, alias: &AliasName) -> Result<Option<Version>, Error> {
    sql::row(
        conn,
        "SELECT version FROM workflow_aliases WHERE workflow = ?1 AND name = ?2",
        params![nr, alias.as_str()],
        |row| version(row, "version"),
    )
}

fn point(
    tx: &Tx<'_>,
    nr: i64,
    alias: &AliasName,
    to: Version,
    by: &str,
    rollback: bool,
) -> Result<Option<Version>, Error> {
    let from = alias_of(tx.conn, nr, alias)?;
    if from == Some(to) {
        return Ok(from);
    }
    sql::execute(
        tx.conn,
        "INSERT OR REPLACE INTO workflow_aliases (workflow, name, version) VALUES (?1, ?2, ?3)",
        params![nr, alias.as_str(), to.number()],
    )?;
    sql::execute(
        tx.conn,
        "INSERT INTO workflow_moves (workflow, alias, from_version, to_version, at, moved_by, rollback) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            nr,
            alias.as_str(),
            from.map(Version::number),
            to.number(),
            tx.now.as_micros(),
            by,
            rollback,
        ],
    )?;
    Ok(from)
}

fn move_alias(
    tx: &Tx<'_>,
    key: &WorkflowKey,
    alias: &AliasName,
    to: Target,
    by: &str,
) -> Result<Moved, Error> {
    let Some((nr, last)) = number_of(tx.conn, key)? else {
        return Ok(Moved::NoWorkflow);
    };
    let (to, rollback) = match to {
        Target::Version(version) if version.number() > last => return Ok(Moved::NoVersion),
        Target::Version(version) => (version, false),
        Target::Back => {
            if alias_of(tx.conn, nr, alias)?.is_none() {
                return Ok(Moved::NoAlias);
            }
            match before(tx.conn, nr, alias)? {
                Some(before) => (before, true),
                None => return Ok(Moved::NothingBefore),
            }
        }
    };
    let from = point(tx, nr, alias, to, by, rollback)?;
    touch(tx, nr)?;
    Ok(Moved::Done { from, to })
}

/// Where an alias pointed before its last move that no later rollback took back.
fn before(conn: &Connection, nr: i64, alias: &AliasName) -> Result<Option<Version>, Error> {
    let mut statement = conn.prepare_cached(
        "SELECT from_version, rollback FROM workflow_moves WHERE workflow = ?1 AND alias = ?2 ORDER BY nr DESC",
    )?;
    let mut moves = statement.query(params![nr, alias.as_str()])?;
    let mut taken_back = 0_u64;
    while let Some(row) = moves.next()? {
        if row.get("rollback")? {
            taken_back += 1;
        } else if taken_back > 0 {
            taken_back -= 1;
        } else {
            let from: Option<u32> = row.get("from_version")?;
            return Ok(from.and_then(Version::new));
        }
    }
    Ok(None)
}

fn forget_draft(tx: &Tx<'_>, nr: i64, key: &WorkflowKey) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "UPDATE workflows SET draft_inline = NULL, draft_blob = NULL, draft_size = NULL, draft_at = NULL, \
         draft_endpoint = NULL WHERE nr = ?1",
        [nr],
    )?;
    files::drop_definition(tx, &owner(key), DRAFT)
}

fn put_draft(tx: &Tx<'_>, key: &WorkflowKey, endpoint: &EndpointName, draft: &Payload) -> Result<(), Error> {
    tx.check_disk()?;
    let (nr, _) = make(tx, key)?;
    forget_draft(tx, nr, key)?;
    let (inline, blob, size) = sql::payload_columns(draft);
    sql::execute(
        tx.conn,
        "UPDATE workflows SET draft_inline = ?2, draft_blob = ?3, draft_size = ?4, draft_at = ?5, updated_at = ?5, \
         draft_endpoint = ?6 WHERE nr = ?1",
        params![nr, inline, blob, size, tx.now.as_micros(), endpoint.as_str()],
    )?;
    files::refer_to_definition(tx, &owner(key), DRAFT, &key.tenant, draft)
}

fn remove_draft(tx: &Tx<'_>, key: &WorkflowKey) -> Result<bool, Error> {
    let Some((nr, last)) = number_of(tx.conn, key)? else {
        return Ok(false);
    };
    let drafted: Option<Option<i64>> =
        sql::value(tx.conn, "SELECT draft_at FROM workflows WHERE nr = ?1", [nr])?;
    if drafted.flatten().is_none() {
        return Ok(false);
    }
    forget_draft(tx, nr, key)?;
    match last {
        0 => sql::execute(tx.conn, "DELETE FROM workflows WHERE nr = ?1", [nr]).map(|_| true),
        _ => touch(tx, nr).map(|()| true),
    }
}

fn version(row: &Row<'_>, column: &str) -> Result<Version, Error> {
    Version::new(sql::unsigned(row, column)?).ok_or_else(|| inconsistent("a version is no number"))
}

fn inconsistent(what: &str) -> Error {
    Error::Inconsistent {
        table: "workflows",
        what: what.to_owned(),
    }
}

fn read_workflow(conn: &Connection, row: &Row<'_>) -> Result<WorkflowRecord, Error> {
    let nr: i64 = row.get("nr")?;
    let aliases = sql::rows(
        conn,
        "SELECT a.name, a.version, v.endpoint FROM workflow_aliases a \
         JOIN workflow_versions v ON v.workflow = a.workflow AND v.version = a.version \
         WHERE a.workflow = ?1 ORDER BY a.name",
        [nr],
        |row| {
            Ok(AliasRecord {
                name: sql::parsed(row, "name", "workflow_aliases", |t| t.parse().ok())?,
                version: version(row, "version")?,
                endpoint: sql::parsed(row, "endpoint", "workflow_versions", |t| t.parse().ok())?,
            })
        },
    )?;
    let endpoints = sql::rows(
        conn,
        "SELECT DISTINCT endpoint FROM workflow_versions WHERE workflow = ?1 ORDER BY endpoint",
        [nr],
        |row| sql::parsed(row, "endpoint", "workflow_versions", |t| t.parse().ok()),
    )?;
    let name = |column: &str| -> Result<Option<EndpointName>, Error> {
        Ok(row
            .get::<_, Option<String>>(column)?
            .and_then(|name| name.parse().ok()))
    };
    Ok(WorkflowRecord {
        key: WorkflowKey {
            tenant: sql::parsed(row, "tenant", "workflows", |t| t.parse().ok())?,
            id: sql::parsed(row, "id", "workflows", |t| t.parse().ok())?,
        },
        created_at: sql::instant(row, "created_at")?,
        updated_at: sql::instant(row, "updated_at")?,
        latest: Version::new(sql::unsigned(row, "last_version")?),
        endpoint: name("endpoint")?,
        endpoints,
        aliases,
        draft_at: sql::instant_opt(row, "draft_at")?,
        draft_endpoint: name("draft_endpoint")?,
    })
}

fn read_version(row: &Row<'_>) -> Result<VersionRecord, Error> {
    Ok(VersionRecord {
        version: version(row, "version")?,
        endpoint: sql::parsed(row, "endpoint", "workflow_versions", |t| t.parse().ok())?,
        note: row.get("note")?,
        published_at: sql::instant(row, "published_at")?,
        published_by: row.get("published_by")?,
        size: sql::unsigned(row, "size")?,
    })
}

fn read_move(row: &Row<'_>) -> Result<MoveRecord, Error> {
    Ok(MoveRecord {
        nr: row.get("nr")?,
        alias: sql::parsed(row, "alias", "workflow_moves", |t| t.parse().ok())?,
        from: row.get::<_, Option<u32>>("from_version")?.and_then(Version::new),
        to: version(row, "to_version")?,
        at: sql::instant(row, "at")?,
        by: row.get("moved_by")?,
        rollback: row.get("rollback")?,
    })
}

fn inline_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Inline(bytes) => bytes.len() + SMALL,
        Payload::Blob { .. } => SMALL,
    }
}

#[async_trait]
impl Workflows for SqliteStore {
    async fn publish(&self, new: NewVersion) -> Result<NewlyPublished, Error> {
        let bytes = inline_bytes(&new.content.definition);
        self.durably(bytes, move |tx| publish(tx, &new)).await
    }

    async fn import(&self, new: NewWorkflow) -> Result<Imported, Error> {
        let bytes = new.versions.iter().map(|one| inline_bytes(&one.definition)).sum();
        self.durably(bytes, move |tx| import(tx, &new)).await
    }

    async fn workflow(&self, key: &WorkflowKey) -> Result<Option<WorkflowRecord>, Error> {
        let key = key.clone();
        self.readers
            .run(move |conn| {
                let sql = format!("{WORKFLOW} WHERE tenant = ?1 AND id = ?2");
                let params = params![key.tenant.as_str(), key.id.as_str()];
                sql::row(conn, &sql, params, |row| read_workflow(conn, row))
            })
            .await
    }

    async fn workflows(
        &self,
        tenant: &TenantId,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<Vec<WorkflowRecord>, Error> {
        let (tenant, after) = (
            tenant.clone(),
            after.map_or_else(String::new, ToString::to_string),
        );
        self.readers
            .run(move |conn| {
                let sql = format!("{WORKFLOW} WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3");
                sql::rows(conn, &sql, params![tenant.as_str(), after, limit], |row| {
                    read_workflow(conn, row)
                })
            })
            .await
    }

    async fn versions(
        &self,
        key: &WorkflowKey,
        before: Option<Version>,
        limit: u32,
    ) -> Result<Vec<VersionRecord>, Error> {
        let (key, before) = (key.clone(), before.map(Version::number));
        self.readers
            .run(move |conn| {
                let sql = format!(
                    "SELECT {VERSION} FROM workflow_versions v JOIN workflows w ON w.nr = v.workflow \
                     WHERE w.tenant = ?1 AND w.id = ?2 AND (?3 IS NULL OR v.version < ?3) ORDER BY v.version DESC LIMIT ?4"
                );
                let params = params![key.tenant.as_str(), key.id.as_str(), before, limit];
                sql::rows(conn, &sql, params, read_version)
            })
            .await
    }

    async fn version(
        &self,
        key: &WorkflowKey,
        version: Version,
    ) -> Result<Option<(VersionRecord, Payload)>, Error> {
        let key = key.clone();
        self.readers
            .run(move |conn| {
                let sql = format!(
                    "SELECT {VERSION}, v.inline, v.blob FROM workflow_versions v JOIN workflows w ON w.nr = v.workflow \
                     WHERE w.tenant = ?1 AND w.id = ?2 AND v.version = ?3"
                );
                let found = sql::row(
                    conn,
                    &sql,
                    params![key.tenant.as_str(), key.id.as_str(), version.number()],
                    |row| {
                        let payload = sql::payload(row, ["inline", "blob", "size"], "workflow_versions")?;
                        Ok((read_version(row)?, payload))
                    },
                )?;
                match found {
                    Some((record, Some(payload))) => Ok(Some((record, payload))),
                    Some((_, None)) => Err(inconsistent("a version holds nothing")),
                    None => Ok(None),
                }
            })
            .await
    }

    async fn resolve(&self, key: &WorkflowKey, wanted: &Wanted) -> Result<Resolved, Error> {
        let (key, wanted) = (key.clone(), wanted.clone());
        self.readers
            .run(move |conn| {
                let Some((nr, last)) = number_of(conn, &key)?.filter(|(_, last)| *last > 0) else {
                    return Ok(Resolved::NoWorkflow);
                };
                Ok(match wanted {
                    Wanted::Version(version) if version.number() <= last => Resolved::Found(version),
                    Wanted::Version(_) => Resolved::NoVersion,
                    Wanted::Alias(alias) => match alias_of(conn, nr, &alias)? {
                        Some(version) => Resolved::Found(version),
                        None => Resolved::NoAlias,
                    },
                })
            })
            .await
    }

    async fn move_alias(
        &self,
        key: &WorkflowKey,
        alias: &AliasName,
        to: Target,
        by: &str,
    ) -> Result<Moved, Error> {
        let (key, alias, by) = (key.clone(), alias.clone(), by.to_owned());
        self.durably(SMALL, move |tx| move_alias(tx, &key, &alias, to, &by))
            .await
    }

    async fn alias_moves(
        &self,
        key: &WorkflowKey,
        alias: Option<&AliasName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<MoveRecord>, Error> {
        let (key, alias) = (key.clone(), alias.map(ToString::to_string));
        self.readers
            .run(move |conn| {
                sql::rows(
                    conn,
                    "SELECT m.nr, m.alias, m.from_version, m.to_version, m.at, m.moved_by, m.rollback FROM workflow_moves m \
                     JOIN workflows w ON w.nr = m.workflow WHERE w.tenant = ?1 AND w.id = ?2 \
                     AND (?3 IS NULL OR m.alias = ?3) AND (?4 IS NULL OR m.nr < ?4) ORDER BY m.nr DESC LIMIT ?5",
                    params![key.tenant.as_str(), key.id.as_str(), alias, before, limit],
                    read_move,
                )
            })
            .await
    }

    async fn put_draft(
        &self,
        key: &WorkflowKey,
        endpoint: &EndpointName,
        draft: Payload,
    ) -> Result<(), Error> {
        let (key, endpoint) = (key.clone(), endpoint.clone());
        self.durably(inline_bytes(&draft), move |tx| {
            put_draft(tx, &key, &endpoint, &draft)
        })
        .await
    }

    async fn draft(&self, key: &WorkflowKey) -> Result<Option<(Timestamp, Payload)>, Error> {
        let key = key.clone();
        self.readers
            .run(move |conn| {
                let found = sql::row(
                    conn,
                    "SELECT draft_at, draft_inline, draft_blob, draft_size FROM workflows \
                     WHERE tenant = ?1 AND id = ?2 AND draft_at IS NOT NULL",
                    params![key.tenant.as_str(), key.id.as_str()],
                    |row| {
                        let columns = ["draft_inline", "draft_blob", "draft_size"];
                        Ok((
                            sql::instant(row, "draft_at")?,
                            sql::payload(row, columns, "workflows")?,
                        ))
                    },
                )?;
                Ok(found.and_then(|(at, payload)| Some((at, payload?))))
            })
            .await
    }

    async fn remove_draft(&self, key: &WorkflowKey) -> Result<bool, Error> {
        let key = key.clone();
        self.durably(SMALL, move |tx| remove_draft(tx, &key)).await
    }
}

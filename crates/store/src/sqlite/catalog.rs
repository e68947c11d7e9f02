//! Endpoints, instances, object_info, settings and decisions on SQLite.

use async_trait::async_trait;
use darkroom_core::{
    EndpointName, InstanceId, InstanceState, Timestamp,
    instance::{self, Event},
};
use rusqlite::{Connection, Row, params};

use super::{SqliteStore, sql, tx::Tx};
use crate::{
    Catalog, Error,
    catalog::{BoxInfo, InstanceChange, InstanceRecord},
    wake::Topic,
};

const SMALL: usize = 1024;
/// Decisions kept per endpoint, and how many more may gather before the oldest go.
const MAX_DECISIONS: u32 = 1000;
const DECISIONS_SLACK: i64 = 64;

const INSTANCE: &str = "SELECT id, endpoint, home, state, state_since, created_at, gpu, box, handle, \
     start_reason, state_reason, jobs_done, phases FROM instances";

fn read(row: &Row<'_>) -> Result<InstanceRecord, Error> {
    let phases: Vec<(String, Timestamp)> = sql::json(row, "phases", "instances")?;
    Ok(InstanceRecord {
        id: InstanceId::from_uuid(sql::uuid(row, "id", "instances")?),
        endpoint: sql::parsed(row, "endpoint", "instances", |t| t.parse().ok())?,
        home: sql::parsed(row, "home", "instances", |t| t.parse().ok())?,
        state: sql::parsed(row, "state", "instances", InstanceState::parse)?,
        state_since: sql::instant(row, "state_since")?,
        created_at: sql::instant(row, "created_at")?,
        gpu: row.get("gpu")?,
        box_name: row.get("box")?,
        handle: row.get("handle")?,
        start_reason: row.get("start_reason")?,
        state_reason: row.get("state_reason")?,
        jobs_done: sql::unsigned(row, "jobs_done")?,
        phases,
    })
}

/// Whether an instance of the endpoint is ready.
pub(super) fn has_ready(conn: &Connection, endpoint: &EndpointName) -> Result<bool, Error> {
    let found = sql::value(
        conn,
        "SELECT EXISTS (SELECT 1 FROM instances WHERE gone = 0 AND endpoint = ?1 AND state = ?2)",
        params![endpoint.as_str(), InstanceState::Ready.as_str()],
    )?;
    Ok(found.unwrap_or(false))
}

fn add(tx: &Tx<'_>, instance: &InstanceRecord) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "INSERT INTO instances (id, endpoint, home, state, state_since, created_at, gone, gpu, box, \
         handle, start_reason, state_reason, jobs_done, phases) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            instance.id.as_uuid().as_bytes().as_slice(),
            instance.endpoint.as_str(),
            instance.home.as_str(),
            instance.state.as_str(),
            instance.state_since.as_micros(),
            instance.created_at.as_micros(),
            instance.state.is_final(),
            instance.gpu,
            instance.box_name,
            instance.handle,
            instance.start_reason,
            instance.state_reason,
            instance.jobs_done,
            sql::to_json(&instance.phases),
        ],
    )?;
    tx.wake(Topic::Capacity);
    Ok(())
}

fn change(tx: &Tx<'_>, id: InstanceId, seen: InstanceState, change: &InstanceChange) -> Result<bool, Error> {
    let InstanceChange {
        state,
        reason,
        handle,
        phase,
    } = change;
    let key = id.as_uuid().as_bytes();
    let found = sql::row(
        tx.conn,
        &format!("{INSTANCE} WHERE id = ?1"),
        [key.as_slice()],
        read,
    )?;
    let Some(mut instance) = found.filter(|instance| instance.state == seen) else {
        return Ok(false);
    };
    if let Some(next) = state.filter(|next| *next != seen) {
        if !possible(seen, next) {
            return Err(Error::Inconsistent {
                table: "instances",
                what: format!("{id}: no event leads from {} to {}", seen.as_str(), next.as_str()),
            });
        }
        instance.state = next;
        instance.state_since = tx.now;
    }
    if let Some(phase) = phase {
        instance.phases.push((phase.clone(), tx.now));
    }
    sql::execute(
        tx.conn,
        "UPDATE instances SET state = ?2, state_since = ?3, gone = ?4, handle = COALESCE(?5, handle), \
         state_reason = COALESCE(?6, state_reason), phases = ?7 WHERE id = ?1",
        params![
            key.as_slice(),
            instance.state.as_str(),
            instance.state_since.as_micros(),
            instance.state.is_final(),
            handle,
            reason,
            sql::to_json(&instance.phases),
        ],
    )?;
    tx.wake(Topic::Capacity);
    Ok(true)
}

/// Whether the state machine knows a way.
fn possible(from: InstanceState, to: InstanceState) -> bool {
    [
        Event::BecameReady,
        Event::DrainRequested,
        Event::StopRequested,
        Event::Exited,
        Event::StartFailed,
    ]
    .into_iter()
    .any(|event| instance::apply(from, event) == Ok(to))
}

fn put_object_info(tx: &Tx<'_>, endpoint: &EndpointName, box_name: &str, json: &[u8]) -> Result<(), Error> {
    // The same megabytes again after every start are not written again.
    let same = sql::execute(
        tx.conn,
        "UPDATE object_infos SET at = ?4 WHERE endpoint = ?1 AND box = ?2 AND json = ?3",
        params![endpoint.as_str(), box_name, json, tx.now.as_micros()],
    )?;
    if same == 0 {
        sql::execute(
            tx.conn,
            "INSERT OR REPLACE INTO object_infos (endpoint, box, json, at) VALUES (?1, ?2, ?3, ?4)",
            params![endpoint.as_str(), box_name, json, tx.now.as_micros()],
        )?;
    }
    Ok(())
}

fn add_decision(tx: &Tx<'_>, endpoint: &EndpointName, json: &str) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "INSERT INTO decisions (endpoint, at, json) VALUES (?1, ?2, ?3)",
        params![endpoint.as_str(), tx.now.as_micros(), json],
    )?;
    if tx.conn.last_insert_rowid() % DECISIONS_SLACK == 0 {
        sql::execute(
            tx.conn,
            "DELETE FROM decisions WHERE endpoint = ?1 AND nr <= \
             (SELECT nr FROM decisions WHERE endpoint = ?1 ORDER BY nr DESC LIMIT 1 OFFSET ?2)",
            params![endpoint.as_str(), MAX_DECISIONS],
        )?;
    }
    Ok(())
}

#[async_trait]
impl Catalog for SqliteStore {
    // What is known of instances rides along: after a power loss their processes are gone as well.

    async fn add_instance(&self, instance: InstanceRecord) -> Result<(), Error> {
        self.riding(SMALL, move |tx| add(tx, &instance)).await
    }

    async fn change_instance(
        &self,
        id: InstanceId,
        seen: InstanceState,
        wanted: InstanceChange,
    ) -> Result<bool, Error> {
        self.riding(SMALL, move |tx| change(tx, id, seen, &wanted)).await
    }

    async fn instance(&self, id: InstanceId) -> Result<Option<InstanceRecord>, Error> {
        self.readers
            .run(move |conn| {
                let sql = format!("{INSTANCE} WHERE id = ?1");
                sql::row(conn, &sql, [id.as_uuid().as_bytes().as_slice()], read)
            })
            .await
    }

    async fn instances(&self, include_gone: bool) -> Result<Vec<InstanceRecord>, Error> {
        self.readers
            .run(move |conn| {
                let mut all = sql::rows(conn, &format!("{INSTANCE} WHERE gone = 0"), [], read)?;
                if include_gone {
                    let sql = format!("{INSTANCE} WHERE gone = 1 ORDER BY state_since DESC LIMIT 200");
                    all.extend(sql::rows(conn, &sql, [], read)?);
                }
                all.sort_by_key(|instance| (instance.created_at, instance.id));
                Ok(all)
            })
            .await
    }

    async fn sweep_instances(&self, before: Timestamp) -> Result<Vec<InstanceRecord>, Error> {
        self.durably(SMALL, move |tx| {
            let gone = sql::rows(
                tx.conn,
                &format!("{INSTANCE} WHERE gone = 1 AND state_since < ?1 ORDER BY state_since LIMIT 200"),
                [before.as_micros()],
                read,
            )?;
            for instance in &gone {
                sql::execute(
                    tx.conn,
                    "DELETE FROM instances WHERE id = ?1",
                    [instance.id.as_uuid().as_bytes().as_slice()],
                )?;
            }
            Ok(gone)
        })
        .await
    }

    async fn put_object_info(
        &self,
        endpoint: &EndpointName,
        box_name: &str,
        json: Vec<u8>,
    ) -> Result<(), Error> {
        let (endpoint, box_name) = (endpoint.clone(), box_name.to_owned());
        self.riding(json.len(), move |tx| {
            put_object_info(tx, &endpoint, &box_name, &json)
        })
        .await
    }

    async fn object_infos(&self, endpoint: &EndpointName) -> Result<Vec<BoxInfo>, Error> {
        let endpoint = endpoint.clone();
        self.readers
            .run(move |conn| {
                sql::rows(
                    conn,
                    "SELECT box, json, at FROM object_infos WHERE endpoint = ?1 ORDER BY box",
                    [endpoint.as_str()],
                    |row| {
                        Ok(BoxInfo {
                            box_name: row.get("box")?,
                            json: row.get("json")?,
                            learned_at: sql::instant(row, "at")?,
                        })
                    },
                )
            })
            .await
    }

    async fn remove_object_info(&self, endpoint: &EndpointName, box_name: &str) -> Result<bool, Error> {
        let (endpoint, box_name) = (endpoint.clone(), box_name.to_owned());
        self.durably(SMALL, move |tx| {
            let sql = "DELETE FROM object_infos WHERE endpoint = ?1 AND box = ?2";
            Ok(sql::execute(tx.conn, sql, params![endpoint.as_str(), box_name])? > 0)
        })
        .await
    }

    async fn endpoints(&self) -> Result<Vec<(EndpointName, String)>, Error> {
        self.readers
            .run(|conn| {
                sql::rows(
                    conn,
                    "SELECT name, json FROM endpoints ORDER BY name",
                    [],
                    |row| {
                        let name = sql::parsed(row, "name", "endpoints", |t| t.parse().ok())?;
                        Ok((name, row.get("json")?))
                    },
                )
            })
            .await
    }

    async fn put_endpoint(&self, name: &EndpointName, json: String) -> Result<(), Error> {
        let name = name.clone();
        self.durably(SMALL, move |tx| {
            let sql = "INSERT OR REPLACE INTO endpoints (name, json) VALUES (?1, ?2)";
            sql::execute(tx.conn, sql, params![name.as_str(), json])?;
            tx.wake(Topic::Capacity);
            Ok(())
        })
        .await
    }

    async fn remove_endpoint(&self, name: &EndpointName) -> Result<bool, Error> {
        let name = name.clone();
        self.durably(SMALL, move |tx| {
            let removed = sql::execute(tx.conn, "DELETE FROM endpoints WHERE name = ?1", [name.as_str()])?;
            tx.wake(Topic::Capacity);
            Ok(removed > 0)
        })
        .await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, Error> {
        let name = name.to_owned();
        self.readers
            .run(move |conn| sql::value(conn, "SELECT value FROM settings WHERE name = ?1", [name]))
            .await
    }

    async fn put_setting(&self, name: &str, value: &str) -> Result<(), Error> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.durably(SMALL, move |tx| {
            let sql = "INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)";
            sql::execute(tx.conn, sql, [&name, &value])?;
            Ok(())
        })
        .await
    }

    async fn settings_under(&self, prefix: &str) -> Result<Vec<(String, String)>, Error> {
        let prefix = prefix.to_owned();
        self.readers
            .run(move |conn| {
                // By the primary key from the prefix on; the comparison of text is the comparison of its bytes.
                sql::rows(
                    conn,
                    "SELECT name, value FROM settings \
                     WHERE name >= ?1 AND substr(name, 1, length(?1)) = ?1 AND name < ?1 || char(1114111) \
                     ORDER BY name",
                    [prefix],
                    |row| Ok((row.get("name")?, row.get("value")?)),
                )
            })
            .await
    }

    async fn put_settings(&self, settings: Vec<(String, String)>) -> Result<(), Error> {
        let size = settings
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>();
        self.durably(SMALL + size, move |tx| {
            let sql = "INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)";
            settings
                .iter()
                .try_for_each(|(name, value)| sql::execute(tx.conn, sql, [name, value]).map(|_| ()))
        })
        .await
    }

    async fn add_decision(&self, endpoint: &EndpointName, json: String) -> Result<(), Error> {
        let endpoint = endpoint.clone();
        self.riding(json.len(), move |tx| add_decision(tx, &endpoint, &json))
            .await
    }

    async fn decisions(
        &self,
        endpoint: &EndpointName,
        limit: u32,
    ) -> Result<Vec<(Timestamp, String)>, Error> {
        let endpoint = endpoint.clone();
        self.readers
            .run(move |conn| {
                sql::rows(
                    conn,
                    "SELECT at, json FROM decisions WHERE endpoint = ?1 ORDER BY nr DESC LIMIT ?2",
                    params![endpoint.as_str(), limit.min(MAX_DECISIONS)],
                    |row| Ok((sql::instant(row, "at")?, row.get("json")?)),
                )
            })
            .await
    }
}

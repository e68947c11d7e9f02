//! Keys and the outbox on SQLite.

use async_trait::async_trait;
use darkroom_core::{JobId, TenantId, Timestamp};
use rusqlite::{Row, params};

use super::{SqliteStore, outbox, sql};
use crate::{
    Access, Error,
    access::{AppCredential, Delivery, Due, KeyRecord, Lanes, OutboxRow, Redelivery, WebhookLog},
    wake::Topic,
};

const SMALL: usize = 512;
/// Nonces stay for this long after nobody could use them any more, should the clock be set back: half an hour. Each that
/// comes takes two such with it, so that there are never many.
const NONCE_MARGIN_US: i64 = 30 * 60 * 1_000_000;

fn read_key(row: &Row<'_>) -> Result<KeyRecord, Error> {
    let hash: Vec<u8> = row.get("secret_sha256")?;
    Ok(KeyRecord {
        name: row.get("name")?,
        secret_sha256: hash.try_into().map_err(|hash: Vec<u8>| Error::Inconsistent {
            table: "keys",
            what: format!("secret_sha256 has {} bytes", hash.len()),
        })?,
        prefix: row.get("prefix")?,
        scopes: sql::json(row, "scopes", "keys")?,
        endpoints: sql::json(row, "endpoints", "keys")?,
        tenant: sql::parsed(row, "tenant", "keys", |t| t.parse().ok())?,
        created_at: sql::instant(row, "created_at")?,
        revoked_at: sql::instant_opt(row, "revoked_at")?,
        app: match (row.get("app_key")?, row.get("app_secret")?) {
            (Some(app_key), Some(sealed_secret)) => Some(AppCredential {
                app_key,
                sealed_secret,
            }),
            _ => None,
        },
    })
}

#[async_trait]
impl Access for SqliteStore {
    async fn add_key(&self, key: KeyRecord) -> Result<bool, Error> {
        self.durably(SMALL, move |tx| {
            let added = sql::execute(
                tx.conn,
                "INSERT INTO keys (name, secret_sha256, prefix, scopes, endpoints, tenant, created_at, revoked_at, \
                 app_key, app_secret) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
                params![
                    key.name,
                    key.secret_sha256.as_slice(),
                    key.prefix,
                    sql::to_json(&key.scopes),
                    sql::to_json(&key.endpoints),
                    key.tenant.as_str(),
                    key.created_at.as_micros(),
                    key.revoked_at.map(Timestamp::as_micros),
                    key.app.as_ref().map(|app| &app.app_key),
                    key.app.as_ref().map(|app| &app.sealed_secret),
                ],
            )?;
            Ok(added > 0)
        })
        .await
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, Error> {
        self.readers
            .run(|conn| {
                sql::rows(
                    conn,
                    "SELECT name, secret_sha256, prefix, scopes, endpoints, tenant, created_at, revoked_at, \
                     app_key, app_secret FROM keys ORDER BY nr",
                    [],
                    read_key,
                )
            })
            .await
    }

    async fn revoke_key(&self, name: &str) -> Result<bool, Error> {
        let name = name.to_owned();
        self.durably(SMALL, move |tx| {
            let revoked = sql::execute(
                tx.conn,
                "UPDATE keys SET revoked_at = ?2 WHERE name = ?1 AND revoked_at IS NULL",
                params![name, tx.now.as_micros()],
            )?;
            Ok(revoked > 0)
        })
        .await
    }

    async fn use_nonce(&self, nonce: [u8; 16], until: Timestamp) -> Result<bool, Error> {
        // A later durable write is behind it in the log: no job that it began is ever there without it.
        self.riding(SMALL, move |tx| {
            let gone = tx.now.as_micros().saturating_sub(NONCE_MARGIN_US);
            sql::execute(
                tx.conn,
                "DELETE FROM signed_nonces WHERE nonce IN \
                 (SELECT nonce FROM signed_nonces WHERE until < ?1 ORDER BY until LIMIT 2)",
                [gone],
            )?;
            let noted = sql::execute(
                tx.conn,
                "INSERT INTO signed_nonces (nonce, until) VALUES (?1, ?2) \
                 ON CONFLICT (nonce) DO UPDATE SET until = excluded.until WHERE until < ?3",
                params![nonce.as_slice(), until.as_micros(), gone],
            )?;
            Ok(noted > 0)
        })
        .await
    }

    async fn outbox_due(&self, kind: &str, limit: u32) -> Result<Vec<OutboxRow>, Error> {
        let kind = kind.to_owned();
        // On the writer, which knows the store's now; it is asked only after a wake-up or a timer.
        self.riding(0, move |tx| outbox::due(tx.conn, &kind, limit, tx.now))
            .await
    }

    async fn outbox_done(&self, id: i64) -> Result<(), Error> {
        // Forgotten by a power loss, it is delivered once more; receivers are told to expect that.
        self.riding(SMALL, move |tx| {
            sql::execute(tx.conn, "DELETE FROM outbox WHERE id = ?1", [id])?;
            Ok(())
        })
        .await
    }

    async fn outbox_retry(&self, id: i64, due_at: Timestamp) -> Result<(), Error> {
        self.riding(SMALL, move |tx| {
            sql::execute(
                tx.conn,
                "UPDATE outbox SET tries = tries + 1, due_at = ?2 WHERE id = ?1",
                params![id, due_at.as_micros()],
            )?;
            tx.wake(Topic::Outbox);
            Ok(())
        })
        .await
    }

    async fn outbox_lanes(&self, kind: &str, lanes: Lanes) -> Result<Due, Error> {
        let (kind, now) = (kind.to_owned(), self.clock.now());
        self.readers
            .run(move |conn| outbox::lanes(conn, &kind, &lanes, now))
            .await
    }

    async fn outbox_tried(&self, id: i64, delivery: Delivery) -> Result<(), Error> {
        // Forgotten by a power loss, it is delivered once more; receivers are told to expect that.
        self.riding(SMALL, move |tx| outbox::tried(tx, id, &delivery))
            .await
    }

    async fn webhook(&self, job: JobId) -> Result<WebhookLog, Error> {
        self.readers.run(move |conn| outbox::webhook(conn, job)).await
    }

    async fn redeliver(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Option<Redelivery>, Error> {
        let tenant = tenant.cloned();
        self.durably(SMALL, move |tx| outbox::redeliver(tx, tenant.as_ref(), job))
            .await
    }
}

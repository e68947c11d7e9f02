//! Assets. A row of `contents` has a blob that something refers to or that the trash holds: it is written in the step that
//! makes the first reference, and goes in the step that gives the blob up. A row of `assets` has a reference, always.

use async_trait::async_trait;
use darkroom_core::{AssetId, BlobKey, ContentHash, Digest, TenantId, Timestamp};
use rusqlite::{Connection, Row, params};

mod uploads;

use super::{
    SqliteStore, files,
    queue::{Lane, Wait},
    sql,
    tx::Tx,
};
use crate::{
    Error,
    assets::{Added, AssetRecord, AssetUpload, Assets, Content, IfTaken, NewAsset, Piece},
    files::FileRef,
};

const SMALL: usize = 1024;

const CONTENT: &str = "c.tenant, c.blake3, c.sha256, c.size, c.blob";

/// Columns of an asset and of its bytes, without the rule which.
const ASSET: &str = "SELECT c.tenant, c.blake3, c.sha256, c.size, c.blob, a.id, a.file_path, a.content_type, \
     a.created_at, a.brought_at, a.expires_at FROM assets a JOIN contents c ON c.blob = a.blob";

/// The blob's bytes are given up: nobody finds them by hash any more.
pub(super) fn forget_content(tx: &Tx<'_>, blob: &BlobKey) -> Result<(), Error> {
    sql::execute(tx.conn, "DELETE FROM contents WHERE blob = ?1", [blob.as_str()])?;
    Ok(())
}

/// The bytes as they are kept: those that are there already, else these.
fn settle(tx: &Tx<'_>, content: Content) -> Result<(Content, bool), Error> {
    if let Some(known) = find(tx.conn, &content.tenant, ContentHash::Blake3(content.blake3))? {
        return Ok((known, false));
    }
    sql::execute(
        tx.conn,
        "INSERT INTO contents (tenant, blake3, sha256, size, blob) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            content.tenant.as_str(),
            content.blake3.as_bytes().as_slice(),
            content.sha256.as_bytes().as_slice(),
            sql::int(content.size),
            content.blob.as_str(),
        ],
    )?;
    Ok((content, true))
}

fn find(conn: &Connection, tenant: &TenantId, hash: ContentHash) -> Result<Option<Content>, Error> {
    let (column, digest) = match hash {
        ContentHash::Blake3(digest) => ("blake3", digest),
        ContentHash::Sha256(digest) => ("sha256", digest),
    };
    let sql = format!("SELECT {CONTENT} FROM contents c WHERE c.tenant = ?1 AND c.{column} = ?2");
    sql::row(
        conn,
        &sql,
        params![tenant.as_str(), digest.as_bytes().as_slice()],
        read_content,
    )
}

fn add(tx: &Tx<'_>, asset: &NewAsset, content: Content, new_bytes: bool) -> Result<Added, Error> {
    let path = asset.file_path.as_deref().unwrap_or_default();
    let same = format!("{ASSET} WHERE a.tenant = ?1 AND a.blob = ?2 AND a.file_path = ?3");
    let place = params![asset.tenant.as_str(), content.blob.as_str(), path];
    // Callers without a key are strangers to each other: each may delete what it brought.
    let known = match asset.tenant.is_anonymous() {
        true => None,
        false => sql::row(tx.conn, &same, place, read_asset)?,
    };
    if let Some(known) = known {
        sql::execute(
            tx.conn,
            "UPDATE assets SET brought_at = ?2 WHERE id = ?1",
            params![id_bytes(known.id), tx.now.as_micros()],
        )?;
        let asset = AssetRecord {
            brought_at: tx.now,
            ..extend(tx, known, asset.expires_at)?
        };
        return Ok(Added {
            asset,
            new_asset: false,
            new_bytes,
        });
    }
    sql::execute(
        tx.conn,
        "INSERT INTO assets (id, tenant, blob, file_path, content_type, created_at, brought_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)",
        params![
            id_bytes(asset.id),
            asset.tenant.as_str(),
            content.blob.as_str(),
            path,
            asset.content_type,
            tx.now.as_micros(),
            asset.expires_at.map(Timestamp::as_micros),
        ],
    )?;
    let reference = FileRef {
        owner: owner(&asset.tenant),
        name: asset.id.to_string(),
        tenant: asset.tenant.clone(),
        blob: content.blob.clone(),
        size: content.size,
        content_type: asset.content_type.clone(),
        created_at: tx.now,
    };
    files::put(tx, &reference)?;
    let asset = AssetRecord {
        id: asset.id,
        content,
        file_path: asset.file_path.clone(),
        content_type: asset.content_type.clone(),
        created_at: tx.now,
        brought_at: tx.now,
        expires_at: asset.expires_at,
    };
    Ok(Added {
        asset,
        new_asset: true,
        new_bytes,
    })
}

/// It lasts as long as the longer of both.
fn extend(tx: &Tx<'_>, asset: AssetRecord, until: Option<Timestamp>) -> Result<AssetRecord, Error> {
    let longer = match (asset.expires_at, until) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (None, _) | (_, None) => None,
    };
    if longer != asset.expires_at {
        sql::execute(
            tx.conn,
            "UPDATE assets SET expires_at = ?2 WHERE id = ?1",
            params![id_bytes(asset.id), longer.map(Timestamp::as_micros)],
        )?;
    }
    Ok(AssetRecord {
        expires_at: longer,
        ..asset
    })
}

fn owner(tenant: &TenantId) -> String {
    format!("asset:{tenant}")
}

fn id_bytes(id: AssetId) -> [u8; 16] {
    *id.as_uuid().as_bytes()
}

fn one(
    conn: &Connection,
    tenant: &TenantId,
    id: AssetId,
    now: Timestamp,
) -> Result<Option<AssetRecord>, Error> {
    let sql = format!(
        "{ASSET} WHERE a.id = ?1 AND a.tenant = ?2 AND {LIVE}",
        LIVE = live(3)
    );
    sql::row(
        conn,
        &sql,
        params![id_bytes(id), tenant.as_str(), now.as_micros()],
        read_asset,
    )
}

fn live(parameter: u8) -> String {
    format!("(a.expires_at IS NULL OR a.expires_at > ?{parameter})")
}

fn digest(row: &Row<'_>, column: usize) -> Result<Digest, Error> {
    let bytes: Vec<u8> = row.get(column)?;
    bytes
        .try_into()
        .map(Digest::new)
        .map_err(|bytes: Vec<u8>| Error::Inconsistent {
            table: "contents",
            what: format!("a hash has {} bytes", bytes.len()),
        })
}

fn read_content(row: &Row<'_>) -> Result<Content, Error> {
    Ok(Content {
        tenant: sql::parsed(row, 0, "contents", |t| t.parse().ok())?,
        blake3: digest(row, 1)?,
        sha256: digest(row, 2)?,
        size: sql::unsigned(row, 3)?,
        blob: sql::parsed(row, 4, "contents", |t| t.parse().ok())?,
    })
}

fn read_asset(row: &Row<'_>) -> Result<AssetRecord, Error> {
    let path: String = row.get("file_path")?;
    Ok(AssetRecord {
        content: read_content(row)?,
        id: AssetId::from_uuid(sql::uuid(row, "id", "assets")?),
        file_path: Some(path).filter(|path| !path.is_empty()),
        content_type: row.get("content_type")?,
        created_at: sql::instant(row, "created_at")?,
        brought_at: sql::instant(row, "brought_at")?,
        expires_at: sql::instant_opt(row, "expires_at")?,
    })
}

#[async_trait]
impl Assets for SqliteStore {
    async fn add_asset(&self, asset: NewAsset, content: Content) -> Result<Added, Error> {
        self.durably(SMALL, move |tx| {
            let (content, new_bytes) = settle(tx, content.clone())?;
            add(tx, &asset, content, new_bytes)
        })
        .await
    }

    async fn mint_asset(&self, asset: NewAsset, hash: ContentHash) -> Result<Option<Added>, Error> {
        self.durably(SMALL, move |tx| {
            let content = find(tx.conn, &asset.tenant, hash)?;
            content.map(|content| add(tx, &asset, content, false)).transpose()
        })
        .await
    }

    async fn keep_content(
        &self,
        reference: FileRef,
        content: Content,
        if_taken: IfTaken,
    ) -> Result<Option<BlobKey>, Error> {
        self.durably(SMALL, move |tx| {
            if if_taken == IfTaken::Keep && files::is_taken(tx, &reference)? {
                return Ok(None);
            }
            let (content, _) = settle(tx, content.clone())?;
            let reference = FileRef {
                blob: content.blob.clone(),
                size: content.size,
                ..reference.clone()
            };
            files::put(tx, &reference)?;
            Ok(Some(content.blob))
        })
        .await
    }

    async fn content(&self, tenant: &TenantId, hash: ContentHash) -> Result<Option<Content>, Error> {
        let tenant = tenant.clone();
        self.readers
            .run(move |conn| {
                let Some(content) = find(conn, &tenant, hash)? else {
                    return Ok(None);
                };
                let used: Option<i64> = sql::value(
                    conn,
                    "SELECT 1 FROM file_refs WHERE blob = ?1 LIMIT 1",
                    [content.blob.as_str()],
                )?;
                Ok(used.map(|_| content))
            })
            .await
    }

    async fn content_of(&self, blob: &BlobKey) -> Result<Option<Content>, Error> {
        let blob = blob.clone();
        self.readers
            .run(move |conn| {
                let sql = format!("SELECT {CONTENT} FROM contents c WHERE c.blob = ?1");
                sql::row(conn, &sql, [blob.as_str()], read_content)
            })
            .await
    }

    async fn asset(&self, tenant: &TenantId, id: AssetId) -> Result<Option<AssetRecord>, Error> {
        let (tenant, now) = (tenant.clone(), self.clock.now());
        self.readers.run(move |conn| one(conn, &tenant, id, now)).await
    }

    async fn newest_asset(&self, tenant: &TenantId, file_path: &str) -> Result<Option<AssetRecord>, Error> {
        let (tenant, path, now) = (tenant.clone(), file_path.to_owned(), self.clock.now());
        self.readers
            .run(move |conn| {
                let sql = format!(
                    "{ASSET} WHERE a.tenant = ?1 AND a.file_path = ?2 AND {} ORDER BY a.brought_at DESC, a.id DESC LIMIT 1",
                    live(3)
                );
                sql::row(conn, &sql, params![tenant.as_str(), path, now.as_micros()], read_asset)
            })
            .await
    }

    async fn assets(
        &self,
        tenant: &TenantId,
        before: Option<AssetId>,
        limit: u32,
    ) -> Result<Vec<AssetRecord>, Error> {
        let (tenant, now) = (tenant.clone(), self.clock.now());
        let before = before.map_or([0xff; 16], id_bytes);
        self.readers
            .run(move |conn| {
                let sql = format!(
                    "{ASSET} WHERE a.tenant = ?1 AND a.id < ?2 AND {} ORDER BY a.id DESC LIMIT ?4",
                    live(3)
                );
                let which = params![tenant.as_str(), before, now.as_micros(), limit];
                sql::rows(conn, &sql, which, read_asset)
            })
            .await
    }

    async fn extend_asset(
        &self,
        tenant: &TenantId,
        id: AssetId,
        until: Option<Timestamp>,
    ) -> Result<Option<AssetRecord>, Error> {
        let tenant = tenant.clone();
        self.durably(SMALL, move |tx| {
            let known = one(tx.conn, &tenant, id, tx.now)?;
            known.map(|known| extend(tx, known, until)).transpose()
        })
        .await
    }

    async fn remove_asset(&self, tenant: &TenantId, id: AssetId) -> Result<bool, Error> {
        let tenant = tenant.clone();
        self.durably(SMALL, move |tx| {
            let Some(known) = one(tx.conn, &tenant, id, tx.now)? else {
                return Ok(false);
            };
            sql::execute(tx.conn, "DELETE FROM assets WHERE id = ?1", [id_bytes(known.id)])?;
            files::drop_one(tx, &owner(&tenant), &id.to_string())
        })
        .await
    }

    async fn begin_upload(&self, upload: AssetUpload) -> Result<(), Error> {
        self.durably(SMALL, move |tx| uploads::begin(tx, &upload)).await
    }

    async fn asset_upload(&self, tenant: &TenantId, id: AssetId) -> Result<Option<AssetUpload>, Error> {
        let (tenant, now) = (tenant.clone(), self.clock.now());
        self.readers
            .run(move |conn| uploads::one(conn, &tenant, id, now))
            .await
    }

    async fn add_piece(
        &self,
        tenant: &TenantId,
        id: AssetId,
        piece: Piece,
        expires_at: Timestamp,
    ) -> Result<Option<AssetUpload>, Error> {
        let tenant = tenant.clone();
        self.durably(SMALL, move |tx| {
            uploads::add_piece(tx, &tenant, id, &piece, expires_at)
        })
        .await
    }

    async fn upload_pieces(&self, id: AssetId) -> Result<Vec<Piece>, Error> {
        self.readers.run(move |conn| uploads::pieces(conn, id)).await
    }

    async fn end_upload(&self, tenant: &TenantId, id: AssetId) -> Result<bool, Error> {
        let tenant = tenant.clone();
        self.durably(SMALL, move |tx| uploads::end(tx, &tenant, id)).await
    }

    async fn sweep_uploads(&self, limit: u32) -> Result<u64, Error> {
        let work = move |tx: &Tx<'_>| uploads::sweep(tx, limit);
        self.write(Lane::Sweep, Wait::ForDisk, SMALL, work).await
    }

    async fn sweep_assets(&self, limit: u32) -> Result<u64, Error> {
        let work = move |tx: &Tx<'_>| {
            let gone = sql::rows(
                tx.conn,
                "DELETE FROM assets WHERE id IN (SELECT id FROM assets WHERE expires_at <= ?1 LIMIT ?2) \
                 RETURNING id, tenant",
                params![tx.now.as_micros(), limit],
                |row| {
                    let tenant = sql::parsed(row, "tenant", "assets", |t| t.parse::<TenantId>().ok())?;
                    Ok((AssetId::from_uuid(sql::uuid(row, "id", "assets")?), tenant))
                },
            )?;
            for (id, tenant) in &gone {
                files::drop_one(tx, &owner(tenant), &id.to_string())?;
            }
            Ok(gone.len() as u64)
        };
        self.write(Lane::Sweep, Wait::ForDisk, SMALL, work).await
    }
}

//! Assets on their way in. A piece's row is its reference, so that a blob of one goes with it like any other.

use darkroom_core::{AssetId, TenantId, Timestamp};
use rusqlite::{Connection, Row, params};

use super::{
    super::{files, sql, tx::Tx},
    id_bytes,
};
use crate::{
    Error,
    assets::{AssetUpload, Piece},
    files::FileRef,
};

const UPLOAD: &str = "SELECT id, tenant, terms, received, pieces, expires_at FROM asset_uploads";

pub(super) fn begin(tx: &Tx<'_>, upload: &AssetUpload) -> Result<(), Error> {
    tx.check_disk()?;
    sql::execute(
        tx.conn,
        "INSERT INTO asset_uploads (id, tenant, terms, received, pieces, expires_at) VALUES (?1, ?2, ?3, 0, 0, ?4)",
        params![
            id_bytes(upload.id),
            upload.tenant.as_str(),
            sql::to_json(&upload.terms),
            upload.expires_at.as_micros(),
        ],
    )?;
    Ok(())
}

pub(super) fn one(
    conn: &Connection,
    tenant: &TenantId,
    id: AssetId,
    now: Timestamp,
) -> Result<Option<AssetUpload>, Error> {
    let sql = format!("{UPLOAD} WHERE id = ?1 AND tenant = ?2 AND expires_at > ?3");
    sql::row(
        conn,
        &sql,
        params![id_bytes(id), tenant.as_str(), now.as_micros()],
        read,
    )
}

pub(super) fn add_piece(
    tx: &Tx<'_>,
    tenant: &TenantId,
    id: AssetId,
    piece: &Piece,
    expires_at: Timestamp,
) -> Result<Option<AssetUpload>, Error> {
    let Some(upload) = one(tx.conn, tenant, id, tx.now)? else {
        return Ok(None);
    };
    if upload.received != piece.offset {
        return Ok(Some(upload));
    }
    let reference = FileRef {
        owner: owner(id),
        name: format!("{:020}", piece.offset),
        tenant: tenant.clone(),
        blob: piece.blob.clone(),
        size: piece.size,
        content_type: "application/octet-stream".to_owned(),
        created_at: tx.now,
    };
    files::put(tx, &reference)?;
    let upload = AssetUpload {
        received: upload.received + piece.size,
        pieces: upload.pieces + 1,
        expires_at: upload.expires_at.max(expires_at),
        ..upload
    };
    sql::execute(
        tx.conn,
        "UPDATE asset_uploads SET received = ?2, pieces = ?3, expires_at = ?4 WHERE id = ?1",
        params![
            id_bytes(id),
            sql::int(upload.received),
            upload.pieces,
            upload.expires_at.as_micros(),
        ],
    )?;
    Ok(Some(upload))
}

pub(super) fn pieces(conn: &Connection, id: AssetId) -> Result<Vec<Piece>, Error> {
    let pieces = files::of_owner(conn, &owner(id))?.into_iter().map(|reference| {
        let offset = reference.name.parse().map_err(|_| Error::Inconsistent {
            table: "file_refs",
            what: format!("'{}' is no offset", reference.name),
        })?;
        Ok(Piece {
            offset,
            size: reference.size,
            blob: reference.blob,
        })
    });
    pieces.collect()
}

pub(super) fn end(tx: &Tx<'_>, tenant: &TenantId, id: AssetId) -> Result<bool, Error> {
    let ended = sql::execute(
        tx.conn,
        "DELETE FROM asset_uploads WHERE id = ?1 AND tenant = ?2",
        params![id_bytes(id), tenant.as_str()],
    )?;
    if ended > 0 {
        files::drop_owner(tx, &owner(id))?;
    }
    Ok(ended > 0)
}

pub(super) fn sweep(tx: &Tx<'_>, limit: u32) -> Result<u64, Error> {
    let over = sql::rows(
        tx.conn,
        &format!("{UPLOAD} WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2"),
        params![tx.now.as_micros(), limit],
        read,
    )?;
    for upload in &over {
        end(tx, &upload.tenant, upload.id)?;
    }
    Ok(over.len() as u64)
}

fn owner(id: AssetId) -> String {
    format!("asset-upload:{id}")
}

fn read(row: &Row<'_>) -> Result<AssetUpload, Error> {
    Ok(AssetUpload {
        id: AssetId::from_uuid(sql::uuid(row, "id", "asset_uploads")?),
        tenant: sql::parsed(row, "tenant", "asset_uploads", |t| t.parse().ok())?,
        terms: sql::json(row, "terms", "asset_uploads")?,
        received: sql::unsigned(row, "received")?,
        pieces: sql::unsigned(row, "pieces")?,
        expires_at: sql::instant(row, "expires_at")?,
    })
}

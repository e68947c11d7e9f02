//! Small helpers over rusqlite: cached statements, rows to values with our own error, columns to domain types.

use std::fmt::Display;

use darkroom_core::{BlobKey, Payload, Timestamp};

use rusqlite::{Connection, Params, Row, RowIndex, types::FromSql};
use uuid::Uuid;

use crate::Error;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            return Error::DiskFull { available_bytes: 0 };
        }
        Error::Driver(Box::new(error))
    }
}

/// A column, by its name or its place. Looking a name up costs a comparison with every column before it, which is felt where
/// thirty are read for each request.
pub(super) trait Column: RowIndex + Copy + Display {}

impl<T: RowIndex + Copy + Display> Column for T {}

/// Counts columns up, for rows that are read in the order in which their statement lists them.
pub(super) struct InOrder(usize);

impl InOrder {
    /// From the column with that number on; the first is 0.
    pub(super) fn from(first: usize) -> InOrder {
        InOrder(first)
    }

    /// The next one's place.
    pub(super) fn next(&mut self) -> usize {
        let place = self.0;
        self.0 += 1;
        place
    }
}

/// Runs a statement; returns how many rows it changed.
pub(super) fn execute(conn: &Connection, sql: &str, params: impl Params) -> Result<usize, Error> {
    Ok(conn.prepare_cached(sql)?.execute(params)?)
}

/// All rows.
pub(super) fn rows<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

/// The first row, if there is one.
pub(super) fn row<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    match rows.next()? {
        Some(row) => Ok(Some(read(row)?)),
        None => Ok(None),
    }
}

/// The first column of the first row.
pub(super) fn value<T: FromSql>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Option<T>, Error> {
    row(conn, sql, params, |row| Ok(row.get(0)?))
}

/// An unsigned number as a column holds it.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An unsigned number from a column.
pub(super) fn unsigned<T: TryFrom<i64> + Default>(row: &Row<'_>, column: impl Column) -> Result<T, Error> {
    Ok(T::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

/// A text column parsed into a name, id or state.
pub(super) fn parsed<T>(
    row: &Row<'_>,
    column: impl Column,
    table: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Error> {
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|e| Error::Driver(Box::new(e)))?;
    parse(text).ok_or_else(|| Error::Inconsistent {
        table,
        what: format!("{column} is '{}'", text.chars().take(80).collect::<String>()),
    })
}

/// A JSON column.
pub(super) fn json<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: impl Column,
    table: &'static str,
) -> Result<T, Error> {
    parsed(row, column, table, |text| serde_json::from_str(text).ok())
}

/// A JSON column that may be missing.
pub(super) fn json_opt<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: impl Column,
    table: &'static str,
) -> Result<Option<T>, Error> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => json(row, column, table).map(Some),
    }
}

/// A value as the text of a JSON column.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our types have string keys and no failing serializers")
}

/// An instant.
pub(super) fn instant(row: &Row<'_>, column: impl Column) -> Result<Timestamp, Error> {
    Ok(Timestamp::from_micros(row.get(column)?))
}

/// An instant that may be missing.
pub(super) fn instant_opt(row: &Row<'_>, column: impl Column) -> Result<Option<Timestamp>, Error> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}

/// The UUID of an id column.
pub(super) fn uuid(row: &Row<'_>, column: impl Column, table: &'static str) -> Result<Uuid, Error> {
    let bytes = row
        .get_ref(column)?
        .as_blob()
        .map_err(|e| Error::Driver(Box::new(e)))?;
    Uuid::from_slice(bytes).map_err(|_| Error::Inconsistent {
        table,
        what: format!("{column} has {} bytes", bytes.len()),
    })
}

/// The UUID of an id column that may be missing.
pub(super) fn uuid_opt(
    row: &Row<'_>,
    column: impl Column,
    table: &'static str,
) -> Result<Option<Uuid>, Error> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => uuid(row, column, table).map(Some),
    }
}

/// A payload as its three columns `inline`, `blob`, `size`.
pub(super) fn payload_columns(payload: &Payload) -> (Option<&[u8]>, Option<&str>, i64) {
    match payload {
        Payload::Inline(bytes) => (Some(bytes), None, int(payload.size())),
        Payload::Blob { key, size } => (None, Some(key.as_str()), int(*size)),
    }
}

/// A payload from its columns; `None` when there is none.
pub(super) fn payload(
    row: &Row<'_>,
    columns: [impl Column; 3],
    table: &'static str,
) -> Result<Option<Payload>, Error> {
    let [inline, blob, size] = columns;
    if let Some(bytes) = row.get::<_, Option<Vec<u8>>>(inline)? {
        return Ok(Some(Payload::Inline(bytes)));
    }
    if row.get_ref(blob)? == rusqlite::types::ValueRef::Null {
        return Ok(None);
    }
    let key = parsed(row, blob, table, |text| text.parse::<BlobKey>().ok())?;
    Ok(Some(Payload::Blob {
        key,
        size: unsigned(row, size)?,
    }))
}

//! `[store]`: where jobs live.

use super::reader::Section;

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Which database.
    pub database: Database,
    /// Below this many free bytes submits are refused, while results are still taken.
    pub disk_reserve_bytes: u64,
}

/// Which database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// SQLite under the data directory.
    Sqlite,
}

/// 512 MB: room for the results of everything that is already running.
const DISK_RESERVE_BYTES: u64 = 512_000_000;

pub(super) fn read(mut section: Section<'_>) -> StoreConfig {
    // Read as a secret: a Postgres URL holds a password, which must not be printed.
    if let Some(url) = section.secret("url")
        && url.expose() != "sqlite"
    {
        let message = match url.expose().split_once("://") {
            Some(("postgres" | "postgresql", _)) => {
                "postgres is not supported by this version; use \"sqlite\""
            }
            _ => "expected \"sqlite\"",
        };
        section.problem("url", message);
    }
    let disk_reserve_bytes = section.size("disk_reserve").unwrap_or(DISK_RESERVE_BYTES);
    section.finish();
    StoreConfig {
        database: Database::Sqlite,
        disk_reserve_bytes,
    }
}

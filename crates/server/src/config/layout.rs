//! What lies where under the data directory: one place for the server and for commands that work on a stopped one.

use std::path::{Path, PathBuf};

/// The SQLite database.
pub fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("darkroom.db")
}

/// Held locked (`flock`, exclusive) by the process that owns the directory: the parent of a running server, or a
/// command that changes a stopped one.
pub fn lock(data_dir: &Path) -> PathBuf {
    data_dir.join("lock")
}

//! What lies where under the data directory: one place for the server and for commands that work on a stopped one.

use std::path::{Path, PathBuf};

/// The SQLite database.
pub fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("darkroom.db")
}

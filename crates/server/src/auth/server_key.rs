//! The server's own secret: from it come the keys that sign URLs and encrypt credentials in stored requests. Made once,
//! kept in a file that only we may read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use darkroom_core::Ids;

use crate::config::ServerConfig;

/// 32 random bytes.
#[derive(Clone)]
pub struct ServerKey([u8; 32]);

impl std::fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerKey")
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum ServerKeyError {
    /// The file cannot be read or made.
    #[error("cannot use the server's key file {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("the server's key file {} does not hold 64 hexadecimal digits", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

impl ServerKey {
    /// Reads `secret_file`, which must exist, or `data_dir/server.key`, which is made when missing (durably, before
    /// anything is signed with it). The caller holds the lock of the data directory.
    ///
    /// # Errors
    /// [`ServerKeyError`].
    pub fn load_or_create(config: &ServerConfig, ids: &dyn Ids) -> Result<Self, ServerKeyError> {
        match &config.secret_file {
            Some(path) => load(path),
            None => {
                let path = config.data_dir.join("server.key");
                if path.exists() {
                    load(&path)
                } else {
                    create(&config.data_dir, &path, ids)
                }
            }
        }
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

fn load(path: &Path) -> Result<ServerKey, ServerKeyError> {
    let text = fs::read_to_string(path).map_err(|source| io_error(path, source))?;
    let malformed = || ServerKeyError::Malformed {
        path: path.to_owned(),
    };
    let text = text.trim_ascii().as_bytes();
    if text.len() != 64 {
        return Err(malformed());
    }
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(text.chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| malformed())?;
        // `from_str_radix` would take a sign.
        if digits.starts_with('+') {
            return Err(malformed());
        }
        *byte = u8::from_str_radix(digits, 16).map_err(|_| malformed())?;
    }
    Ok(ServerKey(key))
}

fn create(data_dir: &Path, path: &Path, ids: &dyn Ids) -> Result<ServerKey, ServerKeyError> {
    let mut key = [0; 32];
    ids.fill(&mut key);
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let unfinished = path.with_extension("key.new");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        writeln!(file, "{digits}")?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(data_dir)?.sync_all()
    };
    write().map_err(|source| io_error(path, source))?;
    Ok(ServerKey(key))
}

fn io_error(path: &Path, source: io::Error) -> ServerKeyError {
    ServerKeyError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

    use darkroom_ambient::SystemIds;

    use super::*;
    use crate::config::{Config, Overrides};

    fn config(dir: &Path) -> ServerConfig {
        let flags = Overrides {
            data_dir: Some(dir.to_owned()),
            ..Overrides::default()
        };
        Config::from_text(None, "", &BTreeMap::new(), &flags)
            .unwrap()
            .server
    }

    #[test]
    fn it_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let made = ServerKey::load_or_create(&config, &SystemIds).unwrap();
        let again = ServerKey::load_or_create(&config, &SystemIds).unwrap();
        assert_eq!(made.expose(), again.expose());
        assert_ne!(made.expose(), &[0; 32]);
        let mode = fs::metadata(dir.path().join("server.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_refused_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        for bad in ["", "abc", &"g".repeat(64), &"+1".repeat(32)] {
            fs::write(dir.path().join("server.key"), bad).unwrap();
            let error = ServerKey::load_or_create(&config, &SystemIds).unwrap_err();
            assert!(matches!(error, ServerKeyError::Malformed { .. }), "{bad}");
        }
    }
}

//! Copies of an instance's files that still wait for the blob store, so that the next prompt may overwrite the originals.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use darkroom_core::{Ids, attempt::Lease};
use futures::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;

/// One attempt's directory below the slot's spool; removed with everything in it when this is dropped.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    files: u32,
}

impl Spool {
    /// Makes a fresh directory for the attempt.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn create(below: &Path, lease: Lease, ids: &dyn Ids) -> io::Result<Self> {
        let path = below.join(format!(
            "{}-{}-{}",
            lease.job,
            lease.fence,
            ids.uuid_v4().simple()
        ));
        fs::create_dir_all(&path)?;
        Ok(Spool { path, files: 0 })
    }

    /// A path for one more file. Reported names never become spool names.
    pub fn next_path(&mut self) -> PathBuf {
        self.files += 1;
        self.path.join(self.files.to_string())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a spool directory is left behind");
        }
    }
}

/// Removes what a server that died left in its spool; to be called before any slot runs.
///
/// # Errors
/// The directory cannot be read or emptied; that it does not exist is fine.
pub fn clear(spool_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(spool_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => fs::create_dir_all(spool_dir),
    }
}

/// Copies a local file. A hard link would not do: an instance that writes the same name again changes its contents.
///
/// # Errors
/// Reading or writing fails.
pub async fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    tokio::task::spawn_blocking(move || fs::copy(from, to).map(drop))
        .await
        .map_err(io::Error::other)?
}

/// Writes what an instance sends; gives up when it falls silent.
///
/// # Errors
/// The stream or the file system fails, or nothing came for `patience`.
pub async fn download<E: std::error::Error + Send + Sync + 'static>(
    mut from: impl Stream<Item = Result<Bytes, E>> + Unpin,
    to: &Path,
    patience: std::time::Duration,
) -> io::Result<u64> {
    let mut file = tokio::fs::File::create(to).await?;
    let mut size = 0;
    loop {
        let Ok(part) = tokio::time::timeout(patience, from.next()).await else {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the instance stopped sending",
            ));
        };
        match part {
            Some(part) => {
                let part = part.map_err(io::Error::other)?;
                size += part.len() as u64;
                file.write_all(&part).await?;
            }
            None => break,
        }
    }
    file.flush().await?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use darkroom_ambient::SystemIds;
    use futures::stream;

    use super::*;
    use crate::testing::lease;

    #[tokio::test]
    async fn a_spool_survives_its_originals_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let original = root.path().join("a.png");
        fs::write(&original, b"first").unwrap();
        let below = root.path().join("spool");
        let mut spool = Spool::create(&below, lease(1), &SystemIds).unwrap();
        let kept = spool.next_path();
        copy(&original, &kept).await.unwrap();
        fs::write(&original, b"second").unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"first");
        drop(spool);
        assert_eq!(fs::read_dir(&below).unwrap().count(), 0);
        fs::create_dir(below.join("of the dead")).unwrap();
        for _ in 0..2 {
            clear(&below).unwrap();
            assert_eq!(fs::read_dir(&below).unwrap().count(), 0);
            fs::remove_dir(&below).unwrap();
        }
    }

    #[tokio::test]
    async fn an_instance_that_stops_sending_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let first = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"part"))]);
        let stuck = Box::pin(first.chain(stream::pending()));
        let result = download(stuck, &root.path().join("f"), Duration::from_millis(20)).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

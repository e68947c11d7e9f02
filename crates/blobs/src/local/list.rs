//! Walking the local tree in the byte order of whole keys, which is the order object stores list in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use darkroom_core::{BlobKey, Timestamp};

use crate::Listed;

/// Up to `limit` blobs under `data` whose keys come after `after`.
pub(super) fn list(data: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    walk(data, "", after, limit, &mut found)?;
    Ok(found)
}

/// When a file was last written.
pub(super) fn modified(metadata: &fs::Metadata) -> Timestamp {
    let since_epoch = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .unwrap_or_default();
    Timestamp::ZERO.plus(since_epoch)
}

fn walk(
    folder: &Path,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    found: &mut Vec<Listed>,
) -> io::Result<()> {
    // A folder's name is compared with its `/`: "a-b" < "a/b" < "a0", as whole keys compare.
    let mut entries: Vec<(String, PathBuf)> = Vec::new();
    for entry in gone_is_empty(fs::read_dir(folder))?.into_iter().flatten() {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        entries.push((format!("{prefix}{name}{slash}"), entry.path()));
    }
    entries.sort();
    for (key, path) in entries {
        if found.len() >= limit {
            return Ok(());
        }
        if key.ends_with('/') {
            let all_before = after.is_some_and(|after| key.as_str() < after && !after.starts_with(&key));
            if !all_before {
                walk(&path, &key, after, limit, found)?;
            }
        } else if after.is_none_or(|after| key.as_str() > after)
            && let Ok(key) = key.parse::<BlobKey>()
            && let Some(metadata) = gone_is_empty(fs::metadata(&path))?
        {
            found.push(Listed {
                key,
                size: metadata.len(),
                modified: modified(&metadata),
            });
        }
    }
    Ok(())
}

/// Blobs and folders may be deleted while we walk.
fn gone_is_empty<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

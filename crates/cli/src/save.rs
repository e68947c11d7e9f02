//! Saves a job's outputs as files, never over a file that is there.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    client::Client,
    exit::{Exit, Failure},
};

/// Downloads every file among `job`'s outputs into `dir`; returns where each went.
pub async fn save_outputs(client: &Client, job: &Value, dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut saved = Vec::new();
    for output in job["outputs"].as_array().into_iter().flatten() {
        let (Some(name), Some(url)) = (output["filename"].as_str(), output["url"].as_str()) else {
            continue;
        };
        saved.push(save(client, url, dir, name).await?);
    }
    Ok(saved)
}

/// Downloads one file into `dir` under a name like this; returns where it went.
pub async fn save(client: &Client, url: &str, dir: &Path, name: &str) -> Result<PathBuf, Failure> {
    let cannot = |path: &Path, error: io::Error| Failure::local(format!("{}: {error}", path.display()));
    let mut response = client.download(url).await?;
    let (path, mut file) = create(dir, &file_name(name)).map_err(|error| cannot(dir, error))?;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => file.write_all(&chunk).map_err(|error| cannot(&path, error))?,
            Ok(None) => return Ok(path),
            Err(error) => {
                let _ = fs::remove_file(&path);
                let message = format!("the download of {name} broke: {error}");
                return Err(Failure::new(Exit::Unreachable, "connection_lost", message));
            }
        }
    }
}

/// Makes `dir` and in it a new file: `name`, else `name-2`, `name-3`, …
fn create(dir: &Path, name: &str) -> io::Result<(PathBuf, fs::File)> {
    fs::create_dir_all(dir)?;
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    let mut number = 1_u32;
    loop {
        let path = if number == 1 {
            dir.join(name)
        } else {
            dir.join(format!("{stem}-{number}{extension}"))
        };
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100_000 => number += 1,
            other => return other.map(|file| (path, file)),
        }
    }
}

/// The last part of a name a server gave, harmless as a file name here.
fn file_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let cleaned: String = last
        .chars()
        .map(|c| if c.is_control() || c == ':' { '_' } else { c })
        .collect();
    match cleaned.trim_start_matches('.') {
        "" => "output".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_name_cannot_leave_the_directory() {
        for (name, safe) in [
            ("../../etc/passwd", "passwd"),
            ("..\\x.png", "x.png"),
            ("..", "output"),
            (".bashrc", "bashrc"),
            ("猫 1.png", "猫 1.png"),
            ("", "output"),
        ] {
            assert_eq!(file_name(name), safe, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_there_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("new/dir");
        let names: Vec<PathBuf> = (0..3).map(|_| create(&inner, "a.png").unwrap().0).collect();
        assert_eq!(
            names,
            ["a.png", "a-2.png", "a-3.png"].map(|name| inner.join(name))
        );
        assert_eq!(create(&inner, "plain").unwrap().0, inner.join("plain"));
        assert_eq!(create(&inner, "plain").unwrap().0, inner.join("plain-2"));
    }
}

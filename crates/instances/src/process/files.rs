//! The files of instances: one directory for each, named by its id.
//!
//! ```text
//! instances/<id>/intent.json   written before the process is started, handle.json   right after
//!                log.txt, input/ output/ temp/ user/ work/
//! ```
//! Nothing here is synced: these files are for the next server after a crash of this one, and what was written is
//! seen by it. A power loss ends the instances as well.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use darkroom_core::InstanceId;

use crate::{Dirs, Handle};

/// The files of one instance.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    pub(super) fn of(instances: &Path, instance: InstanceId) -> Files {
        Files {
            root: instances.join(instance.to_string()),
        }
    }

    /// The directory that holds everything of the instance.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What it prints.
    pub(super) fn log(&self) -> PathBuf {
        self.root.join("log.txt")
    }

    /// Its own directories.
    pub(super) fn dirs(&self) -> Dirs {
        Dirs {
            input: self.root.join("input"),
            output: self.root.join("output"),
            temp: self.root.join("temp"),
            user: self.root.join("user"),
            work: self.root.join("work"),
        }
    }

    /// Makes all directories; fails with `AlreadyExists` when the instance has any.
    pub(super) fn make(&self) -> io::Result<()> {
        make_private_dir(&self.root)?;
        let dirs = self.dirs();
        for dir in [&dirs.input, &dirs.output, &dirs.temp, &dirs.user, &dirs.work] {
            make_private_dir(dir)?;
        }
        Ok(())
    }

    /// Notes what is about to be started.
    pub(super) fn write_intent(&self, handle: &Handle) -> io::Result<()> {
        self.write("intent.json", handle)
    }

    /// Notes what was started.
    pub(super) fn write_handle(&self, handle: &Handle) -> io::Result<()> {
        self.write("handle.json", handle)
    }

    /// What was started, or about to be (then without a process).
    pub(super) fn read(&self) -> io::Result<Option<Handle>> {
        for name in ["handle.json", "intent.json"] {
            match fs::read(self.root.join(name)) {
                Ok(bytes) => return serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Removes everything.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&self, name: &str, handle: &Handle) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(handle).map_err(io::Error::other)?;
        let unfinished = self.root.join(format!("{name}.new"));
        fs::write(&unfinished, bytes)?;
        fs::rename(unfinished, self.root.join(name))
    }
}

/// The instances that have files.
pub(super) fn instances(dir: &Path) -> io::Result<Vec<InstanceId>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push(id);
        }
    }
    found.sort();
    Ok(found)
}

/// Makes a directory that only we may enter.
pub(super) fn make_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

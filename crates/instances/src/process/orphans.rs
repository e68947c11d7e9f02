//! Finding instances that an earlier server started but whose handles the store does not have.

use std::io;

use darkroom_core::InstanceId;

use super::{
    Inner, environment,
    files::{self, Files},
    proc_fs,
};
use crate::Handle;

/// What was started under this id. Blocking.
pub(super) fn find(inner: &Inner, instance: InstanceId) -> io::Result<Option<Handle>> {
    let files = Files::of(&inner.dir, instance);
    let mut handle = match files.read() {
        Ok(Some(handle)) => handle,
        // Directories, and not even an intent: nothing was started.
        Ok(None) => return Ok(None),
        Err(error) => {
            tracing::warn!(instance.id = %instance, %error, "the handle of an instance cannot be read");
            return Err(error);
        }
    };
    if handle.process.is_none() {
        // Killed between starting the process and noting its number: the marks in its environment tell.
        handle.process = proc_fs::with_environment(&environment::marks(instance, &inner.dir))
            .into_iter()
            .find(|pid| proc_fs::stat(*pid).is_some_and(|stat| stat.group == *pid))
            .and_then(proc_fs::identify);
        if handle.process.is_some() {
            files.write_handle(&handle)?;
        }
    }
    Ok(Some(handle))
}

/// What is left of instances that are not `known`. Blocking.
pub(super) fn orphans(inner: &Inner, known: &[InstanceId]) -> io::Result<Vec<Handle>> {
    let mut orphans = Vec::new();
    for instance in files::instances(&inner.dir)? {
        if known.contains(&instance) {
            continue;
        }
        match find(inner, instance) {
            Ok(Some(handle)) => orphans.push(handle),
            // Directories made, and killed before the intent was written: nothing ran, so nothing is lost.
            Ok(None) => Files::of(&inner.dir, instance).remove()?,
            Err(_) => {}
        }
    }
    Ok(orphans)
}

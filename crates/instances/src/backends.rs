//! All backends as one: a request goes to the one it is for, a handle to the one it came from.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::InstanceId;

use crate::{
    Error, ExitInfo, Handle, InstanceBackend, ProcessBackend, Recognition, RemoteBackend, Spec, StartError,
    StartRequest, Usage,
};

/// Processes of this machine and remote servers.
#[derive(Clone)]
pub struct Backends {
    /// Runs processes.
    pub process: ProcessBackend,
    /// Uses servers that others run.
    pub remote: RemoteBackend,
}

impl Backends {
    fn of(&self, handle: &Handle) -> &dyn InstanceBackend {
        match handle.remote {
            true => &self.remote,
            false => &self.process,
        }
    }
}

#[async_trait]
impl InstanceBackend for Backends {
    async fn start(&self, request: StartRequest) -> Result<Handle, StartError> {
        match request.spec {
            Spec::Process(_) => self.process.start(request).await,
            Spec::Remote(_) => self.remote.start(request).await,
        }
    }

    async fn wait_ready(&self, handle: &Handle, timeout: Duration) -> Result<(), StartError> {
        self.of(handle).wait_ready(handle, timeout).await
    }

    async fn recognise(&self, handle: &Handle) -> Recognition {
        self.of(handle).recognise(handle).await
    }

    async fn exited(&self, handle: &Handle) -> ExitInfo {
        self.of(handle).exited(handle).await
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Result<(), Error> {
        self.of(handle).stop(handle, grace).await
    }

    async fn logs(&self, handle: &Handle, tail_bytes: u64) -> Result<Bytes, Error> {
        self.of(handle).logs(handle, tail_bytes).await
    }

    async fn trim_logs(&self, handle: &Handle, max_bytes: u64) -> Result<(), Error> {
        self.of(handle).trim_logs(handle, max_bytes).await
    }

    async fn remove_files(&self, handle: &Handle) -> Result<(), Error> {
        self.of(handle).remove_files(handle).await
    }

    async fn usage(&self, handle: &Handle) -> Option<Usage> {
        self.of(handle).usage(handle).await
    }

    async fn find(&self, instance: InstanceId) -> Result<Option<Handle>, Error> {
        match self.process.find(instance).await? {
            Some(handle) => Ok(Some(handle)),
            None => self.remote.find(instance).await,
        }
    }

    async fn orphans(&self, known: &[InstanceId]) -> Result<Vec<Handle>, Error> {
        let mut all = self.process.orphans(known).await?;
        all.extend(self.remote.orphans(known).await?);
        Ok(all)
    }
}

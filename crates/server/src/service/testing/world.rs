//! A bench as the tests of attempt links see it.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_blobs::Blobs;
use darkroom_core::{InstanceId, JobId, JobState, event::EventKind, output::OutputBody};
use darkroom_runner::{
    conformance::World,
    link::{AttemptLink, ComfyWork, Ephemeral, InputSource},
};

use super::Bench;

/// A bench, and one slot on it.
pub(crate) struct SlotWorld {
    pub bench: Bench,
    pub link: Arc<dyn AttemptLink>,
    pub instance: InstanceId,
    pub drain: Box<dyn Fn() + Send + Sync>,
}

#[async_trait]
impl World for SlotWorld {
    fn link(&self) -> Arc<dyn AttemptLink> {
        self.link.clone()
    }

    fn instance(&self) -> InstanceId {
        self.instance
    }

    async fn submit(&self, work: ComfyWork) -> JobId {
        for file in &work.files {
            if let InputSource::Blob(key) = &file.source {
                let bytes = Bytes::from_static(b"input");
                self.bench.blobs.put_bytes(key, bytes).await.unwrap();
            }
        }
        self.bench.job(&serde_json::to_string(&work).unwrap()).await
    }

    async fn cancel(&self, job: JobId) {
        self.bench.service.cancel(None, job).await.unwrap();
    }

    async fn drain(&self) {
        (self.drain)();
    }

    async fn state(&self, job: JobId) -> JobState {
        self.bench.record(job).await.state
    }

    async fn events(&self, job: JobId) -> Vec<(EventKind, String)> {
        let events = self.bench.service.events(job, 0).await.unwrap();
        events.into_iter().map(|event| (event.kind, event.data)).collect()
    }

    async fn outputs(&self, job: JobId) -> Vec<Bytes> {
        let mut bytes = Vec::new();
        for output in self.bench.record(job).await.outputs {
            let OutputBody::File { key, size, .. } = output.body else {
                continue;
            };
            bytes.push(self.bench.blobs.read(&key, size).await.unwrap().unwrap());
        }
        bytes
    }

    async fn shown(&self, job: JobId, count: usize) -> Vec<String> {
        let mut live = self.bench.service.hub.follow(job);
        let mut shown = Vec::new();
        while shown.len() < count {
            if let Ephemeral::Message(text) = live.recv().await.unwrap().what {
                shown.push(text.to_string());
            }
        }
        shown
    }

    fn file(&self, name: &str) -> PathBuf {
        self.bench.path().join(name)
    }
}

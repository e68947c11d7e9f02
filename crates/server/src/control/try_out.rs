//! An installation started outside of any endpoint, to see whether it starts and what it has; ended when nobody asks any
//! more.

use darkroom_core::{Endpoint, InstanceId, endpoint::Backend};
use darkroom_instances::{Spec, StartRequest};
use tokio_util::sync::CancellationToken;

use super::{Control, STOP_GRACE_AT_START, supervisor::chain};
use crate::service::attached::Trial;

impl Control {
    /// Starts it and waits until it answers.
    pub(super) async fn start_trial(&self, endpoint: &Endpoint) -> Result<Trial, String> {
        let Backend::Process(spec) = &endpoint.backend else {
            return Err("it is no installation".to_owned());
        };
        let request = StartRequest {
            instance: InstanceId::new(&*self.service.ids),
            endpoint: endpoint.name.clone(),
            gpu: endpoint.gpus.first().cloned(),
            spec: Spec::Process(spec.clone()),
        };
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let (control, started) = (self.clone(), tokio::sync::oneshot::channel());
        // In a task of its own: a caller that leaves while it is being spawned leaves no process behind.
        self.tasks.spawn(async move {
            let handle = match control.backend.start(request).await {
                Ok(handle) => handle,
                Err(error) => return drop(started.0.send(Err(chain(&error)))),
            };
            let _ = started.0.send(Ok(handle.clone()));
            tokio::select! {
                () = ended.cancelled() => {}
                () = control.closing.cancelled() => {}
            }
            match control.backend.stop(&handle, STOP_GRACE_AT_START).await {
                Ok(()) => {
                    if let Err(error) = control.backend.remove_files(&handle).await {
                        tracing::warn!(instance.id = %handle.instance, error = ?error, "files of a try-out could not be removed");
                    }
                }
                Err(error) => {
                    tracing::error!(instance.id = %handle.instance, error = ?error, "a try-out could not be ended; the next server ends it");
                }
            }
        });
        let handle = started.1.await.map_err(|_| "the server stops".to_owned())??;
        let ready = self.backend.wait_ready(&handle, endpoint.scaling.start_timeout);
        ready.await.map_err(|error| chain(&error))?;
        Ok(Trial {
            base_url: handle.base_url,
            ends: guard,
        })
    }
}

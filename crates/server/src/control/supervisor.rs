//! One instance's life, as one task: start it, wait until it answers, run its slot, end it, say why.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use darkroom_comfy::{
    client::{Client, ClientConfig},
    session::is_worker_death,
};
use darkroom_core::{
    AttemptOutcome, AttemptState, Endpoint, InstanceId, InstanceState,
    attempt::{Lease, RunningOn},
    endpoint::{Backend, OnExit},
};
use darkroom_instances::{Handle, StartRequest};
use darkroom_runner::{InstanceAccess, Slot, SlotConfig, SlotEnd};
use darkroom_store::{
    catalog::{InstanceChange, InstanceRecord},
    jobs::{AttemptRecord, Finish, JobRecord},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Control;
use crate::service::attempts::{SlotActivity, SlotLink};

/// After SIGTERM, how long an instance may take before it is killed. ComfyUI dies at once on SIGTERM
/// (`comfyui/behaviour.md` §9); what needs longer is stuck.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a slot may take to end once its instance is gone or the server stops.
const SLOT_END: Duration = Duration::from_secs(10);
/// How often the log of a busy instance is looked at for the death of its worker thread.
const LOG_EVERY: Duration = Duration::from_secs(2);
/// How much of it; a traceback is a few kilobytes.
const LOG_TAIL_BYTES: u64 = 32 * 1024;
/// How often the memory of a running instance is looked at.
const USAGE_EVERY: Duration = Duration::from_secs(10);

/// What the control loop holds of a supervised instance.
pub(super) struct Supervised {
    pub(super) activity: Arc<SlotActivity>,
    pub(super) rss_bytes: Arc<AtomicU64>,
    drain: CancellationToken,
    stop: CancellationToken,
    close: CancellationToken,
}

impl Supervised {
    /// Claims nothing more.
    pub(super) fn drain(&self) {
        self.drain.cancel();
    }
    /// Ends it; its slot has nothing left to do.
    pub(super) fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }
    /// The server stops: end it or leave it, as `on_exit` says.
    pub(super) fn close(&self) {
        self.close.cancel();
    }
}

/// Where the supervised instance comes from.
pub(super) enum Origin {
    /// It is to be started.
    Fresh,
    /// An earlier server started it; these attempts run on it.
    Adopted(Box<Handle>, Vec<(JobRecord, u32, Lease, RunningOn)>),
}

/// Begins to supervise an instance.
pub(super) fn begin(control: &Control, record: InstanceRecord, endpoint: Endpoint, origin: Origin) {
    let supervised = Supervised {
        activity: Arc::default(),
        rss_bytes: Arc::default(),
        drain: CancellationToken::new(),
        stop: CancellationToken::new(),
        close: CancellationToken::new(),
    };
    if record.state == InstanceState::Draining {
        supervised.drain();
    }
    if record.state == InstanceState::Stopping {
        supervised.stop();
    }
    let link = SlotLink::new(
        control.service.clone(),
        endpoint.name.clone(),
        record.id,
        supervised.drain.clone(),
        supervised.activity.clone(),
    );
    let handle = match origin {
        Origin::Fresh => None,
        Origin::Adopted(handle, attempts) => {
            // Before anybody plans: an instance that works must not look idle.
            for (job, attempt, lease, on) in attempts {
                link.adopt(job, attempt, lease, on);
            }
            Some(*handle)
        }
    };
    let task = Task {
        control: control.clone(),
        id: record.id,
        endpoint,
        activity: supervised.activity.clone(),
        rss_bytes: supervised.rss_bytes.clone(),
        drain: supervised.drain.clone(),
        stop: supervised.stop.clone(),
        close: supervised.close.clone(),
    };
    control.lock_supervised().insert(record.id, supervised);
    control.tasks.spawn(async move {
        let (control, id) = (task.control.clone(), task.id);
        task.live(record, handle, link).await;
        control.lock_supervised().remove(&id);
        control.wake();
    });
}

struct Task {
    control: Control,
    id: InstanceId,
    endpoint: Endpoint,
    activity: Arc<SlotActivity>,
    rss_bytes: Arc<AtomicU64>,
    drain: CancellationToken,
    stop: CancellationToken,
    close: CancellationToken,
}

/// How the running part of a life ended.
enum Ending {
    /// We ended it, or were told to.
    Wished,
    /// It ended, or broke, against our wish.
    Broken(String),
    /// It runs on, for the next server.
    Left,
}

impl Task {
    /// `found`: its handle, if an earlier server started it.
    async fn live(self, record: InstanceRecord, found: Option<Handle>, link: SlotLink) {
        let fresh = found.is_none();
        let handle = match found {
            Some(handle) => handle,
            None => match self.spawn(&record).await {
                Ok(handle) => handle,
                Err(reason) => return self.failed_start(&reason).await,
            },
        };
        if record.state == InstanceState::Starting
            && let Err(reason) = self.become_ready(&handle).await
        {
            self.end(&handle).await;
            return self.failed_start(&reason).await;
        }
        if fresh || record.state == InstanceState::Starting {
            self.control.start_succeeded(&self.endpoint.name);
        }
        match self.serve(&handle, link).await {
            Ending::Left => {}
            Ending::Wished => {
                self.end(&handle).await;
                let reason = "the server stopped its instance".to_owned();
                self.end_attempts(&AttemptOutcome::Released { reason }).await;
                self.finally(InstanceState::Stopped, "stopped").await;
            }
            Ending::Broken(reason) => {
                tracing::warn!(instance.id = %self.id, reason, "an instance broke");
                self.end(&handle).await;
                let lost = AttemptOutcome::Lost {
                    reason: reason.clone(),
                };
                self.end_attempts(&lost).await;
                self.finally(InstanceState::Failed, &reason).await;
            }
        }
    }

    async fn spawn(&self, record: &InstanceRecord) -> Result<Handle, String> {
        let Backend::Process(spec) = &self.endpoint.backend else {
            return Err(format!(
                "endpoint '{}' has no backend that starts instances",
                self.endpoint.name
            ));
        };
        let request = StartRequest {
            instance: record.id,
            endpoint: record.endpoint.clone(),
            gpu: record.gpu.clone(),
            spec: spec.clone(),
        };
        let handle = self.control.backend.start(request).await.map_err(|e| chain(&e))?;
        let json = serde_json::to_string(&handle).map_err(|e| e.to_string())?;
        let change = InstanceChange {
            handle: Some(json),
            phase: Some("spawned".into()),
            ..InstanceChange::default()
        };
        self.change(InstanceState::Starting, change).await;
        Ok(handle)
    }

    async fn become_ready(&self, handle: &Handle) -> Result<(), String> {
        let timeout = self.endpoint.scaling.start_timeout;
        tokio::select! {
            ready = self.control.backend.wait_ready(handle, timeout) => ready.map_err(|e| chain(&e))?,
            () = self.stop.cancelled() => return Err("stopped while it started".to_owned()),
            () = self.close.cancelled() => return Err("the server stopped while it started".to_owned()),
        }
        let change = InstanceChange {
            state: Some(InstanceState::Ready),
            phase: Some("ready".into()),
            ..InstanceChange::default()
        };
        if !self.change(InstanceState::Starting, change).await {
            return Err("it was given up meanwhile".to_owned());
        }
        self.control.wake();
        Ok(())
    }

    /// Runs the slot until the instance is not wanted any more, or breaks.
    async fn serve(&self, handle: &Handle, link: SlotLink) -> Ending {
        let (evidence, told) = watch::channel(None);
        let slot = match self.slot(handle, link, told) {
            Ok(slot) => slot,
            Err(error) => return Ending::Broken(chain(&error)),
        };
        // Outputs that wait for the blob store need neither the slot nor the instance, only this process.
        let collecting = slot.collecting();
        self.control.tasks.spawn(async move {
            collecting.close();
            collecting.wait().await;
        });
        let hurry = CancellationToken::new();
        let beside = async {
            tokio::join!(
                self.learn(handle),
                self.watch_usage(handle),
                self.watch_log(handle, &evidence)
            )
        };
        let running = slot.run(hurry.clone());
        tokio::pin!(running, beside);
        let ended = tokio::select! {
            end = &mut running => end,
            _ = &mut beside => SlotEnd::Closed,
            exit = self.control.backend.exited(handle) => {
                let reason = exit.to_string();
                evidence.send_replace(Some(reason.clone()));
                // The slot ends its attempt with that evidence; the bound is for a store that does not answer.
                let _ = tokio::time::timeout(SLOT_END, &mut running).await;
                return if self.stop.is_cancelled() { Ending::Wished } else { Ending::Broken(reason) };
            }
            () = self.close.cancelled() => return self.leave(&mut running, &hurry).await,
        };
        match ended {
            SlotEnd::InstanceBroken { reason } => Ending::Broken(reason),
            // Drained. It stays until the planner stops it (or the server does).
            SlotEnd::Closed => tokio::select! {
                () = self.stop.cancelled() => Ending::Wished,
                () = self.close.cancelled() => Ending::Wished,
                exit = self.control.backend.exited(handle) => Ending::Broken(exit.to_string()),
            },
        }
    }

    fn slot(
        &self,
        handle: &Handle,
        link: SlotLink,
        evidence: watch::Receiver<Option<String>>,
    ) -> Result<Slot, darkroom_runner::AccessError> {
        let service = &self.control.service;
        let access = InstanceAccess {
            instance: self.id,
            base_url: handle.base_url.clone(),
            headers: vec![],
            client_id: client_id(self.id),
            dirs: handle.dirs.as_ref().map(|dirs| darkroom_runner::Dirs {
                input: dirs.input.clone(),
                output: dirs.output.clone(),
                temp: dirs.temp.clone(),
            }),
        };
        let config = SlotConfig::new(self.control.spool_dir.clone());
        let slot = Slot::new(
            access,
            Arc::new(link),
            service.clock.clone(),
            service.ids.clone(),
            config,
        )?;
        Ok(slot.with_evidence(evidence))
    }

    /// The server stops: nothing more is claimed, what runs gets its time, then the instance is ended or left.
    async fn leave(
        &self,
        running: &mut (impl Future<Output = SlotEnd> + Unpin),
        hurry: &CancellationToken,
    ) -> Ending {
        self.drain.cancel();
        let keep = self.endpoint.scaling.on_exit == OnExit::Keep;
        if !keep
            && tokio::time::timeout(self.control.run_grace, &mut *running)
                .await
                .is_ok()
        {
            return Ending::Wished;
        }
        hurry.cancel();
        let _ = tokio::time::timeout(SLOT_END, running).await;
        if keep { Ending::Left } else { Ending::Wished }
    }

    /// Learns what the instance can do, beside its first jobs; then never resolves again.
    async fn learn(&self, handle: &Handle) {
        let service = &self.control.service;
        if !self.endpoint.runs_embedded_engine() {
            match object_info(&handle.base_url).await {
                Ok(json) => {
                    if let Err(error) = service.learn_object_info(&self.endpoint.name, json).await {
                        tracing::warn!(instance.id = %self.id, error = ?error, "object_info could not be kept");
                    }
                }
                Err(error) => tracing::warn!(instance.id = %self.id, %error, "object_info could not be read"),
            }
        }
        std::future::pending().await
    }

    async fn watch_usage(&self, handle: &Handle) {
        loop {
            if let Some(usage) = self.control.backend.usage(handle).await {
                self.rss_bytes.store(usage.rss_bytes, Ordering::Relaxed);
            }
            tokio::time::sleep(USAGE_EVERY).await;
        }
    }

    /// A worker thread that dies leaves HTTP alive and its prompt in the queue for ever (`comfyui/behaviour.md` §1); only
    /// what the instance printed tells.
    async fn watch_log(&self, handle: &Handle, evidence: &watch::Sender<Option<String>>) {
        loop {
            tokio::time::sleep(LOG_EVERY).await;
            if self.activity.busy() == 0 {
                continue;
            }
            let Ok(tail) = self.control.backend.logs(handle, LOG_TAIL_BYTES).await else {
                continue;
            };
            let tail = String::from_utf8_lossy(&tail);
            if let Some(line) = tail.lines().find(|line| is_worker_death(line)) {
                let line: String = line.chars().take(200).collect();
                evidence.send_replace(Some(format!("its worker thread died: {line}")));
                return std::future::pending().await;
            }
        }
    }

    async fn end(&self, handle: &Handle) {
        if let Err(error) = self.control.backend.stop(handle, STOP_GRACE).await {
            tracing::error!(instance.id = %self.id, error = ?error, "an instance could not be ended");
        }
    }

    /// Ends what is still open on the instance that is gone: what its slot had no time to end, or was dropped between the
    /// claim and the slot. Outputs that are being collected need no instance.
    async fn end_attempts(&self, outcome: &AttemptOutcome) {
        let service = &self.control.service;
        let open = match service.store.open_attempts(Some(&service.node)).await {
            Ok(open) => open,
            Err(error) => {
                return tracing::error!(instance.id = %self.id, error = ?error, "its attempts end when their leases do");
            }
        };
        let of_this = |a: &&AttemptRecord| a.instance == self.id && a.state != AttemptState::Collecting;
        for attempt in open.iter().filter(of_this) {
            let outcome = match &attempt.running_on {
                Some(_) => outcome.clone(),
                None => AttemptOutcome::Released {
                    reason: "its instance was gone before its prompt was posted".to_owned(),
                },
            };
            let lease = Lease {
                job: attempt.job,
                fence: attempt.fence,
            };
            let finish = Finish {
                outcome,
                outputs: vec![],
                result: None,
                events: vec![],
            };
            if let Err(error) = service.store.finish(lease, finish).await {
                tracing::error!(job.id = %attempt.job, error = ?error, "an attempt ends when its lease does");
            }
        }
    }

    async fn failed_start(&self, reason: &str) {
        let wished = self.stop.is_cancelled() || self.close.is_cancelled();
        if !wished {
            tracing::warn!(instance.id = %self.id, endpoint.name = %self.endpoint.name, reason, "a start failed");
            self.control.start_failed(&self.endpoint.name, reason);
        }
        self.finally(
            if wished {
                InstanceState::Stopped
            } else {
                InstanceState::Failed
            },
            reason,
        )
        .await;
    }

    /// Enters a final state from whatever state the record is in.
    async fn finally(&self, to: InstanceState, reason: &str) {
        let store = &self.control.service.store;
        for _ in 0..3 {
            let record = match store.instance(self.id).await {
                Ok(Some(record)) if !record.state.is_final() => record,
                Ok(_) => return,
                Err(error) => {
                    return tracing::error!(error = ?error, "an instance's end could not be recorded");
                }
            };
            // The table of states knows `stopping -> stopped` and `anything -> failed`.
            let step = match (to, record.state) {
                (InstanceState::Stopped, InstanceState::Stopping) => InstanceState::Stopped,
                (InstanceState::Stopped, _) => InstanceState::Stopping,
                (_, InstanceState::Stopping) => InstanceState::Stopped,
                _ => InstanceState::Failed,
            };
            let change = InstanceChange {
                state: Some(step),
                reason: Some(reason.to_owned()),
                ..InstanceChange::default()
            };
            self.change(record.state, change).await;
        }
    }

    async fn change(&self, seen: InstanceState, change: InstanceChange) -> bool {
        match self
            .control
            .service
            .store
            .change_instance(self.id, seen, change)
            .await
        {
            Ok(changed) => changed,
            Err(error) => {
                tracing::error!(instance.id = %self.id, error = ?error, "an instance's change could not be recorded");
                false
            }
        }
    }
}

/// The client id of an instance's one socket; ComfyUI sends a prompt's events only to it, so an adopting server needs
/// the same one.
pub(super) fn client_id(id: InstanceId) -> String {
    format!("darkroom-{id}")
}

async fn object_info(base_url: &str) -> anyhow::Result<Vec<u8>> {
    let client = Client::new(ClientConfig::new(base_url.parse()?))?;
    Ok(serde_json::to_vec(&client.object_info().await?)?)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

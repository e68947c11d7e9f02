//! One instance's life, as one task: start it, wait until it answers, run its slot, end it, say why.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use darkroom_core::{
    AttemptOutcome, Endpoint, EndpointName, InstanceId, InstanceState,
    endpoint::{Backend, Kind, OnExit},
    instance::StartStep,
};
use darkroom_instances::{ExitInfo, Handle, Spec, StartRequest};
use darkroom_runner::{InstanceAccess, Slot, SlotConfig, SlotEnd};
use darkroom_store::catalog::{InstanceChange, InstanceRecord};
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(super) use self::asked::Ask;
use self::{asked::MOST_ASKS, replay::ReplaySlot};
use super::Control;
use crate::service::{
    attempts::{Adopted, SlotActivity, SlotLink},
    resources::Resources,
};

mod asked;
mod beside;
mod http_worker;
mod records;
mod remote;
mod replay;
mod start;
mod told;
mod warm;
mod web_files;
pub(super) mod worker;

/// After SIGTERM, how long an instance may take before it is killed. ComfyUI dies at once on SIGTERM
/// (`comfyui/behaviour.md` §9); what needs longer is stuck.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a slot may take to end once its instance is gone or the server stops.
const SLOT_END: Duration = Duration::from_secs(10);

/// What the control loop holds of a supervised instance.
pub(super) struct Supervised {
    pub(super) activity: Arc<SlotActivity>,
    endpoint: EndpointName,
    asks: mpsc::Sender<Ask>,
    resources: Arc<Mutex<Option<Resources>>>,
    drain: CancellationToken,
    stop: CancellationToken,
    close: CancellationToken,
}

impl Supervised {
    /// Of an instance whose record may say already that it drains or stops; with what is asked of it.
    fn of(record: &InstanceRecord) -> (Self, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(MOST_ASKS);
        let supervised = Supervised {
            activity: Arc::default(),
            endpoint: record.endpoint.clone(),
            asks,
            resources: Arc::default(),
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
        (supervised, asked)
    }

    /// What it used at the last look.
    pub(super) fn resources(&self) -> Option<Resources> {
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The way to ask it something, if it is one of that endpoint.
    pub(super) fn asks(&self, endpoint: &EndpointName) -> Option<mpsc::Sender<Ask>> {
        (self.endpoint == *endpoint).then(|| self.asks.clone())
    }

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
    Adopted(Box<Handle>, Vec<Adopted>),
}

/// Begins to supervise an instance.
pub(super) fn begin(control: &Control, record: InstanceRecord, endpoint: Arc<Endpoint>, origin: Origin) {
    let (supervised, asked) = Supervised::of(&record);
    let link = SlotLink::new(
        control.service.clone(),
        endpoint.name.clone(),
        endpoint.limits.clone(),
        record.id,
        supervised.drain.clone(),
        supervised.activity.clone(),
    )
    .on_box(&record.box_name);
    let handle = match origin {
        Origin::Fresh => None,
        Origin::Adopted(handle, attempts) => {
            // Before anybody plans: an instance that works must not look idle.
            for attempt in attempts {
                link.adopt(attempt);
            }
            Some(*handle)
        }
    };
    let task = Task::new(control, &record, endpoint, &supervised, asked);
    control.lock_supervised().insert(record.id, supervised);
    control.tasks.spawn(async move {
        let life = AssertUnwindSafe(task.live(record, handle, link)).catch_unwind();
        if life.await.is_err() {
            task.after_panic().await;
        }
        task.control.lock_supervised().remove(&task.id);
        task.control.forget_decisions(&task.endpoint.name, task.id);
        task.control.wake();
    });
}

struct Task {
    control: Control,
    id: InstanceId,
    box_name: String,
    endpoint: Arc<Endpoint>,
    gpu: Option<String>,
    activity: Arc<SlotActivity>,
    resources: Arc<Mutex<Option<Resources>>>,
    asked: tokio::sync::Mutex<mpsc::Receiver<Ask>>,
    drain: CancellationToken,
    stop: CancellationToken,
    close: CancellationToken,
}

impl Task {
    fn new(
        control: &Control,
        record: &InstanceRecord,
        endpoint: Arc<Endpoint>,
        supervised: &Supervised,
        asked: mpsc::Receiver<Ask>,
    ) -> Self {
        Task {
            control: control.clone(),
            id: record.id,
            box_name: record.box_name.clone(),
            endpoint,
            gpu: record.gpu.clone(),
            activity: supervised.activity.clone(),
            resources: supervised.resources.clone(),
            asked: tokio::sync::Mutex::new(asked),
            drain: supervised.drain.clone(),
            stop: supervised.stop.clone(),
            close: supervised.close.clone(),
        }
    }
}

/// How the running part of a life ended.
enum Ending {
    /// We ended it, or were told to.
    Wished,
    /// It ended, or broke, against our wish.
    Broken(Breakage),
    /// It runs on, for the next server.
    Left,
}

/// How an instance broke: in brief for its jobs, whose callers must not read its log, and with the last lines it printed
/// for its operators.
struct Breakage {
    brief: String,
    full: String,
}

impl From<String> for Breakage {
    fn from(reason: String) -> Self {
        Breakage {
            brief: reason.clone(),
            full: reason,
        }
    }
}

impl From<ExitInfo> for Breakage {
    fn from(exit: ExitInfo) -> Self {
        Breakage {
            brief: exit.how.to_string(),
            full: exit.to_string(),
        }
    }
}

impl Task {
    /// `found`: its handle, if an earlier server started it.
    async fn live(&self, record: InstanceRecord, found: Option<Handle>, link: SlotLink) {
        let fresh = found.is_none();
        let handle = match found {
            Some(handle) => handle,
            None => match self.spawn(&record).await {
                Ok(handle) => handle,
                Err(reason) => return self.failed_start(&reason).await,
            },
        };
        if record.state == InstanceState::Starting
            && let Err(reason) = match handle.remote {
                _ if self.endpoint.is_http_worker() => self.port_answers(&handle).await,
                true => self.server_answers(&handle).await,
                false => self.become_ready(&handle).await,
            }
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
            Ending::Broken(Breakage { brief, full }) => {
                tracing::warn!(instance.id = %self.id, reason = full, "an instance broke");
                if handle.remote {
                    self.server_broke();
                }
                self.end(&handle).await;
                self.end_attempts(&AttemptOutcome::Lost { reason: brief }).await;
                self.finally(InstanceState::Failed, &full).await;
            }
        }
    }

    /// A defect of ours ended the life half-way: nobody looks after the instance any more, so it ends.
    async fn after_panic(&self) {
        tracing::error!(instance.id = %self.id, "the supervision of an instance panicked; it is ended");
        let reason = "a defect in its supervision".to_owned();
        let backend = &self.control.backend;
        match backend.find(self.id).await {
            Ok(Some(handle)) => self.end(&handle).await,
            Ok(None) => {}
            Err(error) => tracing::error!(instance.id = %self.id, error = ?error, "it could not be found"),
        }
        let lost = AttemptOutcome::Lost {
            reason: reason.clone(),
        };
        self.end_attempts(&lost).await;
        self.finally(InstanceState::Failed, &reason).await;
    }

    async fn spawn(&self, record: &InstanceRecord) -> Result<Handle, String> {
        let spec = match &self.endpoint.backend {
            Backend::Process(spec) => Some(Spec::Process(match self.endpoint.kind {
                Kind::Worker if self.endpoint.has_pull_workers() => self.worker_spec(record, spec),
                Kind::Worker | Kind::Comfyui | Kind::Queue => spec.clone(),
            })),
            Backend::Remote { servers } => servers
                .iter()
                .find(|server| server.name == self.box_name)
                .map(|server| Spec::Remote(server.clone())),
            Backend::External => None,
        };
        let Some(spec) = spec else {
            return Err(format!(
                "endpoint '{}' has no backend that starts instances",
                self.endpoint.name
            ));
        };
        let request = StartRequest {
            instance: record.id,
            endpoint: record.endpoint.clone(),
            gpu: record.gpu.clone(),
            spec,
        };
        let handle = self.control.backend.start(request).await.map_err(|e| chain(&e))?;
        let json = serde_json::to_string(&handle).map_err(|e| e.to_string())?;
        let change = InstanceChange {
            handle: Some(json),
            phase: Some(StartStep::Spawned.as_str().to_owned()),
            ..InstanceChange::default()
        };
        self.change(InstanceState::Starting, change).await;
        Ok(handle)
    }

    /// Runs the slot until the instance is not wanted any more, or breaks.
    async fn serve(&self, handle: &Handle, link: SlotLink) -> Ending {
        let (evidence, told) = watch::channel(None);
        let hurry = CancellationToken::new();
        let mut running = match self.running(handle, link, told, &hurry) {
            Ok(running) => running,
            Err(reason) => return Ending::Broken(reason.into()),
        };
        let beside = self.beside(handle, &evidence);
        tokio::pin!(beside);
        let ended = tokio::select! {
            end = &mut running => end,
            () = &mut beside => SlotEnd::Closed,
            exit = self.gone(handle) => {
                let broken = Breakage::from(exit);
                evidence.send_replace(Some(broken.brief.clone()));
                // The slot ends its attempt with that evidence; the bound is for a store that does not answer.
                let _ = tokio::time::timeout(SLOT_END, &mut running).await;
                return if self.stop.is_cancelled() { Ending::Wished } else { Ending::Broken(broken) };
            }
            () = self.close.cancelled() => return self.leave(&mut running, &hurry).await,
        };
        match ended {
            SlotEnd::InstanceBroken { reason } => Ending::Broken(reason.into()),
            // Drained. It stays until the planner stops it (or the server does).
            SlotEnd::Closed => tokio::select! {
                () = self.stop.cancelled() => Ending::Wished,
                () = self.close.cancelled() => Ending::Wished,
                exit = self.gone(handle) => Ending::Broken(exit.into()),
            },
        }
    }

    /// Its slot, at work until the link has nothing more, the instance is of no use, or `hurry`.
    fn running(
        &self,
        handle: &Handle,
        link: SlotLink,
        evidence: watch::Receiver<Option<String>>,
        hurry: &CancellationToken,
    ) -> Result<BoxFuture<'static, SlotEnd>, String> {
        if self.endpoint.is_http_worker() {
            let slot = ReplaySlot::new(&handle.base_url, self.header_map(handle), link, evidence);
            return Ok(slot.map_err(|e| chain(&e))?.run(hurry.clone()).boxed());
        }
        let slot = self.slot(handle, link, evidence).map_err(|e| chain(&e))?;
        // Outputs that wait for the blob store need neither the slot nor the instance, only this process.
        let collecting = slot.collecting();
        self.control.tasks.spawn(async move {
            collecting.close();
            collecting.wait().await;
        });
        Ok(slot.run(hurry.clone()).boxed())
    }

    /// Resolves when the instance is gone.
    async fn gone(&self, handle: &Handle) -> ExitInfo {
        match handle.remote && self.endpoint.is_http_worker() {
            true => http_worker::stops_listening(&handle.base_url).await,
            false => self.control.backend.exited(handle).await,
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
            headers: self.headers(handle),
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
        // A request goes with its connection, so that no later server can take it up.
        let waits = !keep || self.endpoint.is_http_worker();
        if waits
            && tokio::time::timeout(self.control.run_grace, &mut *running)
                .await
                .is_ok()
        {
            return if keep { Ending::Left } else { Ending::Wished };
        }
        hurry.cancel();
        let _ = tokio::time::timeout(SLOT_END, running).await;
        if keep { Ending::Left } else { Ending::Wished }
    }

    async fn end(&self, handle: &Handle) {
        if let Err(error) = self.control.backend.stop(handle, STOP_GRACE).await {
            tracing::error!(instance.id = %self.id, error = ?error, "an instance could not be ended");
        }
    }
}

/// The client id of an instance's one socket; ComfyUI sends a prompt's events only to it, so an adopting server needs
/// the same one.
pub(super) fn client_id(id: InstanceId) -> String {
    format!("darkroom-{id}")
}

/// An error with what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

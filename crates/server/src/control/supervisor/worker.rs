//! One worker's life: started with what it must know, ready once it was heard of, served by its own polls, ended between
//! two of them.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use darkroom_core::{
    AttemptOutcome, Endpoint, InstanceState,
    endpoint::{Backend, OnExit, ProcessSpec},
    instance::StartStep,
};
use darkroom_instances::{Exit, ExitInfo, Handle};
use darkroom_store::{
    catalog::{InstanceChange, InstanceRecord},
    jobs::AttemptRecord,
};
use futures::FutureExt;

use super::{Breakage, Supervised, Task};
use crate::{
    control::Control,
    service::{
        objects::Holder,
        pull::{
            Phase, Worker,
            environment::{Told, names_a_bucket, ping_interval, variables},
        },
    },
};

/// How long the open polls of a worker that is told to end may take to be answered.
const POLLS_END: Duration = Duration::from_secs(3);
/// How long the other jobs of a worker that is stuck with one may take to end; then they go back.
const OTHERS_END: Duration = Duration::from_secs(120);
/// Between two looks whether something is over that says so nowhere.
const LOOK: Duration = Duration::from_millis(20);

/// Begins to supervise a worker. `found`: its handle and the attempts it holds, if an earlier server started it; those are
/// its own again when this returns.
pub(in crate::control) async fn begin(
    control: &Control,
    record: InstanceRecord,
    endpoint: Arc<Endpoint>,
    found: Option<(Handle, Vec<AttemptRecord>)>,
) {
    let service = &control.service;
    let (supervised, asked) = Supervised::of(&record);
    let activity = supervised.activity.clone();
    let interval = match &endpoint.backend {
        Backend::Process(spec) => ping_interval(&spec.env),
        _ => darkroom_core::presence::PING_INTERVAL,
    };
    let (name, now) = (endpoint.name.clone(), service.clock.monotonic());
    let worker = service.worker_started(Worker::managed(name, record.id, activity, interval, now));
    let (handle, attempts) = found.map_or((None, vec![]), |(handle, attempts)| (Some(handle), attempts));
    // Before anybody plans, and before it may speak: a worker that works must not look idle.
    if let Err(error) = service.take_up(&worker, &attempts).await {
        tracing::error!(instance.id = %record.id, error = ?error, "a worker's jobs could not be taken up");
    }
    let task = Task::new(control, &record, endpoint, &supervised, asked);
    control.lock_supervised().insert(record.id, supervised);
    control.tasks.spawn(async move {
        let life = AssertUnwindSafe(task.live_as_worker(record, &worker, handle)).catch_unwind();
        if life.await.is_err() {
            task.after_panic().await;
            let reason = "a defect in its supervision".to_owned();
            task.control
                .service
                .worker_gone(&worker, &AttemptOutcome::Lost { reason })
                .await;
        }
        task.control.lock_supervised().remove(&task.id);
        task.control.forget_decisions(&task.endpoint.name, task.id);
        task.control.wake();
    });
}

/// How the serving part of a worker's life ended.
enum Ending {
    /// We ended it, or were told to.
    Wished,
    /// It went by itself, as it had said.
    Left,
    /// It goes on with a job that was ended.
    Stuck(String),
    /// It ended, or broke, against our wish.
    Broken(Breakage),
    /// It runs on, for the next server.
    Kept,
}

impl Task {
    async fn live_as_worker(&self, record: InstanceRecord, worker: &Arc<Worker>, found: Option<Handle>) {
        let handle = match found {
            Some(handle) => handle,
            None => match self.spawn(&record).await {
                Ok(handle) => handle,
                Err(reason) => {
                    self.worker_is_gone(worker, &released(&reason)).await;
                    return self.failed_start(&reason).await;
                }
            },
        };
        if record.state == InstanceState::Starting {
            if let Err(reason) = self.worker_reports(&handle, worker).await {
                self.end(&handle).await;
                self.worker_is_gone(worker, &released(&reason)).await;
                return self.failed_start(&reason).await;
            }
            self.control.start_succeeded(&self.endpoint.name);
        }
        let ending = tokio::select! {
            ending = self.serve_worker(&handle, worker) => ending,
            () = self.watch_usage(&handle) => Ending::Wished,
        };
        match ending {
            Ending::Kept => {}
            Ending::Wished => {
                self.release_polls(worker).await;
                self.end(&handle).await;
                self.worker_is_gone(worker, &released("the server stopped its worker"))
                    .await;
                self.finally(InstanceState::Stopped, "stopped").await;
            }
            Ending::Left => {
                self.end(&handle).await;
                self.worker_is_gone(worker, &released("its worker had asked to be replaced"))
                    .await;
                self.finally(InstanceState::Stopped, "it asked to be replaced and ended")
                    .await;
            }
            Ending::Stuck(reason) => {
                tracing::warn!(instance.id = %self.id, reason, "a worker is stuck");
                self.end(&handle).await;
                let others = "its worker was ended because of another job";
                self.worker_is_gone(worker, &released(others)).await;
                self.finally(InstanceState::Failed, &reason).await;
            }
            Ending::Broken(Breakage { brief, full }) => {
                tracing::warn!(instance.id = %self.id, reason = full, "a worker broke");
                // Its heartbeat outlives it, and goes with the rest of its group.
                self.end(&handle).await;
                self.worker_is_gone(worker, &AttemptOutcome::Lost { reason: brief })
                    .await;
                self.finally(InstanceState::Failed, &full).await;
            }
        }
    }

    async fn worker_is_gone(&self, worker: &Arc<Worker>, outcome: &AttemptOutcome) {
        self.control.service.worker_gone(worker, outcome).await;
    }

    /// Waits until the worker says that it is there.
    async fn worker_reports(&self, handle: &Handle, worker: &Worker) -> Result<(), String> {
        let timeout = self.endpoint.scaling.start_timeout;
        tokio::select! {
            word = worker.first_word() => word?,
            exit = self.control.backend.exited(handle) => return Err(exit.to_string()),
            () = tokio::time::sleep(timeout) => {
                return Err(format!("it asked for no job within {} s", timeout.as_secs()));
            }
            () = self.stop.cancelled() => return Err("stopped while it started".to_owned()),
            () = self.close.cancelled() => return Err("the server stopped while it started".to_owned()),
        }
        let change = InstanceChange {
            state: Some(InstanceState::Ready),
            phase: Some(StartStep::Ready.as_str().to_owned()),
            ..InstanceChange::default()
        };
        if !self.change(InstanceState::Starting, change).await {
            return Err("it was given up meanwhile".to_owned());
        }
        // Its first poll was told that it may not claim yet.
        worker.look_again();
        self.control.wake();
        Ok(())
    }

    async fn serve_worker(&self, handle: &Handle, worker: &Arc<Worker>) -> Ending {
        let draining = async {
            tokio::select! {
                () = self.drain.cancelled() => {}
                () = worker.worn_out() => {
                    let change = InstanceChange {
                        state: Some(InstanceState::Draining),
                        reason: Some("its handler asked that it be replaced".into()),
                        ..InstanceChange::default()
                    };
                    self.change(InstanceState::Ready, change).await;
                    self.drain.cancel();
                }
            }
            worker.enter(Phase::Draining);
            self.control.wake();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            exit = self.control.backend.exited(handle) => self.after_exit(worker, exit),
            why = worker.broken() => Ending::Broken(why.into()),
            why = self.finishes_its_others(worker) => Ending::Stuck(why),
            // Once its others have ended, the planner may stop it before the line above is looked at.
            () = self.stop.cancelled() => worker.stuck_with().map_or(Ending::Wished, Ending::Stuck),
            () = self.close.cancelled() => self.leave_worker(worker, handle).await,
            () = draining => Ending::Wished,
        }
    }

    /// A worker that is stuck with one job gets no more, and time for what else it holds. Resolves with the reason once that
    /// is over.
    async fn finishes_its_others(&self, worker: &Worker) -> String {
        let reason = worker.stuck().await;
        let change = InstanceChange {
            state: Some(InstanceState::Draining),
            reason: Some(reason.clone()),
            ..InstanceChange::default()
        };
        self.change(InstanceState::Ready, change).await;
        worker.enter(Phase::Draining);
        let done = async {
            while worker.holds_any() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(OTHERS_END, done).await;
        reason
    }

    fn after_exit(&self, worker: &Worker, exit: ExitInfo) -> Ending {
        match exit.how {
            _ if self.stop.is_cancelled() => Ending::Wished,
            // `refresh_worker`: it posts its result and goes.
            Exit::Code(0) | Exit::Unknown if worker.is_worn_out() => Ending::Left,
            Exit::Code(_) | Exit::Signal(_) | Exit::Unknown | Exit::Unreachable => {
                Ending::Broken(exit.into())
            }
        }
    }

    /// The server stops: nothing more is handed out, what runs gets its time, then the worker is ended or left.
    async fn leave_worker(&self, worker: &Worker, handle: &Handle) -> Ending {
        worker.enter(Phase::Draining);
        if self.endpoint.scaling.on_exit == OnExit::Keep {
            return Ending::Kept;
        }
        let idle = async {
            while worker.occupied() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = idle => {}
            _ = self.control.backend.exited(handle) => {}
            () = tokio::time::sleep(self.control.run_grace) => {}
        }
        Ending::Wished
    }

    /// A job that is handed to a worker which was told to end is lost, and it hears that only between two polls: so first
    /// its polls are answered, and from then on it is handed nothing.
    async fn release_polls(&self, worker: &Worker) {
        worker.enter(Phase::Leaving);
        let released = async {
            while worker.waits_from_before() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(POLLS_END, released).await;
    }

    /// What a worker is started with: the endpoint's command in an empty directory of its own, both SDKs' variables, and
    /// over them the endpoint's own.
    pub(super) fn worker_spec(&self, record: &InstanceRecord, spec: &ProcessSpec) -> ProcessSpec {
        let service = &self.control.service;
        let name = record.id.to_string();
        let token = service.worker_token(&record.endpoint, &name);
        let mut env = variables(&Told {
            base_url: service.worker_base_url(),
            endpoint: &record.endpoint,
            token: &token,
            worker: &name,
            ping_interval: ping_interval(&spec.env),
            objects: (!names_a_bucket(&spec.env))
                .then(|| service.object_access(&Holder::Own(record.endpoint.clone()))),
        });
        env.extend(spec.env.iter().map(|(name, value)| (name.clone(), value.clone())));
        ProcessSpec {
            name: None,
            command: spec.command.clone(),
            // Two workers in one directory break each other (`protocols/async-endpoints.md` §5).
            working_dir: None,
            env: env.into(),
        }
    }
}

fn released(reason: &str) -> AttemptOutcome {
    AttemptOutcome::Released {
        reason: reason.to_owned(),
    }
}

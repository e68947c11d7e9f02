//! The control loop over a real store and a backend whose instances do as they are told.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{
    EndpointName, InstanceState, JobId, JobState, attempt::RunningOn, scheduler::WaitReason,
};
use darkroom_instances::{
    Error, Exit, ExitInfo, Handle, InstanceBackend, Recognition, StartError, StartRequest, Usage,
};
use darkroom_store::{
    catalog::{InstanceChange, InstanceRecord},
    jobs::Claim,
};
use tokio::sync::watch;

use super::*;
use crate::service::testing::Bench;

mod workers;

const REQUEST: &str = r#"{"graph":{"1":{"class_type":"PreviewAny","inputs":{"source":1}}}}"#;

/// How an instance of [`Scripted`] comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Exits,
    Panics,
    Never,
}

/// Instances that exist only in its books.
struct Scripted {
    start: Start,
    alive: watch::Sender<BTreeMap<InstanceId, Handle>>,
    /// Ended, and their files are still there.
    left: Mutex<BTreeMap<InstanceId, Handle>>,
    files_removed: Mutex<Vec<InstanceId>>,
    /// Ends nothing and finds nothing.
    stubborn: AtomicBool,
}

impl Scripted {
    fn new(start: Start) -> Arc<Scripted> {
        Arc::new(Scripted {
            start,
            alive: watch::Sender::default(),
            left: Mutex::default(),
            files_removed: Mutex::default(),
            stubborn: AtomicBool::new(false),
        })
    }

    fn add(&self, instance: InstanceId) -> Handle {
        let handle = Handle {
            instance,
            endpoint: "default".parse().unwrap(),
            // Nothing listens there.
            base_url: "http://127.0.0.1:9".into(),
            dirs: None,
            log_path: None,
            process: None,
            remote: false,
        };
        self.alive.send_modify(|alive| {
            alive.insert(instance, handle.clone());
        });
        handle
    }

    fn refuse(&self) -> Result<(), Error> {
        match self.stubborn.load(Ordering::SeqCst) {
            true => Err(Error::Files {
                path: "instances".into(),
                source: std::io::Error::other("it will not"),
            }),
            false => Ok(()),
        }
    }

    fn lives(&self, instance: InstanceId) -> bool {
        self.alive.borrow().contains_key(&instance)
    }
}

#[async_trait]
impl InstanceBackend for Scripted {
    async fn start(&self, request: StartRequest) -> Result<Handle, StartError> {
        Ok(self.add(request.instance))
    }
    async fn wait_ready(&self, _handle: &Handle, _timeout: Duration) -> Result<(), StartError> {
        match self.start {
            Start::Exits => Err(StartError::Exited(ExitInfo {
                how: Exit::Code(3),
                last_lines: "no such model".into(),
            })),
            Start::Panics => panic!("a defect of the test's own making"),
            Start::Never => std::future::pending().await,
        }
    }
    async fn recognise(&self, handle: &Handle) -> Recognition {
        match self.lives(handle.instance) {
            true => Recognition::Alive,
            false => Recognition::Gone,
        }
    }
    async fn exited(&self, handle: &Handle) -> ExitInfo {
        let mut alive = self.alive.subscribe();
        let _ = alive.wait_for(|a| !a.contains_key(&handle.instance)).await;
        ExitInfo {
            how: Exit::Unknown,
            last_lines: String::new(),
        }
    }
    async fn stop(&self, handle: &Handle, _grace: Duration) -> Result<(), Error> {
        self.refuse()?;
        self.left.lock().unwrap().insert(handle.instance, handle.clone());
        self.alive.send_modify(|alive| {
            alive.remove(&handle.instance);
        });
        Ok(())
    }
    async fn logs(&self, _handle: &Handle, _tail_bytes: u64) -> Result<Bytes, Error> {
        Ok(Bytes::new())
    }
    async fn trim_logs(&self, _handle: &Handle, _max_bytes: u64) -> Result<(), Error> {
        Ok(())
    }
    async fn remove_files(&self, handle: &Handle) -> Result<(), Error> {
        self.left.lock().unwrap().remove(&handle.instance);
        self.files_removed.lock().unwrap().push(handle.instance);
        Ok(())
    }
    async fn usage(&self, _handle: &Handle) -> Option<Usage> {
        None
    }
    async fn find(&self, instance: InstanceId) -> Result<Option<Handle>, Error> {
        Ok(self.alive.borrow().get(&instance).cloned())
    }
    async fn orphans(&self, known: &[InstanceId]) -> Result<Vec<Handle>, Error> {
        self.refuse()?;
        let mut all = self.left.lock().unwrap().clone();
        all.extend(self.alive.borrow().clone());
        Ok(all
            .into_values()
            .filter(|h| !known.contains(&h.instance))
            .collect())
    }
}

/// A control loop that runs until it is dropped.
struct Running {
    bench: Bench,
    backend: Arc<Scripted>,
    control: Control,
    readiness: Readiness,
    _stop: tokio_util::sync::DropGuard,
}

fn run(bench: Bench, backend: Arc<Scripted>) -> Running {
    let control = Control::new(
        bench.service.clone(),
        backend.clone(),
        bench.path().join("spool"),
        Duration::from_secs(1),
    );
    bench.service.set_planner(Arc::new(control.clone()));
    let stop = CancellationToken::new();
    let (running, shutdown) = (control.clone(), stop.clone());
    let readiness = Readiness::default();
    let ready = readiness.clone();
    tokio::spawn(async move { running.run(ready, shutdown).await.unwrap() });
    Running {
        bench,
        backend,
        control,
        readiness,
        _stop: stop.drop_guard(),
    }
}

impl Running {
    /// Every instance there ever was, once `enough` says so.
    async fn instances(&self, enough: impl Fn(&[InstanceRecord]) -> bool) -> Vec<InstanceRecord> {
        let mut woken = self.bench.service.store.subscribe(Topic::Capacity);
        let waiting = async {
            loop {
                let all = self.bench.service.store.instances(true).await.unwrap();
                if enough(&all) {
                    return all;
                }
                tokio::select! {
                    () = woken.woken() => {}
                    // Not every change of an instance is one of capacity.
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .expect("the instances get there")
    }
}

fn failed(instances: &[InstanceRecord]) -> bool {
    instances.iter().any(|i| i.state == InstanceState::Failed)
}

#[tokio::test]
async fn a_start_that_fails_backs_off_and_the_job_says_why_it_waits() {
    let bench = Bench::new();
    let job = bench.job(REQUEST).await;
    let running = run(bench, Scripted::new(Start::Exits));
    let instances = running.instances(failed).await;
    let reason = &instances[0].state_reason;
    assert!(
        reason.contains("code 3") && reason.contains("no such model"),
        "{reason}"
    );
    let record = running.bench.record(job).await;
    assert_eq!(record.state, JobState::Queued, "a failed start costs no attempt");
    let waiting = running.bench.service.why_waiting(&record).await.unwrap().unwrap();
    match waiting.reason {
        WaitReason::BackingOff { last_error, .. } => {
            assert!(last_error.contains("no such model"), "{last_error}")
        }
        // Between two starts it may also be coming up again.
        WaitReason::Starting { .. } => assert!(running.control.failures_of(&record.endpoint).in_a_row > 0),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_instance_whose_supervision_panics_is_ended() {
    let bench = Bench::new();
    bench.job(REQUEST).await;
    let running = run(bench, Scripted::new(Start::Panics));
    let instances = running.instances(failed).await;
    let broken = instances
        .iter()
        .find(|i| i.state == InstanceState::Failed)
        .unwrap();
    assert!(broken.state_reason.contains("defect"), "{}", broken.state_reason);
    assert!(!running.backend.lives(broken.id));
    let supervised = running.instances(|_| !running.control.lock_supervised().contains_key(&broken.id));
    supervised.await;
}

/// An instance with a job on it, as an earlier server left them.
async fn left_behind(bench: &Bench, backend: &Scripted, endpoint: &EndpointName) -> (InstanceId, JobId) {
    let store = &bench.service.store;
    let job = bench.job(REQUEST).await;
    let instance = bench.instance().await;
    let handle = backend.add(instance);
    let change = InstanceChange {
        handle: Some(serde_json::to_string(&handle).unwrap()),
        ..InstanceChange::default()
    };
    assert!(
        store
            .change_instance(instance, InstanceState::Ready, change)
            .await
            .unwrap()
    );
    let claim = Claim {
        endpoint: endpoint.clone(),
        instance,
        owner: bench.service.node.clone(),
        loaded_models: vec![],
        max_running_per_tenant: 0,
        offers: None,
        lease: LEASE,
        except: vec![],
    };
    let claimed = store.claim(claim).await.unwrap().unwrap();
    let lease = darkroom_core::attempt::Lease {
        job,
        fence: claimed.fence,
    };
    let on = RunningOn {
        instance,
        client_id: "c".into(),
        prompt_id: "p".into(),
    };
    store.start(lease, on).await.unwrap().unwrap();
    (instance, job)
}

#[tokio::test]
async fn an_instance_that_is_gone_after_a_restart_gives_its_job_back() {
    let (bench, backend) = (Bench::new(), Scripted::new(Start::Never));
    let (instance, job) = left_behind(&bench, &backend, &bench.endpoint()).await;
    let handle = backend.find(instance).await.unwrap().unwrap();
    backend.stop(&handle, Duration::ZERO).await.unwrap();
    let running = run(bench, backend);
    running.instances(failed).await;
    assert_eq!(running.bench.record(job).await.state, JobState::Queued);
    // Released, not lost: our restart is not the job's fault.
    let attempts = running.bench.service.attempts(job).await.unwrap();
    assert_eq!(attempts[0].state, darkroom_core::AttemptState::Released);
    // And a new instance is on its way.
    running
        .instances(|all| all.iter().any(|i| i.state == InstanceState::Starting))
        .await;
}

#[tokio::test]
async fn an_instance_of_a_removed_endpoint_is_ended_and_its_job_given_back() {
    let (bench, backend) = (Bench::new(), Scripted::new(Start::Never));
    let (instance, job) = left_behind(&bench, &backend, &bench.endpoint()).await;
    bench.service.set_endpoints(BTreeMap::new());
    let running = run(bench, backend);
    running.instances(failed).await;
    assert!(!running.backend.lives(instance));
    let record = running.bench.record(job).await;
    assert_eq!(record.state, JobState::Queued);
    let waiting = running.bench.service.why_waiting(&record).await.unwrap().unwrap();
    assert_eq!(waiting.reason, WaitReason::EndpointRemoved);
}

#[tokio::test]
async fn what_no_row_knows_is_ended_and_its_files_go() {
    let (bench, backend) = (Bench::new(), Scripted::new(Start::Never));
    let stray = InstanceId::new(&*bench.service.ids);
    backend.add(stray);
    let running = run(bench, backend);
    let mut alive = running.backend.alive.subscribe();
    let gone = alive.wait_for(|alive| alive.is_empty());
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .unwrap()
        .unwrap();
    running
        .instances(|_| running.backend.files_removed.lock().unwrap().contains(&stray))
        .await;
}

/// A row of an instance that ended, and the handle it had.
async fn ended_row(bench: &Bench, backend: &Scripted) -> Handle {
    let instance = bench.instance().await;
    let handle = backend.add(instance);
    let change = InstanceChange {
        state: Some(InstanceState::Failed),
        handle: Some(serde_json::to_string(&handle).unwrap()),
        ..InstanceChange::default()
    };
    let store = &bench.service.store;
    let changed = store.change_instance(instance, InstanceState::Ready, change);
    assert!(changed.await.unwrap());
    handle
}

#[tokio::test]
async fn the_log_of_an_instance_that_is_gone_outlives_a_restart() {
    let (bench, backend) = (Bench::new(), Scripted::new(Start::Never));
    let gone = ended_row(&bench, &backend).await;
    backend.stop(&gone, Duration::ZERO).await.unwrap();
    // Looked at after it.
    let stray = InstanceId::new(&*bench.service.ids);
    let stray = backend.add(stray);
    backend.stop(&stray, Duration::ZERO).await.unwrap();
    let running = run(bench, backend);
    let removed = || running.backend.files_removed.lock().unwrap().clone();
    running.instances(|_| running.readiness.is_ready()).await;
    assert_eq!(removed(), [stray.instance]);
}

#[tokio::test]
async fn a_process_that_outlived_its_row_is_ended_and_its_log_stays() {
    let (bench, backend) = (Bench::new(), Scripted::new(Start::Never));
    let alive = ended_row(&bench, &backend).await;
    let running = run(bench, backend);
    running.instances(|_| running.readiness.is_ready()).await;
    assert!(!running.backend.lives(alive.instance));
    assert!(running.backend.files_removed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_leftover_that_will_not_end_keeps_nobody_from_being_served() {
    let (bench, backend) = (Bench::new(), Scripted::new(Start::Never));
    let (instance, job) = left_behind(&bench, &backend, &bench.endpoint()).await;
    ended_row(&bench, &backend).await;
    bench.service.set_endpoints(BTreeMap::new());
    backend.stubborn.store(true, Ordering::SeqCst);
    let running = run(bench, backend);
    running.instances(|_| running.readiness.is_ready()).await;
    assert!(running.backend.lives(instance));
    assert_eq!(running.bench.record(job).await.state, JobState::Queued);
    let rows = running.bench.service.store.instances(true).await.unwrap();
    let row = rows.iter().find(|row| row.id == instance).unwrap();
    assert!(
        row.state_reason.contains("could not be ended"),
        "{}",
        row.state_reason
    );
}

#[tokio::test]
async fn what_was_decided_about_an_instance_is_forgotten_with_it() {
    let bench = Bench::new();
    bench.job(REQUEST).await;
    let running = run(bench, Scripted::new(Start::Never));
    let control = &running.control;
    // Its row is there a moment before its supervision.
    let supervised = running.instances(|all| {
        let supervised = control.lock_supervised();
        all.first().is_some_and(|one| supervised.contains_key(&one.id))
    });
    let starting = supervised.await[0].clone();
    let decision = Decision {
        endpoint: starting.endpoint.clone(),
        instance: Some(starting.id),
        signal: Signal::OverdueMs,
        value: 1,
        threshold: 0,
        verdict: Verdict::Drain,
    };
    control.record(&decision).await;
    let subject = (starting.endpoint, Some(starting.id));
    assert!(control.decided.lock().unwrap().contains_key(&subject));
    control.lock_supervised()[&starting.id].stop();
    let forgotten = running.instances(|_| !control.decided.lock().unwrap().contains_key(&subject));
    forgotten.await;
}

#[tokio::test]
async fn what_has_run_out_of_time_is_ended_by_the_plan() {
    let (bench, backend) = (Bench::new(), Scripted::new(Start::Never));
    let store = &bench.service.store;
    let job = bench.job(REQUEST).await;
    // Of another server, which renews no more.
    let claim = Claim {
        endpoint: bench.endpoint(),
        instance: InstanceId::new(&*bench.service.ids),
        owner: "elsewhere".parse().unwrap(),
        loaded_models: vec![],
        max_running_per_tenant: 0,
        offers: None,
        lease: LEASE,
        except: vec![],
    };
    store.claim(claim).await.unwrap().unwrap();
    bench.clock.advance(LEASE);
    let running = run(bench, backend);
    running.instances(|all| !all.is_empty()).await;
    assert_eq!(running.bench.record(job).await.state, JobState::Queued);
    let attempts = running.bench.service.attempts(job).await.unwrap();
    assert_eq!(attempts[0].state, darkroom_core::AttemptState::Lost);
    let metrics = running.bench.service.metrics.render();
    assert!(
        metrics.contains("darkroom_plan_actions_total{action=\"expire\",outcome=\"done\"} 1"),
        "{metrics}"
    );
}

#[test]
fn plans_that_take_long_are_rarer_within_bounds() {
    let ms = Duration::from_millis;
    assert_eq!(spacing_after(Duration::ZERO), PLAN_SPACING);
    assert_eq!(spacing_after(Duration::from_micros(500)), ms(10));
    assert_eq!(spacing_after(ms(500)), PLAN_SPACING_AT_MOST);
}

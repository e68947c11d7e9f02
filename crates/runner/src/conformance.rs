//! What every [`AttemptLink`] must do, whoever is behind it: run by the server over its own link, and over HTTP as an agent.
//! An implementation makes a [`World`] and names the suite once, with [`attempt_link_tests!`](crate::attempt_link_tests).

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{
    AttemptOutcome, BlobKey, Failure, InstanceId, JobId, JobState,
    attempt::RunningOn,
    event::{EventKind, NewEvent},
    failure::FailureCode,
    output::{Output, OutputBody},
};
use futures::{StreamExt, stream};
use serde_json::json;

use crate::link::{
    Assignment, AttemptLink, ComfyWork, Completion, Ephemeral, InputFile, InputSource, LinkError,
    ProducedBody, ProducedFile, StopCause,
};

/// A server, as far as a link's tests must see it.
#[async_trait]
pub trait World: Send + Sync {
    /// The link of one slot.
    fn link(&self) -> Arc<dyn AttemptLink>;
    /// The slot's instance.
    fn instance(&self) -> InstanceId;
    /// A job with this work; what it names as blobs is there, and holds `input`.
    async fn submit(&self, work: ComfyWork) -> JobId;
    /// A caller wants a job ended.
    async fn cancel(&self, job: JobId);
    /// Nothing more is to be claimed.
    async fn drain(&self);
    /// What a job is.
    async fn state(&self, job: JobId) -> JobState;
    /// Its durable events.
    async fn events(&self, job: JobId) -> Vec<(EventKind, String)>;
    /// The bytes of its outputs.
    async fn outputs(&self, job: JobId) -> Vec<Bytes>;
    /// Messages that its followers were shown, once there are so many; asked for before they are.
    async fn shown(&self, job: JobId, count: usize) -> Vec<String>;
    /// A path for a file of the test's.
    fn file(&self, name: &str) -> PathBuf;
}

/// Makes a test of each function of this module; `$world` is an expression that makes a world, and may await.
#[macro_export]
macro_rules! attempt_link_tests {
    ($world:expr) => {
        $crate::attempt_link_tests!($world; a_run_from_end_to_end, a_cancel_is_heard, an_end_is_the_end,
            inputs_are_brought_or_refused, a_failure_is_the_jobs, a_drained_slot_gets_nothing, a_released_job_is_handed_out_again,
            what_is_shown_is_shown, what_was_stored_is_reused);
    };
    ($world:expr; $($name:ident),*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let world = $world;
            $crate::conformance::$name(&world).await;
        })*
    };
}

fn work(files: Vec<InputFile>) -> ComfyWork {
    ComfyWork {
        graph: json!({"1": {"class_type": "PreviewAny", "inputs": {"source": 1}}}),
        extra_data: serde_json::Map::new(),
        partial_execution_targets: None,
        outputs: Default::default(),
        files,
    }
}

fn event(kind: EventKind, data: &str) -> NewEvent {
    NewEvent {
        kind,
        data: data.to_owned(),
    }
}

fn completion(outcome: AttemptOutcome) -> Completion {
    Completion {
        outcome,
        outputs: vec![],
        result: Some(b"{\"outputs\":{}}".to_vec()),
        events: vec![],
    }
}

async fn begun(world: &dyn World, files: Vec<InputFile>) -> (JobId, Assignment) {
    let job = world.submit(work(files)).await;
    let assignment = world.link().next().await.expect("there is work");
    assert_eq!(assignment.lease.job, job);
    let on = RunningOn {
        instance: world.instance(),
        client_id: "client".to_owned(),
        prompt_id: "the-prompt-of-the-attempt".to_owned(),
    };
    world
        .link()
        .started(assignment.lease, on)
        .await
        .expect("it begins");
    assert_eq!(world.state(job).await, JobState::Running);
    (job, assignment)
}

fn produced(name: &str, index: u32, body: ProducedBody) -> ProducedFile {
    ProducedFile {
        node_id: "9".to_owned(),
        kind: "images".to_owned(),
        index,
        raw: json!({"filename": name, "type": "output"}),
        file_name: name.to_owned(),
        body,
    }
}

/// Events in their order under the job's own id, files by path and by stream, one record.
pub async fn a_run_from_end_to_end(world: &dyn World) {
    let link = world.link();
    let (job, Assignment { lease, attempt, .. }) = begun(world, vec![]).await;
    assert_eq!(attempt, 1);
    let first = event(
        EventKind::ExecutionStart,
        r#"{"prompt_id":"the-prompt-of-the-attempt"}"#,
    );
    let second = event(EventKind::Executing, r#"{"node":"1"}"#);
    link.event(lease, vec![first, second]).await.expect("stored");
    link.event(lease, vec![event(EventKind::ExecutionSuccess, "{}")])
        .await
        .expect("stored");
    let path = world.file("图像.png");
    std::fs::write(&path, b"by its path").expect("the test's file is written");
    let by_path = produced("图像.png", 0, ProducedBody::Path(path));
    let parts = ["by ", "its ", "parts"].map(|part| Ok(Bytes::from_static(part.as_bytes())));
    let by_stream = produced("b.png", 1, ProducedBody::Stream(stream::iter(parts).boxed()));
    let mut outputs: Vec<Output> = Vec::new();
    for file in [by_path, by_stream] {
        outputs.push(link.put_output(lease, file).await.expect("stored"));
    }
    assert_eq!(outputs[0].raw["filename"], "图像.png");
    link.collecting(lease).await.expect("it collects");
    let done = Completion {
        outputs,
        events: vec![event(
            EventKind::ProgressSummary,
            r#"{"of":"the-prompt-of-the-attempt"}"#,
        )],
        ..completion(AttemptOutcome::Done)
    };
    let state = link.finish(lease, done).await.expect("recorded");
    assert_eq!(
        (state, world.state(job).await),
        (JobState::Succeeded, JobState::Succeeded)
    );
    assert_eq!(
        world.outputs(job).await,
        [
            Bytes::from_static(b"by its path"),
            Bytes::from_static(b"by its parts")
        ]
    );
    let told = world.events(job).await;
    let told: Vec<_> = told
        .iter()
        .filter(|(kind, _)| !matches!(kind, EventKind::State | EventKind::Output))
        .map(|(kind, data)| (*kind, data.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                EventKind::ExecutionStart,
                format!(r#"{{"prompt_id":"{job}"}}"#).as_str()
            ),
            (EventKind::Executing, r#"{"node":"1"}"#),
            (EventKind::ExecutionSuccess, "{}"),
            (
                EventKind::ProgressSummary,
                format!(r#"{{"of":"{job}"}}"#).as_str()
            ),
        ]
    );
}

/// A wish that it stop reaches a running attempt, which ends as it says.
pub async fn a_cancel_is_heard(world: &dyn World) {
    let (job, Assignment { lease, .. }) = begun(world, vec![]).await;
    let link = world.link();
    let (cause, ()) = tokio::join!(link.cancelled(lease), world.cancel(job));
    assert_eq!(cause, StopCause::Cancelled);
    let state = link.finish(lease, completion(AttemptOutcome::Cancelled)).await;
    assert_eq!(state.expect("recorded"), JobState::Cancelled);
}

/// After the end of an attempt nothing counts any more.
pub async fn an_end_is_the_end(world: &dyn World) {
    let (job, Assignment { lease, .. }) = begun(world, vec![]).await;
    let link = world.link();
    let failed = Failure::new(FailureCode::ExecutionError, "it raised");
    let outcome = AttemptOutcome::Failed(failed);
    link.finish(lease, completion(outcome)).await.expect("recorded");
    let again = link.finish(lease, completion(AttemptOutcome::Done)).await;
    assert!(matches!(again, Err(LinkError::Stale)), "{again:?}");
    let told = link.event(lease, vec![event(EventKind::Log, "{}")]).await;
    assert!(matches!(told, Err(LinkError::Stale)), "{told:?}");
    assert_eq!(link.cancelled(lease).await, StopCause::Stale);
    assert_eq!(world.state(job).await, JobState::Failed);
}

/// The files that a job names, and a text for the job where one cannot be had.
pub async fn inputs_are_brought_or_refused(world: &dyn World) {
    let there: BlobKey = "inputs/t/there.png".parse().expect("a key");
    let refused = InputSource::Url(crate::link::Address {
        url: "http://169.254.169.254/secret".to_owned(),
        class: "LoadImage".to_owned(),
        media: crate::link::Media::Image,
    });
    let file = |source: InputSource| InputFile {
        node_id: "1".to_owned(),
        input: "image".to_owned(),
        nested: None,
        file_name: "a.png".to_owned(),
        source,
    };
    let there = InputSource::Blob(there);
    let files = vec![file(there.clone()), file(refused.clone())];
    let (_, Assignment { lease, work, .. }) = begun(world, files.clone()).await;
    assert_eq!(work.files, files);
    let link = world.link();
    assert_eq!(
        &link.input(lease, &there).await.expect("it is there")[..],
        b"input"
    );
    let no = link.input(lease, &refused).await;
    assert!(
        matches!(&no, Err(LinkError::InputUnavailable(why)) if !why.is_empty()),
        "{no:?}"
    );
}

/// A failure is shown as the instance told it.
pub async fn a_failure_is_the_jobs(world: &dyn World) {
    let (job, Assignment { lease, .. }) = begun(world, vec![]).await;
    let failure = Failure {
        node_id: Some("1".to_owned()),
        detail: Some(json!({"prompt_id": "the-prompt-of-the-attempt"})),
        ..Failure::new(FailureCode::ExecutionError, "the-prompt-of-the-attempt raised")
    };
    let ended = world
        .link()
        .finish(lease, completion(AttemptOutcome::Failed(failure)))
        .await;
    assert_eq!(ended.expect("recorded"), JobState::Failed);
    assert_eq!(world.state(job).await, JobState::Failed);
}

/// Nothing is claimed after a drain.
pub async fn a_drained_slot_gets_nothing(world: &dyn World) {
    let link = world.link();
    let (next, ()) = tokio::join!(link.next(), world.drain());
    assert!(next.is_none());
    let job = world.submit(work(vec![])).await;
    assert!(link.next().await.is_none());
    assert_eq!(world.state(job).await, JobState::Queued);
}

/// What is given back is handed out again, as another attempt.
pub async fn a_released_job_is_handed_out_again(world: &dyn World) {
    let (job, first) = begun(world, vec![]).await;
    let released = AttemptOutcome::Released {
        reason: "for a test".to_owned(),
    };
    let link = world.link();
    let state = link.finish(first.lease, completion(released)).await;
    assert_eq!(state.expect("recorded"), JobState::Queued);
    let second = link.next().await.expect("it waits");
    assert_eq!((second.lease.job, second.attempt), (job, 2));
    assert!(second.lease.fence > first.lease.fence);
    link.finish(second.lease, completion(AttemptOutcome::Done))
        .await
        .expect("recorded");
    let late = link.event(first.lease, vec![event(EventKind::Log, "{}")]).await;
    assert!(matches!(late, Err(LinkError::Stale)), "{late:?}");
}

/// A file that was stored for an earlier job of the instance becomes an output of a later one; what was never stored does not.
pub async fn what_was_stored_is_reused(world: &dyn World) {
    let link = world.link();
    let (_, Assignment { lease, .. }) = begun(world, vec![]).await;
    let whole = stream::iter([Ok(Bytes::from_static(b"made once"))]).boxed();
    let made = produced("a.png", 0, ProducedBody::Stream(whole));
    let stored = link.put_output(lease, made).await.expect("stored");
    let done = |outputs| Completion {
        outputs,
        ..completion(AttemptOutcome::Done)
    };
    link.finish(lease, done(vec![stored.clone()]))
        .await
        .expect("recorded");
    let (job, Assignment { lease, .. }) = begun(world, vec![]).await;
    let reported_again = Output {
        raw: json!({"filename": "a.png", "again": true}),
        ..stored.clone()
    };
    let mut never_stored = stored;
    if let OutputBody::File { key, .. } = &mut never_stored.body {
        *key = BlobKey::output(job, uuid::Uuid::nil(), "a.png");
    }
    let reused = link.reuse_output(lease, never_stored).await.expect("asked");
    assert!(reused.is_none(), "{reused:?}");
    let reused = link.reuse_output(lease, reported_again).await.expect("asked");
    let reused = reused.expect("it is there");
    assert_eq!(reused.raw["again"], true);
    link.finish(lease, done(vec![reused])).await.expect("recorded");
    assert_eq!(world.outputs(job).await, [Bytes::from_static(b"made once")]);
}

/// Followers see what is only shown, in its order among the durable events.
pub async fn what_is_shown_is_shown(world: &dyn World) {
    let (job, Assignment { lease, .. }) = begun(world, vec![]).await;
    let link = world.link();
    let show = |text: &str| link.progress(lease, Ephemeral::Message(text.into()));
    let telling = async {
        show(r#"{"type":"progress","data":{"value":1,"prompt_id":"the-prompt-of-the-attempt"}}"#);
        link.event(lease, vec![event(EventKind::Executing, "{}")])
            .await
            .expect("stored");
        show(r#"{"type":"progress","data":{"value":2}}"#);
    };
    let (seen, ()) = tokio::join!(world.shown(job, 2), telling);
    assert_eq!(
        seen,
        [
            format!(r#"{{"type":"progress","data":{{"value":1,"prompt_id":"{job}"}}}}"#),
            r#"{"type":"progress","data":{"value":2}}"#.to_owned(),
        ]
    );
    link.finish(lease, completion(AttemptOutcome::Done))
        .await
        .expect("recorded");
}

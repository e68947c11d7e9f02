use darkroom_core::{
    BlobKey, JobId, JobState,
    attempt::RunningOn,
    event::{EventKind, NewEvent},
    output::{Output, OutputBody},
};
use darkroom_runner::{
    link::{Assignment, InputSource, LinkError},
    wire::{Ended, Happening, Told},
};
use uuid::Uuid;

use super::{
    keeper::AWAY,
    seat::{Failed, Seated, Work},
    *,
};
use crate::service::testing::Bench;

const EXTERNAL: &str = "[endpoints.default]\nbackend = \"external\"\n";
const REQUEST: &str = r#"{"graph":{"1":{"class_type":"PreviewAny","inputs":{"source":1}}}}"#;

fn hello(name: &str) -> Hello {
    Hello {
        protocol: PROTOCOL,
        endpoint: "default".parse().unwrap(),
        name: name.to_owned(),
        instance: None,
        holding: vec![],
    }
}

async fn connected(bench: &Bench, hello: Hello) -> Welcome {
    bench.service.agent_connects(hello, None).await.unwrap()
}

fn seated(bench: &Bench, welcome: &Welcome) -> Seated {
    let Welcome {
        instance, session, ..
    } = welcome;
    bench.service.seated(*instance, *session, None).unwrap()
}

async fn next(seated: &Seated, got: Option<Lease>) -> Assignment {
    let never = CancellationToken::new();
    match seated.next(got, &never).await.unwrap() {
        Work::Attempt(assignment) => *assignment,
        other => panic!("no work: {other:?}"),
    }
}

async fn start(seated: &Seated, welcome: &Welcome, lease: Lease) {
    let on = RunningOn {
        instance: welcome.instance,
        client_id: welcome.client_id.clone(),
        prompt_id: "p".to_owned(),
    };
    seated.started(lease, on).await.unwrap();
}

fn done(outputs: Vec<Output>) -> Ended {
    Ended {
        outcome: AttemptOutcome::Done,
        outputs,
        result: None,
        events: vec![],
    }
}

async fn instance_state(bench: &Bench, instance: InstanceId) -> InstanceState {
    bench
        .service
        .store
        .instance(instance)
        .await
        .unwrap()
        .unwrap()
        .state
}

fn told(first: u64, texts: &[&str]) -> Told {
    let item = |text: &&str| {
        Happening::Durable(NewEvent {
            kind: EventKind::Executing,
            data: (*text).to_owned(),
        })
    };
    Told {
        first,
        items: texts.iter().map(item).collect(),
    }
}

async fn events(bench: &Bench, job: JobId) -> Vec<String> {
    let events = bench.service.events(job, 0).await.unwrap();
    let executing = events.into_iter().filter(|e| e.kind == EventKind::Executing);
    executing.map(|e| e.data).collect()
}

#[tokio::test]
async fn the_same_name_is_the_same_instance_and_the_one_before_is_superseded() {
    let bench = Bench::configured(EXTERNAL);
    let first = connected(&bench, hello("box")).await;
    let before = seated(&bench, &first);
    let never = CancellationToken::new();
    let (polled, second) = tokio::join!(before.next(None, &never), connected(&bench, hello("box")));
    assert_eq!(second.instance, first.instance);
    assert!(matches!(polled, Err(Refused::Superseded)), "{polled:?}");
    let again = bench.service.seated(first.instance, first.session, None);
    assert!(matches!(again.err(), Some(Refused::Superseded)));
    assert_ne!(connected(&bench, hello("other")).await.instance, first.instance);
    let unknown = bench
        .service
        .seated(InstanceId::new(&*bench.service.ids), Uuid::nil(), None);
    assert!(matches!(unknown.err(), Some(Refused::NoSession)));
}

#[tokio::test]
async fn an_agent_of_another_key_version_or_endpoint_is_refused() {
    let bench = Bench::configured(&format!("{EXTERNAL}[endpoints.engine]\n"));
    let mine = bench
        .service
        .agent_connects(hello("box"), Some("mine"))
        .await
        .unwrap();
    let theirs = bench.service.agent_connects(hello("box"), Some("theirs")).await;
    assert!(matches!(theirs, Err(Refused::NotYours)));
    let speaking = bench.service.seated(mine.instance, mine.session, Some("theirs"));
    assert!(matches!(speaking.err(), Some(Refused::NotYours)));
    let old = Hello {
        protocol: 0,
        ..hello("box")
    };
    let elsewhere = Hello {
        endpoint: "engine".parse().unwrap(),
        ..hello("box")
    };
    for bad in [old, elsewhere, hello(""), hello("a\nb")] {
        let refused = bench.service.agent_connects(bad, None).await;
        assert!(
            matches!(refused, Err(Refused::Failed(Error::Invalid(_)))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn an_agent_whose_key_is_revoked_gets_nothing_more_and_its_job_runs_elsewhere() {
    let bench = Bench::configured(EXTERNAL);
    let connects = |name: &'static str| bench.service.agent_connects(hello(name), Some(name));
    let (lost, kept) = (connects("lost").await.unwrap(), connects("kept").await.unwrap());
    let job = bench.job(REQUEST).await;
    let seat = bench
        .service
        .seated(lost.instance, lost.session, Some("lost"))
        .unwrap();
    let lease = next(&seat, None).await.lease;
    start(&seat, &lost, lease).await;
    let never = CancellationToken::new();
    let revoked = async {
        let of_none = bench.service.agents_without(|key, _| key == "kept");
        bench
            .service
            .dismiss_agents(of_none, "its key does not count any more")
            .await;
    };
    let (polled, ()) = tokio::join!(seat.next(Some(lease), &never), revoked);
    // It connects again then, and is told about its key.
    assert!(matches!(polled, Err(Refused::NoSession)), "{polled:?}");
    assert_eq!(
        instance_state(&bench, lost.instance).await,
        InstanceState::Stopped
    );
    let seat = bench
        .service
        .seated(kept.instance, kept.session, Some("kept"))
        .unwrap();
    let again = next(&seat, None).await;
    assert_eq!((again.lease.job, again.attempt), (job, 2));
    let attempts = bench.service.attempts(job).await.unwrap();
    assert_eq!(attempts[0].state, darkroom_core::AttemptState::Released);
}

#[tokio::test]
async fn boxes_whose_agents_went_are_remembered_but_not_for_ever() {
    let bench = Bench::configured(EXTERNAL);
    let endpoint = bench.endpoint();
    let staying = connected(&bench, hello("staying")).await;
    let staying = seated(&bench, &staying);
    staying.learn(b"{}".to_vec()).await.unwrap();
    for number in 0..boxes::ABSENT + 3 {
        bench.clock.advance(Duration::from_secs(1));
        let welcome = connected(&bench, hello(&format!("rented-{number}"))).await;
        let seat = seated(&bench, &welcome);
        seat.learn(b"{}".to_vec()).await.unwrap();
        let gone = darkroom_runner::wire::Leave {
            reason: "too dear".to_owned(),
            broken: false,
        };
        seat.leave(gone).await;
    }
    staying.learn(b"{}".to_vec()).await.unwrap();
    let known = bench.service.boxes(&endpoint).await.unwrap();
    assert_eq!(known.len(), boxes::ABSENT + 1);
    assert!(known.contains_key("staying") && !known.contains_key("rented-0"));
}

#[tokio::test]
async fn what_was_claimed_and_did_not_arrive_is_handed_out_again_once() {
    let bench = Bench::configured(EXTERNAL);
    let (first, second) = (bench.job(REQUEST).await, bench.job(REQUEST).await);
    let welcome = connected(&bench, hello("box")).await;
    let lease = next(&seated(&bench, &welcome), None).await.lease;
    assert_eq!(lease.job, first);
    let again = next(&seated(&bench, &welcome), None).await.lease;
    assert_eq!(again, lease);
    let seat = seated(&bench, &welcome);
    seat.finish(lease, done(vec![])).await.unwrap();
    assert_eq!(next(&seat, Some(lease)).await.lease.job, second);
}

#[tokio::test]
async fn who_connects_again_keeps_what_it_holds_and_is_handed_the_rest() {
    let bench = Bench::configured(EXTERNAL);
    let job = bench.job(REQUEST).await;
    let welcome = connected(&bench, hello("box")).await;
    let before = seated(&bench, &welcome);
    let lease = next(&before, None).await.lease;
    start(&before, &welcome, lease).await;
    // Its connection was renewed: it goes on.
    let held = Hello {
        instance: Some(welcome.instance),
        holding: vec![lease],
        ..hello("box")
    };
    let welcome = connected(&bench, held).await;
    let late = before.started(
        lease,
        RunningOn {
            instance: welcome.instance,
            client_id: String::new(),
            prompt_id: "late".into(),
        },
    );
    assert!(matches!(late.await, Err(Failed::Session(Refused::Superseded))));
    seated(&bench, &welcome)
        .tell(lease, told(0, &["a"]))
        .await
        .unwrap();
    // It was killed and started again: its ComfyUI may still run the prompt.
    let welcome = connected(&bench, hello("box")).await;
    let seat = seated(&bench, &welcome);
    let resumed = next(&seat, None).await;
    assert_eq!((resumed.lease, resumed.attempt), (lease, 1));
    assert_eq!(resumed.resume.unwrap().prompt_id, "p");
    seat.finish(lease, done(vec![])).await.unwrap();
    assert_eq!(bench.record(job).await.state, JobState::Succeeded);
    assert_eq!(bench.service.attempts(job).await.unwrap().len(), 1);
    // One whose prompt was not posted goes back to the queue.
    let fresh = bench.job(REQUEST).await;
    let claimed = next(&seat, Some(lease)).await.lease;
    let welcome = connected(&bench, hello("box")).await;
    let other = next(&seated(&bench, &welcome), None).await;
    assert_eq!((other.lease.job, other.attempt), (fresh, 2));
    assert!(other.lease.fence > claimed.fence);
}

#[tokio::test]
async fn an_agent_from_before_a_restart_of_the_server_goes_on() {
    let bench = Bench::configured(EXTERNAL);
    let job = bench.job(REQUEST).await;
    let welcome = connected(&bench, hello("box")).await;
    let seat = seated(&bench, &welcome);
    let lease = next(&seat, None).await.lease;
    start(&seat, &welcome, lease).await;
    seat.tell(lease, told(0, &["a", "b"])).await.unwrap();
    drop(seat);
    bench.service.agents.lock().clear();
    let service = &bench.service;
    let record = service.store.instance(welcome.instance).await.unwrap().unwrap();
    let open = service.store.open_attempts(None).await.unwrap();
    assert!(service.agent_returns(&record, &open).await.unwrap());
    let lost = service.seated(welcome.instance, welcome.session, None);
    assert!(matches!(lost.err(), Some(Refused::NoSession)));
    let held = Hello {
        instance: Some(welcome.instance),
        holding: vec![lease],
        ..hello("box")
    };
    let welcome = connected(&bench, held).await;
    let seat = seated(&bench, &welcome);
    // The answer to "b" was lost with the server.
    seat.tell(lease, told(1, &["b", "c"])).await.unwrap();
    seat.tell(lease, told(2, &["c", "d"])).await.unwrap();
    assert_eq!(events(&bench, job).await, ["a", "b", "c", "d"]);
    seat.finish(lease, done(vec![])).await.unwrap();
    assert_eq!(bench.record(job).await.state, JobState::Succeeded);
}

#[tokio::test]
async fn silence_ends_it_and_its_jobs_run_elsewhere() {
    let bench = Bench::configured(EXTERNAL);
    let job = bench.job(REQUEST).await;
    let welcome = connected(&bench, hello("box")).await;
    let seat = seated(&bench, &welcome);
    let lease = next(&seat, None).await.lease;
    start(&seat, &welcome, lease).await;
    bench.clock.advance(2 * AWAY);
    bench.service.look_after_agents(Duration::ZERO).await;
    assert_eq!(
        bench.record(job).await.state,
        JobState::Running,
        "it waits for us"
    );
    drop(seat);
    bench.clock.advance(AWAY);
    bench.service.look_after_agents(AWAY).await;
    assert_eq!(
        bench.record(job).await.state,
        JobState::Running,
        "we were away ourselves"
    );
    bench.clock.advance(AWAY);
    bench.service.look_after_agents(Duration::ZERO).await;
    assert_eq!(bench.record(job).await.state, JobState::Queued);
    assert_eq!(
        instance_state(&bench, welcome.instance).await,
        InstanceState::Failed
    );
    let back = Hello {
        instance: Some(welcome.instance),
        holding: vec![lease],
        ..hello("box")
    };
    let gone = bench.service.agent_connects(back, None).await;
    assert!(matches!(gone, Err(Refused::Gone)));
    let anew = connected(&bench, hello("box")).await;
    assert_ne!(anew.instance, welcome.instance);
    assert_eq!(next(&seated(&bench, &anew), None).await.attempt, 2);
}

#[tokio::test]
async fn an_agent_reaches_what_it_was_handed_and_nothing_else() {
    let bench = Bench::configured(EXTERNAL);
    bench.put_blob("inputs/t/mine.png").await;
    bench.put_blob("inputs/t/other.png").await;
    let mine = InputSource::Blob("inputs/t/mine.png".parse().unwrap());
    let other = InputSource::Blob("inputs/t/other.png".parse().unwrap());
    let file = serde_json::json!({"node_id": "1", "input": "image", "file_name": "a.png", "source": mine});
    let request = serde_json::json!({"graph": {}, "files": [file]});
    let job = bench.job(&request.to_string()).await;
    let foreign = bench.job(REQUEST).await;
    let (a, b) = (
        connected(&bench, hello("a")).await,
        connected(&bench, hello("b")).await,
    );
    let seat = seated(&bench, &a);
    let lease = next(&seat, None).await.lease;
    let not_mine = next(&seated(&bench, &b), None).await.lease;
    assert_eq!((lease.job, not_mine.job), (job, foreign));
    assert!(seat.input(lease, &mine).await.is_ok());
    let refused = seat.input(lease, &other).await;
    assert!(
        matches!(refused, Err(Failed::Link(LinkError::Rejected(_)))),
        "{refused:?}"
    );
    let stale = seat.finish(not_mine, done(vec![])).await;
    assert!(matches!(stale, Err(Failed::Link(LinkError::Stale))), "{stale:?}");
    let stolen = Output {
        node_id: String::new(),
        kind: "images".into(),
        index: 0,
        body: OutputBody::File {
            key: BlobKey::output(foreign, Uuid::nil(), "secret.png"),
            size: 1,
            content_type: "image/png".into(),
            blake3: String::new(),
        },
        raw: serde_json::Value::Null,
    };
    let not_reused = seat.reuse_output(lease, stolen.clone()).await;
    assert!(matches!(not_reused, Ok(None)), "{not_reused:?}");
    let refused = seat.finish(lease, done(vec![stolen])).await;
    assert!(
        matches!(refused, Err(Failed::Link(LinkError::Rejected(_)))),
        "{refused:?}"
    );
    seat.finish(lease, done(vec![])).await.unwrap();
}

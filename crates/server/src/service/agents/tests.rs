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
const PROMPT_ID: &str = "0d6f6e52-5b43-4d1c-9a3c-0c6f0f7d2a11";
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
        prompt_id: PROMPT_ID.to_owned(),
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
            data: format!("\"{text}\""),
        })
    };
    Told {
        teller: Uuid::from_u128(1),
        first,
        items: texts.iter().map(item).collect(),
    }
}

async fn events(bench: &Bench, job: JobId) -> Vec<String> {
    let events = bench.service.events(job, 0).await.unwrap();
    let executing = events.into_iter().filter(|e| e.kind == EventKind::Executing);
    executing.map(|e| e.data.trim_matches('"').to_owned()).collect()
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
            prompt_id: PROMPT_ID.into(),
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
    assert_eq!(resumed.resume.unwrap().prompt_id, PROMPT_ID);
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
    // The answer to "b" was lost with the server; another "b" is one more.
    seat.tell(lease, told(1, &["b", "b"])).await.unwrap();
    seat.tell(lease, told(2, &["b", "d"])).await.unwrap();
    assert_eq!(events(&bench, job).await, ["a", "b", "b", "d"]);
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
    assert!(matches!(
        refused.err(),
        Some(Failed::Link(LinkError::Rejected(_)))
    ));
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

#[tokio::test]
async fn what_is_told_twice_at_the_same_time_is_stored_once() {
    let bench = Bench::configured(EXTERNAL);
    let job = bench.job(REQUEST).await;
    let welcome = connected(&bench, hello("box")).await;
    let seat = seated(&bench, &welcome);
    let lease = next(&seat, None).await.lease;
    start(&seat, &welcome, lease).await;
    // The connection of the first broke between the commit and its answer.
    let (first, second) = tokio::join!(
        seat.tell(lease, told(0, &["a", "b"])),
        seat.tell(lease, told(0, &["a", "b"]))
    );
    first.unwrap();
    second.unwrap();
    seat.tell(lease, told(1, &["b", "c"])).await.unwrap();
    assert_eq!(events(&bench, job).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn an_agent_tells_only_what_an_instance_can() {
    let bench = Bench::configured(EXTERNAL);
    let job = bench.job(REQUEST).await;
    let welcome = connected(&bench, hello("box")).await;
    let seat = seated(&bench, &welcome);
    let lease = next(&seat, None).await.lease;
    for prompt_id in [
        "",
        "e",
        "0123456789abcde",
        "0123456789 abcdef",
        "\"0123456789abcdef",
    ] {
        let on = RunningOn {
            instance: welcome.instance,
            client_id: String::new(),
            prompt_id: prompt_id.to_owned(),
        };
        let refused = seat.started(lease, on).await;
        assert!(
            matches!(refused, Err(Failed::Link(LinkError::Rejected(_)))),
            "{prompt_id}"
        );
    }
    start(&seat, &welcome, lease).await;
    let before = bench.service.events(job, 0).await.unwrap().len();
    let forged = [
        (EventKind::State, r#"{"state":"succeeded"}"#),
        (EventKind::Truncated, "{}"),
        (EventKind::Chunk, r#"{"blob":"jobs/x/result-1.json","size":9}"#),
        (EventKind::Output, "{}"),
        (EventKind::Log, "\"} not json"),
    ];
    for (kind, data) in forged {
        let event = NewEvent {
            kind,
            data: data.to_owned(),
        };
        let told = Told {
            teller: Uuid::nil(),
            first: 0,
            items: vec![Happening::Durable(event.clone())],
        };
        let refused = seat.tell(lease, told).await;
        assert!(
            matches!(refused, Err(Failed::Link(LinkError::Rejected(_)))),
            "{refused:?}"
        );
        let ended = Ended {
            events: vec![event],
            ..done(vec![])
        };
        let refused = seat.finish(lease, ended).await;
        assert!(
            matches!(refused, Err(Failed::Link(LinkError::Rejected(_)))),
            "{refused:?}"
        );
    }
    assert_eq!(bench.service.events(job, 0).await.unwrap().len(), before);
    assert_eq!(bench.record(job).await.state, JobState::Running);
}

#[tokio::test]
async fn no_job_succeeds_by_outputs_that_were_never_stored() {
    let bench = Bench::configured(EXTERNAL);
    let job = bench.job(REQUEST).await;
    let welcome = connected(&bench, hello("box")).await;
    let seat = seated(&bench, &welcome);
    let lease = next(&seat, None).await.lease;
    start(&seat, &welcome, lease).await;
    let produced = darkroom_runner::wire::Produced {
        node_id: "9".into(),
        kind: "images".into(),
        index: 0,
        raw: serde_json::json!({"filename": "a.txt"}),
        file_name: "a.txt".into(),
    };
    let body = futures::stream::iter([Ok(bytes::Bytes::from_static(b"text"))]);
    let stored = seat.put_output(lease, produced, Box::pin(body)).await.unwrap();
    let OutputBody::File { key, .. } = &stored.body else {
        panic!("a file")
    };
    // It connects again: what it stored in the session before counts, what it made up does not.
    let held = Hello {
        instance: Some(welcome.instance),
        holding: vec![lease],
        ..hello("box")
    };
    let welcome = connected(&bench, held).await;
    let seat = seated(&bench, &welcome);
    let made_up = |change: &dyn Fn(&mut BlobKey, &mut u64, &mut String, &mut String)| {
        let mut output = stored.clone();
        if let OutputBody::File {
            key,
            size,
            content_type,
            blake3,
        } = &mut output.body
        {
            change(key, size, content_type, blake3);
        }
        output
    };
    let elsewhere = BlobKey::output(job, Uuid::nil(), "a.txt");
    for output in [
        made_up(&|key, _, _, _| *key = elsewhere.clone()),
        made_up(&|_, size, _, _| *size += 1),
        made_up(&|_, _, content_type, _| *content_type = "text/html".into()),
        made_up(&|_, _, _, blake3| blake3.push('0')),
    ] {
        let refused = seat.finish(lease, done(vec![output])).await;
        assert!(
            matches!(refused, Err(Failed::Link(LinkError::Rejected(_)))),
            "{refused:?}"
        );
    }
    assert_eq!(bench.record(job).await.state, JobState::Running);
    assert!(bench.blob_keys().await.contains(&key.to_string()));
    seat.finish(lease, done(vec![stored.clone()])).await.unwrap();
    assert_eq!(bench.record(job).await.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_run_that_its_agent_does_not_end_in_time_is_ended_by_the_server() {
    let bench = Bench::configured(
        "[endpoints.default]\nbackend = \"external\"\n[endpoints.default.limits]\nexecution_timeout = \"60s\"\n",
    );
    let job = bench.job(REQUEST).await;
    let welcome = connected(&bench, hello("box")).await;
    let seat = seated(&bench, &welcome);
    let lease = next(&seat, None).await.lease;
    start(&seat, &welcome, lease).await;
    bench.clock.advance(Duration::from_secs(65));
    bench.service.look_after_agents(Duration::ZERO).await;
    assert_eq!(
        bench.record(job).await.state,
        JobState::Running,
        "its agent ends it, and tells why"
    );
    bench.clock.advance(Duration::from_secs(3600));
    bench.service.look_after_agents(Duration::ZERO).await;
    let failure = bench.record(job).await.failure.unwrap();
    assert_eq!(
        failure.code,
        darkroom_core::failure::FailureCode::ExecutionTimeout
    );
    let late = seat.finish(lease, done(vec![])).await;
    assert!(matches!(late, Err(Failed::Link(LinkError::Stale))), "{late:?}");
    let other = bench.job(REQUEST).await;
    assert_eq!(
        next(&seat, Some(lease)).await.lease.job,
        other,
        "it goes on with the next"
    );
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_does_not_move_breaks_off() {
    use futures::StreamExt;
    let broke = Arc::new(AtomicBool::new(false));
    let piece = futures::stream::iter([Ok(bytes::Bytes::from_static(b"half"))]);
    let body = seat::while_it_moves(piece.chain(futures::stream::pending()).boxed(), broke.clone());
    let read: Vec<_> = body.collect().await;
    assert_eq!(read.len(), 2);
    assert_eq!(read[1].as_ref().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(broke.load(Ordering::Acquire));
}

#[tokio::test]
async fn who_asks_while_the_server_stops_is_not_answered_at_once() {
    let bench = Bench::configured(EXTERNAL);
    let job = bench.job(REQUEST).await;
    let welcome = connected(&bench, hello("box")).await;
    let seat = seated(&bench, &welcome);
    let stopping = CancellationToken::new();
    stopping.cancel();
    let asked = tokio::time::Instant::now();
    assert!(matches!(seat.next(None, &stopping).await.unwrap(), Work::None));
    // A sleep never ends early.
    assert!(asked.elapsed() >= Duration::from_millis(500));
    assert_eq!(
        bench.record(job).await.attempts,
        0,
        "and nothing is claimed for nobody"
    );
}

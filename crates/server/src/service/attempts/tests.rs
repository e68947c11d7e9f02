use darkroom_core::{
    AttemptOutcome, BlobKey, Failure, JobId, JobState,
    failure::FailureCode,
    output::{Output, OutputBody},
};
use darkroom_runner::link::{Address, AttemptLink, Completion, InputSource, Media};
use darkroom_store::{files::FileRef, jobs::JobMeta};

use super::*;
use crate::service::testing::{Bench, SlotWorld};

const REQUEST: &str = r#"{"graph":{"1":{"class_type":"PreviewAny","inputs":{"source":1}}}}"#;

struct At {
    link: SlotLink,
    draining: CancellationToken,
    activity: Arc<SlotActivity>,
}

async fn slot(bench: &Bench) -> At {
    let (draining, activity) = (CancellationToken::new(), Arc::<SlotActivity>::default());
    let link = SlotLink::new(
        bench.service.clone(),
        bench.endpoint(),
        Limits::default(),
        bench.instance().await,
        draining.clone(),
        activity.clone(),
    );
    At {
        link,
        draining,
        activity,
    }
}

async fn world() -> SlotWorld {
    let bench = Bench::new();
    let instance = bench.instance().await;
    let draining = CancellationToken::new();
    let link = SlotLink::new(
        bench.service.clone(),
        bench.endpoint(),
        Limits::default(),
        instance,
        draining.clone(),
        Arc::default(),
    );
    SlotWorld {
        bench,
        link: Arc::new(link),
        instance,
        drain: Box::new(move || draining.cancel()),
    }
}

darkroom_runner::attempt_link_tests!(world().await);

#[tokio::test]
async fn a_blob_store_that_is_away_for_a_moment_costs_no_attempt() {
    let bench = Bench::new();
    let job = bench.job(REQUEST).await;
    let at = slot(&bench).await;
    bench.blobs.fail_reads(2);
    let assignment = at.link.next().await.unwrap();
    assert_eq!((assignment.lease.job, assignment.attempt), (job, 1));
    assert_eq!(bench.blobs.failures_left(), 0);
    assert_eq!(at.activity.busy(), 1, "it is held while its input is read");
    assert_eq!(bench.record(job).await.state, JobState::Running);
}

#[tokio::test]
async fn a_drain_while_the_blob_store_is_away_gives_the_job_back() {
    let bench = Bench::new();
    let job = bench.job(REQUEST).await;
    let at = slot(&bench).await;
    bench.blobs.fail_reads(u32::MAX);
    let mut waiting = std::pin::pin!(at.link.next());
    // The claim is over when a read was refused.
    while bench.blobs.failures_left() == u32::MAX {
        tokio::select! {
            next = &mut waiting => panic!("handed out {next:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    at.draining.cancel();
    assert!(waiting.await.is_none());
    let record = bench.record(job).await;
    assert_eq!(record.state, JobState::Queued, "given back, not failed");
    assert_eq!(at.activity.busy(), 0);
}

#[tokio::test]
async fn a_job_whose_input_is_gone_fails_and_the_next_one_runs() {
    let bench = Bench::new();
    let (gone, broken) = (bench.job(REQUEST).await, bench.job("no JSON").await);
    let fine = bench.job(REQUEST).await;
    let blobs = bench.service.blobs.clone();
    blobs.delete(&BlobKey::job_input(gone)).await.unwrap();
    let at = slot(&bench).await;
    assert_eq!(at.link.next().await.unwrap().lease.job, fine);
    for job in [gone, broken] {
        let record = bench.record(job).await;
        assert_eq!(record.state, JobState::Failed);
        assert_eq!(record.failure.unwrap().code, FailureCode::Internal);
    }
    assert_eq!(at.activity.busy(), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_removed_still_runs_what_its_instance_claims() {
    let bench = Bench::new();
    let job = bench.job(REQUEST).await;
    let at = slot(&bench).await;
    bench.service.set_endpoints(Default::default());
    let assignment = at.link.next().await.unwrap();
    assert_eq!(assignment.lease.job, job);
    assert_eq!(assignment.bounds.stall_timeout, Limits::default().stall_timeout);
}

#[tokio::test]
async fn a_dropped_slot_keeps_no_lease() {
    let bench = Bench::new();
    bench.job(REQUEST).await;
    let at = slot(&bench).await;
    let assignment = at.link.next().await.unwrap();
    let held = at.link.held(assignment.lease).unwrap();
    assert_eq!(bench.service.hub.len(), 1);
    drop(at.link);
    assert!(held.has_ended(), "its keeper renews no more");
    assert!(bench.service.hub.is_empty());
    assert_eq!((at.activity.busy(), at.activity.ended()), (0, 1));
}

#[tokio::test]
async fn a_cancelled_job_is_not_begun() {
    let bench = Bench::new();
    let job = bench.job(REQUEST).await;
    let at = slot(&bench).await;
    bench.blobs.fail_reads(u32::MAX);
    let mut waiting = std::pin::pin!(at.link.next());
    while bench.blobs.failures_left() == u32::MAX {
        tokio::select! {
            next = &mut waiting => panic!("handed out {next:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    bench.service.cancel(None, job).await.unwrap();
    let mut ended = std::pin::pin!(bench.service.wait_final(job));
    tokio::select! {
        next = &mut waiting => panic!("handed out {next:?}"),
        record = &mut ended => assert_eq!(record.unwrap().state, JobState::Cancelled),
    }
}

#[tokio::test]
async fn a_slot_prefers_the_job_whose_models_its_last_one_left_in_memory() {
    let bench = Bench::new();
    let loads = |model: &str| JobMeta {
        models: vec![model.to_owned()],
        ..JobMeta::default()
    };
    let at = slot(&bench).await;
    let end = async |outcome: AttemptOutcome| {
        let lease = at.link.next().await.unwrap().lease;
        let completion = Completion {
            outcome,
            outputs: vec![],
            result: None,
            events: vec![],
        };
        at.link.finish(lease, completion).await.unwrap();
        lease.job
    };
    let first = bench.job_with(REQUEST, loads("sdxl")).await;
    let plain = bench.job(REQUEST).await;
    assert_eq!(end(AttemptOutcome::Done).await, first);
    assert_eq!(
        end(AttemptOutcome::Done).await,
        plain,
        "without models, it changes nothing"
    );
    let older = bench.job_with(REQUEST, loads("flux")).await;
    let fits = bench.job_with(REQUEST, loads("sdxl")).await;
    let failure = Failure::new(FailureCode::ExecutionError, "out of memory");
    assert_eq!(end(AttemptOutcome::Failed(failure)).await, fits);
    assert!(
        bench.service.attempts(fits).await.unwrap()[0]
            .reason
            .starts_with("models loaded")
    );
    assert_eq!(end(AttemptOutcome::Done).await, older);
}

/// A file of a job that was swept: its blob lies in the trash.
async fn trashed(bench: &Bench, job: JobId) -> Output {
    let key = BlobKey::output(job, bench.service.ids.uuid_v4(), "a.png");
    let meta = bench.service.blobs.put_bytes(&key, "png".into()).await.unwrap();
    let store = &bench.service.store;
    let reference = FileRef {
        owner: "job:old".into(),
        name: "output/0".into(),
        tenant: "default".parse().unwrap(),
        blob: key.clone(),
        size: meta.size,
        content_type: "image/png".into(),
        created_at: bench.service.clock.now(),
    };
    store.put_ref(reference).await.unwrap();
    store.drop_ref("job:old", "output/0").await.unwrap();
    Output {
        node_id: "9".into(),
        kind: "images".into(),
        index: 0,
        raw: serde_json::json!({"filename": "a.png"}),
        body: OutputBody::File {
            key,
            size: meta.size,
            content_type: "image/png".into(),
            blake3: meta.blake3,
        },
    }
}

#[tokio::test]
async fn a_reused_file_survives_the_sweeper_until_its_job_ends() {
    let bench = Bench::new();
    let job = bench.job(REQUEST).await;
    let at = slot(&bench).await;
    let lease = at.link.next().await.unwrap().lease;
    let output = trashed(&bench, job).await;
    let OutputBody::File { key, .. } = &output.body else {
        unreachable!("made as a file")
    };
    let store = &bench.service.store;
    // The sweeper looked at the trash before the rerun, and acts after it.
    let due = store.trash_due(Duration::ZERO, 9).await.unwrap();
    assert_eq!(due, std::slice::from_ref(key));
    let reused = at.link.reuse_output(lease, output.clone()).await.unwrap();
    bench.service.delete_trashed(&due[0]).await.unwrap();
    let completion = Completion {
        outcome: darkroom_core::AttemptOutcome::Done,
        outputs: vec![reused.unwrap()],
        result: None,
        events: vec![],
    };
    assert_eq!(
        at.link.finish(lease, completion).await.unwrap(),
        JobState::Succeeded
    );
    assert!(bench.service.blobs.stat(key).await.unwrap().is_some());
    assert_eq!(store.refs_to(key).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_job_made_is_an_asset_on_its_own_endpoint_alone() {
    let bench = Bench::new();
    let job = bench.job(REQUEST).await;
    let at = slot(&bench).await;
    let lease = at.link.next().await.unwrap().lease;
    let output = trashed(&bench, job).await;
    let made = at.link.reuse_output(lease, output).await.unwrap();
    let completion = Completion {
        outcome: AttemptOutcome::Done,
        outputs: vec![made.unwrap()],
        result: None,
        events: vec![],
    };
    at.link.finish(lease, completion).await.unwrap();
    let tenant = "default".parse().unwrap();
    let missing = async |endpoint: &str| {
        let endpoint = endpoint.parse().unwrap();
        let graph = serde_json::json!({"1": {"inputs": {"image": format!("asset:{job}.0")}}});
        let looked = bench.service.missing_assets(&tenant, &endpoint, graph, 0).await;
        looked.unwrap().1
    };
    assert!(missing("default").await.is_empty());
    assert_eq!(missing("other").await, [format!("{job}.0")]);
}

#[tokio::test]
async fn a_file_that_was_deleted_is_not_reused() {
    let bench = Bench::new();
    let job = bench.job(REQUEST).await;
    let at = slot(&bench).await;
    let lease = at.link.next().await.unwrap().lease;
    let output = trashed(&bench, job).await;
    let due = bench.service.store.trash_due(Duration::ZERO, 9).await.unwrap();
    bench.service.delete_trashed(&due[0]).await.unwrap();
    assert!(at.link.reuse_output(lease, output).await.unwrap().is_none());
}

/// Answers every connection with a page.
async fn page(body: String) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    address
}

fn loads(address: std::net::SocketAddr, media: Media) -> InputSource {
    InputSource::Url(Address {
        url: format!("http://{address}/a?sig=secret"),
        class: "LoadImage".into(),
        media,
    })
}

const LOCAL_FETCH: &str = "[fetch]\nallow = [\"127.0.0.1\"]\nmax_bytes = \"1MB\"\n";

#[tokio::test]
async fn a_shortage_of_ours_is_no_fault_of_the_jobs() {
    let bench = Bench::configured(LOCAL_FETCH);
    bench.job(REQUEST).await;
    let at = slot(&bench).await;
    let lease = at.link.next().await.unwrap().lease;
    let audio = loads(page("x".repeat(1000)).await, Media::Other);
    let all = bench.service.fetcher.memory().hold(u64::MAX).await.unwrap();
    let short = at.link.input(lease, &audio).await;
    assert!(matches!(short, Err(LinkError::Unavailable(_))), "{short:?}");
    drop(all);
    let bytes = at.link.input(lease, &audio).await.unwrap();
    assert_eq!(bytes.len(), 1000);
    let left = bench.service.fetcher.memory().available();
    drop(bytes);
    let all = bench.service.fetcher.memory().available();
    assert!(left < all, "what was fetched is accounted for until it is let go");
}

#[tokio::test]
async fn a_page_is_no_picture_and_the_text_says_who_wanted_it() {
    let bench = Bench::configured(LOCAL_FETCH);
    bench.job(REQUEST).await;
    let at = slot(&bench).await;
    let lease = at.link.next().await.unwrap().lease;
    let html = page("<html>sign in</html>".into()).await;
    let refused = at.link.input(lease, &loads(html, Media::Image)).await;
    let Err(LinkError::InputUnavailable(why)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(why, "LoadImage failed: the bytes are not an image");
    let nobody = loads("127.0.0.1:1".parse().unwrap(), Media::Image);
    let refused = at.link.input(lease, &nobody).await.unwrap_err().to_string();
    let begins = "LoadImage failed: can not get image http://127.0.0.1:1/a from http url, ";
    assert!(refused.starts_with(begins), "{refused}");
}

#[tokio::test]
async fn the_addresses_of_one_attempt_share_one_bound() {
    let bench = Bench::configured(LOCAL_FETCH);
    for _ in 0..2 {
        bench.job(REQUEST).await;
    }
    let at = slot(&bench).await;
    let first = at.link.next().await.unwrap().lease;
    let audio = loads(page("x".repeat(600_000)).await, Media::Other);
    at.link.input(first, &audio).await.unwrap();
    let Err(LinkError::InputUnavailable(why)) = at.link.input(first, &audio).await else {
        panic!("more than the bound was fetched")
    };
    assert!(why.contains("together"), "{why}");
    let second = at.link.next().await.unwrap().lease;
    at.link.input(second, &audio).await.unwrap();
}

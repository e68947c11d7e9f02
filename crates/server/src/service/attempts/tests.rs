use darkroom_core::{
    BlobKey, JobId, JobState,
    failure::FailureCode,
    output::{Output, OutputBody},
};
use darkroom_runner::link::{AttemptLink, Completion};
use darkroom_store::files::FileRef;

use super::*;
use crate::service::testing::Bench;

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

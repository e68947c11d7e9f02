use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use darkroom_core::payload::INLINE_MAX_BYTES;
use serde_json::json;
use tokio::sync::oneshot;

use super::*;
use crate::{beside::tests::MEANWHILE, service::testing::Bench};

/// Nobody serves it, and nothing is known of its nodes.
const PARKED: &str = "[endpoints.parked]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\n[endpoints.parked.limits]\nmax_queued = 2\n";

fn submit(graph: Value, name: Option<(&str, OnDuplicate)>) -> ComfySubmit {
    ComfySubmit {
        tenant: "t".parse().unwrap(),
        endpoint: "parked".parse().unwrap(),
        size_bytes: graph.to_string().len(),
        graph,
        extra_data: Map::new(),
        targets: None,
        priority: 0,
        external_id: name.map(|(id, on_duplicate)| ExternalId {
            dialect: "test".into(),
            id: id.into(),
            on_duplicate,
        }),
        randomise_seeds: false,
        fetch: Fetch::Now,
        meta: JobMeta::default(),
        memory: Held::default(),
    }
}

/// A file inline, and a body that is itself a blob.
fn with_file(second: &str) -> Value {
    let data = STANDARD.encode([7; 300]);
    json!({
        "1": {"class_type": "LoadAudio", "inputs": {"audio": data}},
        "2": {"class_type": "LoadAudio", "inputs": {"audio": second}},
        "3": {"class_type": "Text", "inputs": {"text": "x".repeat(2 * INLINE_MAX_BYTES)}},
    })
}

#[tokio::test]
async fn an_editors_file_runs_as_what_it_says_and_is_kept_for_the_page() {
    let bench = Bench::configured(PARKED);
    let endpoint: EndpointName = "parked".parse().unwrap();
    let file = json!({"nodes": [
        {"id": 1, "type": "Text", "inputs": [], "widgets_values": ["words"]},
        {"id": 2, "type": "Show", "inputs": [{"name": "text", "type": "STRING", "link": 1}]},
    ], "links": [[1, 1, 0, 2, 0, "STRING"]], "version": 0.4});

    // The names of values are nowhere but in object_info.
    let refused = bench.service.submit_comfy(submit(file.clone(), None)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), "invalid_graph");
    let said = refused.to_string();
    assert!(said.contains("no instance of the endpoint has told"), "{said}");

    let info = json!({
        "Text": {"input": {"required": {"text": ["STRING", {}]}}, "output": ["STRING"]},
        "Show": {"input": {"required": {"text": ["STRING", {"forceInput": true}]}}, "output": [], "output_node": true},
    });
    let info = info.to_string().into_bytes();
    bench
        .service
        .learn_object_info(&endpoint, "/nobody", info)
        .await
        .unwrap();
    let body = async |mut submit: ComfySubmit, extra: Value| {
        submit.extra_data = extra.as_object().unwrap().clone();
        let job = bench.service.submit_comfy(submit).await.unwrap().job;
        let record = bench.service.store.job(None, job).await.unwrap().unwrap();
        let body = bench.service.read_payload(&record.input).await.unwrap().unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()
    };
    let work = body(submit(file.clone(), None), json!({})).await;
    assert_eq!(work["graph"]["1"]["inputs"], json!({"text": "words"}));
    assert_eq!(work["graph"]["2"]["inputs"], json!({"text": ["1", 0]}));
    assert_eq!(work["extra_data"]["extra_pnginfo"]["workflow"], file);
    let group = json!({"nodes": [{"id": 3, "type": "workflow>Mine"}], "links": []});
    let refused = bench
        .service
        .submit_comfy(submit(group, None))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("group node"), "{refused}");
    // What the caller keeps there is the caller's.
    let own = json!({"extra_pnginfo": {"workflow": {"own": true}}});
    let work = body(submit(file.clone(), None), own.clone()).await;
    assert_eq!(work["extra_data"], own);
}

async fn in_trash(bench: &Bench) -> Vec<BlobKey> {
    bench.clock.advance(Duration::from_secs(2 * 24 * 3600));
    let store = &bench.service.store;
    store.trash_due(Duration::ZERO, 100).await.unwrap()
}

#[tokio::test]
async fn a_refused_submit_leaves_no_blobs() {
    let bench = Bench::configured(PARKED);
    let refused = async |submit: ComfySubmit, why: &str| {
        let before = bench.blob_keys().await;
        let outcome = bench.service.submit_comfy(submit).await;
        let code = match &outcome {
            Ok(accepted) => {
                if accepted.existed {
                    "existed"
                } else {
                    "accepted"
                }
            }
            Err(error) => error.code(),
        };
        assert_eq!(code, why);
        assert_eq!(bench.blob_keys().await, before, "{why}");
        assert!(in_trash(&bench).await.is_empty(), "{why}");
    };
    let fine = STANDARD.encode([8; 300]);
    refused(submit(with_file("no-such.wav"), None), "invalid_graph").await;
    let by_url = with_file("http://127.0.0.1:1/x.wav");
    refused(submit(by_url, None), "input_unavailable").await;

    let first = submit(with_file(&fine), Some(("a", OnDuplicate::Reject)));
    bench.service.submit_comfy(first).await.unwrap();
    assert_eq!(bench.blob_keys().await.len(), 3);
    let again = submit(with_file(&fine), Some(("a", OnDuplicate::Reject)));
    refused(again, "duplicate").await;
    let again = submit(with_file(&fine), Some(("a", OnDuplicate::Existing)));
    refused(again, "existed").await;
    bench
        .service
        .submit_comfy(submit(with_file(&fine), None))
        .await
        .unwrap();
    refused(submit(with_file(&fine), None), "queue_full").await;
}

#[tokio::test]
async fn what_is_sent_twice_is_stored_once() {
    let bench = Bench::configured(PARKED);
    let same = STANDARD.encode([7; 300]);
    bench
        .service
        .submit_comfy(submit(with_file(&same), None))
        .await
        .unwrap();
    assert_eq!(bench.blob_keys().await.len(), 2, "the file and the body");
}

#[tokio::test]
async fn below_the_disk_reserve_no_byte_of_a_caller_is_written_and_results_still_are() {
    let bench = Bench::configured(PARKED);
    bench.free_space.store(1 << 20, Ordering::SeqCst);
    let (tenant, endpoint) = ("t".parse().unwrap(), "parked".parse().unwrap());
    let upload = async || {
        let bytes = futures::stream::iter([Ok(Bytes::from_static(b"bytes"))]);
        let service = &bench.service;
        service
            .upload(&tenant, &endpoint, "a.wav", Box::pin(bytes), 100)
            .await
    };
    assert_eq!(upload().await.unwrap_err().code(), "unavailable");
    let given = submit(with_file(&STANDARD.encode([8; 300])), None);
    let refused = bench.service.submit_comfy(given).await.unwrap_err();
    assert_eq!(refused.code(), "unavailable");
    assert_eq!(bench.blobs.puts(), 0, "refused before anything was written");
    let result = Bytes::from(vec![1; 2 * INLINE_MAX_BYTES]);
    let key = BlobKey::job_part(JobId::new(&*bench.service.ids), "result-1.json");
    bench.service.place(key, result).await.unwrap();
    bench.free_space.store(u64::MAX, Ordering::SeqCst);
    upload().await.unwrap();
}

/// A web server that says when it is asked, and answers once the gate opens.
async fn gated(bytes: &'static [u8]) -> (String, oneshot::Receiver<()>, oneshot::Sender<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x.wav", listener.local_addr().unwrap());
    let (asked, is_asked) = oneshot::channel();
    let (open, gate) = oneshot::channel();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut request = [0; 1024];
        let _ = socket.read(&mut request).await;
        asked.send(()).unwrap();
        let _: Result<(), _> = gate.await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len());
        socket
            .write_all(&[head.as_bytes(), bytes].concat())
            .await
            .unwrap();
    });
    (url, is_asked, open)
}

fn fetching() -> String {
    format!("[fetch]\nallow = [\"127.0.0.1\"]\n[server]\nbody_memory = \"8MiB\"\n{PARKED}")
}

#[tokio::test]
async fn nobody_holds_the_memory_for_work_while_a_web_server_takes_its_time() {
    let bench = Bench::configured(&fetching());
    let memory = &bench.service.memory;
    // All there is for work, by far.
    let size: u64 = 3 << 20;
    let (url, asked, open) = gated(b"bytes").await;
    let mut slow = submit(with_file(&url), None);
    slow.memory = memory.work(memory.read(size).await.unwrap(), size).await.unwrap();
    let mut slow = pin!(bench.service.submit_comfy(slow));
    tokio::select! {
        early = &mut slow => panic!("{early:?}"),
        asked = asked => asked.unwrap(),
    }
    let body = memory.read(1 << 20).await.unwrap();
    let other = memory.work(body, 1 << 20).await;
    drop(other.expect("others work meanwhile"));
    open.send(()).unwrap();
    slow.await.unwrap();
}

#[tokio::test]
async fn a_repeated_request_needs_nothing_that_was_there_the_first_time() {
    let bench = Bench::configured(&fetching());
    let (url, _asked, open) = gated(b"bytes").await;
    open.send(()).unwrap();
    let again = || submit(with_file(&url), Some(("a", OnDuplicate::Existing)));
    let first = bench.service.submit_comfy(again()).await.unwrap();
    // The web server is gone.
    let second = bench.service.submit_comfy(again()).await.unwrap();
    assert_eq!((second.job, second.existed), (first.job, true));
    let rejected = submit(with_file(&url), Some(("a", OnDuplicate::Reject)));
    let rejected = bench.service.submit_comfy(rejected).await.unwrap_err();
    assert_eq!(rejected.code(), "duplicate");
    let fine = STANDARD.encode([8; 300]);
    bench
        .service
        .submit_comfy(submit(with_file(&fine), None))
        .await
        .unwrap();
    let full = bench
        .service
        .submit_comfy(submit(with_file(&url), None))
        .await
        .unwrap_err();
    assert_eq!(full.code(), "queue_full", "nothing is fetched for a full queue");
}

#[tokio::test]
async fn a_body_of_many_megabytes_does_not_hold_the_runtime() {
    let bench = Bench::configured(PARKED);
    let mut graph = with_file(&STANDARD.encode(vec![9; 12 << 20]));
    for n in 10..5000 {
        graph[n.to_string()] = json!({"class_type": "Text", "inputs": {"text": "some words", "n": n}});
    }
    let submit = submit(graph, None);
    // Each piece of work waits until the runtime's only thread answers it.
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel::<mpsc::Sender<()>>();
    tokio::spawn(async move {
        while let Some(reply) = asked.recv().await {
            reply.send(()).unwrap();
        }
    });
    let pieces = Arc::new(AtomicU32::new(0));
    let counted = pieces.clone();
    let meanwhile = Arc::new(move || {
        let (reply, answered) = mpsc::channel();
        ask.send(reply).unwrap();
        answered.recv_timeout(Duration::from_secs(60)).unwrap();
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let submitted = MEANWHILE.scope(meanwhile, bench.service.submit_comfy(submit));
    submitted.await.unwrap();
    assert_eq!(
        pieces.load(Ordering::SeqCst),
        4,
        "looking for assets, reading, looking at the file, and writing"
    );
}

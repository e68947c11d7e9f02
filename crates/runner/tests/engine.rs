//! Attempts on the real engine: what a user would get, and how little the runner adds to it.

use std::{sync::Arc, time::Duration};

use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_core::{AttemptOutcome, InstanceId, failure::FailureCode};
use darkroom_runner::{
    Dirs, InstanceAccess, Slot, SlotConfig, SlotEnd,
    link::{Assignment, Completion, InputFile, InputSource, StopCause},
    testing::{MemoryLink, assignment, lease},
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

struct Bench {
    link: Arc<MemoryLink>,
    evidence: watch::Sender<Option<String>>,
    slot: JoinHandle<SlotEnd>,
    engine: JoinHandle<()>,
    root: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.engine.abort();
        self.slot.abort();
    }
}

impl Bench {
    async fn with_dirs() -> Self {
        Self::start(true).await
    }

    async fn start(with_dirs: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = darkroom_engine::Options {
            listen: address,
            input_dir: path("input"),
            output_dir: path("output"),
            temp_dir: path("temp"),
            user_dir: path("user"),
            test_nodes: true,
            disable_metadata: false,
            max_upload_bytes: 8 << 20,
        };
        let dirs = Dirs {
            input: path("input"),
            output: path("output"),
            temp: path("temp"),
        };
        for dir in [&dirs.input, &dirs.output, &dirs.temp] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let clock = Arc::new(SystemClock::new());
        let engine = tokio::spawn({
            let clock = clock.clone();
            async move {
                darkroom_engine::serve(options, listener, clock, Arc::new(SystemIds))
                    .await
                    .unwrap()
            }
        });
        let access = InstanceAccess {
            instance: InstanceId::from_uuid(uuid::Uuid::from_u128(1)),
            base_url: format!("http://{address}"),
            headers: Vec::new(),
            client_id: "slot".into(),
            dirs: with_dirs.then_some(dirs),
        };
        let link = MemoryLink::new();
        let (evidence, told) = watch::channel(None);
        let config = SlotConfig::new(path("spool"));
        let slot = Slot::new(access, link.clone(), clock, Arc::new(SystemIds), config)
            .unwrap()
            .with_evidence(told);
        let slot = tokio::spawn(slot.run(CancellationToken::new()));
        Bench {
            link,
            evidence,
            slot,
            engine,
            root,
        }
    }

    async fn run(&self, n: u128, graph: Value) -> Completion {
        self.give(assignment(n, graph)).await
    }

    async fn give(&self, work: Assignment) -> Completion {
        let lease = work.lease;
        self.link.give(work);
        self.link.end_of(lease).await
    }

    /// Waits until followers of attempt `n` saw something.
    async fn saw(&self, n: u128, what: &str) {
        let seen = || {
            self.link
                .told(lease(n))
                .iter()
                .any(|told| told.contains(what))
                .then_some(())
        };
        self.link.until(seen).await;
    }
}

fn saved(color: u32) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 2, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sub/图"}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    })
}

fn sleeping(class: &str, seconds: f64) -> Value {
    json!({
        "1": {"class_type": class, "inputs": {"seconds": seconds, "steps": 20, "seed": seconds}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    })
}

fn produced(class: &str, mut inputs: Value) -> Value {
    inputs["seed"] = json!(inputs.to_string());
    json!({
        "1": {"class_type": class, "inputs": inputs},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    })
}

fn code(completion: &Completion) -> FailureCode {
    match &completion.outcome {
        AttemptOutcome::Failed(failure) => failure.code,
        other => panic!("not a failure: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_collected_from_directories_and_over_http_alike() {
    for with_dirs in [true, false] {
        let bench = Bench::start(with_dirs).await;
        let completion = bench.run(1, saved(0xff0000)).await;
        assert_eq!(completion.outcome, AttemptOutcome::Done);
        let mut nodes: Vec<_> = completion
            .outputs
            .iter()
            .map(|o| {
                (
                    o.node_id.as_str(),
                    o.kind.as_str(),
                    o.index,
                    o.raw["type"].as_str().unwrap(),
                )
            })
            .collect();
        nodes.sort_unstable();
        let expected = [("2", "output"), ("3", "temp")]
            .into_iter()
            .flat_map(|(node, kind)| [(node, "images", 0, kind), (node, "images", 1, kind)]);
        assert_eq!(nodes, expected.collect::<Vec<_>>());
        for output in &completion.outputs {
            let image = bench.link.bytes_of(output).unwrap();
            assert_eq!(&image[..4], b"\x89PNG");
        }
        let kinds: Vec<_> = bench
            .link
            .events(lease(1))
            .iter()
            .map(|e| e.kind.as_str())
            .collect();
        assert_eq!(kinds.first(), Some(&"execution_start"));
        assert_eq!(kinds[kinds.len() - 2..], ["execution_success", "executing"]);
        assert_eq!(kinds.iter().filter(|kind| **kind == "executed").count(), 2);

        // Cached: nothing is written, the old names are reported, the outputs are there all the same.
        let cached = bench.run(2, saved(0xff0000)).await;
        assert_eq!(cached.outcome, AttemptOutcome::Done);
        let bytes = |c: &Completion| {
            c.outputs
                .iter()
                .map(|o| bench.link.bytes_of(o).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(bytes(&cached), bytes(&completion));
        let kinds: Vec<_> = bench
            .link
            .events(lease(2))
            .iter()
            .map(|e| e.kind.as_str())
            .collect();
        assert_eq!(
            kinds.iter().filter(|kind| **kind == "executing").count(),
            1,
            "{kinds:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_output_is_collected() {
    let bench = Bench::with_dirs().await;
    let mut graph = json!({"t": {"class_type": "TestText", "inputs": {"text": "hello"}}});
    for kind in ["hidden", "images", "gifs", "audio", "video", "3d"] {
        let inputs =
            json!({"filename": format!("dir/{kind}.bin"), "content": kind, "kind": kind, "folder": "output"});
        graph[kind] = json!({"class_type": "TestFile", "inputs": inputs});
    }
    let completion = bench.run(1, graph).await;
    assert_eq!(completion.outcome, AttemptOutcome::Done);
    let mut made: Vec<_> = completion
        .outputs
        .iter()
        .map(|o| {
            (
                o.kind.as_str(),
                String::from_utf8(bench.link.bytes_of(o).unwrap()).unwrap(),
            )
        })
        .collect();
    made.sort_unstable();
    let expected = [
        ("3d", "3d"),
        ("audio", "audio"),
        ("files", "hidden"),
        ("gifs", "gifs"),
        ("images", "images"),
        ("text", "hello"),
        ("video", "video"),
    ];
    assert_eq!(made, expected.map(|(kind, content)| (kind, content.to_owned())));
    let hidden = completion.outputs.iter().find(|o| o.kind == "files").unwrap();
    assert_eq!(
        (hidden.node_id.as_str(), &hidden.raw["subfolder"]),
        ("", &json!("dir"))
    );
    // What one job left is not the next one's.
    let next = bench.run(2, saved(1)).await;
    assert!(
        next.outputs.iter().all(|o| o.kind == "images"),
        "{:?}",
        next.outputs
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_file_reaches_the_graph_and_comes_back() {
    let bench = Bench::with_dirs().await;
    let image = bench.run(1, saved(0x00ff00)).await;
    let png = bench.link.bytes_of(&image.outputs[0]).unwrap();
    bench.link.add_input("assets/a.png", png);
    let graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "whatever"}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    });
    for n in 2..=3 {
        let mut work = assignment(n, graph.clone());
        work.work.files.push(InputFile {
            node_id: "1".into(),
            input: "image".into(),
            nested: None,
            file_name: "0123abcd.png".into(),
            source: InputSource::Blob("assets/a.png".parse().unwrap()),
        });
        let completion = bench.give(work).await;
        assert_eq!(completion.outcome, AttemptOutcome::Done);
        assert_eq!(completion.outputs.len(), 1);
    }
    assert!(bench.root.path().join("input/0123abcd.png").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_shown_and_summed_up_and_previews_pass() {
    let bench = Bench::with_dirs().await;
    let completion = bench.run(1, produced("TestPreview", json!({"count": 3}))).await;
    assert_eq!(completion.outcome, AttemptOutcome::Done);
    assert!(!bench.link.previews(lease(1)).is_empty());
    let summary: Value = serde_json::from_str(&completion.events[0].data).unwrap();
    assert_eq!(summary["nodes"]["1"]["state"], "finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_over_the_socket_are_outputs_and_previews_are_not() {
    let bench = Bench::with_dirs().await;
    let empty = |colour: u32, batch: u32| json!({"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": batch, "color": colour}});
    let graph = json!({
        "1": empty(0x10_20_30, 3),
        "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
        "3": empty(0x40_50_60, 1),
        "4": {"class_type": "TestPreview", "inputs": {"image": ["3", 0], "count": 5}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "kept"}},
        "6": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["4", 0]}},
    });
    // Also when all but the two nodes themselves is cached.
    for n in [1, 2] {
        let completion = bench.run(n, graph.clone()).await;
        assert_eq!(completion.outcome, AttemptOutcome::Done);
        let mut sent: Vec<(String, u32, String, [u8; 3])> = Vec::new();
        let mut saved = 0;
        for output in &completion.outputs {
            assert_eq!(output.kind, "images");
            if output.node_id == "5" {
                saved += 1;
                continue;
            }
            let picture = image::load_from_memory(&bench.link.bytes_of(output).unwrap())
                .unwrap()
                .to_rgb8();
            assert_eq!(picture.dimensions(), (8, 8));
            sent.push((
                output.node_id.clone(),
                output.index,
                output.raw["filename"].as_str().unwrap().to_owned(),
                picture.get_pixel(7, 7).0,
            ));
        }
        assert_eq!(saved, 1);
        let names: Vec<&str> = sent.iter().map(|(_, _, name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "websocket_00001.png",
                "websocket_00002.png",
                "websocket_00003.png",
                "websocket_00004.png"
            ]
        );
        for (node, colour, count) in [("2", [0x10, 0x20, 0x30], 3), ("6", [0x40, 0x50, 0x60], 1)] {
            let of_node: Vec<_> = sent.iter().filter(|(id, ..)| id == node).collect();
            let indexes: Vec<u32> = of_node.iter().map(|(_, index, ..)| *index).collect();
            assert_eq!(indexes, (0..count).collect::<Vec<u32>>());
            assert!(of_node.iter().all(|(.., pixel)| *pixel == colour), "{sent:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_which_and_the_engine_goes_on() {
    let bench = Bench::with_dirs().await;
    let raised = bench
        .run(1, produced("TestRaise", json!({"message": "boom"})))
        .await;
    assert_eq!(code(&raised), FailureCode::ExecutionError);
    let oom = bench.run(2, produced("TestOutOfMemory", json!({}))).await;
    assert_eq!(code(&oom), FailureCode::OutOfMemory);
    assert_eq!(
        bench.link.started_on(lease(2)).len(),
        2,
        "tried again once after freeing"
    );
    let refused = bench
        .run(3, json!({"1": {"class_type": "NoSuchNode", "inputs": {}}}))
        .await;
    assert_eq!(code(&refused), FailureCode::PromptRefused);
    assert_eq!(bench.run(4, saved(4)).await.outcome, AttemptOutcome::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_soon_and_a_stubborn_one_costs_the_instance() {
    let mut bench = Bench::with_dirs().await;
    bench.link.give(assignment(1, sleeping("TestSleep", 60.0)));
    bench.saw(1, "\"type\":\"progress\"").await;
    bench.link.stop(lease(1), StopCause::Cancelled);
    assert_eq!(
        bench.link.end_of(lease(1)).await.outcome,
        AttemptOutcome::Cancelled
    );
    assert_eq!(bench.run(2, saved(2)).await.outcome, AttemptOutcome::Done);

    let mut work = assignment(3, sleeping("TestIgnoreInterrupt", 20.0));
    work.bounds.cancel_grace = Duration::from_millis(300);
    bench.link.give(work);
    bench.saw(3, "\"type\":\"progress\"").await;
    bench.link.stop(lease(3), StopCause::Cancelled);
    assert_eq!(
        bench.link.end_of(lease(3)).await.outcome,
        AttemptOutcome::Cancelled
    );
    let end = (&mut bench.slot).await.unwrap();
    assert!(matches!(end, SlotEnd::InstanceBroken { .. }), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_completes_and_one_that_takes_too_long_fails() {
    let bench = Bench::with_dirs().await;
    let mut work = assignment(1, sleeping("TestSilentSleep", 1.5));
    work.bounds.stall_timeout = Duration::from_secs(30);
    assert_eq!(bench.give(work).await.outcome, AttemptOutcome::Done);
    let mut work = assignment(2, sleeping("TestSleep", 60.0));
    work.bounds.execution_timeout = Duration::from_millis(300);
    assert_eq!(code(&bench.give(work).await), FailureCode::ExecutionTimeout);
    assert_eq!(bench.run(3, saved(3)).await.outcome, AttemptOutcome::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_in_a_node_is_lost_as_soon_as_its_owner_says_so() {
    let mut bench = Bench::with_dirs().await;
    bench
        .link
        .give(assignment(1, produced("TestKillWorker", json!({}))));
    bench.saw(1, "executing {\"node\":\"1\"").await;
    bench
        .evidence
        .send(Some("its worker thread died".into()))
        .unwrap();
    let completion = bench.link.end_of(lease(1)).await;
    assert!(
        matches!(completion.outcome, AttemptOutcome::Lost { .. }),
        "{completion:?}"
    );
    assert!(matches!(
        (&mut bench.slot).await.unwrap(),
        SlotEnd::InstanceBroken { .. }
    ));
}

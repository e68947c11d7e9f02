//! Inputs and outputs of attempts on a scripted instance: nothing is done without its files.

mod support;

use std::time::Duration;

use axum::extract::ws::Message;
use darkroom_core::{AttemptOutcome, attempt::RunningOn, failure::FailureCode};
use darkroom_runner::{
    SlotEnd,
    link::{Address, InputFile, InputSource, Media, StopCause},
    testing::{assignment, lease},
};
use serde_json::{Value, json};
use support::bench::*;

#[tokio::test]
async fn a_run_is_told_in_order_and_its_files_are_stored() {
    let mut bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    assert_eq!(prompt.client_id, "client-1");
    let on = bench.link.started_on(lease(1));
    assert_eq!(
        on,
        [RunningOn {
            instance: instance(),
            client_id: "client-1".into(),
            prompt_id: prompt.id.clone()
        }]
    );
    let fake = &bench.fake;
    fake.send(&prompt, "execution_start", json!({"timestamp": 1}));
    fake.send(&prompt, "execution_cached", json!({"nodes": []}));
    let state =
        json!({"nodes": {"1": {"value": 1.0, "max": 2.0, "state": "running", "display_node_id": "1"}}});
    fake.send(&prompt, "progress_state", state);
    fake.send(&prompt, "executing", json!({"node": "1", "display_node": "1"}));
    fake.send_raw(
        &prompt,
        axum::extract::ws::Message::Binary(vec![0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xd8].into()),
    );
    bench.write_output("a.png", b"pixels");
    bench.write_output("unmentioned.json", b"{}");
    fake.send(
        &prompt,
        "executed",
        json!({"node": "1", "output": {"images": [{"filename": "a.png"}]}}),
    );
    fake.succeed(&prompt, image("a.png"));
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(completion.outcome, AttemptOutcome::Done);
    let stored: Vec<_> = completion
        .outputs
        .iter()
        .map(|o| {
            (
                o.node_id.as_str(),
                o.kind.as_str(),
                bench.link.bytes_of(o).unwrap(),
            )
        })
        .collect();
    assert_eq!(
        stored,
        [("1", "images", b"pixels".to_vec()), ("", "files", b"{}".to_vec())]
    );
    let kinds: Vec<_> = bench
        .link
        .events(lease(1))
        .iter()
        .map(|e| e.kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "execution_start",
            "execution_cached",
            "executing",
            "executed",
            "execution_success",
            "executing"
        ]
    );
    let told = bench.link.told(lease(1));
    let at = |what: &str| {
        told.iter()
            .position(|t| t.contains(what))
            .unwrap_or_else(|| panic!("{what}: {told:?}"))
    };
    assert!(at("progress_state") < at("executing {\"node\":\"1\""));
    assert!(at("executing {\"node\":\"1\"") < at("preview"));
    assert!(at("preview") < at("executed "));
    assert_eq!(completion.events.len(), 1);
    assert!(completion.events[0].data.contains("\"state\":\"running\""));
    let result: Value = serde_json::from_slice(&completion.result.unwrap()).unwrap();
    assert_eq!(result["status"]["status_str"], "success");
    assert_eq!(result["outputs"]["1"]["images"][0]["filename"], "a.png");
    bench.link.close();
    assert_eq!(bench.slot_end().await, SlotEnd::Closed);
    assert_eq!(
        bench.fake.requests("GET /queue"),
        0,
        "nothing is polled when all goes well"
    );
    assert_eq!(bench.fake.requests("GET /history"), 1);
}

#[tokio::test]
async fn images_over_the_socket_that_were_missed_are_no_success() {
    let bench = Bench::with_dirs();
    let graph = json!({"1": {"class_type": "SaveImageWebsocket", "inputs": {}}});
    bench.link.give(assignment(1, graph));
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "execution_start", json!({}));
    bench.fake.send(&prompt, "executing", json!({"node": "1"}));
    bench.fake.cut_sockets();
    bench.fake.sockets_opened(2).await;
    bench.fake.succeed(&prompt, json!({}));
    let completion = bench.link.end_of(lease(1)).await;
    // It counts: an instance that drops its socket in every run does not repeat the prompt twenty times.
    let AttemptOutcome::Lost { reason } = &completion.outcome else {
        panic!("{completion:?}")
    };
    assert!(reason.contains("were missed"), "{reason}");
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn images_over_the_socket_outlive_a_blob_store_that_is_away() {
    let bench = Bench::with_dirs();
    let graph = json!({"1": {"class_type": "SaveImageWebsocket", "inputs": {}}});
    bench.link.set_blobs_away(true);
    bench.link.give(assignment(1, graph));
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "executing", json!({"node": "1"}));
    let image = b"\x89PNG and so on";
    let frame = [&[0, 0, 0, 1, 0, 0, 0, 2], &image[..]].concat();
    bench.fake.send_raw(&prompt, Message::Binary(frame.into()));
    bench.fake.succeed(&prompt, json!({}));
    bench
        .link
        .until(|| bench.link.was_collecting(lease(1)).then_some(()))
        .await;
    bench.link.set_blobs_away(false);
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(completion.outcome, AttemptOutcome::Done);
    assert_eq!(bench.link.bytes_of(&completion.outputs[0]).unwrap(), image);
    assert!(is_empty(&bench.path("spool")), "nothing is left of it");
}

#[tokio::test]
async fn success_for_a_file_that_is_not_there_is_a_failure() {
    for bench in [Bench::with_dirs(), Bench::over_http()] {
        bench.link.give(assignment(1, graph()));
        let prompt = bench.fake.posted(1).await;
        bench.fake.succeed(&prompt, image("missing.png"));
        let completion = bench.link.end_of(lease(1)).await;
        assert_eq!(code(&completion.outcome), FailureCode::OutputMissing);
        assert!(completion.outputs.is_empty());
        bench.is_still_of_use().await;
    }
}

#[tokio::test]
async fn a_file_name_that_climbs_is_not_followed() {
    let bench = Bench::with_dirs();
    std::fs::write(bench.path("secret.txt"), b"secret").unwrap();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.succeed(&prompt, image("../secret.txt"));
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(code(&completion.outcome), FailureCode::OutputMissing);
}

#[tokio::test]
async fn without_directories_files_come_over_http() {
    let bench = Bench::over_http();
    bench.fake.add_file("output", "a.png", b"far away");
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.succeed(&prompt, image("a.png"));
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(completion.outcome, AttemptOutcome::Done);
    assert_eq!(bench.link.bytes_of(&completion.outputs[0]).unwrap(), b"far away");
    bench.is_still_of_use().await;
    assert!(is_empty(&bench.path("spool")));
}

#[tokio::test]
async fn outputs_wait_for_the_blob_store_without_the_slot() {
    let mut bench = Bench::start(true, |config| config.slot_hold = Duration::from_millis(50));
    bench.link.set_blobs_away(true);
    for n in 1..=2 {
        bench.link.give(assignment(n, graph()));
        let prompt = bench.fake.posted(usize::try_from(n).unwrap()).await;
        bench.write_output("same.png", format!("of {n}").as_bytes());
        bench.fake.succeed(&prompt, image("same.png"));
        bench
            .link
            .until(|| bench.link.was_collecting(lease(n)).then_some(()))
            .await;
        assert!(
            bench.link.finished(lease(n)).is_none(),
            "not done before its outputs are stored"
        );
    }
    bench.link.set_blobs_away(false);
    for n in 1..=2 {
        let completion = bench.link.end_of(lease(n)).await;
        assert_eq!(completion.outcome, AttemptOutcome::Done);
        assert_eq!(
            bench.link.bytes_of(&completion.outputs[0]).unwrap(),
            format!("of {n}").into_bytes()
        );
    }
    bench.link.close();
    assert_eq!(bench.slot_end().await, SlotEnd::Closed);
}

#[tokio::test]
async fn outputs_that_cannot_be_stored_for_too_long_give_the_job_back() {
    let bench = Bench::start(true, |config| {
        config.slot_hold = Duration::from_millis(50);
        config.collect_timeout = Duration::from_millis(300);
    });
    bench.link.set_blobs_away(true);
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.write_output("a.png", b"a");
    bench.fake.succeed(&prompt, image("a.png"));
    let completion = bench.link.end_of(lease(1)).await;
    assert!(
        matches!(completion.outcome, AttemptOutcome::Released { .. }),
        "{completion:?}"
    );
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn a_job_cancelled_while_it_waits_for_the_blob_store_ends_cancelled() {
    let bench = Bench::start(true, |config| config.slot_hold = Duration::from_millis(50));
    bench.link.set_blobs_away(true);
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.write_output("a.png", b"a");
    bench.fake.succeed(&prompt, image("a.png"));
    bench
        .link
        .until(|| bench.link.was_collecting(lease(1)).then_some(()))
        .await;
    bench.link.stop(lease(1), StopCause::Cancelled);
    assert_eq!(
        bench.link.end_of(lease(1)).await.outcome,
        AttemptOutcome::Cancelled
    );
}

#[tokio::test]
async fn a_cached_rerun_whose_file_is_gone_takes_the_stored_blob() {
    let bench = Bench::with_dirs();
    bench.link.allow_reuse();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.write_output("a.png", b"once");
    bench.fake.succeed(&prompt, image("a.png"));
    let first = bench.link.end_of(lease(1)).await;
    std::fs::remove_file(bench.path("output").join("a.png")).unwrap();
    bench.link.give(assignment(2, graph()));
    let prompt = bench.fake.posted(2).await;
    let messages = json!([["execution_cached", {"nodes": ["1"], "prompt_id": prompt.id}]]);
    bench.fake.write_history(&prompt, image("a.png"), messages, true);
    bench.fake.send(&prompt, "executing", json!({"node": null}));
    let second = bench.link.end_of(lease(2)).await;
    assert_eq!(second.outcome, AttemptOutcome::Done);
    assert_eq!(second.outputs[0].body, first.outputs[0].body);
}

#[tokio::test]
async fn inputs_are_uploaded_and_their_names_go_into_the_graph() {
    let bench = Bench::with_dirs();
    bench.link.add_input("https://x.example/a.png", &b"bytes"[..]);
    let mut work = assignment(
        1,
        json!({"1": {"class_type": "LoadImage", "inputs": {"image": "?"}}}),
    );
    work.work.files.push(InputFile {
        node_id: "1".into(),
        input: "image".into(),
        nested: None,
        file_name: "abc.png".into(),
        source: url("https://x.example/a.png"),
    });
    bench.link.give(work.clone());
    let prompt = bench.fake.posted(1).await;
    assert_eq!(bench.fake.uploads(), [("abc.png".to_owned(), b"bytes".to_vec())]);
    assert_eq!(prompt.body["prompt"]["1"]["inputs"]["image"], "up_abc.png");
    bench.fake.succeed(&prompt, json!({}));
    bench.link.end_of(lease(1)).await;

    work.lease = lease(2);
    work.work.files[0].source = url("https://x.example/none.png");
    bench.link.give(work);
    let completion = bench.link.end_of(lease(2)).await;
    assert_eq!(code(&completion.outcome), FailureCode::InputUnavailable);
    let AttemptOutcome::Failed(failure) = &completion.outcome else {
        panic!("{completion:?}")
    };
    assert_eq!(
        failure.node_id.as_deref(),
        Some("1"),
        "the node that names it is to blame"
    );
    bench.is_still_of_use().await;
}

fn url(url: &str) -> InputSource {
    InputSource::Url(Address {
        url: url.into(),
        class: "LoadImage".into(),
        media: Media::Image,
    })
}

#[tokio::test]
async fn what_a_prompt_made_before_it_failed_is_kept_as_far_as_it_is_there() {
    let bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.write_output("a.png", b"pixels");
    bench.write_output("unmentioned.json", b"{}");
    let made = json!({
        "1": {"images": [{"filename": "gone.png", "subfolder": "", "type": "output"},
                         {"filename": "a.png", "subfolder": "", "type": "output"}]},
        "2": {"images": [{"filename": "../escape.png", "subfolder": "", "type": "output"}], "text": ["so far"]},
    });
    let error =
        json!({"node_id": "5", "node_type": "Broken", "exception_message": "boom", "exception_type": "E"});
    bench.fake.fail_after(&prompt, "execution_error", error, made);
    let completion = bench.link.end_of(lease(1)).await;
    let AttemptOutcome::Failed(failure) = &completion.outcome else {
        panic!("{:?}", completion.outcome)
    };
    assert_eq!(failure.code, FailureCode::ExecutionError);
    let kept: Vec<_> = completion
        .outputs
        .iter()
        .map(|o| (o.node_id.as_str(), o.kind.as_str()))
        .collect();
    assert_eq!(kept, [("1", "images"), ("2", "text")]);
    assert_eq!(bench.link.bytes_of(&completion.outputs[0]).unwrap(), b"pixels");
}

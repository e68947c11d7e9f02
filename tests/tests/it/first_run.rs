//! The main job: a workflow, accepted durably, on an instance that was not running, stored, and back to zero.

use std::time::Duration;

use darkroom_tests::{Options, Server, eventually, graphs, pixels};
use reqwest::Method;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn from_zero_to_a_stored_picture_and_back_to_zero() {
    let config = "[endpoints.default.scaling]\nidle_timeout = \"4s\"";
    let server = Server::start(Options::default().with_config(config)).await;
    let api = server.api();
    assert!(
        api.instances().await.is_empty(),
        "nothing runs before the first job"
    );

    let id = api.submit(&graphs::plain(0x33_66_99, 48, 32)).await;
    let job = api.finished(&id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let files = api.outputs(&job).await;
    assert_eq!(files.len(), 1, "{job}");
    pixels::assert_plain(&files[0], 0x33_66_99, 48, 32);
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");

    let instances = api.instances().await;
    assert_eq!(instances.len(), 1, "{instances:?}");
    assert!(
        instances[0]["start_reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "an instance says why it was started: {instances:?}"
    );
    eventually("the idle instance is stopped", LIMIT, async || {
        (api.instances().await.is_empty() && server.instance_pids().is_empty()).then_some(())
    })
    .await;
    // And again, from zero.
    let id = api.submit(&graphs::plain(0x11_22_33, 8, 8)).await;
    assert_eq!(api.finished(&id).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_is_listed_newest_first_and_survives_a_restart() {
    let mut server = Server::start(Options::default()).await;
    let api = server.api();
    let mut ids = Vec::new();
    for colour in [1, 2, 3] {
        let id = api.submit(&graphs::plain(colour, 8, 8)).await;
        api.finished(&id).await;
        ids.insert(0, id);
    }
    let listed = async || {
        let page = api.get("/darkroom/v1/jobs?limit=10").await.expect(200).json();
        let jobs = page["jobs"].as_array().cloned().unwrap_or_default();
        jobs.iter()
            .filter_map(|job| job["id"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(listed().await, ids);
    assert!(server.stop().await.success());
    server.restart().await;
    assert_eq!(listed().await, ids);
    let job = api.job(&ids[0]).await;
    pixels::assert_plain(&api.outputs(&job).await[0], 3, 8, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_ends_whether_it_waits_or_runs() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let running = api.submit(&graphs::sleep(60.0, "a", 1)).await;
    eventually("the first job runs", LIMIT, async || {
        (api.job(&running).await["state"] == "running").then_some(())
    })
    .await;
    let waiting = api.submit(&graphs::sleep(60.0, "b", 2)).await;
    let waits = api.job(&waiting).await;
    assert!(
        waits["waiting"]["message"].is_string(),
        "a waiting job says what it waits for: {waits}"
    );
    for id in [&waiting, &running] {
        api.post(&format!("/darkroom/v1/jobs/{id}/cancel"), &json!({}))
            .await
            .expect(200);
        let job = api.finished_within(id, LIMIT).await;
        assert_eq!(job["state"], "cancelled", "{job}");
    }
    // The instance that was interrupted still works.
    let next = api.submit(&graphs::plain(5, 8, 8)).await;
    assert_eq!(api.finished(&next).await["state"], "succeeded");
    let again = api
        .post(&format!("/darkroom/v1/jobs/{running}/cancel"), &json!({}))
        .await;
    assert_eq!(again.json()["result"], "already_final");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_node_fails_the_job_with_its_name_and_is_not_retried() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let graph = graphs::through("TestRaise", json!({"message": "no film in the camera"}), "a", 1);
    let job = api.finished(&api.submit(&graph).await).await;
    assert_eq!(job["state"], "failed", "{job}");
    assert_eq!(job["failure"]["node_id"], "5", "{job}");
    assert_eq!(job["failure"]["node_type"], "TestRaise", "{job}");
    assert!(
        job["failure"]["message"]
            .as_str()
            .unwrap_or("")
            .contains("no film"),
        "{job}"
    );
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_can_be_followed_and_resumed() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let id = api.submit(&graphs::sleep(0.3, "a", 1)).await;
    let path = format!("/darkroom/v1/jobs/{id}/events");
    // The stream ends by itself after the final state.
    let whole = api.get(&path).await.expect(200).text();
    let ids: Vec<u64> = whole
        .lines()
        .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
        .collect();
    assert!(ids.len() > 3, "{whole}");
    assert!(
        ids.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "numbers have no gap: {ids:?}"
    );
    for kind in ["state", "execution_start", "executing", "executed"] {
        assert!(whole.contains(&format!("event: {kind}\n")), "{kind}: {whole}");
    }
    assert!(
        whole.contains("event: progress"),
        "progress is sent while it runs: {whole}"
    );

    let resume_after = ids[1];
    let request = api
        .request(Method::GET, &path)
        .header("Last-Event-ID", resume_after.to_string());
    let rest = api.send(request).await.expect(200).text();
    let first = rest
        .lines()
        .find_map(|line| line.strip_prefix("id: ")?.parse::<u64>().ok());
    assert_eq!(first, Some(resume_after + 1), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_come_out_whatever_they_are_called() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let picture = pixels::gradient(40, 24);
    let png = pixels::encode(&picture);
    let mut graph = graphs::invert(&pixels::data_uri(&png));
    graph["9"]["inputs"]["filename_prefix"] = json!("猫/夜 cat");
    let job = api.finished(&api.submit(&graph).await).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let name = job["outputs"][0]["filename"].as_str().unwrap_or_default();
    assert!(name.contains("夜 cat"), "{job}");
    pixels::assert_inverse(&api.outputs(&job).await[0], &picture);
}

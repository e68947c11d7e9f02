//! `warmup`: what each new instance runs before its first job.

use darkroom_tests::{Api, Options, Server, config, eventually, graphs, http::JOB_LIMIT};
use serde_json::{Value, json};

/// A server whose instances run this workflow first.
async fn warmed_by(workflow: &Value) -> (tempfile::TempDir, Server) {
    warmed_with(workflow, "").await
}

async fn warmed_with(workflow: &Value, more: &str) -> (tempfile::TempDir, Server) {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("预热.json");
    std::fs::write(&file, workflow.to_string()).expect("a file");
    let command = config::engine_command();
    let config = format!("[endpoints.default]\ncommand = {command:?}\nwarmup = {file:?}\n{more}\n");
    let server = Server::start(Options::default().with_config(&config)).await;
    (home, server)
}

async fn history_of(api: &Api, graph: &Value) -> Value {
    let answer = api
        .post("/prompt", &json!({"prompt": graph}))
        .await
        .expect(200)
        .json();
    let id = answer["prompt_id"].as_str().expect("an id").to_owned();
    eventually("it stands in history", JOB_LIMIT, async || {
        let history = api.get(&format!("/history/{id}")).await.expect(200).json();
        history.get(&id).cloned()
    })
    .await
}

async fn phases(api: &Api) -> Vec<String> {
    let instance = &api.instances().await[0];
    let all = instance["phases"].as_array().into_iter().flatten();
    all.filter_map(|phase| phase["phase"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_run_it_before_its_first_job() {
    // As the editor saves it.
    let (_home, server) = warmed_by(&json!({
        "nodes": [
            {"id": 1, "type": "EmptyImage", "widgets_values": [16, 8, 1, 77]},
            {"id": 9, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 1}]},
        ],
        "links": [[1, 1, 0, 9, 0, "IMAGE"]],
    }))
    .await;
    let api = server.api();
    let entry = history_of(&api, &graphs::plain(77, 16, 8)).await;
    assert_eq!(entry["status"]["status_str"], "success", "{entry}");
    let messages = entry["status"]["messages"].as_array().expect("messages");
    let cached = messages.iter().find(|message| message[0] == "execution_cached");
    assert_eq!(
        cached.expect("it is told")[1]["nodes"],
        json!(["1"]),
        "{messages:?}"
    );
    assert_eq!(
        phases(&api).await,
        ["spawned", "listening", "nodes_loaded", "warmed_up", "ready"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_is_logged_and_holds_no_job_up() {
    let broken = graphs::through("TestRaise", json!({}), "a", 1);
    let unknown = json!({"1": {"class_type": "Nonsense", "inputs": {}}});
    for workflow in [broken, unknown] {
        let (_home, server) = warmed_by(&workflow).await;
        let api = server.api();
        let entry = history_of(&api, &graphs::plain(1, 8, 8)).await;
        assert_eq!(entry["status"]["status_str"], "success", "{entry}");
        assert_eq!(
            phases(&api).await,
            ["spawned", "listening", "nodes_loaded", "ready"]
        );
        assert!(server.log().contains("was not warmed up"), "{}", server.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_takes_too_long_is_taken_back_before_the_first_job() {
    let long = graphs::sleep(3600.0, "warm", 1);
    let (_home, server) = warmed_with(&long, "scaling.start_timeout = \"10s\"").await;
    let api = server.api();
    // Behind the warm-up it would wait for an hour.
    let entry = history_of(&api, &graphs::plain(1, 8, 8)).await;
    assert_eq!(entry["status"]["status_str"], "success", "{entry}");
    assert_eq!(
        phases(&api).await,
        ["spawned", "listening", "nodes_loaded", "ready"]
    );
    assert!(server.log().contains("not warmed up within"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_outlives_the_server_is_taken_up_and_not_begun_again() {
    let mut warmup = graphs::sleep(4.0, "warm", 1);
    // Saved anew by each run.
    warmup["6"] = json!({"class_type": "TestNeverCached", "inputs": {"image": ["5", 0]}});
    warmup["9"]["inputs"]["images"] = json!(["6", 0]);
    let (_home, server) = warmed_with(&warmup, "").await;
    let api = server.api();
    let id = api
        .post("/prompt", &json!({"prompt": graphs::plain(1, 8, 8)}))
        .await
        .expect(200)
        .json()["prompt_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    eventually("it is warmed up", JOB_LIMIT, async || {
        let all = api.instances().await;
        let phases = all.first()?["phases"].as_array()?;
        phases
            .iter()
            .any(|phase| phase["phase"] == "nodes_loaded")
            .then_some(())
    })
    .await;
    server.kill_child().await;
    let api = server.api();
    eventually("the job ends", JOB_LIMIT, async || {
        let history = api.get(&format!("/history/{id}")).await.json();
        history.get(&id).cloned()
    })
    .await;
    let found = std::process::Command::new("find")
        .arg(server.data_dir())
        .args(["-path", "*/instances/*/output/*", "-name", "plain_*.png"])
        .output()
        .expect("find runs");
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let dir = |line: &str| line.rsplit_once('/').map(|(dir, _)| dir.to_owned());
    let instances: std::collections::BTreeSet<_> = found.lines().filter_map(dir).collect();
    // The warm-up's picture and the job's.
    assert_eq!((instances.len(), found.lines().count()), (1, 2), "{found}");
}

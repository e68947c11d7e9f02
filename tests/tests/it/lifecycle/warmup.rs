//! `warmup`: what each new instance runs before its first job.

use darkroom_tests::{Api, Options, Server, config, eventually, graphs, http::JOB_LIMIT};
use serde_json::{Value, json};

/// A server whose instances run this workflow first.
async fn warmed_by(workflow: &Value) -> (tempfile::TempDir, Server) {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("预热.json");
    std::fs::write(&file, workflow.to_string()).expect("a file");
    let command = config::engine_command();
    let config = format!("[endpoints.default]\ncommand = {command:?}\nwarmup = {file:?}\n");
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

/// Without `listening`, which a start that answers at once may not be seen in.
async fn phases(api: &Api) -> Vec<String> {
    let instance = &api.instances().await[0];
    let all = instance["phases"].as_array().into_iter().flatten();
    all.filter_map(|phase| phase["phase"].as_str().map(str::to_owned))
        .filter(|phase| phase != "listening")
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
        ["spawned", "nodes_loaded", "warmed_up", "ready"]
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
        assert_eq!(phases(&api).await, ["spawned", "nodes_loaded", "ready"]);
        assert!(server.log().contains("was not warmed up"), "{}", server.log());
    }
}

//! The queue: order, taking out what waits, interrupting what runs, one id for one live prompt.

use darkroom_tests::{Api, Options, Server, eventually, graphs, http::JOB_LIMIT, native};
use serde_json::{Value, json};

async fn submit(api: &Api, seed: &str, more: Value) -> Value {
    let mut body = more;
    // It ends when it is told to, however slow the machine is meanwhile.
    body["prompt"] = graphs::through("TestSleep", json!({"seconds": 600, "steps": 6000}), seed, 5);
    api.post("/prompt", &body).await.expect(200).json()
}

async fn running(api: &Api) -> String {
    eventually("a prompt runs", JOB_LIMIT, async || {
        let queue = api.get("/queue").await.expect(200).json();
        queue["queue_running"][0][1].as_str().map(str::to_owned)
    })
    .await
}

fn ids(list: &Value) -> Vec<String> {
    let tuples = list.as_array().unwrap().iter();
    tuples
        .map(|tuple| tuple[1].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_ordered_as_comfyui_does_and_taken_out_and_what_runs_is_interrupted() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    submit(&api, "a", json!({"prompt_id": "a"})).await;
    native::learned(&api, "").await;
    assert_eq!(running(&api).await, "a");
    // One id is one live prompt.
    assert_eq!(
        submit(&api, "a", json!({"prompt_id": "a"})).await["prompt_id"],
        "a"
    );
    for (id, more) in [
        ("second", json!({})),
        ("third", json!({})),
        ("front1", json!({"front": true})),
        ("front2", json!({"front": true})),
        ("first", json!({"number": -100.5})),
    ] {
        let mut more = more;
        more["prompt_id"] = json!(id);
        let told = submit(&api, id, more).await;
        if id == "first" {
            assert_eq!(told["number"], -100.5);
        }
    }
    let queue = api.get("/queue").await.json();
    assert_eq!(
        ids(&queue["queue_pending"]),
        ["first", "front2", "front1", "second", "third"]
    );
    assert_eq!(queue["queue_pending"][0][4], json!(["9"]));
    assert_eq!(api.get("/prompt").await.json()["exec_info"]["queue_remaining"], 6);
    let listed = api
        .get("/api/jobs?status=pending,in_progress&sort_order=asc")
        .await
        .json();
    assert_eq!(listed["pagination"]["total"], 6);
    assert_eq!(listed["jobs"][0]["id"], "a");

    // Never what runs, by either verb.
    api.post("/queue", &json!({"delete": ["third", "a", "unknown"]}))
        .await
        .expect(200);
    api.post("/interrupt", &json!({"prompt_id": "second"}))
        .await
        .expect(200);
    let queue = api.get("/queue").await.json();
    assert_eq!(
        ids(&queue["queue_pending"]),
        ["first", "front2", "front1", "second"]
    );
    assert_eq!(ids(&queue["queue_running"]), ["a"]);
    api.post("/queue", &json!({"clear": true})).await.expect(200);
    assert_eq!(api.get("/queue").await.json()["queue_pending"], json!([]));

    api.post("/interrupt", &json!({"prompt_id": "a"}))
        .await
        .expect(200);
    let history = eventually("it is interrupted", JOB_LIMIT, async || {
        let history = api.get("/history").await.expect(200).json();
        history.get("a").cloned()
    })
    .await;
    assert_eq!(history["status"]["status_str"], "error");
    let last = history["status"]["messages"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(last[0], "execution_interrupted");
    let all = api.get("/history").await.json();
    assert_eq!(
        all.as_object().unwrap().len(),
        1,
        "what never ran leaves no trace"
    );

    // After its end the same id names a new prompt.
    submit(&api, "b", json!({"prompt_id": "a"})).await;
    assert_eq!(running(&api).await, "a");
    let cancelled = api
        .post("/api/jobs/cancel", &json!({"job_ids": ["a", "unknown"]}))
        .await;
    assert_eq!(cancelled.expect(200).json(), json!({"cancelled": true}));
    eventually("nothing runs", JOB_LIMIT, async || {
        (api.get("/prompt").await.json()["exec_info"]["queue_remaining"] == 0).then_some(())
    })
    .await;
}

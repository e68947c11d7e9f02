//! Credentials inside a request: they reach the instance, and are neither shown nor readable on the disk.

use std::{fs, path::Path, time::Duration};

use darkroom_tests::{Options, Server, eventually, fc, graphs};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(180);

const KEY: &str = "comfyui-0123456789abcdef";

fn with_key(graph: &Value) -> Value {
    json!({"graph": graph, "extra_data": {"api_key_comfy_org": KEY, "extra_pnginfo": {"workflow": {}}}})
}

/// Files below a directory that hold the key.
fn files_with_key(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with_key(&path));
        } else if fs::read(&path)
            .is_ok_and(|bytes| bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes()))
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_request_reaches_the_instance_and_lies_nowhere_in_the_clear() {
    let mut server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let submit = async |graph: &Value| -> String {
        let answer = api
            .post("/darkroom/v1/endpoints/default/jobs", &with_key(graph))
            .await
            .expect(201);
        assert!(!answer.text().contains(KEY), "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    };
    let running = submit(&graphs::sleep(8.0, "a", 1)).await;
    let waiting = submit(&graphs::plain(2, 8, 8)).await;
    eventually("the job runs with its key", LIMIT, async || {
        let instances = api.instances().await;
        let url = instances.first()?["url"].as_str()?.to_owned();
        let request = api.request(reqwest::Method::GET, &format!("{url}/queue"));
        let queue = api.try_send(request).await.ok()?.text();
        queue.contains(KEY).then_some(())
    })
    .await;
    // One is with the instance, the other waits; also a server that was killed knows both.
    let data = server.data_dir();
    assert_eq!(files_with_key(&data), Vec::<String>::new());
    server.kill_tree().await;
    assert_eq!(files_with_key(&data), Vec::<String>::new());
    server.restart().await;
    for id in [&running, &waiting] {
        let job = api.finished(id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        assert!(!job.to_string().contains(KEY), "{job}");
        let retry = format!("/darkroom/v1/jobs/{id}/retry");
        let refused = api.post(&retry, &json!({})).await.expect(400).text();
        assert!(refused.contains("credentials"), "{refused}");
    }
    assert_eq!(files_with_key(&data), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_says_is_shown_without_the_key() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let message = format!("the key {KEY} is not known");
    let raise = |seed: &str| graphs::through("TestRaise", json!({"message": message}), seed, 1);
    let id = api
        .post("/darkroom/v1/endpoints/default/jobs", &with_key(&raise("a")))
        .await
        .expect(201)
        .json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let job = api.finished(&id).await;
    assert_eq!(job["failure"]["code"], "execution_error", "{job}");
    let events = api
        .get(&format!("/darkroom/v1/jobs/{id}/events"))
        .await
        .expect(200)
        .text();
    let wrapped = json!({"prompt": raise("b"), "extra_data": {"auth_token_comfy_org": KEY}});
    let answer = fc::run(&api, "", &wrapped).await.expect(500).text();
    for text in [job.to_string(), events, answer] {
        assert!(text.contains("the key [hidden] is not known"), "{text}");
        assert!(!text.contains(KEY), "{text}");
    }
    for path in ["/darkroom/v1/jobs", "/"] {
        let text = api.get(path).await.expect(200).text();
        assert!(!text.contains(KEY), "{path}: {text}");
    }
    assert!(!server.log().contains(KEY));
}

//! What is answered from what boxes and instances told: `/object_info`, `/models`, `/system_stats` and their like.

use std::time::Duration;

use darkroom_tests::{Api, Options, Server, graphs, pixels, wait};
use reqwest::Method;
use serde_json::{Value, json};

use super::uploaded;

#[tokio::test(flavor = "multi_thread")]
async fn object_info_is_there_with_zero_instances_and_offers_uploads() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let plain = api.get("/object_info").await.expect(200);
    assert!(
        plain.json()["SaveImage"]["output_node"]
            .as_bool()
            .expect("a flag")
    );
    let etag = plain.header("etag").expect("a version").to_owned();
    api.send(
        api.request(Method::GET, "/api/object_info")
            .header("if-none-match", &etag),
    )
    .await
    .expect(304);
    let zipped = api
        .send(
            api.request(Method::GET, "/object_info")
                .header("accept-encoding", "gzip"),
        )
        .await
        .expect(200);
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert!(
        zipped.body.len() * 3 < plain.body.len(),
        "{} of {}",
        zipped.body.len(),
        plain.body.len()
    );

    uploaded(&api, "mine 图.png", pixels::encode(&pixels::gradient(3, 3)), &[]).await;
    let after = api
        .send(
            api.request(Method::GET, "/object_info")
                .header("if-none-match", &etag),
        )
        .await
        .expect(200);
    let offered = |info: &Value| info["LoadImage"]["input"]["required"]["image"][0].clone();
    assert!(
        offered(&after.json())
            .as_array()
            .expect("names")
            .contains(&json!("mine 图.png"))
    );
    let one = api.get("/object_info/LoadImage").await.expect(200).json();
    assert_eq!(offered(&one), offered(&after.json()));
    assert_eq!(
        api.get("/e/default/api/object_info/NoSuch")
            .await
            .expect(200)
            .json(),
        json!({})
    );
    assert!(
        api.instances().await.is_empty(),
        "nothing was started for any of it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_is_answered_without_an_instance() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    for prefix in ["", "/api", "/e/default", "/e/default/api"] {
        let get = async |path: &str| api.get(&format!("{prefix}{path}")).await.expect(200).json();
        assert_eq!(get("/models").await[0], "checkpoints");
        assert_eq!(get("/models/checkpoints").await, json!([]));
        api.get(&format!("{prefix}/models/nosuch")).await.expect(404);
        assert_eq!(
            get("/experiment/models").await[0],
            json!({"name": "checkpoints", "folders": []})
        );
        assert_eq!(get("/features").await["max_upload_size"], 100 * 1024 * 1024);
        assert_eq!(
            get("/users").await,
            json!({"storage": "server", "migrated": true})
        );
        assert_eq!(
            get("/system_stats").await["devices"].as_array().map(Vec::len),
            Some(1)
        );
        for empty in ["/embeddings", "/extensions"] {
            assert_eq!(get(empty).await, json!([]), "{empty}");
        }
        for empty in [
            "/i18n",
            "/workflow_templates",
            "/node_replacements",
            "/global_subgraphs",
        ] {
            assert_eq!(get(empty).await, json!({}), "{empty}");
        }
        api.post(&format!("{prefix}/free"), &json!({"unload_models": true}))
            .await
            .expect(200);
        api.send(api.request(Method::POST, &format!("{prefix}/free")))
            .await
            .expect(400);
    }
    api.get("/e/nosuch/features").await.expect(404);
    assert!(api.instances().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_told_of_itself_is_answered_after_it_is_gone() {
    let mut server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let python = async |api: &Api| {
        let stats = api.get("/system_stats").await.expect(200).json();
        stats["system"]["python_version"].as_str().map(str::to_owned)
    };
    assert_eq!(
        python(&api).await.as_deref(),
        Some("unknown"),
        "no instance ever ran"
    );
    let job = api.submit(&graphs::plain(0x00_80_ff, 4, 4)).await;
    api.finished(&job).await;
    // It is asked beside its first job, not before it.
    let told = wait::eventually("what the instance told", Duration::from_secs(120), || async {
        python(&api).await.filter(|version| version.contains("engine"))
    })
    .await;

    server.kill_everything().await;
    server.restart().await;
    let api = server.api();
    assert_eq!(python(&api).await, Some(told));
    let stats = api.get("/system_stats").await.expect(200).json();
    assert!(stats["devices"][0]["vram_total"].as_u64() > Some(0), "{stats}");
    assert_eq!(
        stats["system"]["argv"],
        json!(["main.py"]),
        "how it was started is not told"
    );
    assert_eq!(
        api.get("/models")
            .await
            .expect(200)
            .json()
            .as_array()
            .map(Vec::len),
        Some(20)
    );
}

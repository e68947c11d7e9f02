//! Jobs whose endpoint was taken out of the configuration: nobody serves them, and nobody may lose them.

use std::time::Duration;

use darkroom_tests::{Options, Server, eventually, graphs};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(180);

const WITH: &str = r#"
[endpoints.default]
[endpoints.gone]
command = ["/nobody", "{port}"]
scaling = { max_instances = 0 }
[endpoints.short]
command = ["/nobody", "{port}"]
scaling = { max_instances = 0 }
[endpoints.short.limits]
queue_ttl = "3s"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn their_jobs_say_so_are_counted_expire_and_can_be_cancelled() {
    let server = Server::start(Options::default().with_config(WITH)).await;
    let api = server.api();
    let submit = async |endpoint: &str| {
        let body = json!({"graph": graphs::plain(1, 8, 8)});
        let path = format!("/darkroom/v1/endpoints/{endpoint}/jobs");
        let job = api.post(&path, &body).await.expect(201).json();
        job["id"].as_str().expect("an id").to_owned()
    };
    let gone = submit("gone").await;
    let short = submit("short").await;
    server.reload("[endpoints.default]\n");
    let waiting = eventually("the reload counts", LIMIT, async || {
        let waiting = api.job(&gone).await["waiting"].clone();
        (waiting["reason"]["waiting_for"] == "endpoint_removed").then_some(waiting)
    })
    .await;
    assert!(
        waiting["message"]
            .as_str()
            .unwrap_or_default()
            .contains("not configured"),
        "{waiting}"
    );
    let listed = api.get("/darkroom/v1/endpoints").await.expect(200).json();
    let removed = listed["removed"].as_array().expect("a list");
    assert!(
        removed.contains(&json!({"name": "gone", "queued": 1, "running": 0})),
        "{listed}"
    );
    eventually("it is in the metrics", LIMIT, async || {
        let metrics = api.get("/metrics").await.expect(200).text();
        metrics
            .contains("darkroom_jobs_queued{endpoint=\"gone\"} 1")
            .then_some(())
    })
    .await;

    assert_eq!(api.finished(&short).await["state"], "expired");
    api.post(&format!("/darkroom/v1/jobs/{gone}/cancel"), &json!({}))
        .await
        .expect(200);
    assert_eq!(api.finished(&gone).await["state"], "cancelled");
    let listed = api.get("/darkroom/v1/endpoints").await.expect(200).json();
    assert_eq!(listed["removed"], json!([]));
}

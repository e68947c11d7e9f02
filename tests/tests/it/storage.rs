//! What files take, and jobs that are deleted with theirs.

use darkroom_tests::{Api, Options, Server, binary::darkroom, config, graphs};
use reqwest::Method;
use serde_json::Value;
use tokio::process::Command;

async fn run(server: &Server, args: &[&str]) -> (bool, String) {
    let output = Command::new(darkroom())
        .args(["--server", &server.url()])
        .args(args)
        .output()
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

async fn files(api: &Api) -> u64 {
    api.get("/darkroom/v1/storage").await.expect(200).json()["files"]
        .as_u64()
        .unwrap()
}

#[tokio::test]
async fn a_job_is_deleted_with_its_files_and_storage_tells_what_is_left() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    assert_eq!(files(&api).await, 0);
    let mut jobs = Vec::new();
    for colour in [0x11_11_11, 0x22_22_22] {
        let id = api.submit(&graphs::plain(colour, 16, 16)).await;
        jobs.push(api.finished(&id).await);
    }
    let full = files(&api).await;
    assert!(full >= 2);
    let usage = api.get("/darkroom/v1/storage").await.expect(200).json();
    let rows = usage["usage"].as_array().unwrap();
    let of_default =
        |row: &&Value| row["endpoint"] == "default" && row["tenant"] == "default" && row["age"] == "day";
    assert_eq!(rows.iter().filter(of_default).count(), 1, "{usage}");
    assert!(usage["bytes"].as_u64().unwrap() > 0);

    let first = jobs[0]["id"].as_str().unwrap();
    let (good, text) = run(&server, &["jobs", "delete", first]).await;
    assert!(good && text.contains("deleted"), "{text}");
    api.get(&format!("/darkroom/v1/jobs/{first}")).await.expect(404);
    assert!(files(&api).await < full);
    let (good, text) = run(&server, &["jobs", "delete", first]).await;
    assert!(!good, "{text}");
    let (good, text) = run(&server, &["storage"]).await;
    assert!(good && text.contains("default") && text.contains("all"), "{text}");

    // One that has not ended stays.
    let waiting = api.submit(&graphs::sleep(600.0, "storage", 1)).await;
    let path = format!("/darkroom/v1/jobs/{waiting}");
    let refused = api.send(api.request(Method::DELETE, &path)).await.expect(400);
    assert!(refused.text().contains("cancel it first"), "{}", refused.text());
    api.post(&format!("{path}/cancel"), &Value::Null)
        .await
        .expect(200);
    api.finished(&waiting).await;
    api.send(api.request(Method::DELETE, &path)).await.expect(200);
}

#[tokio::test]
async fn only_its_owner_deletes_a_job_and_only_operators_see_what_all_take() {
    let server = Server::start(Options::test_nodes().with_config(&config::alice_and_bob())).await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let job = alice.submit(&graphs::plain(1, 16, 16)).await;
    alice.finished(&job).await;
    let path = format!("/darkroom/v1/jobs/{job}");
    bob.send(bob.request(Method::DELETE, &path)).await.expect(404);
    bob.get("/darkroom/v1/storage").await.expect(403);
    alice.get(&path).await.expect(200);
    alice.send(alice.request(Method::DELETE, &path)).await.expect(200);
    alice.get(&path).await.expect(404);
}

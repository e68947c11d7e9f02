//! Holding an endpoint's line, moving jobs in it, clearing it; all of it outlives a crash.

use std::process::{Command, Output};

use darkroom_tests::{Api, Options, Server, binary, config, eventually, graphs};
use serde_json::json;

use super::{LIMIT, cancel, endpoint, is_running, long, submit_to, waits_for};

async fn darkroom(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(binary::darkroom());
    command
        .args(args)
        .args(["--server", &server.url()])
        .env_remove("DARKROOM_KEY")
        .current_dir(server.home());
    let run = tokio::task::spawn_blocking(move || command.output().expect("darkroom runs"));
    run.await.expect("no panic")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_endpoint_takes_jobs_and_runs_none_also_after_a_crash() {
    let mut server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let first = api.submit(&graphs::plain(1, 8, 8)).await;
    api.finished(&first).await;
    assert!(said(&darkroom(&server, &["endpoints", "pause", "default"]).await).contains("is paused"));
    assert!(said(&darkroom(&server, &["endpoints", "pause", "default"]).await).contains("before"));
    let job = api.submit(&graphs::plain(2, 8, 8)).await;
    let waiting = waits_for(&api, &job, "paused").await;
    assert_eq!(
        waiting["waiting"]["starts_in_s"],
        json!(null),
        "nobody knows for how long"
    );
    server.kill_everything().await;
    server.restart().await;
    waits_for(&api, &job, "paused").await;
    eventually(
        "what was there before the crash is known to be gone",
        LIMIT,
        async || {
            let endpoint = api.get("/darkroom/v1/endpoints/default").await.expect(200).json();
            assert_eq!(
                (&endpoint["paused"], &endpoint["queued"]),
                (&json!(true), &json!(1))
            );
            (endpoint["instances"] == json!([])).then_some(())
        },
    )
    .await;
    let all = api
        .get("/darkroom/v1/instances?all=true")
        .await
        .expect(200)
        .json();
    assert_eq!(
        all["instances"].as_array().map(Vec::len),
        Some(1),
        "none was started for what waits: {all}"
    );
    assert!(said(&darkroom(&server, &["endpoints", "resume", "default"]).await).contains("serves"));
    assert_eq!(api.finished(&job).await["state"], "succeeded");
    api.post("/darkroom/v1/endpoints/none/pause", &json!({}))
        .await
        .expect(404);
}

/// The places of these; `None` of one that does not wait, or of which a server that just started does not know why.
async fn order(api: &Api, jobs: &[&str]) -> Vec<Option<u64>> {
    let mut places = Vec::new();
    for job in jobs {
        places.push(api.job(job).await["waiting"]["position"].as_u64());
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_moved_and_the_rest_is_cleared() {
    let mut server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let runs = api.submit(&long("runs")).await;
    is_running(&api, &runs).await;
    let mut jobs = Vec::new();
    for colour in 1..=4 {
        jobs.push(api.submit(&graphs::plain(colour, 8, 8)).await);
    }
    let [a, b, c, d] = &jobs[..] else { panic!("four") };
    let moved = said(&darkroom(&server, &["jobs", "move", c, "--first"]).await);
    assert!(moved.contains("0 jobs before it"), "{moved}");
    said(&darkroom(&server, &["jobs", "move", a, "--last"]).await);
    said(&darkroom(&server, &["jobs", "move", d, "--before", b]).await);
    let wanted = [0, 1, 2, 3].map(Some);
    assert_eq!(order(&api, &[c, d, b, a]).await, wanted);
    for bad in [
        json!({}),
        json!({"to": "second"}),
        json!({"to": "first", "before": a}),
    ] {
        api.post(&format!("/darkroom/v1/jobs/{a}/move"), &bad)
            .await
            .expect(400);
    }
    let running = format!("/darkroom/v1/jobs/{runs}/move");
    api.post(&running, &json!({"to": "first"})).await.expect(400);
    server.kill_tree().await;
    server.restart().await;
    eventually("the moved order is still there", LIMIT, async || {
        (order(&api, &[c, d, b, a]).await == wanted).then_some(())
    })
    .await;
    let cleared = said(&darkroom(&server, &["endpoints", "clear", "default"]).await);
    assert!(cleared.contains("4 waiting jobs"), "{cleared}");
    for job in &jobs {
        assert_eq!(api.job(job).await["state"], "cancelled");
    }
    assert_eq!(api.job(&runs).await["state"], "running");
    cancel(&api, &runs).await;
    api.finished(&runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_clear_their_own_and_neither_pause_nor_reorder() {
    let config =
        config::alice_and_bob() + &config::key("operator", &["admin"], "") + &endpoint("default", "");
    let server = Server::start(Options::default().with_config(&config)).await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let operator = server.api_as(Some("sk_operator"));
    operator
        .post("/darkroom/v1/endpoints/default/pause", &json!({}))
        .await
        .expect(200);
    let of_alice = submit_to(&alice, "default", &graphs::plain(1, 8, 8)).await;
    let of_bob = submit_to(&bob, "default", &graphs::plain(2, 8, 8)).await;
    for (path, status) in [
        ("endpoints/default/pause".to_owned(), 403),
        ("endpoints/default/resume".to_owned(), 403),
        ("endpoints/default/clear?all_tenants=true".to_owned(), 403),
    ] {
        alice
            .post(&format!("/darkroom/v1/{path}"), &json!({}))
            .await
            .expect(status);
    }
    let first = json!({"to": "first"});
    alice
        .post(&format!("/darkroom/v1/jobs/{of_alice}/move"), &first)
        .await
        .expect(403);
    alice
        .post(&format!("/darkroom/v1/jobs/{of_bob}/move"), &first)
        .await
        .expect(404);
    let cleared = alice
        .post("/darkroom/v1/endpoints/default/clear", &json!({}))
        .await
        .expect(200);
    assert_eq!(cleared.json()["cancelled"], 1);
    assert_eq!(alice.job(&of_alice).await["state"], "cancelled");
    assert_eq!(bob.job(&of_bob).await["state"], "queued");
    operator
        .post("/darkroom/v1/endpoints/default/resume", &json!({}))
        .await
        .expect(200);
    assert_eq!(bob.finished(&of_bob).await["state"], "succeeded");
}

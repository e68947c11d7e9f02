//! Why a job waits: the closed set, each member as a caller gets to see it (`backing_off` is in `visibility.rs`).

use darkroom_tests::{Options, Server, boxes::Engine, config, eventually, graphs};
use serde_json::json;
use tempfile::TempDir;

use super::{LIMIT, cancel, decisions, endpoint, gated, is_running, long, submit_to, waits_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_told_by_phase() {
    let home = TempDir::with_prefix("darkroom-test-").expect("a directory");
    let gate = home.path().join("gate");
    let config = gated("default", &gate, "");
    let server = Server::start_in(home, Options::default().with_config(&config)).await;
    let api = server.api();
    let answer = api
        .post(
            "/darkroom/v1/endpoints/default/jobs",
            &json!({"graph": graphs::plain(1, 8, 8)}),
        )
        .await
        .expect(201);
    assert_eq!(answer.header("x-cold-start"), Some("true"));
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let job = eventually("its process runs", LIMIT, async || {
        let job = waits_for(&api, &id, "starting").await;
        (job["waiting"]["reason"]["phase"]["reached"] == "spawned").then_some(job)
    })
    .await;
    assert_eq!(job["waiting"]["reason"]["phase"]["phase"], "booting");
    assert_eq!(job["waiting"]["position"], 0);
    let message = job["waiting"]["message"].as_str().expect("a text");
    assert!(message.contains("does not listen yet"), "{message}");

    std::fs::write(&gate, b"").expect("the gate opens");
    api.finished(&id).await;
    let shown = api.get(&format!("/darkroom/v1/jobs/{id}")).await.expect(200);
    assert_eq!(shown.header("x-cold-start"), Some("true"));
    let instance = &api.instances().await[0];
    let phases = instance["phases"].as_array().expect("a list");
    let names: Vec<_> = phases
        .iter()
        .filter_map(|phase| phase["phase"].as_str())
        .collect();
    assert_eq!(names, ["spawned", "listening", "nodes_loaded", "ready"]);
    let times: Vec<_> = phases.iter().map(|phase| phase["at"].to_string()).collect();
    assert!(times.is_sorted(), "{times:?}");

    let warm = api.submit(&graphs::plain(2, 8, 8)).await;
    api.finished(&warm).await;
    let shown = api.get(&format!("/darkroom/v1/jobs/{warm}")).await.expect(200);
    assert_eq!(shown.header("x-cold-start"), Some("false"));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_busy_with_place_and_estimate_and_the_decision_behind_it() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let first = api.submit(&graphs::sleep(0.2, "known", 1)).await;
    api.finished(&first).await;
    let runs = api.submit(&long("a")).await;
    is_running(&api, &runs).await;
    let next = api.submit(&long("b")).await;
    let last = api.submit(&long("c")).await;
    let job = waits_for(&api, &last, "max_reached").await;
    assert_eq!(job["waiting"]["position"], 1);
    assert_eq!(
        job["waiting"]["reason"],
        json!({"waiting_for": "max_reached", "ahead": 1, "slots": 1})
    );
    assert!(job["waiting"]["starts_in_s"].is_number(), "{job}");
    let of = async |verdict: &str| {
        eventually(&format!("{verdict} is written down"), LIMIT, async || {
            let all = decisions(&api, "default").await.into_iter();
            let mut decided = all.map(|written| written["decision"].clone());
            decided.find(|decision| decision["verdict"]["verdict"] == verdict)
        })
        .await
    };
    let start = of("start").await;
    assert_eq!(
        (&start["signal"], &start["value"], &start["threshold"]),
        (&json!("demand"), &json!(1), &json!(0))
    );
    assert_eq!(of("max_reached").await["signal"], "demand");
    for job in [&last, &next, &runs] {
        cancel(&api, job).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_another_endpoint_holds_is_named_only_to_who_may_use_that_one() {
    let gpu = "gpus = [\"0\"]";
    let config = config::key("operator", &["admin"], "")
        + &config::key("narrow", &["client"], "endpoints = [\"b\"]")
        + &config::key("keeper", &["admin"], "endpoints = [\"b\"]")
        + &endpoint("secret-project", gpu)
        + &endpoint("b", gpu);
    let server = Server::start(Options::default().with_config(&config)).await;
    let operator = server.api_as(Some("sk_operator"));
    let holder = submit_to(&operator, "secret-project", &long("a")).await;
    is_running(&operator, &holder).await;
    let narrow = server.api_as(Some("sk_narrow"));
    let waiting = submit_to(&narrow, "b", &graphs::plain(1, 8, 8)).await;
    let job = waits_for(&operator, &waiting, "gpu_busy").await;
    assert_eq!(job["waiting"]["reason"]["holder"], "secret-project");
    let keeper = server.api_as(Some("sk_keeper"));
    let mut told = vec![
        waits_for(&narrow, &waiting, "gpu_busy").await.to_string(),
        narrow.get("/").await.expect(200).text(),
        narrow.get("/darkroom/v1/jobs").await.expect(200).text(),
    ];
    let decided = eventually("the decision is written down", LIMIT, async || {
        let text = json!(decisions(&keeper, "b").await).to_string();
        text.contains("gpu_busy").then_some(text)
    });
    told.push(decided.await);
    for text in told {
        assert!(!text.contains("secret-project"), "{text}");
    }
    assert!(
        json!(decisions(&operator, "b").await)
            .to_string()
            .contains("secret-project")
    );
    cancel(&operator, &holder).await;
    narrow.finished(&waiting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_quota_waits_while_others_are_served() {
    let config = config::alice_and_bob()
        + &endpoint(
            "default",
            "limits = { max_running_per_tenant = 1 }\nscaling = { max_instances = 3 }",
        );
    let server = Server::start(Options::default().with_config(&config)).await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let runs = alice.submit(&long("a")).await;
    is_running(&alice, &runs).await;
    let second = alice.submit(&graphs::plain(1, 8, 8)).await;
    let job = waits_for(&alice, &second, "quota").await;
    assert_eq!(
        job["waiting"]["reason"],
        json!({"waiting_for": "quota", "running": 1, "limit": 1})
    );
    let other = bob.submit(&graphs::plain(2, 8, 8)).await;
    assert_eq!(bob.finished(&other).await["state"], "succeeded");
    assert_eq!(alice.job(&second).await["state"], "queued");
    cancel(&alice, &runs).await;
    assert_eq!(alice.finished(&second).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_only_one_box_can_run_waits_for_that_one_though_another_is_idle() {
    let (plain, fancy) = (Engine::running(false), Engine::running(true));
    let urls = [plain.url(), fancy.url()];
    let remote = format!("[endpoints.default]\nbackend = \"remote\"\nurls = {urls:?}\n");
    let server = Server::start(Options::default().with_config(&remote)).await;
    let api = server.api();
    eventually("both are ready", LIMIT, async || {
        let all = api.instances().await;
        (all.iter().filter(|i| i["state"] == "ready").count() == 2).then_some(())
    })
    .await;
    let runs = api.submit(&long("a")).await;
    is_running(&api, &runs).await;
    let next = api.submit(&long("b")).await;
    let job = waits_for(&api, &next, "model_only_on").await;
    // The second one of the configuration; boxes without a name are numbered, so that nobody reads addresses.
    assert_eq!(job["waiting"]["reason"]["instances"], json!(["box-2"]));
    cancel(&api, &runs).await;
    is_running(&api, &next).await;
    cancel(&api, &next).await;
    api.finished(&next).await;
}

//! `darkroom attach`, `detach` and `doctor WORKFLOW`: boxes that come and go while the server runs.

use std::{path::Path, process::Output, time::Duration};

use darkroom_tests::{Api, Options, Server, binary, boxes::Engine, eventually, graphs};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(180);

async fn darkroom(home: &Path, server: &Server, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(binary::darkroom());
    command
        .current_dir(home)
        .args(arguments)
        .args(["--server", &server.url()])
        .env_remove("DARKROOM_KEY");
    command.output().await.expect("darkroom runs")
}

/// Its JSON, of a run that went well.
async fn told(home: &Path, server: &Server, arguments: &[&str]) -> Value {
    let output = darkroom(home, server, &[arguments, &["--json"]].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What it says of a run that did not.
async fn refused(home: &Path, server: &Server, arguments: &[&str]) -> String {
    let output = darkroom(home, server, arguments).await;
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn submit_to(api: &Api, endpoint: &str, graph: &Value) -> Value {
    let path = format!("/darkroom/v1/endpoints/{endpoint}/jobs");
    let answer = api.post(&path, &json!({"graph": graph})).await.expect(201);
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    api.finished(&id).await
}

async fn box_of(api: &Api, job: &Value) -> String {
    let id = job["attempts"][0]["instance"].as_str().expect("an instance");
    let shown = api
        .get(&format!("/darkroom/v1/instances/{id}"))
        .await
        .expect(200)
        .json();
    shown["box"].as_str().expect("a box").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_comfyui_is_attached_used_kept_over_a_restart_and_detached() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let engine = Engine::running(true);
    engine.listens().await;
    let mut server = Server::start(Options::default()).await;
    let attached = told(home, &server, &["attach", &engine.url(), "--name", "box 一"]).await;
    assert_eq!(attached["name"], "box 一", "{attached}");
    assert_eq!(attached["endpoint"], "default");
    assert!(attached["told"]["nodes"].as_u64() > Some(10), "{attached}");
    assert!(
        attached["told"]["version"].is_string() && attached["told"]["tested_ms"].is_u64(),
        "{attached}"
    );

    // Nodes that the embedded engine has not: it ran on what was attached.
    let api = server.api();
    let job = submit_to(&api, "default", &graphs::sleep(0.1, "a", 1)).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(box_of(&api, &job).await, "box 一");
    // A second one, to an endpoint that is made for it.
    let other = Engine::running(false);
    other.listens().await;
    let made = told(home, &server, &["attach", &other.url(), "--endpoint", "second"]).await;
    assert_eq!(
        (&made["made"], &made["name"]),
        (&json!(true), &json!(other.name())),
        "{made}"
    );

    server.stop().await;
    server.restart().await;
    let api = server.api();
    for (endpoint, name) in [("default", "box 一".to_owned()), ("second", other.name())] {
        let job = submit_to(&api, endpoint, &graphs::plain(3, 8, 8)).await;
        assert_eq!(box_of(&api, &job).await, name, "{job}");
    }

    let gone = told(home, &server, &["detach", &other.url()]).await;
    assert_eq!(gone["endpoint_is_gone"], true, "{gone}");
    let unknown = api
        .post(
            "/darkroom/v1/endpoints/second/jobs",
            &json!({"graph": graphs::plain(3, 8, 8)}),
        )
        .await;
    assert_eq!(unknown.status, 404);
    told(home, &server, &["detach", "box 一"]).await;
    // What there is without any configuration is back; nothing that was attached takes a job any more.
    eventually("its instance is let go", LIMIT, async || {
        let all = api.instances().await;
        all.iter().all(|one| one["box"] != "box 一").then_some(())
    })
    .await;
    let job = submit_to(&api, "default", &graphs::plain(4, 8, 8)).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(box_of(&api, &job).await, "engine");
    assert!(
        tokio::net::TcpStream::connect(engine.name()).await.is_ok(),
        "it runs on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_attached_is_refused_in_words_and_nothing_is_kept() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let engine = Engine::running(false);
    engine.listens().await;
    let down = Engine::new(false);
    let server =
        Server::start(Options::default().with_config("[endpoints.written]\n[endpoints.default]\n")).await;
    told(
        home,
        &server,
        &["attach", &engine.url(), "--endpoint", "gpu", "--name", "one"],
    )
    .await;
    let other = Engine::running(false);
    other.listens().await;
    let nobody = server.url();
    for (arguments, said) in [
        (
            vec!["attach", &*down.url(), "--endpoint", "new"],
            "nothing listens",
        ),
        (
            vec!["attach", &*nobody, "--endpoint", "written"],
            "has the last word",
        ),
        (
            vec!["attach", "http://127.0.0.1:1/?x=1", "--endpoint", "new"],
            "expected a URL",
        ),
        (vec!["attach", ".", "--endpoint", "new"], "there is no main.py in"),
        (
            vec!["attach", "gpu:8188", "--endpoint", "new"],
            "begins with http://",
        ),
        (
            vec!["attach", &*other.url(), "--endpoint", "gpu", "--name", "one"],
            "'one' is taken",
        ),
        (vec!["attach", &*engine.url(), "--endpoint", "gpu"], "already"),
        (vec!["attach", &*other.url(), "--endpoint", "no name"], "no name"),
        (vec!["detach", "two"], "there are one (gpu)"),
        (
            vec!["detach", "one", "--endpoint", "nowhere"],
            "no endpoint 'nowhere'",
        ),
    ] {
        let told = refused(home, &server, &arguments).await;
        assert!(told.contains(said), "{arguments:?}: {told}");
    }
    // A web server that is no ComfyUI.
    let page = format!("{}/healthz", server.url());
    let told = refused(home, &server, &["attach", &page, "--endpoint", "new"]).await;
    assert!(told.contains("not as a ComfyUI does"), "{told}");
    let endpoints = server
        .api()
        .get("/darkroom/v1/endpoints")
        .await
        .expect(200)
        .json();
    let names: Vec<&str> = endpoints["endpoints"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|e| e["name"].as_str())
        .collect();
    assert_eq!(names, ["default", "gpu", "written"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_each_box_lacks_for_a_workflow() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let (plain, testing) = (Engine::running(false), Engine::running(true));
    plain.listens().await;
    testing.listens().await;
    let server = Server::start(Options::default()).await;
    told(home, &server, &["attach", &plain.url(), "--name", "plain"]).await;
    told(home, &server, &["attach", &testing.url(), "--name", "testing"]).await;
    std::fs::write(home.join("w.json"), graphs::sleep(0.1, "a", 1).to_string()).expect("a file");
    let report = told(home, &server, &["doctor", "w.json"]).await;
    assert_eq!(report["runs"], true, "{report}");
    let boxes = report["endpoints"][0]["boxes"].as_array().expect("boxes").clone();
    assert_eq!(
        (&boxes[0]["name"], &boxes[1]["runs"]),
        (&json!("plain"), &json!(true)),
        "{report}"
    );
    assert_eq!(boxes[0]["missing"][0]["class"], "TestSleep", "{report}");
    assert_eq!(boxes[0]["missing"][0]["on"], json!(["testing"]), "{report}");

    let mut wrong = graphs::scaled(1, 8, 16, 16);
    wrong["2"]["inputs"]["upscale_method"] = json!("lanczoss");
    std::fs::write(home.join("w.json"), wrong.to_string()).expect("a file");
    let output = darkroom(home, &server, &["doctor", "w.json", "--endpoint", "default"]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success(), "no box runs it");
    assert!(
        said.contains("lacks 'lanczoss' (ImageScale.upscale_method, node 2); nearest: lanczos"),
        "{said}"
    );
}

/// A directory that is started as a ComfyUI checkout is, and runs the engine.
fn installation(home: &Path) -> String {
    let script = r#"
import os, sys
given, args = sys.argv[1:], []
def value(name):
    return given[given.index(name) + 1]
for name in ["input", "output", "temp", "user"]:
    args += [f"--{name}-directory", value(f"--{name}-directory")]
engine = open(os.path.join(os.path.dirname(__file__), "engine")).read()
os.execv(engine, [engine, "engine", "--listen", value("--listen") + ":" + value("--port")] + args)
"#;
    let directory = home.join("ComfyUI");
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("main.py"), script).expect("a file");
    std::fs::write(directory.join("engine"), binary::darkroom().display().to_string()).expect("a file");
    directory.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_is_started_once_shown_kept_and_detached() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let directory = installation(home);
    let server = Server::start(Options::default()).await;
    // As a person in its parent directory types it.
    let attached = told(home, &server, &["attach", "ComfyUI", "--endpoint", "local"]).await;
    assert_eq!(
        (&attached["made"], &attached["name"]),
        (&json!(true), &json!(directory)),
        "{attached}"
    );
    let told_of = &attached["told"];
    assert!(
        told_of["nodes"].as_u64() > Some(10) && told_of["version"].is_string(),
        "{attached}"
    );
    assert!(
        told_of["devices"][0]["name"].is_string() && told_of["tested_ms"].is_u64(),
        "{attached}"
    );
    let api = server.api();
    assert!(api.instances().await.is_empty(), "the try-out is over");
    let facts = api.get("/e/local/system_stats").await.expect(200).json();
    assert_eq!(facts["system"]["comfyui_version"], told_of["version"], "{facts}");
    let job = submit_to(&api, "local", &graphs::plain(3, 8, 8)).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(box_of(&api, &job).await, directory);
    let gone = told(home, &server, &["detach", "ComfyUI"]).await;
    assert_eq!(gone["endpoint_is_gone"], true, "{gone}");
    let path = "/darkroom/v1/endpoints/local/jobs";
    let graph = json!({"graph": graphs::plain(3, 8, 8)});
    assert_eq!(api.post(path, &graph).await.status, 404);
    eventually("its process ends", LIMIT, async || {
        server.instance_pids().is_empty().then_some(())
    })
    .await;

    // Under a name, and one that does not start.
    let named = told(
        home,
        &server,
        &["attach", "ComfyUI", "--endpoint", "local", "--name", "box 1"],
    );
    assert_eq!(named.await["name"], "box 1");
    let job = submit_to(&api, "local", &graphs::plain(4, 8, 8)).await;
    assert_eq!(box_of(&api, &job).await, "box 1");
    let broken = home.join("broken");
    std::fs::create_dir(&broken).expect("a directory");
    std::fs::write(broken.join("main.py"), "raise SystemExit('no torch here')").expect("a file");
    let refusal = refused(home, &server, &["attach", "broken", "--endpoint", "other"]).await;
    assert!(refusal.contains("no torch here"), "{refusal}");
    assert_eq!(
        api.post("/darkroom/v1/endpoints/other/jobs", &graph).await.status,
        404
    );
}

/// Whether a job waits although nothing is in its way but its needs.
async fn waits_for_a_box(api: &Api, job: &str) -> bool {
    let job = api.job(job).await;
    job["state"] == "queued" && job["waiting"]["reason"]["waiting_for"] == "model_only_on"
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_for_a_box_that_was_detached_go_on_waiting_and_run_when_it_is_back() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let (able, plain) = (Engine::running(true), Engine::running(false));
    able.listens().await;
    plain.listens().await;
    let server = Server::start(Options::default()).await;
    let api = server.api();
    // Behind one endpoint with another box, and alone, where the embedded engine takes over.
    for (endpoint, both) in [("gpu", true), ("default", false)] {
        let attach = ["attach", &able.url(), "--endpoint", endpoint, "--name", "able"].map(str::to_owned);
        let attach: Vec<&str> = attach.iter().map(String::as_str).collect();
        told(home, &server, &attach).await;
        if both {
            told(home, &server, &["attach", &plain.url(), "--endpoint", endpoint]).await;
        }
        let line = format!("/darkroom/v1/endpoints/{endpoint}");
        api.post(&format!("{line}/pause"), &json!({})).await.expect(200);
        let mut waiting = Vec::new();
        for nth in 0..3 {
            let graph = graphs::sleep(0.1, &format!("{endpoint}-{nth}"), 1);
            let answer = api.post(&format!("{line}/jobs"), &json!({"graph": graph})).await;
            waiting.push(
                answer.expect(201).json()["id"]
                    .as_str()
                    .expect("an id")
                    .to_owned(),
            );
        }
        told(home, &server, &["detach", "able", "--endpoint", endpoint]).await;
        api.post(&format!("{line}/resume"), &json!({})).await.expect(200);
        // Accepted after them, and done before: what is left looked at them and let them wait.
        let job = submit_to(&api, endpoint, &graphs::plain(5, 8, 8)).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        for job in &waiting {
            assert!(waits_for_a_box(&api, job).await, "{}", api.job(job).await);
        }
        told(home, &server, &attach).await;
        for job in &waiting {
            let job = api.finished(job).await;
            assert_eq!(
                (&job["state"], job["attempts"].as_array().map(Vec::len)),
                (&json!("succeeded"), Some(1)),
                "{job}"
            );
            assert_eq!(box_of(&api, &job).await, "able");
        }
        told(home, &server, &["detach", "able", "--endpoint", endpoint]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_whose_installation_was_replaced_wait_for_it_and_nothing_is_kept_running_for_them() {
    let able = darkroom_tests::server::endpoint_with_test_nodes("gpu", "");
    let unable = "[endpoints.gpu]\nscaling.idle_timeout = \"1s\"\n";
    let server = Server::start(Options::default().with_config(&able)).await;
    let api = server.api();
    // What it can do is known once it has run.
    let path = "/darkroom/v1/endpoints/gpu/boxes";
    submit_to(&api, "gpu", &graphs::plain(1, 8, 8)).await;
    eventually("it told what it can do", LIMIT, async || {
        let boxes = api.get(path).await.expect(200).json();
        boxes["boxes"][0]["nodes"].is_u64().then_some(())
    })
    .await;
    let line = "/darkroom/v1/endpoints/gpu";
    api.post(&format!("{line}/pause"), &json!({})).await.expect(200);
    let graph = graphs::sleep(0.1, "waits", 1);
    let answer = api.post(&format!("{line}/jobs"), &json!({"graph": graph})).await;
    let waiting = answer.expect(201).json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    server.reload(unable);
    eventually("the other one counts", LIMIT, async || {
        let boxes = api.get(path).await.expect(200).json();
        (boxes["boxes"][0]["name"] == "engine").then_some(())
    })
    .await;
    api.post(&format!("{line}/resume"), &json!({})).await.expect(200);
    let job = submit_to(&api, "gpu", &graphs::plain(2, 8, 8)).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(box_of(&api, &job).await, "engine");
    eventually("nothing runs for a job that cannot run", LIMIT, async || {
        api.instances().await.is_empty().then_some(())
    })
    .await;
    assert!(
        waits_for_a_box(&api, &waiting).await,
        "{}",
        api.job(&waiting).await
    );
    server.reload(&able);
    let job = api.finished(&waiting).await;
    assert_eq!(
        (&job["state"], job["attempts"].as_array().map(Vec::len)),
        (&json!("succeeded"), Some(1)),
        "{job}"
    );
}

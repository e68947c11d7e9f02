//! Several unequal ComfyUI servers behind one endpoint: who gets which job, what is refused, and what breaks.

use std::time::Duration;

use darkroom_tests::{
    Api, Options, Server,
    boxes::{Door, Engine},
    eventually, graphs,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn remote(urls: &[String]) -> Options {
    Options::default().with_config(&format!(
        "[endpoints.default]\nbackend = \"remote\"\nurls = {urls:?}\n"
    ))
}

/// What a box without a name is called in what callers are told.
fn public_name(urls: &[String], engine: &Engine) -> String {
    let at = urls.iter().position(|url| *url == engine.url());
    format!("box-{}", at.expect("it is one of them") + 1)
}

/// The live instance on a box, once `is` holds for it.
async fn instance(api: &Api, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("{name} is {what}"), LIMIT, async || {
        let listed = api.get("/darkroom/v1/instances").await.expect(200).json();
        let all = listed["instances"].as_array()?.clone();
        all.into_iter().find(|i| i["box"] == name && is(i))
    })
    .await
}

async fn ready(api: &Api, name: &str) -> Value {
    instance(api, name, "ready", |i| i["state"] == "ready").await
}

async fn down(api: &Api, name: &str, why: &str) {
    let said = |i: &Value| {
        i["state_reason"]
            .as_str()
            .is_some_and(|r| r.starts_with("down: ") && r.contains(why))
    };
    instance(api, name, &format!("down because {why}"), |i| {
        i["state"] == "starting" && said(i)
    })
    .await;
}

async fn box_of(api: &Api, job: &Value) -> String {
    let instance = job["attempts"][0]["instance"].as_str().unwrap_or_default();
    let shown = api
        .get(&format!("/darkroom/v1/instances/{instance}"))
        .await
        .expect(200)
        .json();
    shown["box"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_down_say_why_and_stand_in_nobodys_way() {
    let up = Engine::running(false);
    let mut late = Engine::new(false);
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let mute = mute.local_addr().expect("an address").to_string();
    let server = Server::start(remote(&[up.url(), late.url(), format!("http://{mute}")])).await;
    let api = server.api();
    ready(&api, &up.name()).await;
    let done = api.finished(&api.submit(&graphs::plain(1, 8, 8)).await).await;
    assert_eq!(done["state"], "succeeded");
    down(&api, &late.name(), "nothing listens").await;
    late.start();
    ready(&api, &late.name()).await;
    // Both work now; which takes which is chance, but each can.
    for colour in 0..4 {
        let done = api
            .finished(&api.submit(&graphs::plain(colour, 8, 8)).await)
            .await;
        assert_eq!(done["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_where_it_can_and_is_refused_where_nobody_could() {
    let (mut plain, mut fancy) = (Engine::running(false), Engine::running(true));
    let urls = [plain.url(), fancy.url()];
    let mut server = Server::start(remote(&urls)).await;
    let api = server.api();
    ready(&api, &plain.name()).await;
    ready(&api, &fancy.name()).await;
    let mut jobs = Vec::new();
    for n in 0..5 {
        let graph = graphs::sleep(0.01, &format!("s{n}"), n);
        jobs.push(api.submit(&graph).await);
    }
    for job in jobs {
        let done = api.finished(&job).await;
        assert_eq!(done["state"], "succeeded", "{done}");
        assert_eq!(box_of(&api, &done).await, fancy.name());
    }

    // What they can do is known while none of them runs, and after a restart.
    plain.kill();
    fancy.kill();
    server.stop().await;
    server.restart().await;
    let api = server.api();
    let mut wrong = graphs::sleep(0.01, "s", 1);
    wrong["5"]["class_type"] = json!("TestSleeep");
    let refused = api
        .post("/darkroom/v1/endpoints/default/jobs", &json!({ "graph": wrong }))
        .await
        .expect(400)
        .text();
    assert!(refused.contains("TestSleep\""), "{refused}");
    let named = |engine: &Engine| refused.contains(&format!("\"{}\"", public_name(&urls, engine)));
    assert!(named(&fancy) && !named(&plain), "{refused}");
    let waiting = api.submit(&graphs::sleep(0.01, "later", 9)).await;
    plain.start();
    plain.listens().await;
    fancy.start();
    let done = api.finished(&waiting).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(box_of(&api, &done).await, fancy.name());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_a_key_gets_it_with_everything() {
    let engine = Engine::running(false);
    engine.listens().await;
    let door = Door::before(&engine, "sk_door").await;
    let config = |key: &str| {
        let url = &door.url;
        let with = format!("urls = [{{ url = {url:?}, name = \"far\", header = {{ x-key = {key:?} }} }}]");
        Options::default().with_config(&format!("[endpoints.default]\nbackend = \"remote\"\n{with}\n"))
    };
    let server = Server::start(config("sk_wrong")).await;
    down(&server.api(), "far", "its key is missing or wrong").await;
    drop(server);
    let server = Server::start(config("sk_door")).await;
    let api = server.api();
    ready(&api, "far").await;
    let picture = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";
    let done = api.finished(&api.submit(&graphs::invert(picture)).await).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let let_in = door.let_in.lock().expect("no panic").join("\n");
    assert!(let_in.contains("GET /ws?"), "{let_in}");
    assert!(!server.log().contains("sk_door"));
    let shown = api.get("/darkroom/v1/instances").await.expect(200).text();
    assert!(!shown.contains("sk_door"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_in_the_middle_costs_an_attempt_and_no_job() {
    let mut engine = Engine::running(true);
    let server = Server::start(remote(&[engine.url()])).await;
    let api = server.api();
    ready(&api, &engine.name()).await;
    let job = api.submit(&graphs::sleep(30.0, "long", 1)).await;
    let quick = api.submit(&graphs::sleep(0.01, "quick", 2)).await;
    running(&api, &job).await;
    engine.kill();
    engine.start();
    // The first waits behind the other now, or before it; both get done, and the first needs another attempt.
    let done = api.finished(&quick).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let again = eventually("it runs again", LIMIT, async || {
        let shown = api.job(&job).await;
        (shown["attempts"].as_array()?.len() == 2 && shown["state"] == "running").then_some(shown)
    })
    .await;
    assert_eq!(again["attempts"][0]["state"], "lost", "{again}");
    api.post(&format!("/darkroom/v1/jobs/{job}/cancel"), &json!({}))
        .await
        .expect(200);
    assert_eq!(api.finished(&job).await["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_a_remote_server_outlives_ours() {
    let engine = Engine::running(true);
    let mut server = Server::start(remote(&[engine.url()])).await;
    let api = server.api();
    ready(&api, &engine.name()).await;
    let job = api.submit(&graphs::sleep(4.0, "kept", 1)).await;
    running(&api, &job).await;
    server.kill_child().await;
    eventually("the next child is ready", LIMIT, async || {
        api.ready().await.then_some(())
    })
    .await;
    running_or_done(&api, &job).await;
    // A graceful stop leaves what somebody else runs alone as well.
    server.stop().await;
    server.restart().await;
    let done = server.api().finished(&job).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(done["attempts"].as_array().map(Vec::len), Some(1), "{done}");
}

async fn running(api: &Api, job: &str) {
    eventually("its node is at work", LIMIT, async || {
        let answer = api.get(&format!("/api/serverless/status?task_id={job}")).await;
        answer.text().contains("\"executing\"").then_some(())
    })
    .await;
}

async fn running_or_done(api: &Api, job: &str) {
    let shown = api.job(job).await;
    assert!(
        shown["state"] == "running" || shown["state"] == "succeeded",
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serve_is_told_to_serve_is_looked_at_said_and_kept() {
    let mut engine = Engine::running(false);
    engine.listens().await;
    let options = Options {
        args: vec!["--comfyui".to_owned(), engine.url()],
        ..Options::default()
    };
    let mut server = Server::start(options).await;
    let said = |server: &Server| {
        let log = server.log();
        log.lines()
            .find(|line| line.contains("ComfyUI found"))
            .map(str::to_owned)
    };
    let line = eventually("it says what it found", LIMIT, async || said(&server)).await;
    for part in ["version=", "devices=", "nodes=", "models=", "tested_ms="] {
        assert!(line.contains(part), "{part}: {line}");
    }
    // What it can do is known while it is away, and after a restart.
    engine.kill();
    server.stop().await;
    server.restart().await;
    let api = server.api();
    let unknown = json!({"prompt": {"1": {"class_type": "SaveImag", "inputs": {}}}});
    let refused = api.post("/prompt", &unknown).await.expect(400).text();
    assert!(refused.contains("SaveImage"), "{refused}");
    eventually("it says that nothing is there now", LIMIT, async || {
        server
            .log()
            .contains("what --comfyui names cannot be used yet")
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_free_reaches_what_runs() {
    let engine = Engine::running(false);
    let server = Server::start(remote(&[engine.url()])).await;
    let api = server.api();
    ready(&api, &engine.name()).await;
    let cached = async || {
        let asked = json!({"prompt": graphs::plain(1, 8, 8)});
        let id = api.post("/prompt", &asked).await.expect(200).json()["prompt_id"].clone();
        let id = id.as_str().expect("an id");
        let path = format!("/history/{id}");
        let history = eventually("the prompt ends", LIMIT, async || {
            let history = api.get(&path).await.expect(200).json();
            history.get(id).cloned()
        })
        .await;
        let messages = history["status"]["messages"].as_array().expect("messages");
        let cached = messages.iter().find(|message| message[0] == "execution_cached");
        cached.expect("it is told")[1]["nodes"].as_array().map(Vec::len)
    };
    cached().await;
    assert_eq!(cached().await, Some(2), "the instance remembers the run before");
    // Nobody confirms it, so it may come after the run that was to see it.
    eventually("a run finds nothing remembered", LIMIT, async || {
        let both = json!({"unload_models": true, "free_memory": true});
        api.post("/free", &both).await.expect(200);
        (cached().await == Some(0)).then_some(())
    })
    .await;
}

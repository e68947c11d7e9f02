//! Several agents at one endpoint, and what their boxes tell.

use std::process::{Command, Stdio};

use darkroom_tests::{
    Api, Options, Server,
    agent::{Agent, Engine},
    binary, eventually, graphs,
};
use serde_json::{Value, json};

use super::{EXTERNAL, LIMIT, attempts, go_on, posted};

async fn here(api: &Api, count: usize) -> Vec<Value> {
    eventually("the agents are here", LIMIT, async || {
        let instances = api.instances().await;
        (instances.len() == count).then_some(instances)
    })
    .await
}

/// The box that an instance is on.
fn box_of<'a>(instances: &'a [Value], id: &Value) -> &'a str {
    let found = instances.iter().find(|instance| instance["id"] == *id);
    found
        .and_then(|instance| instance["box"].as_str())
        .unwrap_or_default()
}

/// The last attempt's box, once there is one.
async fn ran_on(api: &Api, instances: &[Value], job: &str) -> String {
    let job = api.job(job).await;
    let last = job["attempts"].as_array().and_then(|all| all.last()).cloned();
    box_of(instances, &last.unwrap_or_default()["instance"]).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_share_the_jobs_and_what_a_killed_one_ran_ends_once_at_the_other() {
    let server = Server::start(Options::default().with_config(EXTERNAL)).await;
    let api = server.api();
    let (first, second) = tokio::join!(Engine::start(server.home()), Engine::start(server.home()));
    let mut agents = [
        Agent::start(&server, &first, "first", None),
        Agent::start(&server, &second, "second", None),
    ];
    let instances = here(&api, 2).await;
    let go = ["one", "other"].map(|name| server.home().join(name));
    let one = api.submit(&graphs::until(&go[0], "one", 1)).await;
    let other = api.submit(&graphs::until(&go[1], "other", 2)).await;
    posted(&first, 1).await;
    posted(&second, 1).await;
    let (killed, kept) = match ran_on(&api, &instances, &one).await.as_str() {
        "first" => (&one, &other),
        "second" => (&other, &one),
        unknown => panic!("it runs on '{unknown}'"),
    };
    agents[0].kill();
    go.iter().for_each(|go| go_on(go));
    let job = api.finished_within(killed, LIMIT).await;
    assert_eq!(
        (job["state"].as_str(), attempts(&job)),
        (Some("succeeded"), 2),
        "{job}"
    );
    assert_eq!(job["attempts"][0]["state"], "lost", "{job}");
    assert_eq!(
        box_of(&instances, &job["attempts"][1]["instance"]),
        "second",
        "{job}"
    );
    assert_eq!(job["outputs"].as_array().map(Vec::len), Some(1), "{job}");
    let job = api.finished(kept).await;
    assert_eq!(
        (job["state"].as_str(), attempts(&job)),
        (Some("succeeded"), 1),
        "{job}"
    );
    assert_eq!(
        second.prompts().await,
        2,
        "its own, and the one of the killed agent"
    );
    here(&api, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_tell_is_known_and_jobs_go_where_they_can_run() {
    let server = Server::start(Options::default().with_config(EXTERNAL)).await;
    let api = server.api();
    let (able, plain) = tokio::join!(Engine::start(server.home()), Engine::plain(server.home()));
    let agents = [
        Agent::start(&server, &able, "able", None),
        Agent::start(&server, &plain, "plain", None),
    ];
    let instances = here(&api, 2).await;
    let knows = |class: &'static str| {
        let api = api.clone();
        async move {
            // Before the first told, this is a 503.
            let answer = api.get("/object_info").await;
            answer.status == 200 && answer.json().get(class).is_some()
        }
    };
    eventually("it is known what the boxes can do", LIMIT, async || {
        (knows("TestSleep").await && knows("EmptyImage").await).then_some(())
    })
    .await;
    eventually("it is known what they run on", LIMIT, async || {
        let stats = api.get("/system_stats").await.expect(200).json();
        (stats["devices"][0]["name"] != "none is running").then_some(())
    })
    .await;

    // Only one of them has the node; the second run of the same graph reports the files of the first.
    let graph = graphs::sleep(0.2, "same", 0x44_55_66);
    let mut pictures = Vec::new();
    for _ in 0..2 {
        let id = api.submit(&graph).await;
        let job = api.finished(&id).await;
        assert_eq!(
            (job["state"].as_str(), attempts(&job)),
            (Some("succeeded"), 1),
            "{job}"
        );
        assert_eq!(ran_on(&api, &instances, &id).await, "able", "{job}");
        pictures.push(api.outputs(&job).await);
    }
    assert_eq!(pictures[0].len(), 1);
    assert_eq!(pictures[0], pictures[1]);
    assert_eq!(
        plain.prompts().await,
        0,
        "it was handed nothing that it cannot run"
    );

    eventually("the metrics tell of them", LIMIT, async || {
        let metrics = api.get("/metrics").await.expect(200).text();
        metrics
            .contains("darkroom_agents_connected{endpoint=\"default\"} 2")
            .then_some(())
    })
    .await;
    assert_eq!(doctors_word(&server).await, "agents: able, plain");

    for mut agent in agents {
        agent.terminate();
        assert_eq!(agent.exit_code().await, Some(0), "{}", agent.log());
    }
    here(&api, 0).await;
    // Nobody is there, and graphs are checked still.
    assert!(knows("TestSleep").await);
    let mut wrong = graphs::plain(1, 8, 8);
    wrong["9"]["class_type"] = json!("SaveImagge");
    let refused = api
        .post("/prompt", &json!({"prompt": wrong}))
        .await
        .expect(400)
        .text();
    assert!(
        refused.contains("SaveImagge") && refused.contains("SaveImage"),
        "{refused}"
    );
    assert!(
        doctors_word(&server)
            .await
            .ends_with("darkroom agent --endpoint default")
    );
}

/// What `darkroom doctor` found of the endpoint.
async fn doctors_word(server: &Server) -> String {
    let mut command = Command::new(binary::darkroom());
    command
        .args(["doctor", "--json", "--server", &server.url(), "--config"])
        .arg(server.home().join("darkroom.toml"))
        .env_remove("DARKROOM_KEY")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().expect("doctor runs"));
    let output = output.await.expect("no panic");
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    let found = checks.iter().find(|check| check["name"] == "endpoint default");
    found
        .and_then(|check| check["found"].as_str())
        .unwrap_or_default()
        .to_owned()
}

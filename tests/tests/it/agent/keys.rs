//! Whose agent may connect, and for how long.

use std::process::{Command, Output, Stdio};

use darkroom_tests::{
    Options, Server,
    agent::{Agent, Engine},
    binary, config, eventually, graphs,
};
use serde_json::Value;

use super::LIMIT;

async fn keys(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(binary::darkroom());
    command
        .arg("keys")
        .args(args)
        .args(["--server", &server.url(), "--json"])
        .env("DARKROOM_KEY", "sk_root")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    let output = output.await.expect("no panic");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_printed_with_the_line_to_paste_and_counts_until_it_is_revoked() {
    let config = [
        "[endpoints.default]\nbackend = \"external\"\n[endpoints.other]\nbackend = \"external\"\n".to_owned(),
        config::key("root", &["admin"], ""),
        config::key("other", &["worker"], "endpoints = [\"other\"]"),
        config::key("second", &["worker"], "endpoints = [\"default\"]"),
    ];
    let mut options = Options::default().with_config(&config.concat());
    options.key = Some("sk_root".into());
    let server = Server::start(options).await;
    let api = server.api();
    let engine = Engine::start(server.home()).await;
    let arguments = [
        "create",
        "--name",
        "rented",
        "--scope",
        "worker",
        "--endpoint",
        "default",
    ];
    let made: Value = serde_json::from_slice(&keys(&server, &arguments).await.stdout).expect("JSON");
    let line = made["agent"].as_str().expect("a line to paste");
    let mut agent = Agent::pasted(&server, line, &engine, "rented");
    let job = api.finished(&api.submit(&graphs::plain(1, 8, 8)).await).await;
    assert_eq!(job["state"], "succeeded", "{job}");

    let mut elsewhere = Agent::start(&server, &engine, "elsewhere", Some("sk_other"));
    assert_eq!(elsewhere.exit_code().await, Some(4), "{}", elsewhere.log());
    // The name is taken by another key's agent.
    let mut thief = Agent::start(&server, &engine, "rented", Some("sk_second"));
    assert_eq!(thief.exit_code().await, Some(4), "{}", thief.log());
    let job = api.finished(&api.submit(&graphs::plain(2, 8, 8)).await).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    eventually("its one agent is shown", LIMIT, async || {
        let instances = api.instances().await;
        let shown = &instances.first()?["agent"];
        (instances.len() == 1 && shown["name"] == "rented" && shown["connected"] == true).then_some(())
    })
    .await;

    keys(&server, &["revoke", "rented"]).await;
    assert_eq!(agent.exit_code().await, Some(4), "{}", agent.log());
    let secret = made["secret"].as_str().expect("a secret");
    assert!(!agent.log().contains(secret) && !server.log().contains(secret));
}

//! The same behind an agent that starts it.

use std::path::Path;

use darkroom_tests::{Options, Server, agent::Agent, eventually, graphs, pixels};

use super::{
    LIMIT, ONE_AT_A_TIME, arguments, attempt_states, comfyui_pids, directory, reached, slow, succeeded,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_starts_it_and_goes_on_with_it_after_a_kill() {
    let Some(directory) = directory("agent::an_agent_starts_it_and_goes_on_with_it_after_a_kill") else {
        return;
    };
    let _turn = ONE_AT_A_TIME.lock().await;
    let python = std::env::var("COMFYUI_PYTHON").ok();
    let server =
        Server::start(Options::default().with_config("[endpoints.default]\nbackend = \"external\"\n")).await;
    let api = server.api();
    let start = || {
        let arguments = arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let python = python.as_deref().map(Path::new);
        Agent::with_installation(&server, Path::new(&directory), python, &arguments)
    };
    let mut agent = start();
    let picture = pixels::gradient(48, 32);
    let graph = graphs::invert(&pixels::data_uri(&pixels::encode(&picture)));
    // The second run reports the files of the first.
    for _ in 0..2 {
        let id = api.submit(&graph).await;
        let (job, _) = succeeded(&api, &id).await;
        assert_eq!(attempt_states(&job), ["done"], "{job}");
        let files = api.outputs(&job).await;
        assert_eq!(files.len(), 1, "{job}");
        pixels::assert_inverse(&files[0], &picture);
    }
    let info = api.get("/object_info").await.expect(200).json();
    assert!(info.get("KSampler").is_some(), "it told what it can do");
    eventually("it told what it runs on", LIMIT, async || {
        let stats = api.get("/system_stats").await.expect(200).json();
        (stats["system"]["pytorch_version"] != "unknown").then_some(())
    })
    .await;

    let id = api.submit(&slow(16, 0x0a_0b_0c)).await;
    reached(&api, &id, "3").await;
    let before = comfyui_pids(&server);
    assert_eq!(before.len(), 1, "{before:?}");
    agent.kill();
    let mut agent = start();
    let (job, files) = succeeded(&api, &id).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    assert!(files == [pixels::plain(0x0a_0b_0c, 64, 64)]);
    assert_eq!(comfyui_pids(&server), before, "the same ComfyUI went on");

    agent.terminate();
    assert_eq!(agent.exit_code().await, Some(0), "{}", agent.log());
    assert!(comfyui_pids(&server).is_empty());
}

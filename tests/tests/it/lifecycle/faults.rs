//! Instances that misbehave, as processes: jobs end, and end right. What a scripted instance can do is in the runner's tests.

use darkroom_tests::{Options, Server, config, eventually, graphs};

use super::LIMIT;

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_listens_and_never_answers_fails_its_start_and_says_so() {
    let script = "exec python3 -c 'import socket,sys,time; s=socket.socket(); \
                  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); \
                  s.bind((\"127.0.0.1\", int(sys.argv[1]))); s.listen(); time.sleep(3600)' {port}";
    let config = config::key("operator", &["admin"], "")
        + &format!("[endpoints.default]\ncommand = [\"sh\", \"-c\", {script:?}]\n")
        + "[endpoints.default.scaling]\nstart_timeout = \"2s\"\n";
    let mut options = Options::default().with_config(&config);
    options.key = Some("sk_operator".to_owned());
    let server = Server::start(options).await;
    let api = server.api();
    let id = api.submit(&graphs::plain(1, 8, 8)).await;
    // On a busy machine even a script may need longer than it has to listen: the next one is tried.
    eventually("the job says what is wrong with the start", LIMIT, async || {
        let job = super::waits_for(&api, &id, "backing_off").await;
        let error = job["waiting"]["reason"]["last_error"].to_string();
        error
            .contains("accepts connections but does not answer")
            .then_some(())
    })
    .await;
    let all = api
        .get("/darkroom/v1/instances?all=true")
        .await
        .expect(200)
        .json();
    let instances = all["instances"].as_array().expect("a list");
    let phases = instances.iter().map(|instance| instance["phases"].to_string());
    assert!(phases.clone().any(|phases| phases.contains("listening")), "{all}");
    assert!(
        !phases.clone().any(|phases| phases.contains("nodes_loaded")),
        "{all}"
    );
    super::cancel(&api, &id).await;
}

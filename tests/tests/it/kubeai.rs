//! The KubeAI-style proxy `/openai/api/*`: the product page's session with curl, and what its clients may do wrong.

use std::{path::Path, time::Duration};

use darkroom_tests::{Api, Options, Server, config, eventually, graphs, pixels, within};
use reqwest::Method;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(180);

/// `curl` in a directory, as a person would type it; its output, or `None` where this machine has none.
async fn curl(home: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new("curl");
    command
        .current_dir(home)
        .args(["--silent", "--show-error", "--noproxy", "*"])
        .args(arguments);
    let output = match command.output().await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: there is no curl");
            return None;
        }
        ran => ran.expect("curl runs"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {said}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_products_session_works_as_printed() {
    let server = Server::start(
        Options::default().with_config("[endpoints.serverless-comfyui]\n[endpoints.default]\n"),
    )
    .await;
    let home = tempfile::tempdir().expect("a directory");
    let (home, base) = (home.path(), format!("{}/openai", server.url()));
    let model = r#"{"model": "serverless-comfyui"}"#;
    let json_type = ["-H", "Content-Type: application/json"];
    assert!(server.instance_pids().is_empty());

    // Wakes the app: it answers when an instance does.
    let url = format!("{base}/api/system_stats");
    let mut get = vec!["-X", "GET", &url, "-d", model];
    get.extend(json_type);
    let Some(stats) = curl(home, &get).await else {
        return;
    };
    let stats = json_of(&stats);
    assert_eq!(
        server.instance_pids().len(),
        1,
        "one instance was started, and waited for"
    );
    assert!(stats["devices"].is_array(), "{stats}");

    let picture = pixels::gradient(20, 10);
    std::fs::write(home.join("in.png"), pixels::encode(&picture)).expect("the picture");
    let url = format!("{base}/api/upload/image");
    let upload = [
        "-X",
        "POST",
        &url,
        "-F",
        "image=@in.png",
        "-F",
        "model=serverless-comfyui",
    ];
    let uploaded = json_of(&curl(home, &upload).await.expect("curl"));
    assert_eq!(
        uploaded,
        json!({"name": "in.png", "subfolder": "", "type": "input"})
    );

    // The samples' client id ends with a space.
    let prompt = json!({"model": "serverless-comfyui", "client_id": "533ef3a3-39c0-4e39-9ced-37d290f371f8 ", "prompt": graphs::invert("in.png")});
    std::fs::write(home.join("prompt.json"), prompt.to_string()).expect("the prompt");
    let url = format!("{base}/api/prompt");
    let mut post = vec!["-X", "POST", &url, "-d", "@prompt.json"];
    post.extend(json_type);
    let accepted = json_of(&curl(home, &post).await.expect("curl"));
    assert_eq!(accepted["node_errors"], json!({}), "{accepted}");
    let id = accepted["prompt_id"].as_str().expect("an id").to_owned();

    let url = format!("{base}/api/history/{id}");
    // Without a type, as curl sends it by itself.
    let poll = ["-X", "GET", url.as_str(), "-d", model];
    let entry = eventually("it is in history", LIMIT, async || {
        json_of(&curl(home, &poll).await.expect("curl")).get(&id).cloned()
    })
    .await;
    assert_eq!(entry["status"]["status_str"], "success", "{entry}");
    assert_eq!(
        entry["prompt"][3]["client_id"],
        "533ef3a3-39c0-4e39-9ced-37d290f371f8 "
    );
    let made = entry["outputs"]["9"]["images"][0]["filename"]
        .as_str()
        .expect("a name");

    for (route, key) in [
        ("queue", "queue_running"),
        ("prompt", "exec_info"),
        ("history", id.as_str()),
    ] {
        let url = format!("{base}/api/{route}");
        let mut get = vec!["-X", "GET", &url, "-d", model];
        get.extend(json_type);
        let told = json_of(&curl(home, &get).await.expect("curl"));
        assert!(told.get(key).is_some(), "{route}: {told}");
    }

    let url = format!("{base}/api/view?filename={made}&type=output&subfolder=");
    let mut view = vec!["-X", "GET", &url, "-d", model, "-o", "out.png"];
    view.extend(json_type);
    curl(home, &view).await.expect("curl");
    pixels::assert_inverse(
        &std::fs::read(home.join("out.png")).expect("the picture"),
        &picture,
    );
}

async fn asked(api: &Api, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let mut request = api.request(method, path).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = api.send(request).await;
    let told = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status.as_u16(), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_is_named_in_any_of_the_places_and_the_rest_goes_on_untouched() {
    let more =
        "[endpoints.default]\n[endpoints.under_score]\n[endpoints.hosted]\nhosts = [\"comfy.localhost\"]\n";
    let server = Server::start(Options::default().with_config(more)).await;
    let api = server.api();
    let mut graph = graphs::plain(7, 8, 8);
    // Beyond what a float holds: it must come through as it was written.
    graph["1"]["inputs"]["unknown_to_all"] = json!(18_446_744_073_709_551_615_u64);
    let host = format!("comfy.localhost:{}", server.port());
    for (path, headers, model, endpoint) in [
        ("/openai/api/prompt", vec![], Some("under_score"), "under_score"),
        (
            "/openai/api/prompt",
            vec![("x-model", "under_score")],
            None,
            "under_score",
        ),
        (
            "/openai/api/prompt?model=under_score",
            vec![],
            None,
            "under_score",
        ),
        ("/e/under_score/openai/api/prompt", vec![], None, "under_score"),
        (
            "/openai/api/prompt",
            vec![("host", host.as_str())],
            None,
            "hosted",
        ),
    ] {
        let mut body = json!({"prompt": graph});
        if let Some(model) = model {
            body["model"] = json!(model);
        }
        let (status, told) = asked(&api, Method::POST, path, &headers, &body.to_string()).await;
        assert_eq!(status, 200, "{path} {headers:?}: {told}");
        let id = told["prompt_id"].as_str().expect("an id");
        let job = api.finished(id).await;
        assert_eq!(job["endpoint"], endpoint, "{path} {headers:?}: {job}");
        let (_, history) = asked(&api, Method::GET, &format!("/e/{endpoint}/history/{id}"), &[], "").await;
        let kept = &history[id]["prompt"][2]["1"]["inputs"]["unknown_to_all"];
        assert_eq!(kept.as_u64(), Some(u64::MAX), "{history}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_no_endpoint_is_refused_in_the_proxys_words_and_a_bad_graph_in_comfyuis() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    for (method, path, body, status, word) in [
        (Method::POST, "/openai/api/prompt", "", 400, "names no model"),
        (Method::POST, "/openai/api/prompt", "{}", 400, "names no model"),
        (Method::POST, "/openai/api/prompt", "{", 400, "not JSON"),
        (
            Method::POST,
            "/openai/api/prompt",
            "{\"model\": 7}",
            400,
            "no text",
        ),
        (Method::GET, "/openai/api/history", "", 400, "names no model"),
        (
            Method::POST,
            "/openai/api/prompt",
            "{\"model\": \"defualt\"}",
            404,
            "there are: default",
        ),
        (Method::GET, "/openai/api/queue?model=../x", "", 404, "../x"),
        (
            Method::POST,
            "/openai/api/serverless/run?model=default",
            "{}",
            404,
            "no such route",
        ),
        (
            Method::GET,
            "/openai/api/system_stats?model=nobody",
            "",
            404,
            "nobody",
        ),
    ] {
        let (told_status, told) = asked(&api, method, path, &[], body).await;
        let text = told["error"].as_str().unwrap_or_default();
        assert!(
            told_status == status && text.contains(word),
            "{path} {body}: {told_status} {told}"
        );
    }
    let broken = json!({"model": "default", "prompt": {"1": {"class_type": "Nonsense", "inputs": {}}}});
    let (status, told) = asked(&api, Method::POST, "/openai/api/prompt", &[], &broken.to_string()).await;
    assert_eq!(
        (status, &told["error"]["type"]),
        (400, &json!("invalid_prompt")),
        "{told}"
    );
    assert!(
        server.instance_pids().is_empty(),
        "nothing of it started anything"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_let_in_as_everywhere_and_held_no_longer_than_a_start_may_take() {
    let never = config::endpoint_of_script("never", "sleep 600", "never");
    let never = format!("{never}[endpoints.never.scaling]\nstart_timeout = \"2s\"\n");
    let keys = config::alice_and_bob();
    let server =
        Server::start(Options::default().with_config(&format!("{keys}[endpoints.default]\n{never}"))).await;
    let stats = "/openai/api/system_stats";
    let (status, told) = asked(
        &server.api_as(None),
        Method::GET,
        stats,
        &[],
        "{\"model\": \"default\"}",
    )
    .await;
    assert_eq!(status, 401, "{told}");
    assert!(told["error"].is_string(), "{told}");
    let (status, told) = asked(
        &server.api_as(Some("sk_wrong")),
        Method::GET,
        stats,
        &[],
        "{\"model\": \"default\"}",
    )
    .await;
    assert_eq!(status, 401, "{told}");
    let api = server.api_as(Some("sk_alice"));
    let request = api.request(Method::GET, stats).body("{\"model\": \"never\"}");
    // Well below the 300 s that callers are held where a start may take as long.
    let answer = within("it is let go", Duration::from_secs(90), api.send(request)).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert!(answer.text().contains("in time"), "{}", answer.text());
}

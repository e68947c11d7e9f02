//! PAI-EAS's editions without a queue: ComfyUI's own routes below a service's address, with the raw token.

use darkroom_tests::{
    Api, Options, Server, config, eventually, graphs,
    http::{Answer, JOB_LIMIT},
};
use reqwest::Method;
use serde_json::json;

/// A call as the page's program makes it: the token alone, and sometimes a host name that stands for the service.
async fn call(
    api: &Api,
    method: Method,
    path: &str,
    token: &str,
    host: Option<&str>,
    body: Option<String>,
) -> Answer {
    let mut request = api.request(method, path).header("Authorization", token);
    if let Some(host) = host {
        request = request.header("Host", host);
    }
    if let Some(body) = body {
        request = request.body(body);
    }
    api.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_of_the_dedicated_edition_posts_and_reads_history_with_its_raw_token() {
    let keys = config::key("app", &["client"], "endpoints = [\"paint\"]")
        + "[endpoints.default]\n[endpoints.paint]\nhosts = [\"paint.1234.region.example\"]\n";
    let server = Server::start(Options::default().with_config(&keys)).await;
    let api = server.api_as(None);
    let by_name = Some("paint.1234.region.example");
    for (n, (base, host)) in [("/", by_name), ("/e/paint/", None), ("/api/predict/paint/", None)]
        .into_iter()
        .enumerate()
    {
        let body = json!({"prompt": graphs::plain(n as u32, 8, 8)}).to_string();
        let path = format!("{base}prompt");
        let refused = call(&api, Method::POST, &path, "sk_other", host, Some(body.clone())).await;
        assert_eq!(refused.status, 401, "{base}");
        let posted = call(&api, Method::POST, &path, "sk_app", host, Some(body)).await;
        let told = posted.expect(200).json();
        assert_eq!(told["node_errors"], json!({}));
        let id = told["prompt_id"].as_str().expect("an id");
        let path = format!("{base}history/{id}");
        // At once: not an error, whatever it holds.
        call(&api, Method::GET, &path, "sk_app", host, None)
            .await
            .expect(200);
        let outputs = eventually("history holds the prompt", JOB_LIMIT, async || {
            let history = call(&api, Method::GET, &path, "sk_app", host, None).await;
            let entry = history.expect(200).json()[id].take();
            entry.is_object().then(|| entry["outputs"].clone())
        })
        .await;
        let image = &outputs["9"]["images"][0];
        let (name, kind) = (
            image["filename"].as_str().unwrap(),
            image["type"].as_str().unwrap(),
        );
        let path = format!("{base}view?filename={name}&type={kind}");
        let file = call(&api, Method::GET, &path, "sk_app", host, None)
            .await
            .expect(200);
        assert!(file.body.starts_with(b"\x89PNG"), "{base}");
    }
    let foreign = call(
        &api,
        Method::GET,
        "/api/predict/default/prompt",
        "sk_app",
        None,
        None,
    )
    .await;
    assert_eq!(foreign.status, 403);
}

//! The port over HTTP does what the port does: an agent's link, a real socket, the routes, and the server behind them.

use std::sync::Arc;

use darkroom_agent::{
    link::HttpLink,
    server::{Access, Server},
};
use darkroom_runner::wire::PROTOCOL;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    service::testing::{Bench, SlotWorld},
    state::AppState,
};

const EXTERNAL: &str = "[endpoints.default]\nbackend = \"external\"\n";

/// Where a bench's routes answer.
async fn served(bench: &Bench) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = AppState::around(bench.service.clone(), address);
    let router = axum::Router::new()
        .nest("/darkroom/v1", super::super::routes())
        .with_state(state);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn world() -> SlotWorld {
    let bench = Bench::configured(EXTERNAL);
    let access = Access {
        server: served(&bench).await.parse().unwrap(),
        key: None,
        endpoint: bench.endpoint(),
        name: "box".to_owned(),
    };
    let server = Arc::new(Server::connect(access).await.unwrap());
    let instance = server.instance();
    let service = bench.service.clone();
    SlotWorld {
        link: Arc::new(HttpLink::new(
            server,
            bench.service.ids.clone(),
            CancellationToken::new(),
        )),
        instance,
        drain: Box::new(move || service.agent_drains(instance)),
        bench,
    }
}

darkroom_runner::attempt_link_tests!(world().await);

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_gets_a_word_and_changes_nothing() {
    let bench = Bench::configured(EXTERNAL);
    let base = format!("{}/darkroom/v1/agent", served(&bench).await);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = async |method: &str, path: &str, body: String| {
        let request = http.request(method.parse().unwrap(), format!("{base}{path}"));
        let request = request.header("content-type", "application/json").body(body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let json: Value = answer.json().await.unwrap_or_default();
        (status, json)
    };
    let hello = json!({"protocol": PROTOCOL, "endpoint": "default", "name": "box"}).to_string();
    let (_, welcome) = send("POST", "/connect", hello.clone()).await;
    let instance = welcome["instance"].as_str().unwrap();
    let session = format!("/{instance}/{}", welcome["session"].as_str().unwrap());
    let job = bench
        .job(r#"{"graph":{"1":{"class_type":"PreviewAny","inputs":{"source":1}}}}"#)
        .await;
    let (status, work) = send("POST", &format!("{session}/next"), r#"{"got":null}"#.into()).await;
    assert_eq!((status, &work["lease"]["job"]), (200, &json!(job)));
    let fence = work["lease"]["fence"].as_u64().unwrap();
    let at = format!("{session}/{job}/{fence}");
    let later = format!("{session}/{job}/{}", fence + 1);
    let nobody = uuid::Uuid::nil();
    let done = r#"{"outcome":"done","outputs":[],"result":null,"events":[]}"#;
    let on_another = json!({"instance": nobody, "client_id": "c", "prompt_id": "p"}).to_string();
    let mut wrong = Vec::new();
    for (method, path, body, expected) in [
        ("POST", "/connect".to_owned(), "nonsense", 400),
        (
            "POST",
            "/connect".to_owned(),
            &json!({"protocol": PROTOCOL, "endpoint": "nope", "name": "x"}).to_string(),
            404,
        ),
        (
            "POST",
            "/connect".to_owned(),
            &json!({"protocol": PROTOCOL, "endpoint": "../e", "name": "x"}).to_string(),
            400,
        ),
        ("POST", "/x/y/next".to_owned(), "{}", 404),
        ("POST", format!("/{nobody}/{nobody}/next"), "{}", 404),
        ("POST", format!("/{instance}/{nobody}/next"), "{}", 409),
        ("POST", format!("{session}/next"), "7", 400),
        ("PUT", format!("{session}/object_info"), "{", 400),
        ("PUT", format!("{session}/object_info"), "[1]", 400),
        ("PUT", format!("{session}/facts"), "7", 400),
        ("POST", format!("{session}/leave"), "", 400),
        ("POST", format!("{session}/no-job/1/collecting"), "", 409),
        ("POST", format!("{later}/finish"), done, 409),
        ("GET", format!("{later}/stop"), "", 200),
        ("POST", format!("{at}/started"), "{}", 400),
        ("POST", format!("{at}/started"), on_another.as_str(), 400),
        (
            "POST",
            format!("{at}/told"),
            r#"{"first":0,"items":[{"made_up":1}]}"#,
            400,
        ),
        (
            "POST",
            format!("{at}/input"),
            r#"{"blob":"../../etc/passwd"}"#,
            400,
        ),
        (
            "POST",
            format!("{at}/input"),
            r#"{"blob":"inputs/t/foreign.png"}"#,
            400,
        ),
        ("PUT", format!("{at}/output"), "bytes that nobody described", 400),
        ("POST", format!("{at}/reuse"), "null", 400),
        ("POST", format!("{at}/finish"), "{}", 400),
    ] {
        let (status, answer) = send(method, &path, body.to_owned()).await;
        let said = match status {
            200 => answer["cause"] == "stale",
            _ => answer["error"]["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
        };
        if status != expected || !said {
            wrong.push(format!("{method} {path} {body}: {status} {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (status, recorded) = send("POST", &format!("{at}/finish"), done.to_owned()).await;
    assert_eq!(
        (status, &recorded["state"]),
        (200, &json!("succeeded")),
        "{recorded}"
    );
    assert_eq!(bench.service.attempts(job).await.unwrap().len(), 1);
}

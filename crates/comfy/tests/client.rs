//! The client against a small server that answers as recorded, and as it should not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message as ServerFrame, WebSocketUpgrade};
use axum::extract::{Multipart, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use darkroom_comfy::client::{Client, ClientConfig, Error, Incoming, SocketOptions, Upload};
use darkroom_comfy::session::Failure;
use darkroom_comfy::wire::{BinaryFrame, FileRef, Message, PromptRequest};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What the server was asked, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn config(address: SocketAddr, path: &str) -> ClientConfig {
    ClientConfig::new(format!("http://{address}{path}").parse().unwrap())
}

fn client(address: SocketAddr) -> Client {
    Client::new(config(address, "/")).unwrap()
}

/// A server that notes method, path and body of everything and answers with one status and body.
async fn answering(status: StatusCode, body: &'static str) -> (Client, Log) {
    let log = Log::default();
    let noted = log.clone();
    let handler = move |request: Request| async move {
        let (parts, body_in) = request.into_parts();
        let sent = axum::body::to_bytes(body_in, usize::MAX).await.unwrap();
        noted.note(format!(
            "{} {} {}",
            parts.method,
            parts.uri,
            String::from_utf8_lossy(&sent)
        ));
        (status, body)
    };
    let address = serve(Router::new().fallback(any(handler))).await;
    (client(address), log)
}

fn request(prompt: &Value) -> PromptRequest<'_> {
    let extra_data = Map::from_iter([("k".to_owned(), json!(1))]);
    PromptRequest {
        prompt,
        prompt_id: "p",
        client_id: "c",
        extra_data,
        partial_execution_targets: None,
    }
}

#[tokio::test]
async fn a_prompt_is_accepted_or_refused_with_the_instances_reasons() {
    let prompt = json!({"1": {"class_type": "A", "inputs": {}}});
    let (client, log) = answering(
        StatusCode::OK,
        r#"{"prompt_id":"p","number":NaN,"node_errors":{}}"#,
    )
    .await;
    assert_eq!(client.submit(&request(&prompt)).await.unwrap().prompt_id, "p");
    let sent = r#"POST /prompt {"prompt":{"1":{"class_type":"A","inputs":{}}},"prompt_id":"p","client_id":"c","extra_data":{"k":1}}"#;
    assert_eq!(log.take(), [sent]);

    let refused = r#"{"error":{"type":"prompt_outputs_failed_validation","message":"m","details":"","extra_info":{}},
        "node_errors":{"2":{"errors":[{"type":"exception_during_validation","message":"x","details":"y",
        "extra_info":{"traceback":["/opt/secret"]}}],"dependent_outputs":["2"],"class_type":"SaveImage"}}}"#;
    let (client, _) = answering(StatusCode::BAD_REQUEST, refused).await;
    let error = client.submit(&request(&prompt)).await.unwrap_err();
    let Error::Rejected(mut rejected) = error else {
        panic!("{error:?}")
    };
    assert_eq!(rejected.node_errors["2"].errors[0].details, "y");
    rejected.hide_tracebacks();
    assert!(!serde_json::to_string(&rejected).unwrap().contains("secret"));

    let (client, _) = answering(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error").await;
    let error = client.submit(&request(&prompt)).await.unwrap_err();
    assert!(error.to_string().contains("status 500"), "{error}");
    assert_eq!(error.failure(), Failure::NoAnswer);
}

#[tokio::test]
async fn requests_have_the_recorded_shapes() {
    let (client, log) = answering(StatusCode::OK, "{}").await;
    assert!(client.queue().await.unwrap().running.is_empty());
    assert_eq!(client.history("a/b?c").await.unwrap(), None);
    client.interrupt("p").await.unwrap();
    client.delete_queued(&["p", "q"]).await.unwrap();
    client.free(true, false).await.unwrap();
    client.system_stats().await.unwrap();
    assert_eq!(client.object_info().await.unwrap(), json!({}));
    assert_eq!(
        log.take(),
        [
            "GET /queue ",
            "GET /history/a%2Fb%3Fc ",
            r#"POST /interrupt {"prompt_id":"p"}"#,
            r#"POST /queue {"delete":["p","q"]}"#,
            r#"POST /free {"unload_models":true,"free_memory":false}"#,
            "GET /system_stats ",
            "GET /object_info ",
        ]
    );
}

#[tokio::test]
async fn a_base_may_have_a_path_and_headers() {
    let router = Router::new().route(
        "/comfy/history/{id}",
        get(async |headers: HeaderMap, Path(id): Path<String>| {
            assert_eq!(headers["x-token"], "t");
            let entry = json!({"outputs": {"9": {}}, "status": {"status_str": "success", "completed": true}});
            axum::Json(json!({ id: entry }))
        }),
    );
    let mut config = config(serve(router).await, "/comfy/");
    config.headers.insert("x-token", "t".parse().unwrap());
    let entry = Client::new(config).unwrap().history("p").await.unwrap().unwrap();
    assert_eq!(entry.succeeded(), Some(true));
}

#[tokio::test]
async fn unusable_bases_are_refused() {
    for base in ["ftp://host/", "data:text/plain,x"] {
        let error = Client::new(ClientConfig::new(base.parse().unwrap())).unwrap_err();
        assert!(matches!(error, Error::BadBase { .. }), "{error}");
    }
}

#[tokio::test]
async fn failures_say_whether_anything_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client(address).queue().await.unwrap_err();
    assert_eq!(error.failure(), Failure::Refused, "{error}");
    let socket = client(address).open_socket(&options()).await.unwrap_err();
    assert_eq!(socket.failure(), Failure::Refused, "{socket}");

    // Accepted by the kernel, never answered.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(listener.local_addr().unwrap(), "/");
    config.timeouts.request = Duration::from_millis(100);
    let silent = Client::new(config).unwrap();
    let error = silent.queue().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(error.failure(), Failure::NoAnswer);
    assert!(matches!(
        silent.open_socket(&options()).await.unwrap_err(),
        Error::Timeout { .. }
    ));
}

#[tokio::test]
async fn answers_are_bounded_and_redirects_not_followed() {
    let router = Router::new()
        .route("/queue", get(async || "x".repeat(2000)))
        .route(
            "/system_stats",
            get(async || Redirect::temporary("http://127.0.0.1:1/")),
        )
        .route("/object_info", get(async || "not json"));
    let mut config = config(serve(router).await, "/");
    config.limits.json_bytes = 1000;
    let client = Client::new(config).unwrap();
    assert!(matches!(
        client.queue().await.unwrap_err(),
        Error::TooLarge { limit: 1000, .. }
    ));
    let redirect = client.system_stats().await.unwrap_err();
    assert!(
        matches!(
            redirect,
            Error::Status {
                status: StatusCode::TEMPORARY_REDIRECT,
                ..
            }
        ),
        "{redirect}"
    );
    assert!(matches!(
        client.object_info().await.unwrap_err(),
        Error::Unreadable { .. }
    ));
}

#[tokio::test]
async fn uploads_keep_their_names_and_stream() {
    let log = Log::default();
    let receive = async |State(log): State<Log>, mut form: Multipart| {
        while let Some(field) = form.next_field().await.unwrap() {
            let (name, file) = (
                field.name().unwrap().to_owned(),
                field.file_name().map(str::to_owned),
            );
            log.note(format!("{name} {file:?} {}", field.text().await.unwrap()));
        }
        axum::Json(json!({"name": "a (1).png", "subfolder": "s", "type": "input"}))
    };
    let router = Router::new()
        .route("/upload/image", post(receive))
        .with_state(log.clone());
    let client = client(serve(router).await);
    let pieces = ["ab", "cd"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
    let mut upload = Upload::stream("sn öw%20☃.png", 4, futures::stream::iter(pieces));
    upload.subfolder = "s".into();
    upload.overwrite = true;
    let reply = client.upload_image(upload).await.unwrap();
    assert_eq!(reply.input_value(), "s/a (1).png");
    let image = "image Some(\"sn öw%20☃.png\") abcd";
    assert_eq!(
        log.take(),
        [
            image,
            "type None input",
            "subfolder None s",
            "overwrite None true"
        ]
    );
    client.upload_image(Upload::bytes("b.png", "xyz")).await.unwrap();
    assert_eq!(log.take(), ["image Some(\"b.png\") xyz", "type None input"]);
    for name in ["", "../x.png", "a\"b.png", "a\r\nb.png", "a/b.png"] {
        let error = client.upload_image(Upload::bytes(name, "x")).await.unwrap_err();
        assert!(matches!(error, Error::BadName { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn files_are_streamed_and_missing_ones_are_none() {
    let view = async |RawQuery(query): RawQuery| -> Response {
        match query.unwrap().as_str() {
            "filename=a+b.png&type=output&subfolder=x%2Fy" => {
                ([("content-type", "image/png"), ("etag", "\"1\"")], "0123456789").into_response()
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    };
    let client = client(serve(Router::new().route("/view", get(view))).await);
    let file = |name: &str| FileRef {
        filename: name.into(),
        subfolder: "x/y".into(),
        kind: "output".into(),
    };
    let download = client.view(&file("a b.png")).await.unwrap().unwrap();
    assert_eq!(
        (download.length(), download.media_type(), download.etag()),
        (Some(10), Some("image/png"), Some("\"1\""))
    );
    let mut target = Vec::new();
    assert_eq!(download.copy_to(&mut target, 10).await.unwrap(), 10);
    assert_eq!(target, b"0123456789");
    let download = client.view(&file("a b.png")).await.unwrap().unwrap();
    assert!(matches!(
        download.copy_to(&mut Vec::new(), 9).await,
        Err(Error::TooLarge { limit: 9, .. })
    ));
    assert!(client.view(&file("nope.png")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_file_that_ends_early_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
            .await
            .unwrap();
    });
    let file = FileRef {
        filename: "a".into(),
        subfolder: String::new(),
        kind: "output".into(),
    };
    let download = client(address).view(&file).await.unwrap().unwrap();
    assert!(matches!(
        download.copy_to(&mut Vec::new(), 100).await,
        Err(Error::Transport { .. })
    ));
}

fn options() -> SocketOptions {
    SocketOptions {
        client_id: "cid 1".into(),
        preview_metadata: true,
    }
}

#[tokio::test]
async fn the_socket_gives_messages_and_frames_until_it_closes() {
    let log = Log::default();
    let ws = async |State(log): State<Log>, RawQuery(query): RawQuery, upgrade: WebSocketUpgrade| {
        log.note(query.unwrap());
        upgrade.on_upgrade(async move |mut socket| {
            let Some(Ok(ServerFrame::Text(hello))) = socket.recv().await else {
                panic!("no flags")
            };
            log.note(hello.as_str());
            let text = r#"{"type":"executing","data":{"node":"1","prompt_id":"p"}}"#;
            for frame in [
                ServerFrame::Text(text.into()),
                ServerFrame::Text("no json".into()),
                ServerFrame::Binary(Bytes::from_static(&[0, 0])),
                ServerFrame::Ping(Bytes::new()),
                ServerFrame::Binary(Bytes::from_static(b"\0\0\0\x01\0\0\0\x02PNG")),
                ServerFrame::Close(None),
            ] {
                socket.send(frame).await.unwrap();
            }
        })
    };
    let router = Router::new().route("/ws", get(ws)).with_state(log.clone());
    let client = client(serve(router).await);
    let mut socket = client.open_socket(&options()).await.unwrap();
    let Some(Incoming::Message(message)) = socket.next().await.unwrap() else {
        panic!("no message")
    };
    assert_eq!(
        message,
        Message::new("executing", json!({"node": "1", "prompt_id": "p"}))
    );
    let Some(Incoming::Binary(frame)) = socket.next().await.unwrap() else {
        panic!("no frame")
    };
    assert!(matches!(&frame, BinaryFrame::Preview { image, .. } if image == "PNG"));
    assert_eq!(socket.next().await.unwrap(), None);
    let flags = r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#;
    assert_eq!(log.take(), ["clientId=cid+1", flags]);
}

#[tokio::test]
async fn the_socket_pings_and_bounds_messages() {
    let ws = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            let pinged = socket.recv().await;
            assert!(matches!(pinged, Some(Ok(ServerFrame::Ping(_)))), "{pinged:?}");
            let _ = socket.send(ServerFrame::Text("x".repeat(5000).into())).await;
            let _ = socket.recv().await;
        })
    };
    let mut config = config(serve(Router::new().route("/ws", get(ws))).await, "/");
    config.limits.message_bytes = 1000;
    config.timeouts.ping = Duration::from_millis(20);
    let client = Client::new(config).unwrap();
    let options = SocketOptions {
        client_id: "c".into(),
        preview_metadata: false,
    };
    let mut socket = client.open_socket(&options).await.unwrap();
    assert!(matches!(socket.next().await, Err(Error::Socket(_))));
}

#[tokio::test]
async fn a_refused_or_false_handshake_is_an_error() {
    let (forbidding, _) = answering(StatusCode::FORBIDDEN, "").await;
    let error = forbidding.open_socket(&options()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Status {
                status: StatusCode::FORBIDDEN,
                ..
            }
        ),
        "{error}"
    );
    let lie = async || {
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", "wrong")
            .body(Body::empty())
            .unwrap()
    };
    let client = client(serve(Router::new().route("/ws", get(lie))).await);
    let error = client.open_socket(&options()).await.unwrap_err();
    assert!(matches!(error, Error::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn a_killed_instance_ends_the_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let key = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-key: "))
            .unwrap();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let mut socket = client(address).open_socket(&options()).await.unwrap();
    assert_eq!(socket.next().await.unwrap(), None);
}

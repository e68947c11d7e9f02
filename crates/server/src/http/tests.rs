//! The layers together, on a real socket.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRef, Request, WebSocketUpgrade},
    middleware::{Next, from_fn},
    routing::get,
};
use bytes::Bytes;
use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_blobs::{
    LocalBlobs,
    signed_url::{Method, Signer},
};
use darkroom_core::{BlobKey, Clock, JobId};
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    auth::{AuthState, Keyring, Rules},
    config::{Credential, KeyConfig, Secret},
    metrics::Metrics,
};

#[derive(Clone)]
struct State {
    auth: AuthState,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    blobs: BlobAccess,
    stopping: CancellationToken,
}

macro_rules! part_of_state {
    ($($field:ident: $part:ty),*) => {$(
        impl FromRef<State> for $part {
            fn from_ref(state: &State) -> Self {
                state.$field.clone()
            }
        }
    )*};
}
part_of_state!(auth: AuthState, readiness: Readiness, metrics: Arc<Metrics>, blobs: BlobAccess, stopping: CancellationToken);

struct Server {
    address: SocketAddr,
    state: State,
    task: JoinHandle<std::io::Result<()>>,
    _dir: tempfile::TempDir,
}

async fn start(grace: Duration, keys: &[KeyConfig]) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let rules = Rules {
        on_loopback: true,
        insecure_no_auth: false,
        cors_origins: Vec::new(),
        public_url: None,
        body_digest: crate::auth::signed::BodyDigest::Tolerant,
    };
    let state = State {
        auth: AuthState::new(
            rules,
            Keyring::new(keys, &[], &[]),
            Arc::clone(&clock),
            Arc::new(SystemIds),
        ),
        readiness: Readiness::default(),
        metrics: Arc::new(Metrics::new()),
        blobs: BlobAccess {
            blobs: Arc::new(LocalBlobs::open(dir.path(), None).unwrap()),
            signer: Signer::new(&[1; 32]),
            clock: Arc::clone(&clock),
        },
        stopping: CancellationToken::new(),
    };
    async fn long_poll(
        axum::extract::State(stopping): axum::extract::State<CancellationToken>,
    ) -> StatusCode {
        stopping.cancelled().await;
        StatusCode::NO_CONTENT
    }
    async fn echo(upgrade: WebSocketUpgrade) -> axum::response::Response {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
        })
    }
    let router = Router::new()
        .route("/hello", get(async || "hello"))
        .route(
            "/panic",
            get(async || -> &'static str { panic!("a bug, made for this test") }),
        )
        .route("/poll", get(long_poll))
        .route("/stuck", get(async || std::future::pending::<()>().await))
        .route("/ws", get(echo))
        .merge(health::routes::<State>())
        .merge(blobs::routes::<State>())
        .with_state(state.clone());
    let outer = Outer {
        metrics: Arc::clone(&state.metrics),
        clock,
        ids: Arc::new(SystemIds),
        cors: Cors::default(),
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Stop {
        stopping: state.stopping.clone(),
        closing: CancellationToken::new(),
        grace,
        deadline: Duration::from_millis(300),
    };
    let outermost = move |request: Request, next: Next| {
        let outer = outer.clone();
        async move { around(&outer, request, |request| next.run(request)).await }
    };
    let router = Router::new().fallback_service(router).layer(from_fn(outermost));
    let task = tokio::spawn(serve(listener, router, stop));
    Server {
        address,
        state,
        task,
        _dir: dir,
    }
}

impl Server {
    async fn connect(&self) -> Connection {
        Connection(TcpStream::connect(self.address).await.unwrap())
    }

    async fn get(&self, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
        self.connect().await.ask("GET", path, headers).await
    }

    async fn ended(self) {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.task).await;
        ended.expect("the stop takes no longer").unwrap().unwrap();
    }
}

/// One kept connection.
struct Connection(TcpStream);

impl Connection {
    async fn ask(&mut self, method: &str, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
        self.send(method, path, headers).await;
        self.answer(method == "HEAD").await
    }

    async fn send(&mut self, method: &str, path: &str, headers: &str) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self, without_body: bool) -> (u16, String, Vec<u8>) {
        let mut seen = Vec::new();
        let head_end = loop {
            if let Some(at) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert_ne!(
                self.0.read_buf(&mut seen).await.unwrap(),
                0,
                "closed before an answer"
            );
        };
        let head = String::from_utf8(seen[..head_end].to_vec())
            .unwrap()
            .to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse::<usize>().unwrap());
        let mut body = seen[head_end..].to_vec();
        while !without_body && body.len() < length {
            assert_ne!(
                self.0.read_buf(&mut body).await.unwrap(),
                0,
                "closed inside an answer"
            );
        }
        (head[9..12].parse().unwrap(), head, body)
    }

    async fn is_closed(&mut self) -> bool {
        let read = tokio::time::timeout(Duration::from_secs(60), self.0.read(&mut [0; 1])).await;
        matches!(read.expect("closed in time"), Ok(0) | Err(_))
    }
}

const NO_GRACE: Duration = Duration::ZERO;

#[tokio::test]
async fn every_answer_has_a_request_id_and_safe_headers() {
    let server = start(NO_GRACE, &[]).await;
    let (status, head, body) = server.get("/hello", "X-Request-Id: abc-1\r\n").await;
    assert_eq!((status, body.as_slice()), (200, &b"hello"[..]));
    assert!(
        head.contains("x-request-id: abc-1") && head.contains("x-content-type-options: nosniff"),
        "{head}"
    );
    let (status, head, _) = server.get("/nowhere", "").await;
    assert_eq!(status, 404);
    assert!(head.contains("x-request-id: "), "{head}");
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_server_lives() {
    let server = start(NO_GRACE, &[]).await;
    let mut connection = server.connect().await;
    let (status, _, body) = connection.ask("GET", "/panic", "X-Request-Id: p1\r\n").await;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status, &body["error"]["code"], &body["error"]["request_id"]),
        (500, &"internal".into(), &"p1".into())
    );
    assert!(!body.to_string().contains("made for this test"));
    assert_eq!(
        connection.ask("GET", "/hello", "").await.0,
        200,
        "on the same connection"
    );
    assert!(server.state.metrics.render().contains("darkroom_panics_total 1"));
}

#[tokio::test]
async fn readiness_follows_its_switch() {
    let server = start(NO_GRACE, &[]).await;
    assert_eq!(server.get("/healthz", "").await.0, 200);
    assert_eq!(server.get("/readyz", "").await.0, 503);
    server.state.readiness.set(true);
    assert_eq!(server.get("/readyz", "").await.0, 200);
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_for_admins() {
    let admin = KeyConfig {
        name: "root".to_owned(),
        credential: Credential::Key(Secret::new("sk_root")),
        scopes: vec![darkroom_store::access::Scope::Admin],
        endpoints: vec!["*".to_owned()],
        tenant: "default".parse().unwrap(),
    };
    let server = start(NO_GRACE, &[admin]).await;
    let (status, head, body) = server.get("/metrics", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(String::from_utf8(body).unwrap().ends_with("# EOF\n"));
    let proxied = "X-Forwarded-For: 9.9.9.9\r\n";
    assert_eq!(server.get("/metrics", proxied).await.0, 401);
    assert_eq!(
        server
            .get("/metrics", &format!("{proxied}Authorization: Bearer sk_root\r\n"))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn a_stop_answers_long_polls_and_keeps_idle_connections_readable() {
    let server = start(Duration::from_secs(30), &[]).await;
    let mut idle = server.connect().await;
    assert_eq!(idle.ask("GET", "/hello", "").await.0, 200);
    let mut poll = server.connect().await;
    poll.send("GET", "/poll", "").await;
    // The poll is being handled once a later request on another connection was answered and it is still open.
    assert_eq!(idle.ask("GET", "/hello", "").await.0, 200);

    server.state.stopping.cancel();
    let (status, head, _) = poll.answer(false).await;
    assert_eq!(status, 204);
    assert!(head.contains("connection: close"), "{head}");
    assert!(poll.is_closed().await);

    let mut late = server.connect().await;
    let (status, head, _) = late.ask("GET", "/hello", "").await;
    assert_eq!(status, 200, "also a new connection is served in the grace");
    assert!(head.contains("connection: close"), "{head}");

    let (status, head, body) = idle.ask("GET", "/hello", "").await;
    assert_eq!((status, body.as_slice()), (200, &b"hello"[..]));
    assert!(head.contains("connection: close"), "{head}");
    assert!(idle.is_closed().await);
    server.ended().await;
}

#[tokio::test]
async fn after_the_grace_idle_connections_are_closed() {
    let server = start(Duration::from_millis(50), &[]).await;
    let mut idle = server.connect().await;
    assert_eq!(idle.ask("GET", "/hello", "").await.0, 200);
    server.state.stopping.cancel();
    assert!(idle.is_closed().await);
    server.ended().await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_by_the_deadline() {
    let server = start(NO_GRACE, &[]).await;
    let mut stuck = server.connect().await;
    stuck.send("GET", "/stuck", "").await;
    server.state.stopping.cancel();
    server.ended().await;
}

#[tokio::test]
async fn web_sockets_pass_through_all_layers() {
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let server = start(NO_GRACE, &[]).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut socket, response) = tokio_tungstenite::client_async("ws://localhost/ws", stream)
        .await
        .unwrap();
    assert!(response.headers().contains_key("x-request-id"));
    socket.send(Message::text("图")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("图"));
}

async fn put(server: &Server, name: &str, bytes: &'static [u8]) -> (BlobKey, String) {
    let key = BlobKey::output(JobId::new(&SystemIds), uuid::Uuid::nil(), name);
    server
        .state
        .blobs
        .blobs
        .put_bytes(&key, Bytes::from_static(bytes))
        .await
        .unwrap();
    let expires = server.state.blobs.clock.now().plus(Duration::from_secs(60));
    let path = server
        .state
        .blobs
        .signer
        .sign_path(Method::Get, &key, expires, None);
    (key, path)
}

#[tokio::test]
async fn a_signed_url_gives_the_file_and_any_part_of_it() {
    let server = start(NO_GRACE, &[]).await;
    let png = b"\x89PNG\r\n\x1a\n0123456789";
    let (_, path) = put(&server, "图像 1.png", png).await;
    let (status, head, body) = server.get(&path, "").await;
    assert_eq!((status, body.as_slice()), (200, &png[..]));
    assert!(
        head.contains("content-type: image/png") && head.contains("content-disposition: inline"),
        "{head}"
    );
    assert!(
        head.contains("cache-control: private") && head.contains("accept-ranges: bytes"),
        "{head}"
    );

    let (status, head, body) = server.get(&path, "Range: bytes=8-10\r\n").await;
    assert_eq!((status, body.as_slice()), (206, &b"012"[..]));
    assert!(head.contains("content-range: bytes 8-10/18"), "{head}");
    let (status, head, _) = server.get(&path, "Range: bytes=99-\r\n").await;
    assert_eq!(status, 416);
    assert!(head.contains("content-range: bytes */18"), "{head}");

    let etag = head
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .unwrap()
        .to_owned();
    assert_eq!(
        server.get(&path, &format!("If-None-Match: {etag}\r\n")).await.0,
        304
    );
    let changed = "Range: bytes=8-10\r\nIf-Range: \"other\"\r\n";
    assert_eq!(server.get(&path, changed).await.0, 200);

    let (status, head, body) = server.connect().await.ask("HEAD", &path, "").await;
    assert_eq!((status, body.len()), (200, 0));
    assert!(head.contains("content-length: 18"), "{head}");
}

#[tokio::test]
async fn what_could_run_scripts_is_downloaded() {
    let server = start(NO_GRACE, &[]).await;
    for (name, sent_as) in [
        ("a.html", "application/octet-stream"),
        ("a.svg", "image/svg+xml"),
        ("a.js", "application/octet-stream"),
    ] {
        let (_, path) = put(&server, name, b"<svg onload=alert(1)>").await;
        let (_, head, _) = server.get(&path, "").await;
        let sent_as = format!("content-type: {sent_as}\r\n");
        assert!(head.contains(&sent_as), "{name}: {head}");
        assert!(head.contains("content-disposition: attachment"), "{name}: {head}");
        assert!(
            head.contains("content-security-policy: sandbox"),
            "{name}: {head}"
        );
    }
}

#[tokio::test]
async fn without_the_right_signature_there_is_nothing() {
    let server = start(NO_GRACE, &[]).await;
    let (key, path) = put(&server, "a.png", b"x").await;
    let (other, _) = put(&server, "b.png", b"x").await;
    let (bare, query) = path.split_once('?').unwrap();
    let code = async |path: &str| {
        let (status, _, body) = server.get(path, "").await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (status, body["error"]["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(code(bare).await, (403, "signature_missing".to_owned()));
    let forged = format!("{}?{query}", darkroom_blobs::signed_url::path(&other));
    assert_eq!(code(&forged).await, (403, "signature_mismatch".to_owned()));
    let old = server.state.blobs.clock.now().minus(Duration::from_secs(5));
    let expired = server.state.blobs.signer.sign_path(Method::Get, &key, old, None);
    assert_eq!(code(&expired).await, (403, "signature_expired".to_owned()));
    for climbing in [
        "/darkroom/v1/blobs/../../etc/passwd",
        "/darkroom/v1/blobs/..%2f..%2fetc%2fpasswd",
        "/darkroom/v1/blobs//x",
    ] {
        assert_eq!(server.get(climbing, "").await.0, 404, "{climbing}");
    }
    server.state.blobs.blobs.delete(&key).await.unwrap();
    assert_eq!(code(&path).await, (404, "not_found".to_owned()));
}

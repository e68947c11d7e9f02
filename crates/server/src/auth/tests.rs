//! The rules of access, asked of the real extractor.

use std::sync::Arc;

use axum::{Router, body::Body, routing::post};
use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_core::{
    Endpoint, EndpointName, Timestamp,
    endpoint::{Backend, Kind},
};
use darkroom_store::access::{KeyRecord, Scope};
use http::{Request, StatusCode, header};
use tower::ServiceExt;

use super::*;
use crate::{
    config::{Credential, KeyConfig, Secret},
    http::RequestId,
};

pub fn rules(on_loopback: bool) -> Rules {
    Rules {
        on_loopback,
        insecure_no_auth: false,
        cors_origins: Vec::new(),
        public_url: None,
        body_digest: crate::auth::signed::BodyDigest::Tolerant,
    }
}

pub fn state(rules: Rules, keyring: Keyring) -> AuthState {
    AuthState::new(rules, keyring, Arc::new(SystemClock::new()), Arc::new(SystemIds))
}

fn key(name: &str, secret: &str, scope: Scope, endpoints: &[&str]) -> KeyConfig {
    KeyConfig {
        name: name.to_owned(),
        credential: Credential::Key(Secret::new(secret)),
        scopes: vec![scope],
        endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
        tenant: "acme".parse().unwrap(),
    }
}

fn stored(name: &str, secret: &str, revoked: bool) -> KeyRecord {
    KeyRecord {
        name: name.to_owned(),
        secret_sha256: hash_key(secret),
        prefix: secret[..2].to_owned(),
        scopes: vec![Scope::Admin],
        endpoints: vec!["*".to_owned()],
        tenant: "default".parse().unwrap(),
        created_at: Timestamp::ZERO,
        revoked_at: revoked.then_some(Timestamp::ZERO),
        app: None,
    }
}

fn endpoint(name: &str, anonymous: bool) -> Endpoint {
    Endpoint {
        name: name.parse().unwrap(),
        kind: Kind::Comfyui,
        backend: Backend::External,
        gpus: Vec::new(),
        frontend: None,
        warmup: None,
        hosts: Vec::new(),
        anonymous,
        anonymous_history: false,
        scaling: Default::default(),
        limits: Default::default(),
        queue: Default::default(),
    }
}

/// `POST /{endpoint}` needs `client`; `POST /{endpoint}/list` lists; `POST /admin` needs `admin`.
fn app(state: AuthState) -> Router {
    async fn submit(
        axum::extract::Path(name): axum::extract::Path<EndpointName>,
        caller: Caller,
    ) -> Result<String, Rejection> {
        let request_id = caller.request_id.clone();
        caller
            .may(Scope::Client, &name)
            .map_err(|error| Rejection { error, request_id })?;
        Ok(format!("{} {:?}", caller.tenant, caller.key_name))
    }
    async fn list(
        axum::extract::Path(name): axum::extract::Path<EndpointName>,
        caller: Caller,
    ) -> Result<(), Rejection> {
        let request_id = caller.request_id.clone();
        caller
            .may_list(&name)
            .map_err(|error| Rejection { error, request_id })
    }
    async fn admin(caller: Caller) -> Result<(), Rejection> {
        let request_id = caller.request_id.clone();
        caller
            .may_anywhere(Scope::Admin)
            .map_err(|error| Rejection { error, request_id })
    }
    Router::new()
        .route("/{endpoint}", post(submit))
        .route("/{endpoint}/list", post(list))
        .route("/admin", post(admin))
        .merge(login::routes::<AuthState>())
        .with_state(state)
}

async fn send(
    app: &Router,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, http::HeaderMap, String) {
    let mut request = Request::post(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1:8288");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (
        parts.status,
        parts.headers,
        String::from_utf8_lossy(&bytes).into_owned(),
    )
}

async fn status(app: &Router, path: &str, headers: &[(&str, &str)]) -> u16 {
    send(app, path, headers, "").await.0.as_u16()
}

#[tokio::test]
async fn without_keys_this_machine_may_do_all_and_credentials_are_ignored() {
    let app = app(state(rules(true), Keyring::default()));
    let (status_code, _, body) = send(&app, "/sdxl", &[("authorization", "Bearer whatever")], "").await;
    assert_eq!((status_code.as_u16(), body.as_str()), (200, "default None"));
    assert_eq!(status(&app, "/admin", &[]).await, 200);
}

#[tokio::test]
async fn without_keys_foreign_pages_and_names_are_refused() {
    let app = app(state(rules(true), Keyring::default()));
    let (code, _, body) = send(&app, "/sdxl", &[("origin", "https://evil.example")], "").await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(body.contains("\"code\":\"foreign_origin\""), "{body}");
    let (code, _, body) = send(&app, "/sdxl", &[("host", "evil.example")], "").await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(body.contains("\"code\":\"foreign_host\""), "{body}");
    let upgrade = [
        ("origin", "https://evil.example"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
    ];
    assert_eq!(status(&app, "/sdxl", &upgrade).await, 403);
}

#[tokio::test]
async fn with_keys_unknown_credentials_are_refused_everywhere() {
    let ring = Keyring::new(
        &[key("app", "sk_1", Scope::Client, &["*"])],
        &[],
        &[endpoint("free", true), endpoint("paid", false)],
    );
    let app = app(state(rules(true), ring));
    for path in ["/free", "/paid", "/admin"] {
        assert_eq!(
            status(&app, path, &[("authorization", "Bearer nope")]).await,
            401,
            "{path}"
        );
        assert_eq!(
            status(&app, path, &[("authorization", "Basic c2tfMQ==")]).await,
            401,
            "{path}"
        );
    }
    let (code, _, body) = send(&app, "/free", &[], "").await;
    assert_eq!((code.as_u16(), body.as_str()), (200, "anonymous None"));
    let (code, headers, _) = send(&app, "/paid", &[], "").await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
    assert_eq!(
        status(&app, "/free/list", &[]).await,
        401,
        "history is not for everyone"
    );
    assert_eq!(status(&app, "/admin", &[]).await, 401);
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_and_endpoints_say() {
    let ring = Keyring::new(
        &[
            key("app", "sk_app", Scope::Client, &["sdxl"]),
            key("gpu", "sk_gpu", Scope::Worker, &["*"]),
        ],
        &[stored("root", "sk_root", false)],
        &[],
    );
    let app = app(state(rules(false), ring));
    let (code, _, body) = send(&app, "/sdxl", &[("authorization", "sk_app")], "").await;
    assert_eq!((code.as_u16(), body.as_str()), (200, "acme Some(\"app\")"));
    assert_eq!(
        status(&app, "/flux", &[("authorization", "Bearer sk_app")]).await,
        403
    );
    assert_eq!(
        status(&app, "/sdxl", &[("authorization", "Bearer sk_gpu")]).await,
        403
    );
    assert_eq!(
        status(&app, "/admin", &[("authorization", "Bearer sk_app")]).await,
        403
    );
    assert_eq!(
        status(&app, "/admin", &[("authorization", "Bearer sk_root")]).await,
        200
    );
    assert_eq!(
        status(&app, "/flux", &[("authorization", "Bearer sk_root")]).await,
        200,
        "admin holds all"
    );
    assert_eq!(status(&app, "/sdxl", &[]).await, 401);
}

#[tokio::test]
async fn revoking_the_last_key_does_not_open_the_server() {
    let app = app(state(
        rules(true),
        Keyring::new(&[], &[stored("old", "sk_old", true)], &[]),
    ));
    assert_eq!(status(&app, "/sdxl", &[]).await, 401);
    assert_eq!(
        status(&app, "/sdxl", &[("authorization", "Bearer sk_old")]).await,
        401
    );
}

#[tokio::test]
async fn a_socket_others_can_reach_is_closed_without_keys() {
    let app = app(state(rules(false), Keyring::default()));
    assert_eq!(status(&app, "/sdxl", &[]).await, 401);
}

#[tokio::test]
async fn a_login_gives_a_cookie_that_only_our_own_pages_can_use() {
    let auth = state(
        rules(false),
        Keyring::new(&[key("app", "sk_1", Scope::Client, &["*"])], &[], &[]),
    );
    let app = app(auth.clone());
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let (code, headers, body) = send(&app, "/login", &form, "key=nope&next=/x").await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    assert!(body.contains("not known") && !headers.contains_key(header::SET_COOKIE));

    let (code, headers, _) = send(&app, "/login", &form, "key=sk_1&next=/e/sdxl/").await;
    assert_eq!(
        (code.as_u16(), headers[header::LOCATION].to_str().unwrap()),
        (303, "/e/sdxl/")
    );
    let cookie = headers[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(status(&app, "/sdxl", &[("cookie", pair)]).await, 200);
    assert_eq!(
        status(
            &app,
            "/sdxl",
            &[("cookie", pair), ("origin", "http://127.0.0.1:8288")]
        )
        .await,
        200
    );
    assert_eq!(
        status(
            &app,
            "/sdxl",
            &[("cookie", pair), ("origin", "http://127.0.0.1:3000")]
        )
        .await,
        403
    );
    assert_eq!(
        status(&app, "/sdxl", &[("cookie", "darkroom_session=guess")]).await,
        401
    );

    auth.set_keyring(Keyring::new(
        &[key("app", "sk_2", Scope::Client, &["*"])],
        &[],
        &[],
    ));
    assert_eq!(
        status(&app, "/sdxl", &[("cookie", pair)]).await,
        401,
        "a session ends with its key"
    );
}

#[tokio::test]
async fn a_link_works_once() {
    let auth = state(
        rules(false),
        Keyring::new(&[key("app", "sk_1", Scope::Client, &["*"])], &[], &[]),
    );
    let app = app(auth.clone());
    let mut headers = http::HeaderMap::new();
    headers.insert(header::AUTHORIZATION, "Bearer sk_1".parse().unwrap());
    let request_id = RequestId::of(&http::Extensions::new());
    let caller = auth
        .identify(&headers, &"/".parse().unwrap(), request_id)
        .unwrap();
    let token = auth.new_link(&caller).unwrap();
    let follow = || async {
        let request = Request::get(format!("/login?token={token}&next=/e/a/"))
            .body(Body::empty())
            .unwrap();
        app.clone().oneshot(request).await.unwrap()
    };
    let first = follow().await;
    assert_eq!(first.status(), StatusCode::SEE_OTHER);
    assert!(first.headers().contains_key(header::SET_COOKIE));
    assert_eq!(follow().await.status(), StatusCode::UNAUTHORIZED);
}

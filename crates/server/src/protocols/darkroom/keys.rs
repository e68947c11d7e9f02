//! Keys: make, list, revoke. Operators only.

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use darkroom_core::{EndpointName, endpoint::Kind};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{call::Call, error::ApiError, views};
use crate::{
    auth::{NewKey, Scope, hash_key},
    service::{
        Error,
        objects::{self, Holder},
    },
    state::{AppState, BaseUrl},
};

/// The body of a new key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    name: String,
    #[serde(default = "client_scope")]
    scopes: Vec<Scope>,
    #[serde(default = "all_endpoints")]
    endpoints: Vec<String>,
    #[serde(default)]
    tenant: Option<String>,
    /// For protocols that sign: an app key and its secret instead of one secret.
    #[serde(default)]
    app: bool,
}

fn client_scope() -> Vec<Scope> {
    vec![Scope::Client]
}

fn all_endpoints() -> Vec<String> {
    vec!["*".to_owned()]
}

/// The endpoint whose workers a key is for, if it is for nothing else: they are told where to keep their files.
fn workers_of(state: &AppState, key: &NewKey) -> Option<EndpointName> {
    let ([Scope::Worker], [endpoint]) = (key.scopes.as_slice(), key.endpoints.as_slice()) else {
        return None;
    };
    let endpoint = endpoint.parse().ok()?;
    let known = state.service.endpoint(&endpoint).ok()?;
    (known.kind == Kind::Worker && !known.is_http_worker()).then_some(endpoint)
}

/// `POST /keys`: 201 with the secret, which is shown this once.
///
/// # Errors
/// For a name that is taken.
pub async fn create(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
    body: Result<Json<Create>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    call.needs_anywhere(Scope::Admin)?;
    let Json(body) = body.map_err(|e| call.fail(Error::Invalid(e.body_text())))?;
    let tenant = body.tenant.unwrap_or_else(|| "default".to_owned());
    let tenant = tenant
        .parse()
        .map_err(|e: darkroom_core::id::Error| call.fail(Error::Invalid(e.to_string())))?;
    let key = NewKey {
        name: body.name.clone(),
        scopes: body.scopes,
        endpoints: body.endpoints,
        tenant,
    };
    let mut made = json!({ "name": body.name });
    if body.app {
        let (app_key, app_secret) = state
            .service
            .create_app_key(key)
            .await
            .map_err(|e| call.fail(e))?;
        made["app_key"] = Value::from(app_key);
        made["app_secret"] = Value::from(app_secret.expose());
    } else {
        let workers_of = workers_of(&state, &key);
        let secret = state.service.create_key(key).await.map_err(|e| call.fail(e))?;
        made["secret"] = Value::from(secret.expose());
        if let Some(endpoint) = workers_of {
            let holder = Holder::keyed(endpoint, &hash_key(secret.expose()));
            let access = state.service.object_access(&holder);
            made["bucket"] = json!({
                "endpoint_url": format!("{base}{}", objects::PATH),
                "access_key_id": access.access_key,
                "secret_access_key": access.secret_key,
            });
        }
    }
    state
        .reload
        .keys(&state.service)
        .await
        .map_err(|e| call.fail(e))?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// `GET /keys`: without secrets.
///
/// # Errors
/// Without the scope.
pub async fn list(State(state): State<AppState>, call: Call) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Admin)?;
    let keys = state.service.keys().await.map_err(|e| call.fail(e))?;
    let keys: Vec<Value> = keys
        .iter()
        .map(|k| {
            json!({
                "name": k.name,
                "prefix": k.prefix,
                "app_key": k.app.as_ref().map(|app| &app.app_key),
                "scopes": k.scopes,
                "endpoints": k.endpoints,
                "tenant": k.tenant,
                "created_at": views::time(Some(k.created_at)),
                "revoked_at": views::time(k.revoked_at),
            })
        })
        .collect();
    Ok(Json(json!({ "keys": keys })))
}

/// `DELETE /keys/{name}`.
///
/// # Errors
/// 404.
pub async fn revoke(
    State(state): State<AppState>,
    call: Call,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Admin)?;
    state.service.revoke_key(&name).await.map_err(|e| call.fail(e))?;
    state
        .reload
        .keys(&state.service)
        .await
        .map_err(|e| call.fail(e))?;
    Ok(Json(json!({ "name": name, "revoked": true })))
}

//! Files by what they hold: brought, found by hash, listed, read, removed. They belong to the caller's tenant.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, Request, State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{call::Call, error::ApiError, page::PageParams, views::time};
use crate::{
    auth::Scope,
    http::{Ask, drain_body},
    service::{
        Error, Service,
        assets::{
            Asset, AssetBody, AssetError, AssetId, AssetRef, ContentHash, MAX_ASSET_BYTES,
            create::{AssetTerms, Created},
        },
    },
    state::{AppState, BaseUrl},
};

/// What a caller says of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    file_path: Option<String>,
    content_type: Option<String>,
    /// In seconds.
    expires_in: Option<u64>,
    /// `blake3:…` or `sha256:…`.
    hash: Option<String>,
}

impl Terms {
    /// # Errors
    /// For a hash that is none.
    pub fn read(self, call: &Call) -> Result<AssetTerms, ApiError> {
        let expected = self.hash.map(|hash| hash_of(call, &hash)).transpose()?;
        Ok(AssetTerms {
            file_path: self.file_path.filter(|path| !path.is_empty()),
            content_type: self.content_type.filter(|given| !given.is_empty()),
            expires_in: self.expires_in.map(Duration::from_secs),
            expected,
        })
    }
}

/// `POST /assets?file_path=…&content_type=…&expires_in=…&hash=…`: the body is the file. 201 for a new asset, 200 where the same
/// bytes have that path already.
///
/// # Errors
/// 409 for other bytes than the hash says, 413 above 4 GiB.
pub async fn create(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
    Query(terms): Query<Terms>,
    body: Body,
) -> Result<Response, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let terms = terms.read(&call)?;
    let name = terms.file_path.clone().unwrap_or_else(|| "asset".to_owned());
    // It goes to the blob store as it comes: memory does not grow with it.
    let mut stream = body.into_data_stream().map_err(std::io::Error::other).boxed();
    let received = state
        .service
        .receive(&call.caller.tenant, &name, (&mut stream).boxed(), MAX_ASSET_BYTES)
        .await;
    let incoming = match received {
        Ok(incoming) => incoming,
        Err(error) => {
            // A client that is still sending would see its connection reset instead of our answer.
            drain_body(Body::from_stream(stream)).await;
            return Err(call.fail(error));
        }
    };
    let created = state
        .service
        .create_asset(&call.caller.tenant, incoming, terms)
        .await;
    answer(&call, &state.service, &base, created)
}

/// `POST /assets/from-hash`: an asset of bytes that are here.
///
/// # Errors
/// 404 where the tenant has no such bytes here.
pub async fn mint(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
    body: Result<Json<Terms>, JsonRejection>,
) -> Result<Response, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let Json(terms) = body.map_err(|e| call.fail(Error::Invalid(e.body_text())))?;
    let terms = terms.read(&call)?;
    let Some(hash) = terms.expected else {
        return Err(call.fail(Error::Invalid("'hash' is missing".into())));
    };
    let minted = state.service.mint_asset(&call.caller.tenant, hash, terms).await;
    answer(&call, &state.service, &base, minted)
}

/// `GET`, `HEAD /assets/by-hash/{hash}`: 200 where [`mint`] would find the bytes, now and for an hour.
///
/// # Errors
/// 404 where it would not.
pub async fn exists(
    State(state): State<AppState>,
    call: Call,
    Path(hash): Path<String>,
) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let wanted = hash_of(&call, &hash)?;
    match state.service.has_bytes(&call.caller.tenant, wanted).await {
        Ok(true) => Ok(Json(json!({ "hash": wanted.to_string() }))),
        Ok(false) => Err(call.fail(Error::not_found("file", hash))),
        Err(error) => Err(call.fail(error)),
    }
}

/// `GET /assets`: newest first; `after` is the last id of the page before.
///
/// # Errors
/// For an id that is none.
pub async fn list(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
    Query(page): Query<PageParams>,
) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let before = page.after().map(|id| own_id(&call, id)).transpose()?;
    let assets = state
        .service
        .assets(&call.caller.tenant, before, page.limit())
        .await
        .map_err(|e| call.fail(e))?;
    let next = page.next(&assets, |asset| asset.id.to_string());
    let assets: Vec<Value> = assets
        .iter()
        .map(|asset| view(&state.service, &base, asset))
        .collect();
    Ok(Json(json!({ "assets": assets, "next": next })))
}

/// `GET /assets/{asset}`.
///
/// # Errors
/// 404, also for another tenant's.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let asset = found(&state.service, &call, &id).await?;
    Ok(Json(view(&state.service, &base, &asset)))
}

/// `GET /assets/{asset}/content`: the bytes, or a part of them.
///
/// # Errors
/// As [`show`].
pub async fn content(
    State(state): State<AppState>,
    call: Call,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let asset = found(&state.service, &call, &id).await?;
    let key = match &asset.body {
        AssetBody::Blob(key) => key,
        AssetBody::Text(text) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            return Ok((kind, text.clone()).into_response());
        }
    };
    let ask = Ask {
        method: request.method(),
        headers: request.headers(),
        file_name: asset.file_name(),
        cache: "private, max-age=3600",
    };
    let sent = state.blobs.send(key, ask).await;
    sent.ok_or_else(|| call.fail(Error::not_found("asset", id)))
}

/// How much longer an asset is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Longer {
    /// In seconds, from now; null: until it is deleted.
    expires_in: Option<u64>,
}

/// `POST /assets/{asset}/keep`: it lasts that long at least; never shorter than before.
///
/// # Errors
/// As [`show`].
pub async fn keep(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
    Path(id): Path<String>,
    body: Result<Json<Longer>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let Json(longer) = body.map_err(|e| call.fail(Error::Invalid(e.body_text())))?;
    let until = longer
        .expires_in
        .map(|seconds| state.service.now().plus(Duration::from_secs(seconds)));
    let id = own_id(&call, &id)?;
    let kept = state
        .service
        .extend_asset(&call.caller.tenant, id, until)
        .await
        .map_err(|e| call.fail(e))?;
    Ok(Json(view(&state.service, &base, &kept)))
}

/// `DELETE /assets/{asset}`: its bytes stay as long as anything else has them.
///
/// # Errors
/// As [`show`]; 400 for what a job made.
pub async fn remove(
    State(state): State<AppState>,
    call: Call,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let asset = found(&state.service, &call, &id).await?;
    state
        .service
        .delete_asset(&call.caller.tenant, asset.id)
        .await
        .map_err(|e| call.fail(e))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn found(service: &Service, call: &Call, id: &str) -> Result<Asset, ApiError> {
    let unknown = || call.fail(Error::not_found("asset", id));
    let wanted: AssetRef = id.parse().map_err(|_| unknown())?;
    match wanted {
        AssetRef::Brought(_) => call.needs_anywhere(Scope::Client)?,
        // Whoever may see the job may see what it made.
        AssetRef::Made { job, .. } => {
            call.job(service, &job.to_string()).await?;
        }
    }
    let asset = service.asset(&call.caller.tenant, wanted).await;
    asset.map_err(|e| call.fail(e))?.ok_or_else(unknown)
}

fn own_id(call: &Call, id: &str) -> Result<AssetId, ApiError> {
    id.parse().map_err(|_| call.fail(Error::not_found("asset", id)))
}

fn hash_of(call: &Call, text: &str) -> Result<ContentHash, ApiError> {
    text.parse()
        .map_err(|e: darkroom_core::asset::NoHash| call.fail(Error::Invalid(e.to_string())))
}

/// An asset that was made, or why none was.
///
/// # Errors
/// [`AssetError`] as an answer.
pub fn answer(
    call: &Call,
    service: &Service,
    base: &str,
    created: Result<Created, AssetError>,
) -> Result<Response, ApiError> {
    match created {
        Ok(created) => {
            let status = match created.new_asset {
                true => StatusCode::CREATED,
                false => StatusCode::OK,
            };
            let mut view = view(service, base, &created.asset);
            view["new_bytes"] = Value::Bool(created.new_bytes);
            Ok((status, Json(view)).into_response())
        }
        Err(AssetError::Service(error)) => Err(call.fail(error)),
        Err(error @ AssetError::BadPath) => Err(call.fail(Error::Invalid(error.to_string()))),
        Err(AssetError::NoSuchBytes(hash)) => Err(call.fail(Error::not_found("file", hash))),
        Err(error @ AssetError::HashMismatch { .. }) => Ok(crate::http::error_response(
            StatusCode::CONFLICT,
            "hash_mismatch",
            &error.to_string(),
            &call.caller.request_id,
        )),
    }
}

/// An asset as our own API shows it.
pub fn view(service: &Service, base: &str, asset: &Asset) -> Value {
    let url = asset
        .blob()
        .map(|key| format!("{base}{}", service.signed_path(key).path_and_query));
    json!({
        "id": asset.id.to_string(),
        "hash": asset.hash().map(|hash| hash.to_string()),
        "sha256": asset.sha256.map(|digest| digest.to_string()),
        "size": asset.size,
        "content_type": asset.content_type,
        "file_path": asset.file_path,
        "created_at": time(Some(asset.created_at)),
        "expires_at": time(asset.expires_at),
        "job": asset.job,
        "url": url,
    })
}

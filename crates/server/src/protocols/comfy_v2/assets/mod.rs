//! Files by id: those that callers brought, and what their jobs made (`protocols/comfy-v2.md` §6).

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    call::V2Call,
    error::ApiError,
    ids::job_id,
    time::{time, time_or_null},
    view,
};
use crate::service::{
    Error, Service,
    assets::{Asset, AssetError, AssetRef},
    jobs::JobRecord,
};

pub mod by_hash;
pub mod content;
pub mod from_hash;
pub mod path;
pub mod remove;
pub mod show;
pub mod terms;
pub mod upload;

/// An asset, and the job that made it if one did.
pub struct Held {
    asset: Asset,
    job: Option<JobRecord>,
}

/// The caller's asset of an id; what a job made is one of the endpoint of that job alone.
///
/// # Errors
/// 404, also for another tenant's.
pub async fn find(service: &Service, call: &V2Call, id: &str) -> Result<Held, ApiError> {
    let unknown = || ApiError::not_found("asset");
    let id: AssetRef = id.parse().map_err(|_| unknown())?;
    let tenant = &call.caller.tenant;
    let job = match id {
        AssetRef::Brought(_) => None,
        AssetRef::Made { job, .. } => match service.job(Some(tenant), job).await {
            Ok(job) if job.endpoint == call.endpoint.name => Some(job),
            Ok(_) | Err(Error::NotFound { .. }) => return Err(unknown()),
            Err(error) => return Err(error.into()),
        },
    };
    let asset = service.asset(tenant, id).await?.ok_or_else(unknown)?;
    Ok(Held { asset, job })
}

/// An asset on the wire; its address is new each time.
pub fn shown(service: &Service, call: &V2Call, held: &Held) -> Value {
    let Held { asset, job } = held;
    let (url, until) = match asset.blob() {
        Some(key) => {
            let signed = service.signed_path(key);
            (
                format!("{}{}", call.links.root, signed.path_and_query),
                signed.expires_at,
            )
        }
        None => (
            format!("{}/assets/{}/content", call.links.api, asset.id),
            service.now().plus(service.settings.url_expiry),
        ),
    };
    let expires_at = job.as_ref().map(|job| view::expires_at(job, &call.endpoint));
    let mut view = json!({
        "id": asset.id.to_string(),
        "hash": asset.hash().map(|hash| hash.to_string()),
        "size_bytes": asset.size,
        "content_type": asset.content_type,
        "file_path": asset.file_path,
        "created_at": time(asset.created_at),
        "url": url,
        "url_expires_at": time(until),
        "expires_at": time_or_null(expires_at.or(asset.expires_at)),
    });
    if let Some(job) = job {
        view["job_id"] = json!(job_id(job));
    }
    view
}

/// One that was brought just now.
pub fn brought(service: &Service, call: &V2Call, asset: Asset, new_bytes: bool) -> Value {
    let mut view = shown(service, call, &Held { asset, job: None });
    view["created_new"] = json!(new_bytes);
    view
}

/// Why none was made.
pub fn refused(error: AssetError) -> ApiError {
    let message = error.to_string();
    match error {
        AssetError::HashMismatch { .. } => ApiError::new(StatusCode::CONFLICT, "hash_mismatch", message),
        AssetError::NoSuchBytes(_) => no_blob(),
        AssetError::BadPath => ApiError::unprocessable("invalid_request", message),
        AssetError::Service(error) => error.into(),
    }
}

/// There are no such bytes, or they are somebody else's.
pub fn no_blob() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "blob_not_found",
        "there are no bytes of that hash",
    )
}

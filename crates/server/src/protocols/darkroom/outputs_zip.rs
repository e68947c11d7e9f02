//! `GET /jobs/{job}/outputs.zip`.

use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::header;

use super::{call::Call, error::ApiError};
use crate::{service::Error, state::AppState};

/// What a finished job made, as one zip that is made while it is sent.
///
/// # Errors
/// 404, also for one that the caller may not see; 400 while it has not ended.
pub async fn send(
    State(state): State<AppState>,
    call: Call,
    Path(job): Path<String>,
) -> Result<Response, ApiError> {
    let job = call.job(&state.service, &job).await?;
    if !job.state.is_final() {
        return Err(call.fail(Error::Invalid(format!("job {} has not ended", job.id))));
    }
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}.zip\"", job.id),
        ),
    ];
    let body = Body::from_stream(state.service.zip_outputs(&job));
    Ok((headers, body).into_response())
}

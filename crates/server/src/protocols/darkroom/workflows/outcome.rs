//! A run as our own API shows it: the job, the version that ran, and the outputs by name, each a list.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use darkroom_core::{
    JobId,
    output::{Output, OutputBody},
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::{call::Call, views::time};
use crate::service::{Error, Service, jobs::JobRecord, published::called_as};

/// By its id.
///
/// # Errors
/// When the store fails.
pub async fn of_job(service: &Service, job: JobId, base: &str) -> Result<Value, Error> {
    let record = service.job(None, job).await?;
    Ok(of_record(service, &record, base))
}

/// From its record.
pub fn of_record(service: &Service, record: &JobRecord, base: &str) -> Value {
    let called = called_as(record);
    let outputs: Map<String, Value> = match (&called, record.state.is_final()) {
        (Some(called), true) => called
            .named(&record.outputs)
            .into_iter()
            .map(|one| {
                (
                    one.name,
                    one.items
                        .iter()
                        .map(|output| item(service, output, base))
                        .collect(),
                )
            })
            .collect(),
        (None, _) | (Some(_), false) => Map::new(),
    };
    let mut failure = json!(record.failure);
    let input = called.as_ref().zip(record.failure.as_ref());
    if let Some(input) = input.and_then(|(called, failure)| called.input_of(failure)) {
        failure["input"] = Value::from(input);
    }
    json!({
        "job": record.id,
        "workflow_id": called.as_ref().map(|called| &called.id),
        "version": called.as_ref().map(|called| called.version),
        "endpoint": record.endpoint,
        "state": record.state,
        "outputs": outputs,
        "failure": failure,
        "created_at": time(Some(record.created_at)),
        "started_at": time(record.started_at),
        "finished_at": time(record.finished_at),
    })
}

fn item(service: &Service, output: &Output, base: &str) -> Value {
    match &output.body {
        OutputBody::Text { text } => json!({ "text": text }),
        OutputBody::File {
            key,
            size,
            content_type,
            blake3,
        } => {
            let name = output
                .raw
                .get("filename")
                .and_then(Value::as_str)
                .unwrap_or(key.file_name());
            json!({
                "url": format!("{base}{}", service.signed_path(key).path_and_query),
                "filename": name,
                "content_type": content_type,
                "size": size,
                "blake3": blake3,
            })
        }
    }
}

/// The answer to who waited for a job that did not succeed.
pub fn job_failed(record: &JobRecord, view: Value, call: &Call) -> Response {
    let message = match &record.failure {
        Some(failure) => format!("the job failed: {}", failure.message),
        None => format!("the job is {}", record.state.as_str()),
    };
    error(
        StatusCode::UNPROCESSABLE_ENTITY,
        "job_failed",
        &message,
        json!({ "run": view }),
        call,
    )
}

/// An error with words of its own.
pub fn error(status: StatusCode, code: &str, message: &str, details: Value, call: &Call) -> Response {
    let mut body = json!({ "error": {
        "code": code, "message": message, "request_id": call.caller.request_id.as_str(),
    }});
    if !details.is_null() {
        body["error"]["details"] = details;
    }
    (status, Json(body)).into_response()
}

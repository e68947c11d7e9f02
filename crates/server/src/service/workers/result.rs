//! What a handler's `error` becomes, and how it is told again.

use darkroom_core::{Failure, failure::FailureCode};
use serde_json::Value;

use crate::service::jobs::JobRecord;

/// The longest message of a failure, in characters; the whole is kept beside it.
const MESSAGE_CHARS: usize = 300;

/// The failure of a handler that reported an error: a text, the SDK's report of an exception (JSON inside a text), or
/// anything else (`protocols/async-endpoints.md` §4.2). The error is kept verbatim.
pub fn failure_of(error: Value) -> Failure {
    let said = match &error {
        Value::String(text) => reported(text).unwrap_or_else(|| text.clone()),
        other => other.to_string(),
    };
    let line = said
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it gave no reason");
    let message: String = line.trim().chars().take(MESSAGE_CHARS).collect();
    Failure {
        detail: Some(error),
        ..Failure::new(
            FailureCode::ExecutionError,
            format!("the handler failed: {message}"),
        )
    }
}

/// What went wrong in an exception's report, without its trace.
fn reported(text: &str) -> Option<String> {
    let report: Value = serde_json::from_str(text).ok()?;
    let word = |key: &str| report.get(key).and_then(Value::as_str);
    let kind = word("error_type")?;
    // `<class 'ValueError'>`
    let kind = kind.trim_start_matches("<class '").trim_end_matches("'>");
    Some(format!("{kind}: {}", word("error_message").unwrap_or_default()))
}

/// The error of a job that failed, as these protocols tell it: the handler's own words, or ours; `None` where nothing
/// failed.
pub fn error_of(job: &JobRecord) -> Option<Value> {
    let failure = job.failure.as_ref()?;
    match (&failure.code, &failure.detail) {
        (FailureCode::ExecutionError, Some(detail)) => Some(detail.clone()),
        _ => Some(Value::from(failure.message.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_is_told_in_a_line_and_kept_whole() {
        let report = json!({
            "error_type": "<class 'ValueError'>", "error_message": "boom 图", "error_traceback": "Traceback …",
            "hostname": "h", "worker_id": "w"
        })
        .to_string();
        for (error, message) in [
            (json!("it broke\nhere"), "the handler failed: it broke"),
            (json!({"code": 7}), "the handler failed: {\"code\":7}"),
            (json!(report), "the handler failed: ValueError: boom 图"),
            (json!("\n"), "the handler failed: it gave no reason"),
        ] {
            let failure = failure_of(error.clone());
            assert_eq!(failure.message, message);
            assert_eq!(failure.detail, Some(error));
        }
        assert!(failure_of(json!("x".repeat(9000))).message.len() < 400);
    }
}

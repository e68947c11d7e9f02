//! Prompt ids: the caller's own name for a job where it gave one, else the job's id; and what else of a prompt's numbers
//! travels with its job.

use serde_json::{Map, Value, json};

use super::call::NativeCall;
pub use crate::service::prompt_ids::{DIALECT, name_of, prompt_id};
use crate::service::{
    Error, Service,
    clients::ClientName,
    jobs::{JobMeta, JobRecord},
};

/// The option that names whose socket hears of a job.
pub const CLIENT_ID: &str = "client_id";
/// This protocol in a job's facts.
const NATIVE: &str = "native";

/// Options of a prompt that its answers depend on; stored with the job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Whose socket hears of it.
    pub client_id: Option<String>,
    /// The `number` that the caller gave.
    pub number: Option<f64>,
    /// The id of the workflow that the page opened.
    pub workflow_id: Option<String>,
}

impl Options {
    /// As they are stored.
    pub fn meta(&self, request_id: &str) -> JobMeta {
        let mut options = Map::new();
        if let Some(client_id) = &self.client_id {
            options.insert(CLIENT_ID.to_owned(), json!(client_id));
        }
        if let Some(number) = self.number {
            options.insert("number".to_owned(), json!(number));
        }
        if let Some(workflow_id) = &self.workflow_id {
            options.insert("workflow_id".to_owned(), json!(workflow_id));
        }
        JobMeta {
            dialect: NATIVE.to_owned(),
            request_id: request_id.to_owned(),
            options: Value::Object(options),
            ..JobMeta::default()
        }
    }

    /// Those of a job; none of one that another protocol submitted.
    pub fn of(job: &JobRecord) -> Self {
        if job.meta.dialect != NATIVE {
            return Options::default();
        }
        let text = |key: &str| {
            let value = job.meta.options.get(key)?;
            value.as_str().map(str::to_owned)
        };
        Options {
            client_id: text(CLIENT_ID),
            number: job.meta.options.get("number").and_then(Value::as_f64),
            workflow_id: text("workflow_id"),
        }
    }
}

/// Its number in the queue, as ComfyUI counts: what the caller gave, else its place in the line.
pub fn number(job: &JobRecord) -> Value {
    match Options::of(job).number {
        Some(number) => json!(number),
        None => json!(job.place),
    }
}

/// The caller's job of the endpoint with that prompt id; the newest, where a name was used again.
///
/// # Errors
/// When the store fails.
pub async fn find<Q>(
    service: &Service,
    call: &NativeCall<Q>,
    prompt_id: &str,
) -> Result<Option<JobRecord>, Error> {
    service
        .find_prompt(&call.caller.tenant, &call.endpoint.name, prompt_id)
        .await
}

/// The jobs with these prompt ids; unknown ones are left out.
///
/// # Errors
/// When the store fails.
pub async fn find_all<Q>(
    service: &Service,
    call: &NativeCall<Q>,
    prompt_ids: &[String],
) -> Result<Vec<JobRecord>, Error> {
    let mut jobs = Vec::new();
    for prompt_id in prompt_ids {
        jobs.extend(find(service, call, prompt_id).await?);
    }
    Ok(jobs)
}

/// Under which name a caller's socket and prompts belong together. Callers without credentials share a tenant: of theirs
/// only names that cannot be guessed, UUIDs, count.
pub fn client_name<Q>(call: &NativeCall<Q>, client_id: &str) -> Option<ClientName> {
    if call.caller.anonymous && client_id.parse::<uuid::Uuid>().is_err() {
        return None;
    }
    Some(ClientName {
        tenant: call.caller.tenant.clone(),
        endpoint: call.endpoint.name.clone(),
        name: client_id.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_stored_only_where_they_were_given() {
        let all = Options {
            client_id: Some("c".into()),
            number: Some(-1.5),
            workflow_id: Some("w".into()),
        };
        let stored = all.meta("r").options;
        assert_eq!(
            stored,
            json!({"client_id": "c", "number": -1.5, "workflow_id": "w"})
        );
        assert_eq!(Options::default().meta("r").options, json!({}));
    }
}

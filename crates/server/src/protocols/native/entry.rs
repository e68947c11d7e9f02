//! A prompt as ComfyUI's queue and history show it: the tuple of its request, and what became of it
//! (`comfyui/behaviour.md` §2, §9).

use darkroom_core::{JobState, Timestamp, public_name};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};

use super::ids;
use crate::{
    beside::beside,
    service::{Error, Service, jobs::JobRecord, outputs::file_of},
};

/// `[number, prompt_id, prompt, extra_data, outputs_to_execute]`.
#[derive(Debug, Serialize)]
pub struct Prompt(Value, String, Box<RawValue>, Box<RawValue>, Vec<String>);

impl Prompt {
    /// About how long it is as JSON, in bytes.
    pub fn size(&self) -> usize {
        self.2.get().len() + self.3.get().len() + 100
    }

    /// The graph, and what came beside it.
    pub fn graph_and_extra_data(&self) -> (&RawValue, &RawValue) {
        (&self.2, &self.3)
    }
}

/// What is read of a job's request; graph and extra data go on as they are.
#[derive(Deserialize)]
struct Request {
    graph: Box<RawValue>,
    extra_data: Box<RawValue>,
    #[serde(default)]
    outputs: Vec<String>,
}

/// The tuple of a job; `None` when its request is gone. Credentials are not in it: they are stored apart.
///
/// # Errors
/// When its request cannot be read.
pub async fn prompt_of(service: &Service, job: &JobRecord) -> Result<Option<Prompt>, Error> {
    let Some(body) = service.read_payload(&job.input).await? else {
        return Ok(None);
    };
    let parse = move || serde_json::from_slice::<Request>(&body);
    let size = usize::try_from(job.input.size()).unwrap_or(usize::MAX);
    let request = beside(size, parse).await.map_err(|e| Error::Internal(e.into()))?;
    Ok(Some(Prompt(
        ids::number(job),
        ids::prompt_id(job),
        request.graph,
        request.extra_data,
        request.outputs,
    )))
}

/// One value of `/history`.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The request.
    pub prompt: Prompt,
    /// By node: what its UI shows, with files under their public names.
    pub outputs: Map<String, Value>,
    /// `{status_str, completed, messages}`.
    pub status: Value,
    /// By node.
    pub meta: Value,
}

/// The entry of a job that has ended; `None` when its request is gone.
///
/// # Errors
/// When request or result cannot be read.
pub async fn entry_of(service: &Service, job: &JobRecord) -> Result<Option<Entry>, Error> {
    let Some(prompt) = prompt_of(service, job).await? else {
        return Ok(None);
    };
    let result = match &job.result {
        Some(payload) => service.read_payload(payload).await?,
        None => None,
    };
    let told = Told::of(job);
    let size = result.as_ref().map_or(0, |result| result.len());
    let read = move || match result {
        Some(result) => told.read(&result),
        None => Ok(told.without_result()),
    };
    let (outputs, status, meta) = beside(size, read).await.map_err(|e| Error::Internal(e.into()))?;
    Ok(Some(Entry {
        prompt,
        outputs,
        status,
        meta,
    }))
}

/// What the end of a job says about it, beside its result.
struct Told {
    job: darkroom_core::JobId,
    prompt_id: String,
    state: JobState,
    saved: Saved,
    /// The last message, should the instance not have told it.
    last: (&'static str, Value),
}

type Shown = (Map<String, Value>, Value, Value);

impl Told {
    fn of(job: &JobRecord) -> Self {
        Told {
            job: job.id,
            prompt_id: ids::prompt_id(job),
            state: job.state,
            saved: Saved::of(job),
            last: last_message(job),
        }
    }

    fn read(self, result: &[u8]) -> Result<Shown, serde_json::Error> {
        let text = String::from_utf8_lossy(result);
        let text = renamed(&text, &self.job.to_string(), &self.prompt_id);
        let mut result: Value = serde_json::from_str(&text)?;
        let mut taken = |key: &str| result.get_mut(key).map(Value::take).unwrap_or_default();
        let mut outputs = match taken("outputs") {
            Value::Object(outputs) => outputs,
            _ => Map::new(),
        };
        let succeeded = self.state == JobState::Succeeded;
        for (node, output) in &mut outputs {
            if !succeeded {
                self.saved.keep_only(node, output);
            }
            public_name::publish(output, self.job);
        }
        let mut status = taken("status");
        let as_told = status.get("status_str").and_then(Value::as_str);
        let agrees = as_told == Some(if succeeded { "success" } else { "error" });
        if !agrees {
            let messages = status.get_mut("messages").map(Value::take);
            status = self.status(messages.and_then(|m| m.as_array().cloned()).unwrap_or_default());
        }
        Ok((outputs, status, taken("meta")))
    }

    fn without_result(self) -> Shown {
        (Map::new(), self.status(Vec::new()), json!({}))
    }

    fn status(&self, mut messages: Vec<Value>) -> Value {
        let (kind, data) = &self.last;
        // The instance's own last word is not what became of it.
        messages.retain(|message| message[0] != "execution_success");
        if !messages.iter().any(|message| message[0] == *kind) {
            messages.push(json!([kind, data]));
        }
        let completed = self.state == JobState::Succeeded;
        json!({
            "status_str": if completed { "success" } else { "error" },
            "completed": completed,
            "messages": messages,
        })
    }
}

/// The message that ends a prompt of this fate, as ComfyUI words it.
pub fn last_message(job: &JobRecord) -> (&'static str, Value) {
    let prompt_id = ids::prompt_id(job);
    let timestamp = job.finished_at.map_or(0, Timestamp::as_millis);
    let node = |data: &mut Value| {
        let failure = job.failure.as_ref();
        data["node_id"] = json!(failure.and_then(|f| f.node_id.as_deref()));
        data["node_type"] = json!(failure.and_then(|f| f.node_type.as_deref()));
        data["executed"] = json!([]);
    };
    match job.state {
        JobState::Queued | JobState::Running | JobState::Succeeded => (
            "execution_success",
            json!({"prompt_id": prompt_id, "timestamp": timestamp}),
        ),
        JobState::Cancelled => {
            let mut data = json!({"prompt_id": prompt_id});
            node(&mut data);
            data["timestamp"] = json!(timestamp);
            ("execution_interrupted", data)
        }
        JobState::Failed | JobState::Expired => {
            ("execution_error", execution_error(job, &prompt_id, timestamp))
        }
    }
}

fn execution_error(job: &JobRecord, prompt_id: &str, timestamp: i64) -> Value {
    let failure = job.failure.as_ref();
    let mut data = json!({
        "prompt_id": prompt_id,
        "node_id": failure.and_then(|f| f.node_id.as_deref()),
        "node_type": failure.and_then(|f| f.node_type.as_deref()),
        "executed": [],
        "exception_message": failure.map_or("the prompt failed", |f| f.message.as_str()),
        "exception_type": failure.map_or("darkroom.failed".to_owned(), |f| format!("darkroom.{}", f.code.as_str())),
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
        "timestamp": timestamp,
    });
    // What the node raised, where it did.
    let said = failure.and_then(|f| f.detail.as_ref()).and_then(Value::as_object);
    for (key, value) in said.into_iter().flatten() {
        if key != "prompt_id" && data.get(key).is_some() && !value.is_null() {
            data[key] = value.clone();
        }
    }
    data
}

/// The text of JSON with a job's id as the caller knows it.
pub fn renamed<'a>(text: &'a str, job: &str, prompt_id: &str) -> std::borrow::Cow<'a, str> {
    if job == prompt_id || !text.contains(job) {
        return text.into();
    }
    // Inside a JSON string, so as it stands in one.
    let quoted = Value::from(prompt_id).to_string();
    text.replace(job, &quoted[1..quoted.len() - 1]).into()
}

/// The files that are there of a prompt that did not succeed: some of what it had made, or nothing.
pub struct Saved(Vec<(String, Value)>);

impl Saved {
    /// Of a job.
    pub fn of(job: &JobRecord) -> Self {
        let saved = job.outputs.iter().filter(|output| file_of(output).is_some());
        Saved(
            saved
                .map(|output| (output.node_id.clone(), output.raw.clone()))
                .collect(),
        )
    }

    /// Whether any of a node is.
    pub fn has_of(&self, node: &str) -> bool {
        self.0.iter().any(|(of, _)| of == node)
    }

    /// Takes the other files of a node out of what its UI shows: a name that leads nowhere helps nobody.
    pub fn keep_only(&self, node: &str, output: &mut Value) {
        let is_there = |item: &Value| {
            item.get("filename").is_none() || self.0.iter().any(|(of, raw)| of == node && raw == item)
        };
        let Value::Object(lists) = output else { return };
        lists.retain(|_, list| is_there(list));
        for list in lists.values_mut() {
            if let Value::Array(items) = list {
                items.retain(is_there);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_renamed_inside_texts_only_where_they_differ() {
        assert_eq!(renamed(r#"{"a":"j1"}"#, "j1", "j1"), r#"{"a":"j1"}"#);
        assert_eq!(
            renamed(r#"{"a":"j1"}"#, "j1", "my \"id\""),
            r#"{"a":"my \"id\""}"#
        );
        assert_eq!(renamed("none", "j1", "x"), "none");
    }

    #[test]
    fn files_of_a_failed_prompt_that_are_not_there_are_left_out_and_texts_stay() {
        let shown = json!({"images": [{"filename": "a"}, {"filename": "c"}], "text": ["x"], "one": {"filename": "b"}});
        let of = |saved: &[(&str, &str)]| {
            let saved = saved
                .iter()
                .map(|(node, name)| ((*node).to_owned(), json!({"filename": name})));
            let mut output = shown.clone();
            Saved(saved.collect()).keep_only("9", &mut output);
            output
        };
        assert_eq!(of(&[]), json!({"images": [], "text": ["x"]}));
        assert_eq!(
            of(&[("9", "a"), ("8", "c"), ("9", "b")]),
            json!({"images": [{"filename": "a"}], "text": ["x"], "one": {"filename": "b"}})
        );
    }
}

//! Endpoints of ComfyUI under the same API: the product page's form of a task and worker-comfyui's
//! (`protocols/async-endpoints.md` §7), and their answer.

use bytes::Bytes;
use darkroom_core::{JobId, JobState, output::OutputBody};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{ClientCall, submission::Submission};
use crate::{
    beside::beside,
    memory::Held,
    protocols::async_endpoints::error::AsyncError,
    service::{
        Error, Service,
        intake::{Fetch, given::is_loader_input},
        jobs::{JobMeta, JobRecord},
        outputs::file_of,
        submit::ComfySubmit,
        workers::OUTPUT_NODE,
    },
    state::AppState,
};

/// The input of a task.
#[derive(Debug, Deserialize)]
struct Task {
    /// The graph, in API format.
    workflow: Map<String, Value>,
    /// Files that its loaders name.
    #[serde(default)]
    images: Option<Vec<Image>>,
    /// Only this output is wanted, and only what leads to it is run.
    #[serde(default)]
    output_node_id: Option<NodeId>,
    /// For nodes that call the vendor of ComfyUI.
    #[serde(default)]
    comfy_org_api_key: Option<String>,
}

/// A file and its bytes: base64, a data URI, or an address.
#[derive(Debug, Deserialize)]
struct Image {
    name: String,
    image: String,
}

/// Some write numbers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum NodeId {
    Text(String),
    Number(u64),
}

/// Accepts a task as a job.
///
/// # Errors
/// Every refusal; a graph that cannot run is refused with the nodes at fault.
pub async fn submit(
    state: &AppState,
    call: &ClientCall,
    submission: Submission,
    memory: Held,
) -> Result<JobId, AsyncError> {
    if submission.s3_config.is_some() {
        return Err(AsyncError::invalid(
            "s3Config is for endpoints with workers: a workflow's files are stored by this server, and told as addresses",
        ));
    }
    let size_bytes = submission.input.len();
    let input = submission.input;
    let task = beside(size_bytes, move || read(&input)).await?;
    let mut extra_data = Map::new();
    if let Some(key) = task.comfy_org_api_key {
        extra_data.insert("api_key_comfy_org".to_owned(), Value::from(key));
    }
    let target = task.output_node_id.map(|id| match id {
        NodeId::Text(id) => id,
        NodeId::Number(id) => id.to_string(),
    });
    let mut options = json!(submission.wishes);
    if let Some(target) = &target {
        options[OUTPUT_NODE] = Value::from(target.as_str());
    }
    let mut meta = JobMeta {
        dialect: call.family.dialect.to_owned(),
        request_id: call.caller.request_id.to_string(),
        options,
        ..JobMeta::default()
    };
    if let Some(address) = &submission.webhook {
        state.service.set_webhook(&mut meta, address, &call.base_url)?;
    }
    let accepted = state
        .service
        .submit_comfy(ComfySubmit {
            tenant: call.caller.tenant.clone(),
            endpoint: call.endpoint.name.clone(),
            graph: Value::Object(task.workflow),
            extra_data,
            targets: target.map(|target| vec![target]),
            priority: submission.wishes.priority(),
            external_id: None,
            randomise_seeds: false,
            fetch: Fetch::Later,
            meta,
            size_bytes,
            memory,
        })
        .await?;
    Ok(accepted.job)
}

/// Reads a task, and puts its files where its loaders name them.
fn read(input: &Bytes) -> Result<Task, AsyncError> {
    let not_fit = |error: serde_json::Error| {
        AsyncError::invalid(format!(
            "input must be {{\"workflow\": {{…}}, \"images\": [{{\"name\", \"image\"}}], \"output_node_id\"}}: {error}"
        ))
    };
    let mut task: Task = match input.first() {
        // worker-comfyui takes the JSON also as a text.
        Some(b'"') => {
            let text: String = serde_json::from_slice(input).map_err(not_fit)?;
            serde_json::from_str(&text).map_err(not_fit)?
        }
        _ => serde_json::from_slice(input).map_err(not_fit)?,
    };
    for image in task.images.take().into_iter().flatten() {
        place(&mut task.workflow, image);
    }
    Ok(task)
}

/// A loader that names the file gets its bytes instead.
fn place(workflow: &mut Map<String, Value>, image: Image) {
    let head = image.image.get(..8).unwrap_or(&image.image).to_ascii_lowercase();
    let says_what_it_is = ["http://", "https://", "data:"]
        .iter()
        .any(|scheme| head.starts_with(scheme));
    let given = match says_what_it_is {
        true => image.image,
        // A short one would be taken for a name.
        false => format!("data:application/octet-stream;base64,{}", image.image),
    };
    for node in workflow.values_mut() {
        let class = node
            .get("class_type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let inputs = node.get_mut("inputs").and_then(Value::as_object_mut);
        for (input, value) in inputs.into_iter().flatten() {
            if is_loader_input(&class, input) && value.as_str() == Some(image.name.as_str()) {
                *value = Value::from(given.as_str());
            }
        }
    }
}

/// The answer of a task that succeeded: `images` as both forms have them (`url`, and worker-comfyui's `type` and `data`),
/// any other file under `files`, texts under `texts`.
///
/// # Errors
/// Never: it is JSON that we make.
pub fn output(service: &Service, base_url: &str, job: &JobRecord) -> Result<Option<Box<RawValue>>, Error> {
    if job.state != JobState::Succeeded {
        return Ok(None);
    }
    let wanted = job.meta.options.get(OUTPUT_NODE).and_then(Value::as_str);
    let is_temporary =
        |output: &&darkroom_core::output::Output| output.raw.get("type") == Some(&json!("temp"));
    let mut outputs: Vec<_> = job
        .outputs
        .iter()
        .filter(|output| output.kind != "files" && wanted.is_none_or(|wanted| output.node_id == wanted))
        .collect();
    // Previews are shown only where there is nothing else, or where they are what was asked for.
    if wanted.is_none() && !outputs.iter().all(is_temporary) {
        outputs.retain(|output| !is_temporary(output));
    }
    let (mut images, mut files, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for output in outputs {
        if let OutputBody::Text { text } = &output.body {
            texts.push(json!({ "node_id": output.node_id, "text": text }));
        }
        let Some((key, size, content_type)) = file_of(output) else {
            continue;
        };
        let url = format!("{base_url}{}", service.signed_path(key).path_and_query);
        let filename = output
            .raw
            .get("filename")
            .and_then(Value::as_str)
            .unwrap_or(key.file_name());
        let mut file = json!({
            "filename": filename,
            "type": "s3_url",
            "url": url,
            "data": url,
            "node_id": output.node_id,
            "content_type": content_type,
            "size": size,
        });
        if output.kind == "images" {
            images.push(file);
        } else {
            file["kind"] = Value::from(output.kind.as_str());
            files.push(file);
        }
    }
    let mut told = json!({ "images": images });
    if images_missing(&told) {
        told["status"] = Value::from("success_no_images");
    }
    for (name, list) in [("files", files), ("texts", texts)] {
        if !list.is_empty() {
            told[name] = Value::from(list);
        }
    }
    let raw = serde_json::value::to_raw_value(&told).map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
    Ok(Some(raw))
}

fn images_missing(told: &Value) -> bool {
    told["images"].as_array().is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(input: Value) -> Result<Task, AsyncError> {
        read(&Bytes::from(input.to_string()))
    }

    #[test]
    fn files_stand_where_loaders_name_them_and_nowhere_else() {
        let read = task(json!({
            "workflow": {
                "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
                "2": {"class_type": "LoadImage", "inputs": {"image": "other.png"}},
                "3": {"class_type": "Text", "inputs": {"text": "in.png"}},
                "4": {"class_type": "LoadImageMask", "inputs": {"image": ["1", 0]}}
            },
            "images": [{"name": "in.png", "image": "aGk="}, {"name": "unused.png", "image": "data:image/png;base64,aGk="}],
            "output_node_id": 9
        }))
        .unwrap();
        let input = |node: &str, name: &str| read.workflow[node]["inputs"][name].clone();
        assert_eq!(input("1", "image"), "data:application/octet-stream;base64,aGk=");
        assert_eq!(input("2", "image"), "other.png");
        assert_eq!(input("3", "text"), "in.png");
        assert_eq!(input("4", "image"), json!(["1", 0]));
        assert!(matches!(read.output_node_id, Some(NodeId::Number(9))));
    }

    #[test]
    fn a_task_may_be_a_text_and_must_have_a_workflow() {
        let text = json!({"workflow": {"1": {"class_type": "X", "inputs": {}}}}).to_string();
        assert!(task(Value::from(text)).is_ok());
        for bad in [
            json!({}),
            json!(null),
            json!("x"),
            json!([]),
            json!({"workflow": []}),
            json!({"workflow": {}, "images": [{"name": "a"}]}),
            json!({"workflow": {}, "images": "x"}),
            json!({"workflow": {}, "output_node_id": {}}),
        ] {
            assert!(task(bad.clone()).is_err(), "{bad}");
        }
    }
}

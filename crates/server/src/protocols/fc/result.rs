//! The last message of every mode: `serverless_api` with one entry per file (`protocols/comfyui-serverless-fc.md` §4).

use base64::{Engine, engine::general_purpose::STANDARD};
use darkroom_core::output::Output;
use serde_json::{Map, Value, json};

use super::request::Flags;
use crate::service::{Error, Service, jobs::JobRecord, outputs::file_of};

/// Where our own blob store says it is; the vendor's keys are region, bucket, and object.
const REGION: &str = "local";
const BUCKET: &str = "darkroom";

/// Files larger than this are not put into a JSON body, in bytes; their `oss` entry still names them.
const MAX_BASE64_BYTES: u64 = 64 * 1024 * 1024;

/// Builds the result of a job that succeeded.
///
/// # Errors
/// When an output cannot be read.
pub async fn of_job(
    service: &Service,
    job: &JobRecord,
    flags: Flags,
    base_url: &str,
) -> Result<Value, Error> {
    let mut results = Vec::new();
    // Files that history does not mention are in our own API; the vendor's results follow the history.
    for output in job.outputs.iter().filter(|o| o.kind != "files") {
        if let Some(entry) = entry(service, output, flags, base_url).await? {
            results.push(entry);
        }
    }
    let seconds = match (job.started_at, job.finished_at) {
        (Some(start), Some(end)) => end.since(start).as_secs_f64(),
        _ => 0.0,
    };
    Ok(json!({
        "type": "serverless_api",
        "data": { "prompt_id": job.id.to_string(), "execution_time": seconds, "results": results },
    }))
}

async fn entry(
    service: &Service,
    output: &Output,
    flags: Flags,
    base_url: &str,
) -> Result<Option<Value>, Error> {
    let Some((key, size, _)) = file_of(output) else {
        return Ok(None);
    };
    let mut error_message = None;
    let content = match flags.output_base64 {
        true if size > MAX_BASE64_BYTES => {
            error_message = Some(format!(
                "the file is larger than {MAX_BASE64_BYTES} bytes: ask for output_oss instead"
            ));
            Value::Null
        }
        true => Value::from(STANDARD.encode(service.read_output(key, MAX_BASE64_BYTES).await?)),
        false => Value::Null,
    };
    let (object, url) = match flags.output_oss {
        true => {
            let signed = service.signed_path(key);
            (
                Value::from(key.as_str()),
                Value::from(format!("{base_url}{}", signed.path_and_query)),
            )
        }
        false => (Value::Null, Value::Null),
    };
    let mut entry = json!({
        "node_id": output.node_id,
        "batch_id": output.index,
        "output": {
            "type": output.kind,
            "raw": raw(output),
            "base64": { "content": content },
            "oss": { "region": REGION, "bucket": BUCKET, "object": object, "url": url },
        },
    });
    if let Some(message) = error_message {
        entry["error_message"] = Value::from(message);
    }
    Ok(Some(entry))
}

/// What ComfyUI reported about the file, and `filepath`: type, subfolder, and name in one.
fn raw(output: &Output) -> Value {
    let mut raw = output.raw.as_object().cloned().unwrap_or_else(Map::new);
    let part = |key: &str| raw.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let (folder, subfolder, name) = (part("type"), part("subfolder"), part("filename"));
    let path: Vec<&str> = [folder.as_str(), &subfolder, &name]
        .into_iter()
        .filter(|p| !p.is_empty())
        .collect();
    let path = path.join("/");
    raw.insert("filepath".to_owned(), Value::from(path));
    Value::Object(raw)
}

#[cfg(test)]
mod tests {
    use darkroom_core::output::OutputBody;

    use super::*;

    #[test]
    fn the_raw_entry_keeps_every_key_and_gains_a_path() {
        let output = |subfolder: &str| Output {
            node_id: "9".into(),
            kind: "gifs".into(),
            index: 0,
            body: OutputBody::Text { text: String::new() },
            raw: json!({"filename": "a.mp4", "type": "output", "subfolder": subfolder, "frame_rate": 8}),
        };
        assert_eq!(raw(&output(""))["filepath"], "output/a.mp4");
        assert_eq!(raw(&output("x/y"))["filepath"], "output/x/y/a.mp4");
        assert_eq!(raw(&output(""))["frame_rate"], 8);
    }
}

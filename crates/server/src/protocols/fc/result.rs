//! The last message of every mode: `serverless_api` with one entry per file (`protocols/comfyui-serverless-fc.md` §4).

use base64::{Engine, engine::general_purpose::STANDARD};
use darkroom_core::output::Output;
use serde_json::{Map, Value, json};

use super::request::Flags;
use crate::{
    beside::beside,
    service::{Error, Service, jobs::JobRecord, outputs::file_of},
};

/// Where our own blob store says it is; the vendor's keys are region, bucket, and object.
const REGION: &str = "local";
const BUCKET: &str = "darkroom";

/// Bytes of files that are put into one answer at most, all of them together, before encoding. The answer is made in
/// memory: 64 MiB of files are 85 MiB of base64, and twice that while it is written as JSON. Files beyond it have
/// `content: null` and an `error_message` (the reference's own way to say that a file could not be encoded, §4); their
/// `oss` entry is the way to have them.
const MAX_BASE64_BYTES: u64 = 64 * 1024 * 1024;

/// Builds the result of a job that succeeded, as JSON text.
///
/// # Errors
/// When an output cannot be read.
pub async fn of_job(
    service: &Service,
    job: &JobRecord,
    flags: Flags,
    base_url: &str,
) -> Result<String, Error> {
    Answer {
        service,
        flags,
        base_url,
        base64_left: MAX_BASE64_BYTES,
    }
    .of_job(job)
    .await
}

/// One answer in the making.
struct Answer<'a> {
    service: &'a Service,
    flags: Flags,
    base_url: &'a str,
    base64_left: u64,
}

impl Answer<'_> {
    async fn of_job(mut self, job: &JobRecord) -> Result<String, Error> {
        let before = self.base64_left;
        let mut results = Vec::new();
        // Files that history does not mention are in our own API; the vendor's results follow the history.
        for output in job.outputs.iter().filter(|o| o.kind != "files") {
            if let Some(entry) = self.entry(output).await? {
                results.push(entry);
            }
        }
        let seconds = match (job.started_at, job.finished_at) {
            (Some(start), Some(end)) => end.since(start).as_secs_f64(),
            _ => 0.0,
        };
        let id = job.id.to_string();
        let encoded = usize::try_from(before - self.base64_left).unwrap_or(usize::MAX);
        let write = move || {
            json!({
                "type": "serverless_api",
                "data": { "prompt_id": id, "execution_time": seconds, "results": results },
            })
            .to_string()
        };
        Ok(beside(encoded, write).await)
    }

    async fn entry(&mut self, output: &Output) -> Result<Option<Value>, Error> {
        let Some((key, size, _)) = file_of(output) else {
            return Ok(None);
        };
        let mut error_message = None;
        let content = match self.flags.output_base64 {
            true if size > self.base64_left => {
                error_message = Some(format!(
                    "files of more than {MAX_BASE64_BYTES} bytes together are not put into one answer: ask for \
                     output_oss instead"
                ));
                Value::Null
            }
            true => {
                let file = self.service.read_output(key, self.base64_left).await?;
                self.base64_left -= file.len() as u64;
                Value::from(beside(file.len(), move || STANDARD.encode(file)).await)
            }
            false => Value::Null,
        };
        let (object, url) = match self.flags.output_oss {
            true => {
                let signed = self.service.signed_path(key);
                (
                    Value::from(key.as_str()),
                    Value::from(format!("{}{}", self.base_url, signed.path_and_query)),
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
    use crate::service::testing::Bench;

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

    #[tokio::test]
    async fn files_beyond_the_bound_of_one_answer_are_told_and_not_encoded() {
        let bench = Bench::new();
        let mut job = bench.record(bench.job("{}").await).await;
        let file = async |name: &str| {
            let key = format!("outputs/{name}");
            bench.put_blob(&key).await;
            Output {
                node_id: "9".into(),
                kind: "images".into(),
                index: 0,
                body: OutputBody::File {
                    key: key.parse().unwrap(),
                    size: 5,
                    content_type: "image/png".into(),
                    blake3: String::new(),
                },
                raw: json!({"filename": name}),
            }
        };
        job.outputs = vec![file("a").await, file("b").await, file("c").await];
        let answer = Answer {
            service: &bench.service,
            flags: Flags {
                output_base64: true,
                output_oss: true,
                stream: false,
            },
            base_url: "http://x",
            base64_left: 10,
        };
        let text = answer.of_job(&job).await.unwrap();
        let told: Value = serde_json::from_str(&text).unwrap();
        let results = told["data"]["results"].as_array().unwrap();
        for (n, result) in results.iter().enumerate() {
            let content = &result["output"]["base64"]["content"];
            assert_eq!(content.is_string(), n < 2, "{result}");
            assert_eq!(result["error_message"].is_string(), n == 2, "{result}");
            assert!(result["output"]["oss"]["url"].is_string(), "{result}");
        }
        assert_eq!(results.len(), 3);
    }
}

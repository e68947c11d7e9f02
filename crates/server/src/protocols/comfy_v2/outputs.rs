//! What a job made, on the wire: every file and text, none dropped (`protocols/comfy-v2.md` §2.4, §6).

use darkroom_core::{
    Timestamp,
    output::{Output, OutputBody},
};
use serde_json::{Value, json};

use super::{
    call::V2Call,
    ids::{OutputId, job_id},
    time::time,
};
use crate::service::{Service, jobs::JobRecord};

/// Media type of texts.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// One output as an asset.
pub struct Shown<'a> {
    /// Its id.
    pub id: OutputId,
    /// A name to save it under.
    pub name: String,
    /// Media type.
    pub content_type: &'a str,
    /// Length in bytes.
    pub size: u64,
    /// `blake3:` and the hash.
    pub hash: String,
    /// Where it can be read.
    pub url: String,
    /// Until when.
    pub url_expires_at: Timestamp,
}

impl<'a> Shown<'a> {
    /// One of a job.
    pub fn new(service: &Service, call: &V2Call, job: &JobRecord, index: usize, output: &'a Output) -> Self {
        let id = OutputId { job: job.id, index };
        let content = format!("{}/assets/{id}/content", call.links.api);
        match &output.body {
            OutputBody::File {
                key,
                size,
                content_type,
                blake3,
            } => {
                let named = output.raw.get("filename").and_then(Value::as_str);
                let signed = service.signed_path(key);
                Shown {
                    id,
                    name: named.unwrap_or(key.file_name()).to_owned(),
                    content_type,
                    size: *size,
                    hash: format!("blake3:{blake3}"),
                    url: format!("{}{}", call.links.root, signed.path_and_query),
                    url_expires_at: signed.expires_at,
                }
            }
            OutputBody::Text { text } => Shown {
                id,
                name: format!("{}_{}.txt", output.node_id, output.index),
                content_type: TEXT,
                size: text.len() as u64,
                hash: format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex()),
                url: content,
                url_expires_at: service.now().plus(service.settings.url_expiry),
            },
        }
    }
}

/// All outputs of a job, in the order in which it told of them.
pub fn all(service: &Service, call: &V2Call, job: &JobRecord) -> Vec<Value> {
    let outputs = job.outputs.iter().enumerate();
    let view = |(index, output): (usize, &Output)| {
        let shown = Shown::new(service, call, job, index, output);
        json!({
            "node_id": output.node_id,
            "name": shown.name,
            "type": kind(&output.kind, shown.content_type),
            "content_type": shown.content_type,
            "size_bytes": shown.size,
            "id": shown.id.to_string(),
            "hash": shown.hash,
            "url": shown.url,
            "url_expires_at": time(shown.url_expires_at),
            "job_id": job_id(job),
        })
    };
    outputs.map(view).collect()
}

/// The word of the closed set: what the bytes are comes before how the node calls them, so that a video that a node lists
/// under `images` is one.
fn kind(kind: &str, content_type: &str) -> &'static str {
    let is = |family: &str| content_type.starts_with(family);
    match kind {
        "text" => "text",
        "latents" => "latent",
        "files" | "3d" => "file",
        _ if is("video/") => "video",
        _ if is("audio/") => "audio",
        "gifs" | "videos" | "video" => "video",
        "audio" => "audio",
        "images" => "image",
        _ if is("image/") => "image",
        _ => "file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_of_a_node_has_a_word_of_the_closed_set() {
        for (list, content_type, word) in [
            ("images", "image/png", "image"),
            ("images", "video/mp4", "video"),
            ("gifs", "image/gif", "video"),
            ("audio", "audio/flac", "audio"),
            ("text", TEXT, "text"),
            ("latents", "application/octet-stream", "latent"),
            ("3d", "model/gltf-binary", "file"),
            ("files", "image/png", "file"),
            ("a_images", "image/webp", "image"),
            ("mesh", "application/octet-stream", "file"),
        ] {
            assert_eq!(kind(list, content_type), word, "{list} {content_type}");
        }
    }
}

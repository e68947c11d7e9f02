//! What a job made, on the wire: every file and text, none dropped (`protocols/comfy-v2.md` §2.4, §6).

use darkroom_core::output::{Output, OutputBody};
use serde_json::{Value, json};

use super::{call::V2Call, ids::job_id, time::time};
use crate::service::{
    Service,
    assets::{AssetRef, ContentHash, Digest},
    jobs::JobRecord,
};

/// Media type of texts.
const TEXT: &str = "text/plain; charset=utf-8";

/// All outputs of a job, in the order in which it told of them. Each is the asset of its id.
pub fn all(service: &Service, call: &V2Call, job: &JobRecord) -> Vec<Value> {
    let outputs = job.outputs.iter().zip(0..);
    outputs
        .map(|(output, position)| one(service, call, job, output, position))
        .collect()
}

fn one(service: &Service, call: &V2Call, job: &JobRecord, output: &Output, position: u32) -> Value {
    let id = AssetRef::Made {
        job: job.id,
        position,
    };
    let mut view = json!({ "id": id.to_string(), "node_id": output.node_id, "job_id": job_id(job) });
    let content_type = match &output.body {
        OutputBody::File {
            key,
            size,
            content_type,
            blake3,
        } => {
            let named = output.raw.get("filename").and_then(Value::as_str);
            let signed = service.signed_path(key);
            view["name"] = json!(named.unwrap_or(key.file_name()));
            view["size_bytes"] = json!(size);
            view["hash"] = hash(blake3);
            view["url"] = json!(format!("{}{}", call.links.root, signed.path_and_query));
            view["url_expires_at"] = time(signed.expires_at);
            content_type.as_str()
        }
        OutputBody::Text { text } => {
            view["name"] = json!(format!("text_{position}.txt"));
            view["size_bytes"] = json!(text.len());
            view["hash"] = json!(format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex()));
            view["url"] = json!(format!("{}/assets/{id}/content", call.links.api));
            view["url_expires_at"] = time(service.now().plus(service.settings.url_expiry));
            TEXT
        }
    };
    view["content_type"] = json!(content_type);
    view["type"] = json!(kind(&output.kind, content_type));
    view
}

/// `null` for what was stored without one (files of older versions).
fn hash(blake3: &str) -> Value {
    Digest::from_hex(blake3).map_or(Value::Null, |hash| json!(ContentHash::Blake3(hash).to_string()))
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
    fn what_has_no_hash_has_none_of_no_digits() {
        assert_eq!(hash(""), Value::Null);
        let digits = "0a".repeat(32);
        assert_eq!(hash(&digits), json!(format!("blake3:{digits}")));
    }

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

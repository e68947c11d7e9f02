//! What callers wrote where ComfyUI wants a file name, told apart and decoded. Nothing here waits for anything.

use base64::{Engine, engine::general_purpose};
use bytes::Bytes;
use darkroom_comfy::graph::Graph;
use darkroom_runner::link::Media;
use serde_json::Value;

/// Node inputs that hold file names, by class. Others are left alone.
const LOADERS: &[(&str, &str, Media)] = &[
    ("LoadImage", "image", Media::Image),
    ("LoadImageMask", "image", Media::Image),
    ("LoadImageOutput", "image", Media::Image),
    ("LoadAudio", "audio", Media::Other),
    ("LoadVideo", "file", Media::Other),
    ("VHS_LoadVideo", "video", Media::Other),
];

/// A value longer than this is tried as base64 (the Serverless API's rule, `protocols/comfyui-serverless-fc.md` §3).
const BASE64_FROM_CHARS: usize = 64;

/// Longest name of an upload, in bytes.
pub const MAX_NAME_BYTES: usize = 400;

/// Whether this input of this class holds a file name that the intake resolves.
pub fn is_loader_input(class_type: &str, input: &str) -> bool {
    LOADERS
        .iter()
        .any(|(class, name, _)| *class == class_type && *name == input)
}

/// A loader's input of a graph.
#[derive(Debug)]
pub struct Loader {
    /// The node.
    pub node_id: String,
    /// Its class.
    pub class: &'static str,
    /// The input.
    pub input: &'static str,
    /// What it takes.
    pub media: Media,
    /// What stands there.
    pub given: Given,
}

/// What a loader's text turned out to be.
#[derive(Debug)]
pub enum Given {
    /// An http(s) address.
    Url(String),
    /// Bytes.
    Bytes {
        /// The bytes, not looked at yet.
        bytes: Bytes,
        /// The text, where it is short enough to be a name: what is there by that name comes first.
        name: Option<String>,
    },
    /// A name.
    Name(String),
}

/// Finds every loader input of a graph and decodes what stands there. Long texts are taken out of the graph: they are
/// replaced by names later, and would be held twice until then.
pub fn find(graph: &mut Graph) -> Vec<Loader> {
    let mut found = Vec::new();
    for (class, input, media) in LOADERS {
        for (node_id, node) in graph.nodes.iter_mut().filter(|(_, n)| n.class_type == *class) {
            // A link brings its own value; other types are the validator's to refuse.
            let Some(Value::String(text)) = node.inputs.get_mut(*input) else {
                continue;
            };
            let given = match classify(text) {
                Text::Url(url) => Given::Url(url.to_owned()),
                Text::Name(name) => Given::Name(name.to_owned()),
                Text::Bytes(bytes) => {
                    let name = match text.len() <= MAX_NAME_BYTES {
                        true => Some(text.clone()),
                        false => {
                            *text = String::new();
                            None
                        }
                    };
                    let bytes = bytes.into();
                    Given::Bytes { bytes, name }
                }
            };
            found.push(Loader {
                node_id: node_id.as_str().to_owned(),
                class,
                input,
                media: *media,
                given,
            });
        }
    }
    found
}

#[derive(Debug, PartialEq)]
enum Text<'a> {
    Url(&'a str),
    Bytes(Vec<u8>),
    Name(&'a str),
}

fn classify(text: &str) -> Text<'_> {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        return Text::Url(text);
    }
    if lower.starts_with("data:")
        && let Some((head, body)) = text.split_once(',')
        && head.to_ascii_lowercase().ends_with(";base64")
        && let Some(bytes) = decode_base64(body)
    {
        return Text::Bytes(bytes);
    }
    if text.chars().nth(BASE64_FROM_CHARS).is_some()
        && let Some(bytes) = decode_base64(text)
    {
        return Text::Bytes(bytes);
    }
    Text::Name(text)
}

/// Strict but for line breaks and missing padding, so that a long file name is not taken for a picture.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let engine = general_purpose::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        general_purpose::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    if text.contains(['\r', '\n', ' ', '\t']) {
        let compact: String = text.split_ascii_whitespace().collect();
        return engine.decode(compact).ok();
    }
    engine.decode(text).ok()
}

#[cfg(test)]
pub mod tests {
    use std::io::Cursor;

    use super::*;

    pub fn png() -> Vec<u8> {
        let mut bytes = Vec::new();
        image::RgbImage::new(3, 2)
            .write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png)
            .unwrap();
        bytes
    }

    #[test]
    fn texts_are_told_apart() {
        let encoded = general_purpose::STANDARD.encode(png());
        assert!(encoded.len() > BASE64_FROM_CHARS);
        assert_eq!(classify(&encoded), Text::Bytes(png()));
        assert_eq!(
            classify(&format!("data:image/png;base64,{encoded}")),
            Text::Bytes(png())
        );
        assert_eq!(
            classify(&format!("DATA:image/png;BASE64,{encoded}")),
            Text::Bytes(png())
        );
        let wrapped = format!("{}\r\n{}", &encoded[..40], &encoded[40..]);
        assert_eq!(classify(&wrapped), Text::Bytes(png()));
        assert_eq!(classify("HTTPS://x/y.png"), Text::Url("HTTPS://x/y.png"));
        assert_eq!(classify("cat.png"), Text::Name("cat.png"));
        assert_eq!(classify("Zm9v"), Text::Name("Zm9v"), "short base64 is a name");
        let long_name = format!("{}.png", "n".repeat(70));
        assert_eq!(
            classify(&long_name),
            Text::Name(&long_name),
            "a long name has a dot, which base64 has not"
        );
        assert_eq!(classify("图像图像图像.png"), Text::Name("图像图像图像.png"));
    }
}

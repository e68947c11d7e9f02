//! Loader inputs: what a caller writes where ComfyUI wants a file name, told apart and taken in.
//!
//! A value may be an uploaded file's name, an http(s) address, a data URI, or base64. Everything but a name becomes a
//! blob (or is fetched when the attempt starts), gets a content-addressed name on the instance, and that name is what
//! the graph then says, so that equal files hit ComfyUI's cache.

use std::io::Cursor;

use base64::{Engine, engine::general_purpose};
use bytes::Bytes;
use darkroom_comfy::graph::Graph;
use darkroom_core::{BlobKey, EndpointName, TenantId};
use darkroom_runner::link::{InputFile, InputSource};
use darkroom_store::jobs::InputBlob;
use serde_json::Value;

use super::{Error, Service, preflight::Refusal};

/// Node inputs that hold file names, by class. Others are left alone.
const LOADERS: &[(&str, &str, Media)] = &[
    ("LoadImage", "image", Media::Image),
    ("LoadImageMask", "image", Media::Image),
    ("LoadAudio", "audio", Media::Other),
    ("LoadVideo", "file", Media::Other),
    ("VHS_LoadVideo", "video", Media::Other),
];

/// A value longer than this is tried as base64 (the Serverless API's rule, `protocols/comfyui-serverless-fc.md` §3).
const BASE64_FROM_CHARS: usize = 64;

/// Longest name of an upload, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 400;

/// Largest side of an image that is taken in, in pixels; with [`MAX_PIXELS`] a bomb is refused from its header.
const MAX_SIDE: u32 = 16_384;
/// Largest area, in pixels (100 million: 400 MB once decoded to RGBA).
const MAX_PIXELS: u64 = 100_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    Image,
    Other,
}

/// Whether this input of this class holds a file name that the intake resolves.
pub fn is_loader_input(class_type: &str, input: &str) -> bool {
    LOADERS
        .iter()
        .any(|(class, name, _)| *class == class_type && *name == input)
}

/// When addresses are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// Before the job is accepted: the caller waits anyway, and no GPU is held meanwhile.
    Now,
    /// When its attempt starts: the caller wants its answer at once.
    Later,
}

/// What a loader's text turned out to be.
#[derive(Debug, PartialEq)]
enum Given<'a> {
    Url(&'a str),
    Bytes(Vec<u8>),
    Name(&'a str),
}

impl Service {
    /// Takes in every loader input of a graph: changes the graph to name the files, and says which files those are.
    ///
    /// # Errors
    /// [`Error::InputUnavailable`] when bytes cannot be had or are no image, [`Error::InvalidGraph`] for names that do
    /// not exist or escape.
    pub async fn take_in(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        graph: &mut Graph,
        fetch: Fetch,
    ) -> Result<Vec<TakenFile>, Error> {
        let mut files = Vec::new();
        for (class, input, media) in LOADERS {
            for (node_id, node) in graph.nodes.iter_mut().filter(|(_, n)| n.class_type == *class) {
                // A link brings its own value; other types are the validator's to refuse.
                let Some(Value::String(text)) = node.inputs.get(*input) else {
                    continue;
                };
                let refuse = |details: &str| {
                    Error::InvalidGraph(Box::new(Refusal::of_input(
                        node_id.as_str(),
                        class,
                        input,
                        details,
                    )))
                };
                let blamed = |error: Error| match error {
                    Error::InputUnavailable(text) => {
                        Error::InputUnavailable(format!("{class} failed: {text}"))
                    }
                    other => other,
                };
                let taken = match classify(text) {
                    Given::Url(url) => self.take_url(tenant, url, *media, fetch).await.map_err(blamed)?,
                    // A name may be long and of base64's letters alone: what is there by that name comes first.
                    Given::Bytes(bytes) => {
                        let named = match text.len() <= MAX_NAME_BYTES {
                            true => self.take_name(tenant, endpoint, class, input, text).await?,
                            false => Named::Missing(String::new()),
                        };
                        match named {
                            Named::Upload(taken) => taken,
                            Named::OnInstance => continue,
                            Named::Missing(_) => self
                                .take_bytes(tenant, bytes.into(), *media)
                                .await
                                .map_err(blamed)?,
                        }
                    }
                    Given::Name(name) => match self.take_name(tenant, endpoint, class, input, name).await? {
                        Named::Upload(taken) => taken,
                        Named::OnInstance => continue,
                        Named::Missing(details) => return Err(refuse(&details)),
                    },
                };
                node.inputs
                    .insert((*input).to_owned(), Value::String(taken.name.clone()));
                files.push(TakenFile {
                    file: InputFile {
                        node_id: node_id.as_str().to_owned(),
                        input: (*input).to_owned(),
                        file_name: taken.name,
                        source: taken.source,
                    },
                    blob: taken.blob,
                });
            }
        }
        Ok(files)
    }

    async fn take_url(
        &self,
        tenant: &TenantId,
        url: &str,
        media: Media,
        fetch: Fetch,
    ) -> Result<Taken, Error> {
        let unavailable = |e: super::fetch::Error| {
            Error::InputUnavailable(format!(
                "can not get image {} from http url, {e}",
                super::fetch::shown(url)
            ))
        };
        match fetch {
            Fetch::Now => {
                let bytes = self.fetcher.get(url).await.map_err(unavailable)?;
                self.take_bytes(tenant, bytes, media).await
            }
            Fetch::Later => {
                // What is plainly forbidden is refused at once; the rest is found out when the attempt starts.
                let url = self.fetcher.check(url).map_err(unavailable)?;
                let name = format!("{}.bin", &blake3::hash(url.as_str().as_bytes()).to_hex()[..32]);
                Ok(Taken {
                    name,
                    source: InputSource::Url(url.into()),
                    blob: None,
                })
            }
        }
    }

    async fn take_bytes(&self, tenant: &TenantId, bytes: Bytes, media: Media) -> Result<Taken, Error> {
        let extension = check_media(&bytes, media).map_err(Error::InputUnavailable)?;
        let hash = blake3::hash(&bytes).to_hex();
        let name = format!("{}.{extension}", &hash[..32]);
        let size = bytes.len() as u64;
        let content_type = darkroom_blobs::content_type::of(&name, &bytes).to_owned();
        let key = self.put_asset(tenant, &hash, &name, bytes).await?;
        let blob = InputBlob {
            key: key.clone(),
            size,
            content_type,
        };
        Ok(Taken {
            name,
            source: InputSource::Blob(key),
            blob: Some(blob),
        })
    }

    async fn take_name(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        class: &str,
        input: &str,
        name: &str,
    ) -> Result<Named, Error> {
        if let Some(folder) = instance_folder(name) {
            return Ok(Named::Missing(of_one_instance(&brief(name), folder)));
        }
        let missing = || Named::Missing(format!("Invalid image file: {}", brief(name)));
        let plain = name.strip_suffix(" [input]").unwrap_or(name);
        let escapes =
            plain.starts_with('/') || plain.contains('\\') || plain.split('/').any(|part| part == "..");
        if plain.is_empty() || escapes {
            return Ok(missing());
        }
        if let Some(upload) = self.uploaded(tenant, endpoint, plain).await? {
            // The file keeps its own name's ending; the content decides whether it is new to the instance.
            return Ok(Named::Upload(Taken {
                name: upload_name(&upload.key, plain),
                source: InputSource::Blob(upload.key.clone()),
                blob: Some(upload),
            }));
        }
        let info = self.object_info(endpoint).await?;
        let spec = info
            .as_ref()
            .and_then(|i| i.get(class))
            .and_then(|c| c.input(input));
        let offered = spec
            .and_then(|s| s.choices())
            .is_some_and(|c| c.iter().any(|v| v.as_str() == Some(plain)));
        Ok(if offered { Named::OnInstance } else { missing() })
    }
}

/// Refuses nodes that read what an instance itself made: another instance, or the same after a restart, does not have it.
///
/// # Errors
/// The refusal, which says what to do instead.
pub fn refuse_instance_files(graph: &Graph) -> Result<(), Box<Refusal>> {
    const CLASS: &str = "LoadImageOutput";
    match graph.nodes.iter().find(|(_, node)| node.class_type == CLASS) {
        Some((id, _)) => {
            let details = of_one_instance(CLASS, "output");
            Err(Box::new(Refusal::of_input(id.as_str(), CLASS, "image", &details)))
        }
        None => Ok(()),
    }
}

/// The folder of an annotated name other than `[input]` (`comfyui/behaviour.md` §10).
fn instance_folder(name: &str) -> Option<&'static str> {
    ["output", "temp"].into_iter().find(|folder| {
        name.strip_suffix(']')
            .is_some_and(|n| n.ends_with(&format!("[{folder}")))
    })
}

fn of_one_instance(what: &str, folder: &str) -> String {
    format!(
        "{what} reads the {folder} folder of a single instance, which no other instance and no later run has; give \
         LoadImage the file itself: upload it and use its name, or use its URL, a data URI, or base64"
    )
}

/// The file name on the instance, where the bytes are, and what keeps them there.
#[derive(Debug)]
struct Taken {
    name: String,
    source: InputSource,
    blob: Option<InputBlob>,
}

/// A loader input that was taken in.
#[derive(Debug)]
pub struct TakenFile {
    /// What the runner brings.
    pub file: InputFile,
    /// Its blob, which the job refers to; `None` for an address that is fetched later.
    pub blob: Option<InputBlob>,
}

enum Named {
    Upload(Taken),
    OnInstance,
    Missing(String),
}

fn upload_name(key: &BlobKey, plain: &str) -> String {
    let hash = &blake3::hash(key.as_str().as_bytes()).to_hex()[..12];
    let file = darkroom_core::blob_key::safe_segment(plain.rsplit('/').next().unwrap_or(plain));
    format!("{hash}-{file}")
}

fn classify(text: &str) -> Given<'_> {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        return Given::Url(text);
    }
    if lower.starts_with("data:")
        && let Some((head, body)) = text.split_once(',')
        && head.to_ascii_lowercase().ends_with(";base64")
        && let Some(bytes) = decode_base64(body)
    {
        return Given::Bytes(bytes);
    }
    if text.chars().nth(BASE64_FROM_CHARS).is_some()
        && let Some(bytes) = decode_base64(text)
    {
        return Given::Bytes(bytes);
    }
    Given::Name(text)
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

/// Looks at the header only: a bomb is refused before anything is decoded. Returns the file extension.
fn check_media(bytes: &[u8], media: Media) -> Result<&'static str, String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if media == Media::Other {
        return Ok("bin");
    }
    let format = image::guess_format(bytes).map_err(|_| "the bytes are not an image".to_owned())?;
    let extension = format.extensions_str().first().copied().unwrap_or("img");
    if !format.reading_enabled() {
        // A format this build cannot look into (BMP, TIFF, AVIF): ComfyUI may, and its own limits apply.
        return Ok(extension);
    }
    let reader = image::ImageReader::with_format(Cursor::new(bytes), format);
    let (width, height) = reader
        .into_dimensions()
        .map_err(|_| "the image is damaged".to_owned())?;
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("the image is too large: {width}x{height} pixels"));
    }
    Ok(extension)
}

/// Checks bytes that were fetched when an attempt started.
///
/// # Errors
/// A text that says what is wrong with them.
pub fn check_fetched(bytes: &[u8]) -> Result<(), String> {
    // The class is not known any more; only what claims to be an image is held to an image's bounds.
    match image::guess_format(bytes) {
        Ok(_) => check_media(bytes, Media::Image).map(|_| ()),
        Err(_) => check_media(bytes, Media::Other).map(|_| ()),
    }
}

fn brief(text: &str) -> String {
    text.split(['?', '#'])
        .next()
        .unwrap_or("")
        .chars()
        .take(120)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png() -> Vec<u8> {
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
        assert_eq!(classify(&encoded), Given::Bytes(png()));
        assert_eq!(
            classify(&format!("data:image/png;base64,{encoded}")),
            Given::Bytes(png())
        );
        assert_eq!(
            classify(&format!("DATA:image/png;BASE64,{encoded}")),
            Given::Bytes(png())
        );
        let wrapped = format!("{}\r\n{}", &encoded[..40], &encoded[40..]);
        assert_eq!(classify(&wrapped), Given::Bytes(png()));
        assert_eq!(classify("HTTPS://x/y.png"), Given::Url("HTTPS://x/y.png"));
        assert_eq!(classify("cat.png"), Given::Name("cat.png"));
        assert_eq!(classify("Zm9v"), Given::Name("Zm9v"), "short base64 is a name");
        let long_name = format!("{}.png", "n".repeat(70));
        assert_eq!(
            classify(&long_name),
            Given::Name(&long_name),
            "a long name has a dot, which base64 has not"
        );
        assert_eq!(classify("图像图像图像.png"), Given::Name("图像图像图像.png"));
    }

    #[test]
    fn only_names_in_an_instances_own_folders_are_annotated() {
        assert_eq!(instance_folder("a.png [output]"), Some("output"));
        assert_eq!(instance_folder("a.png[temp]"), Some("temp"));
        for other in [
            "a.png",
            "a.png [input]",
            "output",
            "[output] a.png",
            "a[output",
            "output]",
            "",
        ] {
            assert_eq!(instance_folder(other), None, "{other}");
        }
    }

    #[test]
    fn bombs_and_other_files_are_no_images() {
        assert_eq!(check_media(&png(), Media::Image), Ok("png"));
        assert!(check_media(b"", Media::Other).is_err());
        assert!(check_media(b"<html>hello</html>", Media::Image).is_err());
        let mut bomb = png();
        // The width and height of IHDR; the header's checksum is not what stops it.
        bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        assert!(check_media(&bomb, Media::Image).is_err());
    }
}

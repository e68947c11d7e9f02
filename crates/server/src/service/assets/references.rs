//! Assets in graphs: `asset:<id>` or `{"__type": "core/ASSET", "info": {"id": …}}` (`protocols/comfy-v2.md` §6) anywhere in a
//! node's inputs. Each becomes a file name that no instance has a say in, and the file is brought to whichever instance
//! runs the job.

use std::collections::BTreeMap;

use darkroom_core::{AssetRef, EndpointName, TenantId};
use darkroom_runner::link::{InputFile, InputSource};
use darkroom_store::jobs::InputBlob;
use serde_json::Value;

use super::{Asset, AssetBody, path};
use crate::{
    beside::beside,
    service::{
        Error, Service,
        error::Unavailable,
        intake::{TakenFile, is_loader_input},
        preflight::Refusal,
    },
};

/// The tag of the object form.
const TAG: &str = "core/ASSET";
/// In front of an id that stands as a text.
const SCHEME: &str = "asset:";
/// References that one graph may hold: each is looked up, and keeps where it stands.
const MOST: usize = 256;
/// How long the names on the way to a reference may be together, in bytes.
const MAX_WAY_BYTES: usize = 4096;

/// What the references of a graph mean.
#[derive(Debug, Default)]
pub struct Referred {
    files: BTreeMap<String, InputBlob>,
    places: Vec<(Spot, String)>,
}

/// Where a reference stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spot {
    node_id: String,
    input: String,
    /// A JSON pointer within the input; empty for the input itself.
    pointer: String,
}

/// A reference, as it is written.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    spot: Spot,
    /// The id, or what stands in its place.
    id: Result<AssetRef, String>,
}

impl Referred {
    /// The file that a reference became a name of.
    pub(in crate::service) fn file(&self, name: &str) -> Option<&InputBlob> {
        self.files.get(name)
    }

    /// Files for places that the intake does not look at: inputs of other classes, and lists or objects within inputs.
    /// `class_of`: what a node of the graph that runs is.
    pub(in crate::service) fn elsewhere<'a>(
        &self,
        class_of: impl Fn(&str) -> Option<&'a str>,
    ) -> Vec<TakenFile> {
        let files = self.places.iter().filter_map(|(spot, name)| {
            let class = class_of(&spot.node_id)?;
            let nested = (!spot.pointer.is_empty()).then(|| spot.pointer.clone());
            if nested.is_none() && is_loader_input(class, &spot.input) {
                return None;
            }
            let blob = self.files.get(name)?.clone();
            Some(TakenFile {
                file: InputFile {
                    node_id: spot.node_id.clone(),
                    input: spot.input.clone(),
                    nested,
                    file_name: name.clone(),
                    source: InputSource::Blob(blob.key.clone()),
                },
                blob: Some(blob),
            })
        });
        files.collect()
    }
}

impl Service {
    /// The graph again, and the assets that it refers to and that its tenant does not have for this endpoint, as they are
    /// written there; what has no id at all counts as an empty one. `size`: how large the request was, in bytes.
    ///
    /// # Errors
    /// [`Error::InvalidGraph`] for too many references, or when the store fails.
    pub async fn missing_assets(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        graph: Value,
        size: usize,
    ) -> Result<(Value, Vec<String>), Error> {
        let (graph, found) = found_in(graph, size).await?;
        let (_, missing) = self.look_up(tenant, endpoint, &found).await?;
        Ok((graph, missing))
    }

    /// Puts file names into a graph where it refers to assets. What a job made counts on the endpoint of that job alone: a
    /// key may be limited to some. `size`: how large the request was, in bytes.
    ///
    /// # Errors
    /// [`Error::InputUnavailable`], which names the assets that are missing; [`Error::InvalidGraph`] for too many references.
    pub(in crate::service) async fn resolve_assets(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        graph: Value,
        size: usize,
    ) -> Result<(Value, Referred), Error> {
        let (mut graph, found) = found_in(graph, size).await?;
        if found.is_empty() {
            return Ok((graph, Referred::default()));
        }
        let (known, missing) = self.look_up(tenant, endpoint, &found).await?;
        if !missing.is_empty() {
            let text = match missing.iter().all(String::is_empty) {
                true => "an asset of the workflow has no id".to_owned(),
                false => format!("there is no asset {}", missing.join(", ")),
            };
            return Err(Error::InputUnavailable(Box::new(Unavailable {
                missing_assets: missing,
                ..text.into()
            })));
        }
        let mut referred = Referred::default();
        for Found { spot, id } in found {
            let Some((name, blob)) = id.ok().and_then(|id| known.get(&id)) else {
                continue;
            };
            put(&mut graph, &spot, name);
            referred.files.insert(name.clone(), blob.clone());
            referred.places.push((spot, name.clone()));
        }
        Ok((graph, referred))
    }

    async fn look_up(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        found: &[Found],
    ) -> Result<(BTreeMap<AssetRef, (String, InputBlob)>, Vec<String>), Error> {
        let (mut known, mut missing) = (BTreeMap::new(), Vec::new());
        for Found { id, .. } in found {
            let id = match id {
                Ok(id) if known.contains_key(id) => continue,
                Ok(id) => *id,
                Err(text) => {
                    missing.push(text.clone());
                    continue;
                }
            };
            match self.asset_for(tenant, endpoint, id).await?.and_then(staged) {
                Some(file) => {
                    known.insert(id, file);
                }
                None => missing.push(id.to_string()),
            }
        }
        missing.sort();
        missing.dedup();
        Ok((known, missing))
    }
}

/// The name of an asset's file on every instance, and its blob: equal bytes have equal names, and so hit ComfyUI's cache.
/// `None` for what is no file.
pub(in crate::service) fn staged(asset: Asset) -> Option<(String, InputBlob)> {
    let AssetBody::Blob(key) = asset.body else {
        return None;
    };
    let ending = match asset.file_path.as_deref().map(path::extension) {
        Some(ending) if !ending.is_empty() => ending,
        Some(_) | None => ending_of(&asset.content_type).to_owned(),
    };
    // What was stored without a hash (older outputs) is known by its key, which never changes.
    let hash = match asset.blake3 {
        Some(hash) => hash.to_string(),
        None => blake3::hash(key.as_str().as_bytes()).to_string(),
    };
    let blob = InputBlob {
        key,
        size: asset.size,
        content_type: asset.content_type,
    };
    Some((format!("{}{ending}", &hash[..32]), blob))
}

fn ending_of(content_type: &str) -> &'static str {
    match content_type.split(';').next().unwrap_or_default().trim() {
        "image/png" => ".png",
        "image/jpeg" => ".jpg",
        "image/webp" => ".webp",
        "image/gif" => ".gif",
        "video/mp4" => ".mp4",
        "video/webm" => ".webm",
        "audio/mpeg" => ".mp3",
        "audio/wav" | "audio/x-wav" => ".wav",
        "audio/flac" => ".flac",
        _ => ".bin",
    }
}

async fn found_in(graph: Value, size: usize) -> Result<(Value, Vec<Found>), Error> {
    let (graph, found) = beside(size, move || {
        let found = find(&graph);
        (graph, found)
    })
    .await;
    match found {
        Ok(found) => Ok((graph, found)),
        Err(TooMuch(why)) => {
            let refusal = Refusal::of_graph("the workflow refers to files in too many places", why);
            Err(Error::InvalidGraph(Box::new(refusal)))
        }
    }
}

/// Why the references of a graph are not followed.
#[derive(Debug, PartialEq, Eq)]
struct TooMuch(String);

/// Every reference in the inputs of a graph's nodes.
fn find(graph: &Value) -> Result<Vec<Found>, TooMuch> {
    let mut found = Vec::new();
    let nodes = graph.as_object().into_iter().flatten();
    for (node_id, node) in nodes {
        let inputs = node.get("inputs").and_then(Value::as_object);
        for (input, value) in inputs.into_iter().flatten() {
            let mut way = Way {
                node_id,
                input,
                pointer: String::new(),
            };
            look(value, &mut way, &mut found)?;
        }
    }
    Ok(found)
}

/// The way to what is looked at.
struct Way<'a> {
    node_id: &'a str,
    input: &'a str,
    pointer: String,
}

impl Way<'_> {
    fn note(&self, id: Result<AssetRef, String>, found: &mut Vec<Found>) -> Result<(), TooMuch> {
        if found.len() >= MOST {
            return Err(TooMuch(format!("at most {MOST} references are followed")));
        }
        if self.node_id.len() + self.input.len() + self.pointer.len() > MAX_WAY_BYTES {
            let why = format!("the names on the way to a reference are longer than {MAX_WAY_BYTES} bytes");
            return Err(TooMuch(why));
        }
        let spot = Spot {
            node_id: self.node_id.to_owned(),
            input: self.input.to_owned(),
            pointer: self.pointer.clone(),
        };
        found.push(Found { spot, id });
        Ok(())
    }
}

fn look(value: &Value, way: &mut Way<'_>, found: &mut Vec<Found>) -> Result<(), TooMuch> {
    match value {
        // A text that only begins like one is a text.
        Value::String(text) => match text.strip_prefix(SCHEME).and_then(|id| id.parse().ok()) {
            Some(id) => way.note(Ok(id), found),
            None => Ok(()),
        },
        Value::Object(fields) if fields.get("__type").and_then(Value::as_str) == Some(TAG) => {
            let id = value
                .pointer("/info/id")
                .and_then(Value::as_str)
                .unwrap_or_default();
            way.note(id.parse().map_err(|_| id.chars().take(80).collect()), found)
        }
        Value::Object(fields) => fields.iter().try_for_each(|(name, field)| {
            let step = name.replace('~', "~0").replace('/', "~1");
            deeper(&step, field, way, found)
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(at, item)| deeper(&at.to_string(), item, way, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn deeper(step: &str, value: &Value, way: &mut Way<'_>, found: &mut Vec<Found>) -> Result<(), TooMuch> {
    // Numbers are what a graph holds most of.
    if !matches!(value, Value::String(_) | Value::Object(_) | Value::Array(_)) {
        return Ok(());
    }
    let length = way.pointer.len();
    way.pointer.push('/');
    way.pointer.push_str(step);
    look(value, way, found)?;
    way.pointer.truncate(length);
    Ok(())
}

fn put(graph: &mut Value, spot: &Spot, name: &str) {
    let input = graph
        .get_mut(&spot.node_id)
        .and_then(|node| node.get_mut("inputs")?.get_mut(&spot.input));
    if let Some(place) = input.and_then(|input| input.pointer_mut(&spot.pointer)) {
        *place = Value::String(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "01998f2e-7e2f-7c3a-8a52-3f1d7a1b2c3d";

    #[test]
    fn references_stand_anywhere_in_inputs() {
        let reference =
            json!({"__type": "core/ASSET", "info": {"id": ID, "hash": "blake3:00", "file_path": "a.png"}});
        let graph = json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": reference, "n": 3}},
            "2": {"class_type": "X", "inputs": {"list": [1, {"a/b": format!("asset:{ID}.2")}], "link": ["1", 0]}},
            "3": {"class_type": "Text", "inputs": {"text": "asset: a red cube", "other": {"__type": "core/MASK"}}},
            "4": {"class_type": "X", "inputs": {"a": {"__type": "core/ASSET"}, "b": {"__type": "core/ASSET", "info": {"id": "x"}}}},
            "5": {"class_type": "X"}, "6": [],
        });
        let found = find(&graph).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|f| {
                let id = f.id.as_ref().map(ToString::to_string);
                (
                    f.spot.node_id.as_str(),
                    f.spot.input.as_str(),
                    f.spot.pointer.as_str(),
                    id.map_err(String::as_str),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("1", "image", "", Ok(ID.to_owned())),
                ("2", "list", "/1/a~1b", Ok(format!("{ID}.2"))),
                ("4", "a", "", Err("")),
                ("4", "b", "", Err("x")),
            ]
        );
        let mut graph = graph;
        for one in &found[..2] {
            put(&mut graph, &one.spot, "f.png");
        }
        assert_eq!(graph["1"]["inputs"], json!({"image": "f.png", "n": 3}));
        assert_eq!(graph["2"]["inputs"]["list"], json!([1, {"a/b": "f.png"}]));
    }

    #[test]
    fn what_is_no_graph_has_none() {
        for other in [
            json!(null),
            json!([1]),
            json!({"nodes": [], "links": []}),
            json!({"1": {"inputs": 3}}),
        ] {
            assert!(find(&other).unwrap().is_empty());
        }
    }

    #[test]
    fn more_than_a_bound_is_not_followed() {
        let many = |count: usize| json!({"1": {"inputs": {"list": vec![format!("asset:{ID}"); count]}}});
        assert_eq!(find(&many(MOST)).unwrap().len(), MOST);
        assert!(find(&many(MOST + 1)).is_err());
        let long = "x".repeat(MAX_WAY_BYTES);
        assert!(find(&json!({"1": {"inputs": {"o": {&long: format!("asset:{ID}")}}}})).is_err());
        assert!(find(&json!({&long: {"inputs": {"o": format!("asset:{ID}")}}})).is_err());
        assert!(
            find(&json!({"1": {"inputs": {"o": {&long: "a text"}}}}))
                .unwrap()
                .is_empty()
        );
    }
}

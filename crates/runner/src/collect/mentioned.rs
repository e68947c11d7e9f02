//! What a history entry says was made: files and texts, in the order of its `outputs`. Pure.

use darkroom_comfy::wire::FileRef;
use indexmap::IndexMap;
use serde_json::Value;

/// One thing that a history entry mentions.
#[derive(Debug, Clone, PartialEq)]
pub struct Mentioned {
    /// The node that reported it.
    pub node_id: String,
    /// The list it stands in (`images`, `gifs`, `audio`, `text`, …).
    pub kind: String,
    /// Position in that list, from 0.
    pub index: u32,
    /// The item as reported.
    pub raw: Value,
    /// What it is.
    pub what: What,
}

/// A file or a text.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A file of the instance.
    File(FileRef),
    /// Text a node showed.
    Text(String),
}

/// Lists every file of every kind and every text in `outputs`, in its order.
///
/// A list item with a text `filename` is a file, whatever the list is called; strings under `text` are texts; all
/// else (`animated: [true]`, numbers, boxes) is a remark of the node that stays in the result only.
pub fn mentioned(outputs: &IndexMap<String, Value>) -> Vec<Mentioned> {
    let mut all = Vec::new();
    for (node_id, ui) in outputs {
        let Value::Object(lists) = ui else { continue };
        for (kind, list) in lists {
            let items = match list {
                Value::Array(items) => items.as_slice(),
                // Some nodes report one bare text or file instead of a list of one.
                single => std::slice::from_ref(single),
            };
            for (index, raw) in items.iter().enumerate() {
                if let Some(what) = what(kind, raw) {
                    all.push(Mentioned {
                        node_id: node_id.clone(),
                        kind: kind.clone(),
                        index: u32::try_from(index).unwrap_or(u32::MAX),
                        raw: raw.clone(),
                        what,
                    });
                }
            }
        }
    }
    all
}

fn what(kind: &str, raw: &Value) -> Option<What> {
    match raw {
        Value::Object(item) => {
            let name = item.get("filename")?.as_str().filter(|name| !name.is_empty())?;
            let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default();
            let kind = match text("type") {
                "" => "output",
                kind => kind,
            };
            Some(What::File(FileRef {
                filename: name.to_owned(),
                subfolder: text("subfolder").to_owned(),
                kind: kind.to_owned(),
            }))
        }
        Value::String(text) if kind == "text" => Some(What::Text(text.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(outputs: Value) -> Vec<Mentioned> {
        mentioned(&serde_json::from_value(outputs).unwrap())
    }

    #[test]
    fn every_kind_of_file_is_listed_in_the_order_of_history() {
        let all = list(json!({
            "9": {
                "images": [
                    {"filename": "b.png", "subfolder": "x", "type": "output"},
                    {"filename": "a.png", "subfolder": "", "type": "temp"},
                ],
                "animated": [true],
            },
            "2": {"gifs": [{"filename": "v.mp4", "format": "video/h264-mp4", "frame_rate": 8}]},
            "5": {"audio": [{"filename": "s.flac", "type": "output"}], "3d": [{"filename": "m.glb"}]},
        }));
        let short: Vec<_> = all
            .iter()
            .map(|m| match &m.what {
                What::File(f) => (
                    m.node_id.as_str(),
                    m.kind.as_str(),
                    m.index,
                    f.kind.as_str(),
                    f.filename.as_str(),
                ),
                What::Text(_) => panic!("no text here"),
            })
            .collect();
        assert_eq!(
            short,
            [
                ("9", "images", 0, "output", "b.png"),
                ("9", "images", 1, "temp", "a.png"),
                ("2", "gifs", 0, "output", "v.mp4"),
                ("5", "audio", 0, "output", "s.flac"),
                ("5", "3d", 0, "output", "m.glb"),
            ]
        );
        assert_eq!(all[2].raw["frame_rate"], json!(8));
    }

    #[test]
    fn texts_are_taken_from_text_only_and_odd_shapes_are_passed_over() {
        let all = list(json!({
            "1": {"text": ["hello", "there", 7], "tags": ["not an output"]},
            "2": {"text": "bare"},
            "3": null,
            "4": {"images": null, "boxes": [[1, 2]], "result": [{"filename": 5}, {"filename": ""}, {}]},
            "5": [1],
        }));
        let texts: Vec<_> = all
            .iter()
            .map(|m| (m.node_id.as_str(), m.index, &m.what))
            .collect();
        assert_eq!(
            texts,
            [
                ("1", 0, &What::Text("hello".into())),
                ("1", 1, &What::Text("there".into())),
                ("2", 0, &What::Text("bare".into())),
            ]
        );
    }
}

//! The files that a node's output names.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A file of an instance as `/view` takes it and as outputs name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileRef {
    pub filename: String,
    #[serde(default)]
    pub subfolder: String,
    /// `output`, `temp` or `input`.
    #[serde(rename = "type", default = "default_kind")]
    pub kind: String,
}

fn default_kind() -> String {
    "output".to_owned()
}

/// The files in one node's UI output, with the key they stand under (`images`, `gifs`, `audio`, …): every list
/// of objects that have a `filename`, whatever a custom node calls it. In order, each file once.
pub fn output_files(output: &Value) -> Vec<(&str, FileRef)> {
    let mut files: Vec<(&str, FileRef)> = Vec::new();
    let keys = output.as_object().into_iter().flatten();
    for (key, items) in keys {
        for item in items.as_array().into_iter().flatten() {
            let named = item.get("filename").is_some_and(|name| name.as_str() != Some(""));
            if let (true, Ok(file)) = (named, FileRef::deserialize(item))
                && !files.iter().any(|(_, known)| *known == file)
            {
                files.push((key, file));
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_found_under_any_key() {
        let output = json!({
            "images": [{"filename": "a.png", "subfolder": "s", "type": "temp"}],
            "gifs": [{"filename": "b.mp4", "type": "output", "format": "video/h264-mp4"}],
            "animated": [true], "text": ["x"], "files": [{"filename": ""}, {"filename": 7}],
            "again": [{"filename": "a.png", "subfolder": "s", "type": "temp"}],
        });
        let files = output_files(&output);
        let names: Vec<_> = files
            .iter()
            .map(|(key, file)| (*key, file.filename.as_str(), file.kind.as_str()))
            .collect();
        assert_eq!(names, [("images", "a.png", "temp"), ("gifs", "b.mp4", "output")]);
        assert!(output_files(&Value::Null).is_empty());
    }
}

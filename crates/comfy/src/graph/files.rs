//! Which inputs of a graph name files of the instance's own directories.

use serde_json::Value;

use super::{Graph, InputValue, NodeId};
use crate::object_info::{InputSpec, ObjectInfo};

/// Loaders that list the input directory without an upload button, so that their spec does not show it.
const WITHOUT_BUTTON: [(&str, &str); 1] = [("LoadLatent", "latent")];

/// A file that a graph loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInput<'a> {
    pub node: &'a NodeId,
    pub input: &'a str,
    /// The name without the directory's annotation; may have a subfolder in front (`clipspace/a.png`).
    pub name: &'a str,
    pub directory: Directory,
}

/// The directories of an instance that a loader may read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    Input,
    Output,
    Temp,
}

impl Graph {
    /// The files that the graph's loaders name, in order of the nodes. Classes that `info` does not know are
    /// passed over; validation reports them.
    pub fn file_inputs<'a>(&'a self, info: &ObjectInfo) -> Vec<FileInput<'a>> {
        let mut files = Vec::new();
        for (node, content) in &self.nodes {
            let Some(class) = info.get(&content.class_type) else {
                continue;
            };
            for (input, value) in &content.inputs {
                let spec = class.input(input);
                let InputValue::Literal(Value::String(text)) = InputValue::classify(value) else {
                    continue;
                };
                if spec.is_some_and(|spec| is_file_input(&content.class_type, input, spec)) {
                    let (name, directory) = split_annotation(text);
                    files.push(FileInput {
                        node,
                        input,
                        name,
                        directory,
                    });
                }
            }
        }
        files
    }
}

/// True for an input whose choices are files of the instance's input directory.
pub fn is_file_input(class_type: &str, input: &str, spec: &InputSpec) -> bool {
    spec.is_file_picker() || WITHOUT_BUTTON.contains(&(class_type, input))
}

/// `a.png [output]` names a file of the output directory; without annotation it is the input directory.
pub fn split_annotation(value: &str) -> (&str, Directory) {
    let kinds = [
        (" [input]", Directory::Input),
        (" [output]", Directory::Output),
        (" [temp]", Directory::Temp),
    ];
    let found = kinds
        .into_iter()
        .find_map(|(suffix, kind)| Some((value.strip_suffix(suffix)?, kind)));
    found.unwrap_or((value, Directory::Input))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn loaders_are_found_by_their_button_or_by_name() {
        let info: ObjectInfo =
            serde_json::from_str(include_str!("../../tests/data/object_info.json")).expect("recorded");
        let graph = Graph::parse(&json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": "clipspace/a.png [output]"}},
            "2": {"class_type": "LoadLatent", "inputs": {"latent": "x.latent"}},
            "3": {"class_type": "LoadImage", "inputs": {"image": ["1", 0]}},
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
            "5": {"class_type": "Unknown", "inputs": {"image": "b.png"}},
            "6": {"class_type": "LoadAudio", "inputs": {"audio": "c.wav"}},
        }))
        .expect("a graph");
        let files = graph.file_inputs(&info);
        let found: Vec<_> = files
            .iter()
            .map(|file| (file.node.as_str(), file.name, file.directory))
            .collect();
        let expected = [
            ("1", "clipspace/a.png", Directory::Output),
            ("2", "x.latent", Directory::Input),
            ("6", "c.wav", Directory::Input),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn only_a_suffix_annotates() {
        assert_eq!(split_annotation("a [temp]"), ("a", Directory::Temp));
        assert_eq!(
            split_annotation("a [temp].png"),
            ("a [temp].png", Directory::Input)
        );
        assert_eq!(split_annotation("a[output]"), ("a[output]", Directory::Input));
    }
}

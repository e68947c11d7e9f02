//! What a called workflow made, by the names that its version gives.

use std::collections::BTreeMap;

use darkroom_comfy::published::{OutputField, Shape};
use darkroom_core::{
    Failure,
    failure::FailureCode,
    output::Output,
    workflow::{Version, WorkflowId},
};
use darkroom_store::jobs::{JobMeta, JobRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where a job's facts say it.
const FIELD: &str = "workflow";
/// Temporary files of nodes that are not published.
pub const TEMP_FILES: &str = "temp_files";

/// What a job knows of the version it runs: enough for its result, also when the version is read no more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalledAs {
    /// The workflow.
    pub id: WorkflowId,
    /// The version.
    pub version: Version,
    /// The published outputs.
    pub outputs: Vec<OutputField>,
    /// Temporary files are told as well.
    pub return_temp_files: bool,
    /// How many nodes the graph has.
    pub nodes: usize,
    /// Nodes that load a published input's file, and that input's name.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// Notes it with the job.
pub(super) fn write_down(meta: &mut JobMeta, called: &CalledAs) {
    if !meta.options.is_object() {
        meta.options = json!({});
    }
    meta.options[FIELD] = json!(called);
}

/// What a job was called as; `None` for one that is no published workflow's.
pub fn called_as(job: &JobRecord) -> Option<CalledAs> {
    CalledAs::deserialize(job.meta.options.get(FIELD)?).ok()
}

/// One named output.
#[derive(Debug, Clone)]
pub struct Named<'a> {
    /// Its name.
    pub name: String,
    /// How a file is shown where a protocol leaves it open.
    pub shape: Shape,
    /// What the run made, in order.
    pub items: Vec<&'a Output>,
}

impl CalledAs {
    /// The input whose file a job failed on.
    pub fn input_of(&self, failure: &Failure) -> Option<&str> {
        match failure.code {
            FailureCode::InputUnavailable => self.files.get(failure.node_id.as_ref()?).map(String::as_str),
            _ => None,
        }
    }

    /// The outputs of a run by name. Without published ones everything is told, by the kind that the nodes give it.
    pub fn named<'a>(&self, outputs: &'a [Output]) -> Vec<Named<'a>> {
        let published = self.outputs.iter().map(|field| {
            let of_it = |output: &&Output| output.node_id == field.node && output.kind == field.kind;
            Named {
                name: field.name.clone(),
                shape: field.shape,
                items: outputs.iter().filter(of_it).collect(),
            }
        });
        let mut named: Vec<Named<'a>> = published.collect();
        let mut add = |name: &str, output: &'a Output| match named.iter_mut().find(|one| one.name == name) {
            Some(one) => one.items.push(output),
            None => named.push(Named {
                name: name.to_owned(),
                shape: Shape::Object,
                items: vec![output],
            }),
        };
        let is_published = |output: &Output| {
            self.outputs
                .iter()
                .any(|f| f.node == output.node_id && f.kind == output.kind)
        };
        for output in outputs {
            // Files that history does not mention are found in the job itself.
            if is_published(output) || output.kind == "files" {
                continue;
            }
            match is_temporary(output) {
                true if self.return_temp_files => add(TEMP_FILES, output),
                false if self.outputs.is_empty() => add(&output.kind, output),
                true | false => {}
            }
        }
        named
    }
}

fn is_temporary(output: &Output) -> bool {
    output.raw.get("type").and_then(Value::as_str) == Some("temp")
}

#[cfg(test)]
mod tests {
    use darkroom_core::output::OutputBody;

    use super::*;

    fn output(node: &str, kind: &str, folder: &str) -> Output {
        Output {
            node_id: node.to_owned(),
            kind: kind.to_owned(),
            index: 0,
            body: OutputBody::Text {
                text: format!("{node}.{kind}"),
            },
            raw: json!({"type": folder}),
        }
    }

    fn called(outputs: &[(&str, &str, &str)], return_temp_files: bool) -> CalledAs {
        let field = |(name, node, kind): &(&str, &str, &str)| OutputField {
            name: (*name).to_owned(),
            node: (*node).to_owned(),
            kind: (*kind).to_owned(),
            shape: Shape::Object,
            description: String::new(),
        };
        CalledAs {
            id: "w".parse().unwrap(),
            version: Version::new(1).unwrap(),
            outputs: outputs.iter().map(field).collect(),
            return_temp_files,
            nodes: 3,
            files: BTreeMap::new(),
        }
    }

    fn names(called: &CalledAs, outputs: &[Output]) -> Vec<(String, usize)> {
        called
            .named(outputs)
            .into_iter()
            .map(|one| (one.name, one.items.len()))
            .collect()
    }

    #[test]
    fn published_outputs_are_named_and_temporary_ones_told_on_request() {
        let made = [
            output("10", "images", "output"),
            output("10", "images", "output"),
            output("11", "images", "temp"),
            output("12", "text", ""),
            output("", "files", "output"),
        ];
        let pair = |name: &str, n| (name.to_owned(), n);
        let one = [("result", "10", "images"), ("empty", "13", "images")];
        assert_eq!(
            names(&called(&one, false), &made),
            [pair("result", 2), pair("empty", 0)]
        );
        assert_eq!(
            names(&called(&one, true), &made),
            [pair("result", 2), pair("empty", 0), pair("temp_files", 1)]
        );
        assert_eq!(
            names(&called(&[], false), &made),
            [pair("images", 2), pair("text", 1)]
        );
        // A preview that is published is asked for by name.
        assert_eq!(
            names(&called(&[("preview", "11", "images")], false), &made),
            [pair("preview", 1)]
        );
    }

    #[test]
    fn a_job_remembers_what_it_was_called_as() {
        let mut meta = JobMeta::default();
        let noted = called(&[("a", "1", "images")], true);
        write_down(&mut meta, &noted);
        assert_eq!(CalledAs::deserialize(&meta.options["workflow"]).unwrap(), noted);
    }
}

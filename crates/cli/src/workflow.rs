//! A workflow file as `run` needs it: read, the values of the command line put in, files turned into data URIs.
//!
//! Whether the graph is right is the server's business: it knows the nodes. Here only `--input` is understood.

use std::{fs, io::Read, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use crate::exit::Failure;

/// Classes whose input of that name is a file of the caller. The server accepts data URIs there.
const FILE_INPUTS: &[(&str, &str)] = &[
    ("LoadImage", "image"),
    ("LoadImageMask", "image"),
    ("LoadImageOutput", "image"),
    ("LoadAudio", "audio"),
    ("VHS_LoadVideo", "video"),
    ("LoadVideo", "file"),
];

/// A graph in ComfyUI's API format, or a file of its editor, which the server converts: it knows the nodes.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// In API format the nodes; else the whole file.
    nodes: Map<String, Value>,
    is_editors_file: bool,
}

impl Workflow {
    /// Reads a file, or stdin when the path is `-`. `{"prompt": {…}}` is unwrapped.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let mut text = String::new();
        if path.as_os_str() == "-" {
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::usage(format!("stdin: {error}")))?;
        } else {
            text = fs::read_to_string(path).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        }
        Self::parse(&text).map_err(|failure| Failure::usage(format!("{name}: {failure}")))
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| Failure::usage(format!("not JSON: {error}")))?;
        let Value::Object(mut nodes) = value else {
            return Err(Failure::usage("not a workflow: the file must hold a JSON object"));
        };
        if let Some(Value::Object(prompt)) = nodes.get("prompt")
            && !prompt.contains_key("class_type")
        {
            nodes = prompt.clone();
        }
        let is_editors_file = nodes.get("nodes").is_some_and(Value::is_array);
        Ok(Workflow {
            nodes,
            is_editors_file,
        })
    }

    /// The graph as JSON.
    pub fn to_json(&self) -> Value {
        Value::Object(self.nodes.clone())
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        match self.is_editors_file {
            true => self.nodes["nodes"].as_array().map_or(0, Vec::len),
            false => self.nodes.len(),
        }
    }

    /// What to call a node: its title, else its class, else its id.
    pub fn title(&self, id: &str) -> String {
        if self.is_editors_file {
            let mut nodes = self.nodes["nodes"].as_array().into_iter().flatten();
            let number: Option<i64> = id.parse().ok();
            let node = nodes.find(|node| number.is_some() && node["id"].as_i64() == number);
            let title = node.and_then(|node| node["title"].as_str().or(node["type"].as_str()));
            return title.unwrap_or(id).to_owned();
        }
        let node = &self.nodes.get(id).unwrap_or(&Value::Null);
        let title = node["_meta"]["title"].as_str().or(node["class_type"].as_str());
        title.unwrap_or(id).to_owned()
    }

    /// Applies one `--input`: `NODE.INPUT=VALUE`, where NODE is an id, a title, or a class that occurs once.
    ///
    /// A value for a file input (`LoadImage.image`) that names a file here, and any value beginning with `@`, is read
    /// and sent along as a data URI. Else the value gets the type of the one it replaces.
    pub fn bind(&mut self, assignment: &str) -> Result<(), Failure> {
        if self.is_editors_file {
            return Err(Failure::usage(format!(
                "--input '{assignment}': the workflow was saved for ComfyUI's page, where values have no names; export it \
                 with \"Export (API)\" and run that file"
            )));
        }
        let (target, value) = assignment
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--input '{assignment}': write NODE.INPUT=VALUE")))?;
        // A title may contain dots, an input's name does not.
        let (node, input) = target
            .rsplit_once('.')
            .ok_or_else(|| Failure::usage(format!("--input '{assignment}': write NODE.INPUT=VALUE")))?;
        let id = self.resolve(node)?;
        let class = self.nodes[&id]["class_type"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let old = self.nodes[&id]["inputs"].get(input).cloned();
        let new = if let Some(path) = value.strip_prefix('@') {
            Value::String(data_uri(Path::new(path))?)
        } else if FILE_INPUTS.contains(&(class.as_str(), input)) && Path::new(value).is_file() {
            Value::String(data_uri(Path::new(value))?)
        } else {
            typed(value, old.as_ref())
                .map_err(|wanted| Failure::usage(format!("--input {target}: '{value}' is not {wanted}")))?
        };
        match self.nodes.get_mut(&id).and_then(Value::as_object_mut) {
            Some(fields) => {
                let inputs = fields
                    .entry("inputs")
                    .or_insert_with(|| Value::Object(Map::new()))
                    .as_object_mut()
                    .ok_or_else(|| Failure::usage(format!("node {id} has no object `inputs`")))?;
                inputs.insert(input.to_owned(), new);
                Ok(())
            }
            None => Err(Failure::usage(format!("node {id} is not an object"))),
        }
    }

    fn resolve(&self, name: &str) -> Result<String, Failure> {
        if self.nodes.contains_key(name) {
            return Ok(name.to_owned());
        }
        let lower = name.to_lowercase();
        let by = |field: &dyn Fn(&Value) -> Option<&str>| -> Vec<&String> {
            let hits = self
                .nodes
                .iter()
                .filter(|(_, node)| field(node).is_some_and(|text| text.to_lowercase() == lower));
            hits.map(|(id, _)| id).collect()
        };
        let mut hits = by(&|node| node["_meta"]["title"].as_str());
        if hits.is_empty() {
            hits = by(&|node| node["class_type"].as_str());
        }
        match hits.as_slice() {
            [id] => Ok((*id).clone()),
            [] => Err(Failure::usage(format!(
                "no node '{name}'; there are {}",
                self.known()
            ))),
            many => Err(Failure::usage(format!(
                "'{name}' is ambiguous: nodes {}",
                many.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    fn known(&self) -> String {
        let mut names: Vec<String> = self
            .nodes
            .keys()
            .take(20)
            .map(|id| format!("{id} ({})", self.title(id)))
            .collect();
        if self.nodes.len() > names.len() {
            names.push("…".to_owned());
        }
        names.join(", ")
    }
}

/// The text as the type of the value it replaces; where there was none, as JSON when it is a JSON scalar.
fn typed(text: &str, old: Option<&Value>) -> Result<Value, &'static str> {
    match old {
        Some(Value::Number(_)) => match serde_json::from_str::<Value>(text) {
            Ok(number @ Value::Number(_)) => Ok(number),
            _ => Err("a number"),
        },
        Some(Value::Bool(_)) => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err("true or false"),
        },
        Some(Value::String(_)) => Ok(Value::String(text.to_owned())),
        // A link or nothing: a value takes its place.
        _ => Ok(match serde_json::from_str::<Value>(text) {
            Ok(scalar @ (Value::Number(_) | Value::Bool(_))) => scalar,
            _ => Value::String(text.to_owned()),
        }),
    }
}

fn data_uri(path: &Path) -> Result<String, Failure> {
    let bytes = fs::read(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let content_type = match extension.as_deref() {
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("gif") => "image/gif",
        Some("wav") => "audio/wav",
        Some("mp3") => "audio/mpeg",
        Some("flac") => "audio/flac",
        Some("mp4") => "video/mp4",
        Some("webm") => "video/webm",
        _ => "application/octet-stream",
    };
    Ok(format!(
        "data:{content_type};base64,{}",
        BASE64_STANDARD.encode(bytes)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Workflow {
        Workflow::parse(
            r#"{"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
                "6": {"class_type": "CLIPTextEncode", "_meta": {"title": "Positive v1.5"}, "inputs": {"text": "x"}},
                "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "y"}},
                "3": {"class_type": "KSampler", "inputs": {"seed": 1, "on": true, "latent": ["5", 0]}}}"#,
        )
        .unwrap()
    }

    #[test]
    fn nodes_are_named_by_id_title_or_single_class() {
        let mut workflow = sample();
        workflow.bind("6.text=a cat=dog").unwrap();
        workflow.bind("positive v1.5.text=a.b").unwrap();
        workflow.bind("ksampler.seed=18446744073709551615").unwrap();
        workflow.bind("3.latent=7").unwrap();
        workflow.bind("3.on=false").unwrap();
        let graph = workflow.to_json();
        assert_eq!(graph["6"]["inputs"]["text"], "a.b");
        assert_eq!(graph["3"]["inputs"]["seed"], 18_446_744_073_709_551_615_u64);
        assert_eq!(graph["3"]["inputs"]["latent"], 7);
        assert_eq!(graph["3"]["inputs"]["on"], false);
        let ambiguous = workflow.bind("CLIPTextEncode.text=z").unwrap_err().message;
        assert!(ambiguous.contains("6, 7"), "{ambiguous}");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let mut workflow = sample();
        for (bad, part) in [
            ("3.seed=many", "is not a number"),
            ("3.on=1", "is not true or false"),
            ("9.x=1", "no node '9'"),
            ("seed=1", "write NODE.INPUT=VALUE"),
            ("3.seed", "write NODE.INPUT=VALUE"),
            ("1.image=@/nonexistent/x.png", "/nonexistent/x.png"),
        ] {
            let message = workflow.bind(bad).unwrap_err().message;
            assert!(message.contains(part), "{bad}: {message}");
        }
    }

    #[test]
    fn a_file_becomes_a_data_uri_and_a_plain_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("猫.PNG");
        fs::write(&file, b"abc").unwrap();
        let mut workflow = sample();
        workflow.bind(&format!("1.image={}", file.display())).unwrap();
        assert_eq!(
            workflow.to_json()["1"]["inputs"]["image"],
            "data:image/png;base64,YWJj"
        );
        workflow.bind("1.image=stored-name.png").unwrap();
        assert_eq!(workflow.to_json()["1"]["inputs"]["image"], "stored-name.png");
        workflow.bind(&format!("6.text={}", file.display())).unwrap();
        assert_eq!(
            workflow.to_json()["6"]["inputs"]["text"],
            file.display().to_string()
        );
    }

    #[test]
    fn a_wrapped_prompt_is_unwrapped_and_a_page_workflow_sent_as_it_is() {
        let wrapped = r#"{"prompt": {"1": {"class_type": "A"}}, "client_id": "c"}"#;
        assert_eq!(Workflow::parse(wrapped).unwrap().len(), 1);
        let page =
            r#"{"nodes": [{"id": 1, "type": "A"}, {"id": 2, "type": "B", "title": "Mine"}], "links": []}"#;
        let mut page = Workflow::parse(page).unwrap();
        assert_eq!(
            (page.len(), page.to_json()["nodes"][1]["id"].clone()),
            (2, 2.into())
        );
        assert_eq!(
            (page.title("1"), page.title("2"), page.title("2:1")),
            ("A".to_owned(), "Mine".to_owned(), "2:1".to_owned())
        );
        let refused = page.bind("1.x=1").unwrap_err().message;
        assert!(refused.contains("Export (API)"), "{refused}");
        assert!(Workflow::parse("[]").is_err() && Workflow::parse("{").is_err());
    }
}

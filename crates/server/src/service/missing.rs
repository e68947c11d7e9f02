//! What a workflow would miss on each box of an endpoint: node classes, and choices such as model files, with the nearest
//! names there and the boxes that have them. Nothing is queued.

use std::collections::BTreeMap;

use darkroom_comfy::{
    graph::{
        Graph, convert,
        validate::{InputChecks, nearest},
    },
    object_info::ObjectInfo,
};
use darkroom_core::{EndpointName, scheduler::Need};
use serde::Serialize;
use serde_json::Value;

use super::{
    Error, Service,
    placement::Places,
    preflight::{self, Checks, Refusal},
};
use crate::beside::beside;

/// Longer than what a graph is checked for: names of model files are what is looked for here.
const MAX_CHARS: usize = 100;
/// Missing things, of all boxes together, that near names are looked for; all are told.
const MAX_ASKED: usize = 40;

/// One box.
#[derive(Debug, Serialize)]
pub struct BoxCheck {
    /// Its name.
    pub name: String,
    /// Whether the workflow runs there.
    pub runs: bool,
    /// What it has not.
    pub missing: Vec<Missing>,
    /// Why it does not run there although nothing is missing: a mistake in the workflow, or another version of a node.
    pub refusal: Option<String>,
}

/// One thing that a box has not.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The node class: it is missing as a whole, or its input does not offer the value.
    pub class: String,
    /// The input.
    pub input: Option<String>,
    /// The value: a model's file, a sampler.
    pub value: Option<String>,
    /// The nodes that need it.
    pub nodes: Vec<String>,
    /// The nearest names that the box has.
    pub nearest: Vec<String>,
    /// Other boxes of the endpoint that have it.
    pub on: Vec<String>,
}

impl BoxCheck {
    /// Calls this and every other box as `name_of` says.
    pub fn rename(&mut self, name_of: impl Fn(&str) -> String) {
        let others = self.missing.iter_mut().flat_map(|missing| &mut missing.on);
        for name in std::iter::once(&mut self.name).chain(others) {
            *name = name_of(name);
        }
    }
}

impl Service {
    /// Checks a workflow, in API format or the editor's, against each box; `size`: about how large it is, in bytes.
    ///
    /// # Errors
    /// [`Error::InvalidGraph`] for what is no workflow, [`Error::Invalid`] where no box has told yet what it can do.
    pub async fn missing(
        &self,
        endpoint: &EndpointName,
        graph: Value,
        size: usize,
    ) -> Result<Vec<BoxCheck>, Error> {
        let places = self.places(endpoint).await?;
        if places.boxes.is_empty() {
            return Err(Error::Invalid(format!(
                "no instance of endpoint '{endpoint}' has told yet what it can do; it tells when it first starts"
            )));
        }
        // Near names of many missing things are work, however small the workflow is.
        let size = size.max(1 << 20);
        let checked = beside(size, move || check(&graph, &places)).await;
        checked.map_err(Error::InvalidGraph)
    }
}

fn check(graph: &Value, places: &Places) -> Result<Vec<BoxCheck>, Box<Refusal>> {
    let union = places.union.as_deref();
    let converted = match (convert::is_ui_format(graph), union) {
        (true, Some(union)) => {
            let converted = convert::to_api_format(graph, union);
            let refused =
                |e: convert::Error| Box::new(Refusal::of_graph("the workflow cannot be read", e.to_string()));
            Some(converted.map_err(refused)?)
        }
        (true, None) | (false, _) => None,
    };
    let graph = Graph::parse(converted.as_ref().unwrap_or(graph)).map_err(|e| Box::new(Refusal::from(e)))?;
    Ok(on_each_box(&graph, places))
}

/// What a graph would miss on each box of an endpoint.
pub(super) fn on_each_box(graph: &Graph, places: &Places) -> Vec<BoxCheck> {
    let mut asked = 0;
    let boxes = places.boxes.iter().map(|(name, one)| {
        let missing = missing_on(graph, name, &one.info, places, &mut asked);
        let refused = preflight::check(graph, Some(&one.info), None, places.embedded).err();
        BoxCheck {
            name: name.clone(),
            runs: missing.is_empty() && refused.is_none(),
            refusal: refused
                .filter(|_| missing.is_empty())
                .map(|refusal| refusal.message()),
            missing,
        }
    });
    boxes.collect()
}

fn missing_on(
    graph: &Graph,
    box_name: &str,
    info: &ObjectInfo,
    places: &Places,
    asked: &mut usize,
) -> Vec<Missing> {
    let mut missing: BTreeMap<Need, Vec<String>> = BTreeMap::new();
    for (id, node) in &graph.nodes {
        let Some(class) = info.get(&node.class_type) else {
            let need = Need::Class(node.class_type.clone());
            missing.entry(need).or_default().push(id.to_string());
            continue;
        };
        for (input, value) in &node.inputs {
            let (Some(text), Some(spec)) = (value.as_str(), class.input(input)) else {
                continue;
            };
            let offered = spec
                .choices()
                .filter(|_| !Checks.covers(&node.class_type, input, spec));
            if offered.is_some_and(|choices| !choices.iter().any(|choice| choice == value)) {
                let need = Need::Choice(node.class_type.clone(), input.clone(), text.to_owned());
                missing.entry(need).or_default().push(id.to_string());
            }
        }
    }
    missing
        .into_iter()
        .map(|(need, nodes)| {
            *asked += 1;
            let may_ask = *asked <= MAX_ASKED;
            let near = |wrong: &str, names: &mut dyn Iterator<Item = &str>| match may_ask {
                true => nearest(wrong, names, MAX_CHARS),
                false => Vec::new(),
            };
            let others = places
                .boxes
                .iter()
                .filter(|(name, one)| *name != box_name && one.offers.has(&need));
            let on = others.map(|(name, _)| name.clone()).collect();
            match need {
                Need::Class(class) => Missing {
                    nearest: near(&class, &mut info.classes.keys().map(String::as_str)),
                    class,
                    input: None,
                    value: None,
                    nodes,
                    on,
                },
                Need::Choice(class, input, value) => {
                    let spec = info.get(&class).and_then(|class| class.input(&input));
                    let choices = spec.and_then(|spec| spec.choices()).unwrap_or_default();
                    Missing {
                        nearest: near(&value, &mut choices.iter().filter_map(Value::as_str)),
                        class,
                        input: Some(input),
                        value: Some(value),
                        nodes,
                        on,
                    }
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::service::testing::Bench;

    fn told(models: &[&str], more: &[&str]) -> Vec<u8> {
        let mut info = json!({
            "Load": {"input": {"required": {"ckpt": [models, {}]}}, "output": ["MODEL"]},
            "Save": {"input": {"required": {"model": ["MODEL", {}]}}, "output": [], "output_node": true},
        });
        for class in more {
            info[*class] = json!({"input": {"required": {}}, "output": ["MODEL"]});
        }
        info.to_string().into_bytes()
    }

    #[tokio::test]
    async fn each_box_says_what_it_lacks_with_near_names_and_who_has_it() {
        let bench = Bench::configured(
            "[endpoints.two]\nbackend = \"remote\"\nurls = [{url = \"http://a:1\", name = \"a\"}, {url = \"http://b:1\", name = \"b\"}]\n",
        );
        let (service, two) = (&bench.service, "two".parse().unwrap());
        let graph = json!({
            "1": {"class_type": "Load", "inputs": {"ckpt": "sdxl_base.safetensors"}},
            "2": {"class_type": "Save", "inputs": {"model": ["1", 0]}},
            "3": {"class_type": "FluxLoader", "inputs": {}},
            "4": {"class_type": "FluxLoader", "inputs": {}},
        });
        let nothing_told = service.missing(&two, graph.clone(), 1).await.unwrap_err();
        assert!(nothing_told.to_string().contains("told yet"), "{nothing_told}");
        let a = told(&["sdxl_base_v1.safetensors", "x"], &["FluxLoaders"]);
        service.learn_object_info(&two, "a", a).await.unwrap();
        let b = told(&["sdxl_base.safetensors"], &["FluxLoader"]);
        service.learn_object_info(&two, "b", b).await.unwrap();

        let boxes = service.missing(&two, graph, 1).await.unwrap();
        let [on_a, on_b] = &boxes[..] else {
            panic!("{boxes:?}")
        };
        assert!(on_b.runs && on_b.missing.is_empty() && !on_a.runs, "{boxes:?}");
        let class = &on_a.missing[0];
        assert_eq!((class.class.as_str(), class.nodes.len()), ("FluxLoader", 2));
        assert_eq!(
            (&class.nearest[..], &class.on[..]),
            (&["FluxLoaders".to_owned()][..], &["b".to_owned()][..])
        );
        let model = &on_a.missing[1];
        assert_eq!(model.value.as_deref(), Some("sdxl_base.safetensors"));
        assert_eq!(model.nearest, ["sdxl_base_v1.safetensors"]);

        // The editor's own file; and a mistake that is nobody's lack.
        let file = json!({"nodes": [
            {"id": 1, "type": "Load", "widgets_values": ["x"]},
            {"id": 2, "type": "Save", "inputs": [{"name": "model", "type": "MODEL", "link": 1}]},
        ], "links": [[1, 1, 0, 2, 0, "MODEL"]]});
        let boxes = service.missing(&two, file, 1).await.unwrap();
        assert!(boxes[0].runs && !boxes[1].runs, "{boxes:?}");
        let no_model = json!({"2": {"class_type": "Save", "inputs": {}}});
        let boxes = service.missing(&two, no_model, 1).await.unwrap();
        assert!(
            boxes[0]
                .refusal
                .as_deref()
                .is_some_and(|why| why.contains("model")),
            "{boxes:?}"
        );
        assert_eq!(
            service.missing(&two, json!([]), 1).await.unwrap_err().code(),
            "invalid_graph"
        );
    }
}

//! Where a graph can run: on which of an endpoint's boxes it validates, and what the others lack.

use std::{collections::BTreeMap, sync::Arc};

use darkroom_comfy::{
    graph::{self, Graph, NodeId, validate::Validated},
    object_info::ObjectInfo,
};
use darkroom_core::{
    JobId,
    scheduler::{Need, Needs},
};
use serde_json::{Map, Value, json};

use super::{
    Error, Service,
    object_info::Boxes,
    preflight::{self, Checks, Refusal},
};

/// Names of boxes shown in one message.
const SHOWN_BOXES: usize = 8;
/// Things shown that one box lacks.
const SHOWN_LACKS: usize = 4;

/// What an endpoint's boxes can do, as a submit sees it.
#[derive(Debug, Clone)]
pub struct Places {
    /// What each box can do; empty until the first told.
    pub boxes: Arc<Boxes>,
    /// All of it together.
    pub union: Option<Arc<ObjectInfo>>,
    /// What callers are told that a box is called; those that are not here are called by their names.
    pub public_names: BTreeMap<String, String>,
    /// The endpoint runs the embedded engine.
    pub embedded: bool,
}

/// A graph that can run somewhere, and what it needs there.
#[derive(Debug)]
pub struct Placed {
    /// As the first box that takes it would run it.
    pub valid: Validated,
    /// What a box must have for it.
    pub needs: Needs,
}

impl Places {
    /// Checks a graph against each box, before its loader inputs are taken in.
    ///
    /// # Errors
    /// The refusal, where no box can run it: as ComfyUI words it if all of them together could not, else what each lacks.
    pub fn place(&self, graph: &Graph, targets: Option<&[NodeId]>) -> Result<Placed, Box<Refusal>> {
        if self.boxes.len() < 2 {
            let only = self.boxes.values().next().map(|b| &*b.info);
            let valid = preflight::check(graph, only, targets, self.embedded)?;
            let needs = only.map(|info| needs(&valid, info)).unwrap_or_default();
            return Ok(Placed { valid, needs });
        }
        // One that makes every output is better than one that would leave some out (`comfyui/behaviour.md` §3).
        let mut partly = None;
        for one in self.boxes.values() {
            let Ok(valid) = preflight::check(graph, Some(&one.info), targets, self.embedded) else {
                continue;
            };
            let complete = valid.node_errors.is_empty();
            let placed = Placed {
                needs: needs(&valid, &one.info),
                valid,
            };
            if complete {
                return Ok(placed);
            }
            partly.get_or_insert(placed);
        }
        match partly {
            Some(placed) => Ok(placed),
            None => Err(self.refusal(graph, targets)),
        }
    }

    /// Why no box can run a graph.
    fn refusal(&self, graph: &Graph, targets: Option<&[NodeId]>) -> Box<Refusal> {
        let union = self.union.as_deref();
        match preflight::check(graph, union, targets, self.embedded) {
            Err(mut refusal) => {
                self.say_where(graph, &mut refusal);
                refusal
            }
            Ok(valid) => {
                let needs = union.map(|info| needs(&valid, info)).unwrap_or_default();
                let lacking = self.lacking(&needs).into_iter();
                let lacking = lacking
                    .map(|(name, lacks)| (self.public_name(&name), lacks))
                    .collect();
                let mut refusal = Refusal::of_graph(
                    "no box of the endpoint can run this workflow alone",
                    sentence(&lacking),
                );
                refusal.error["extra_info"]["boxes"] = listed(&lacking);
                Box::new(refusal)
            }
        }
    }

    /// What each box lacks of what a graph needs, by its name.
    pub fn lacking<'a>(&self, needs: &'a Needs) -> BTreeMap<String, Vec<&'a Need>> {
        let boxes = self.boxes.iter();
        boxes
            .map(|(name, one)| (name.clone(), one.offers.lacks(needs)))
            .collect()
    }

    /// Adds to each near name of a refusal the boxes that have it.
    fn say_where(&self, graph: &Graph, refusal: &mut Refusal) {
        if let Some(names) = suggestions(&refusal.error) {
            let on = names.iter().map(|name| {
                let has = self.having(&Need::Class(name.clone()));
                (name.clone(), Value::from(has))
            });
            refusal.error["extra_info"]["suggestions_on"] = Value::Object(on.collect());
        }
        let nodes = refusal.node_errors.as_object_mut().into_iter().flatten();
        for (id, node) in nodes {
            let class = graph.get(id).map(|n| n.class_type.clone()).unwrap_or_default();
            let errors = node.get_mut("errors").and_then(Value::as_array_mut);
            for error in errors.into_iter().flatten() {
                let input = error.pointer("/extra_info/input_name").and_then(Value::as_str);
                let (Some(names), Some(input)) = (suggestions(error), input) else {
                    continue;
                };
                let on: Map<String, Value> = names
                    .iter()
                    .map(|name| {
                        let need = Need::Choice(class.clone(), input.to_owned(), name.clone());
                        (name.clone(), Value::from(self.having(&need)))
                    })
                    .collect();
                error["extra_info"]["suggestions_on"] = Value::Object(on);
            }
        }
    }

    fn having(&self, need: &Need) -> Vec<String> {
        let boxes = self.boxes.iter().filter(|(_, one)| one.offers.has(need));
        boxes.map(|(name, _)| self.public_name(name)).collect()
    }

    pub(super) fn public_name(&self, name: &str) -> String {
        self.public_names
            .get(name)
            .map_or_else(|| name.to_owned(), Clone::clone)
    }
}

impl Service {
    /// What a graph for this endpoint is checked against.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the store fails.
    pub async fn places(&self, endpoint: &darkroom_core::EndpointName) -> Result<Places, Error> {
        let configured = self.endpoint(endpoint)?;
        let boxes = self.boxes(endpoint).await?;
        let names = boxes.keys();
        let public_names = names.map(|name| (name.clone(), configured.public_box_name(name)));
        Ok(Places {
            public_names: public_names.collect(),
            boxes,
            union: self.object_info(endpoint).await?,
            embedded: configured.runs_embedded_engine(),
        })
    }

    /// What each box of its endpoint lacks for a job; a box with an empty list can run it. Empty where nothing is known.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lacking_for(
        &self,
        job: JobId,
        endpoint: &darkroom_core::EndpointName,
    ) -> Result<BTreeMap<String, Vec<Need>>, Error> {
        let needs = self.store.needs(job).await?;
        let places = self.places(endpoint).await?;
        let lacking = places.lacking(&needs).into_iter();
        Ok(lacking
            .map(|(name, lacks)| (name, lacks.into_iter().cloned().collect()))
            .collect())
    }
}

fn needs(valid: &Validated, info: &ObjectInfo) -> Needs {
    graph::needs(&valid.graph, &valid.outputs, info, &Checks)
}

fn suggestions(error: &Value) -> Option<Vec<String>> {
    let names = error.pointer("/extra_info/suggestions")?.as_array()?;
    Some(
        names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    )
}

/// `gpu-a lacks 'x.safetensors' (Loader.ckpt); gpu-b lacks node class 'Y'`.
fn sentence(lacking: &BTreeMap<String, Vec<&Need>>) -> String {
    let mut parts: Vec<String> = lacking
        .iter()
        .take(SHOWN_BOXES)
        .map(|(name, lacks)| {
            let shown: Vec<String> = lacks.iter().take(SHOWN_LACKS).map(ToString::to_string).collect();
            let more = match lacks.len().saturating_sub(SHOWN_LACKS) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            match shown.is_empty() {
                // Its version declares something else differently.
                true => format!("{name} refuses it"),
                false => format!("{name} lacks {}{more}", shown.join(", ")),
            }
        })
        .collect();
    if lacking.len() > SHOWN_BOXES {
        parts.push(format!("and {} more boxes", lacking.len() - SHOWN_BOXES));
    }
    parts.join("; ")
}

fn listed(lacking: &BTreeMap<String, Vec<&Need>>) -> Value {
    let of = |lacks: &Vec<&Need>| lacks.iter().map(|need| Value::from(need.to_string())).collect();
    let boxes = lacking
        .iter()
        .map(|(name, lacks)| (name.clone(), json!({ "lacks": Value::Array(of(lacks)) })));
    Value::Object(boxes.collect())
}

#[cfg(test)]
mod tests {
    use darkroom_core::Timestamp;

    use super::*;
    use crate::service::object_info::BoxAbilities;

    fn a_box(models: &[&str], more: &[&str]) -> Arc<BoxAbilities> {
        let mut info = json!({
            "Load": {"input": {"required": {"ckpt": [models, {}]}}, "output": ["MODEL"]},
            "Save": {"input": {"required": {"model": ["MODEL", {}]}}, "output": [], "output_node": true},
        });
        for class in more {
            info[*class] = json!({"input": {"required": {}}, "output": ["MODEL"]});
        }
        let info = ObjectInfo::parse(info).unwrap();
        Arc::new(BoxAbilities {
            offers: Arc::new(graph::offers(&info, &Checks)),
            info: Arc::new(info),
            learned_at: Timestamp::from_micros(0),
        })
    }

    fn places(boxes: &[(&str, Arc<BoxAbilities>)]) -> Places {
        let boxes: Boxes = boxes.iter().map(|(n, b)| ((*n).to_owned(), b.clone())).collect();
        let union = ObjectInfo::union(boxes.values().map(|b| &*b.info));
        Places {
            boxes: Arc::new(boxes),
            public_names: BTreeMap::new(),
            union: Some(Arc::new(union)),
            embedded: false,
        }
    }

    fn two() -> Places {
        let a = a_box(&["sdxl.safetensors"], &[]);
        places(&[("a", a), ("b", a_box(&["flux.safetensors"], &["Fancy"]))])
    }

    fn graph(model: &str, class: &str) -> Graph {
        Graph::parse(&json!({
            "1": {"class_type": "Load", "inputs": {"ckpt": model}},
            "2": {"class_type": "Save", "inputs": {"model": ["1", 0]}},
            "3": {"class_type": class, "inputs": {}},
        }))
        .unwrap_or_default()
    }

    #[test]
    fn a_graph_is_taken_if_one_box_can_run_it() {
        let places = two();
        for (model, class, where_) in [
            ("sdxl.safetensors", "Save2", None),
            ("flux.safetensors", "Fancy", Some("b")),
        ] {
            let Some(name) = where_ else {
                assert!(places.place(&graph(model, class), None).is_err());
                continue;
            };
            let placed = places.place(&graph(model, class), None).unwrap();
            let lacking = places.lacking(&placed.needs);
            let able: Vec<_> = lacking
                .iter()
                .filter(|(_, l)| l.is_empty())
                .map(|(n, _)| n.as_str())
                .collect();
            assert_eq!(able, [name]);
        }
    }

    #[test]
    fn what_no_box_can_run_alone_is_refused_with_what_each_lacks() {
        let refusal = two()
            .place(&graph("sdxl.safetensors", "Fancy"), None)
            .unwrap_err();
        assert_eq!(
            refusal.message(),
            "no box of the endpoint can run this workflow alone: a lacks node class 'Fancy'; b lacks \
             'sdxl.safetensors' (Load.ckpt)"
        );
        let boxes = &refusal.error["extra_info"]["boxes"];
        assert_eq!(boxes["a"]["lacks"], json!(["node class 'Fancy'"]));
    }

    #[test]
    fn what_no_box_has_is_refused_with_the_nearest_names_and_where_they_are() {
        let refusal = two().place(&graph("flux.safetensor", "Fancy"), None).unwrap_err();
        let error = &refusal.node_errors["1"]["errors"][0];
        assert_eq!(error["type"], "value_not_in_list");
        let on = &error["extra_info"]["suggestions_on"];
        assert_eq!(on["flux.safetensors"], json!(["b"]), "{error}");
        let refusal = two()
            .place(&graph("sdxl.safetensors", "Fancyy"), None)
            .unwrap_err();
        let extra = &refusal.error["extra_info"];
        assert_eq!(extra["suggestions_on"]["Fancy"], json!(["b"]));
    }

    #[test]
    fn one_box_answers_in_its_own_words() {
        let one = places(&[("a", a_box(&["sdxl.safetensors"], &[]))]);
        let refusal = one.place(&graph("flux.safetensors", "Save"), None).unwrap_err();
        assert_eq!(refusal.error["type"], "prompt_outputs_failed_validation");
        let unknown = Places {
            boxes: Arc::default(),
            public_names: BTreeMap::new(),
            union: None,
            embedded: false,
        };
        let placed = unknown.place(&graph("anything", "Odd"), None).unwrap();
        assert!(
            placed.needs.is_empty(),
            "nobody knows, the instance has the last word"
        );
    }
}

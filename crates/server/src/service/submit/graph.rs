//! The graph of a submit: from the caller's JSON to one that may run, and to the body that is stored. Work of the
//! processor alone; for large requests it happens beside the runtime.

use std::sync::Arc;

use darkroom_comfy::{
    graph::{Graph, NodeId, convert},
    object_info::ObjectInfo,
    progress::running_nodes,
};
use darkroom_core::{Ids, scheduler::Needs};
use darkroom_runner::link::{ComfyWork, InputFile};
use serde_json::{Map, Value, json};

use crate::service::{
    intake::given::{self, Loader},
    placement::{Placed, Places},
    preflight::Refusal,
};

/// A graph on its way from JSON to one that may run. All of it is work of the processor alone.
pub(super) struct Reading {
    pub(super) ids: Arc<dyn Ids>,
    pub(super) graph: Value,
    pub(super) targets: Option<Vec<String>>,
    pub(super) randomise_seeds: bool,
    pub(super) places: Places,
}

/// A graph that may run, and what its loaders name.
pub(super) struct Read {
    pub(super) graph: Graph,
    pub(super) outputs: Vec<NodeId>,
    pub(super) needs: Needs,
    pub(super) loaders: Vec<Loader>,
    /// Of outputs that were left out.
    pub(super) node_errors: Value,
    /// The editor's file that the graph was made of.
    pub(super) workflow: Option<Value>,
}

impl Reading {
    /// # Errors
    /// What is wrong with the graph.
    pub(super) fn read(self) -> Result<Read, Box<Refusal>> {
        let (graph, workflow) = match convert::is_ui_format(&self.graph) {
            true => {
                let info = self.places.union.as_deref();
                (in_api_format(&self.graph, info)?, Some(self.graph))
            }
            false => (self.graph, None),
        };
        let parsed = Graph::parse(&graph).map_err(|e| Box::new(Refusal::from(e)))?;
        drop(graph);
        let mut graph = parsed;
        if self.randomise_seeds {
            randomise_seeds(&mut graph, &*self.ids);
        }
        let targets: Option<Vec<NodeId>> = self
            .targets
            .as_ref()
            .map(|t| t.iter().map(|id| NodeId::new(id.as_str())).collect());
        let Placed { valid, needs } = self.places.place(&graph, targets.as_deref())?;
        drop(graph);
        let mut graph = valid.graph;
        Ok(Read {
            loaders: given::find(&mut graph),
            graph,
            outputs: valid.outputs,
            node_errors: json!(valid.node_errors),
            needs,
            workflow,
        })
    }
}

/// A job's body on its way to JSON, and what lists say of it.
pub(super) struct Writing {
    pub(super) graph: Graph,
    pub(super) outputs: Vec<NodeId>,
    pub(super) files: Vec<InputFile>,
    pub(super) extra_data: Map<String, Value>,
    pub(super) targets: Option<Vec<String>>,
}

/// A job's body, and what lists say of it.
pub(super) struct Written {
    pub(super) body: Vec<u8>,
    /// One line.
    pub(super) summary: String,
    /// That the graph loads.
    pub(super) models: Vec<String>,
    /// How many of its nodes run.
    pub(super) nodes: u32,
}

impl Writing {
    pub(super) fn write(mut self) -> Result<Written, serde_json::Error> {
        let (summary, models) = (summary(&self.graph, &self.outputs), models(&self.graph));
        // Within lists and objects the names stand already.
        for file in self.files.iter().filter(|file| file.nested.is_none()) {
            if let Some(node) = self.graph.nodes.get_mut(file.node_id.as_str()) {
                let name = Value::String(file.file_name.clone());
                node.inputs.insert(file.input.clone(), name);
            }
        }
        let work = ComfyWork {
            graph: self.graph.to_value(),
            extra_data: self.extra_data,
            partial_execution_targets: self.targets,
            outputs: self.outputs.iter().map(ToString::to_string).collect(),
            files: self.files,
        };
        let nodes = u32::try_from(running_nodes(&work.graph, &work.outputs).len()).unwrap_or(u32::MAX);
        Ok(Written {
            body: serde_json::to_vec(&work)?,
            summary,
            models,
            nodes,
        })
    }
}

/// A file of the editor as the page would send it.
fn in_api_format(file: &Value, info: Option<&ObjectInfo>) -> Result<Value, Box<Refusal>> {
    let refused = |details: String| Box::new(Refusal::of_graph("the workflow cannot be read", details));
    let Some(info) = info else {
        return Err(refused(
            "it is in the editor's own format, which leaves the names of values to the node classes, and no instance of \
             the endpoint has told yet which it has; run any workflow in API format first, or export this one with \
             \"Export (API)\""
                .to_owned(),
        ));
    };
    convert::to_api_format(file, info).map_err(|error| refused(error.to_string()))
}

/// Keeps the editor's file where its page keeps it, so that what is made of it can be opened there again.
pub(super) fn keep_workflow(extra_data: &mut Map<String, Value>, workflow: Value) {
    let extra = extra_data
        .entry("extra_pnginfo")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(extra) = extra {
        extra.entry("workflow").or_insert(workflow);
    }
}

/// The Serverless API's rule: exactly class `KSampler`, exactly −1, 0 to 2^32 inclusive.
fn randomise_seeds(graph: &mut Graph, ids: &dyn Ids) {
    for node in graph.nodes.values_mut().filter(|n| n.class_type == "KSampler") {
        if node.inputs.get("seed").and_then(Value::as_f64) == Some(-1.0) {
            let mut random = [0; 8];
            ids.fill(&mut random);
            let seed = u64::from_le_bytes(random) % ((1 << 32) + 1);
            node.inputs.insert("seed".to_owned(), Value::from(seed));
        }
    }
}

/// One line for lists: how large the graph is and what it makes.
fn summary(graph: &Graph, outputs: &[NodeId]) -> String {
    let mut makes: Vec<&str> = outputs
        .iter()
        .filter_map(|id| graph.get(id.as_str()))
        .map(|n| n.class_type.as_str())
        .collect();
    makes.dedup();
    makes.truncate(4);
    match makes.is_empty() {
        true => format!("{} nodes", graph.nodes.len()),
        false => format!("{} nodes -> {}", graph.nodes.len(), makes.join(", ")),
    }
}

/// Model files the graph names, so that slots which have them loaded are preferred.
fn models(graph: &Graph) -> Vec<String> {
    const LOADED_BY: &[&str] = &[
        "ckpt_name",
        "unet_name",
        "vae_name",
        "lora_name",
        "clip_name",
        "control_net_name",
    ];
    let mut names: Vec<String> = graph
        .nodes
        .values()
        .flat_map(|n| LOADED_BY.iter().filter_map(|key| n.inputs.get(*key)))
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(32);
    names
}

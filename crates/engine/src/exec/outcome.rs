//! How a prompt ended, in the words of history.

use darkroom_comfy::graph::Graph;
use serde_json::{Map, Value as Json, json};

use super::cache::Cache;

/// The parts of a history entry that execution decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Node id to what it showed, also what came from the cache.
    pub outputs: Map<String, Json>,
    /// Node id to where it belongs.
    pub meta: Map<String, Json>,
    /// `status_str`, `completed`, `messages`.
    pub status: Json,
}

impl Outcome {
    /// Collects what the graph's nodes have shown.
    pub(super) fn new(success: bool, messages: Vec<Json>, graph: &Graph, cache: &Cache) -> Outcome {
        let shown = graph
            .nodes
            .keys()
            .filter_map(|id| Some((id, cache.get(id)?.ui.as_ref()?)));
        let (mut outputs, mut meta) = (Map::new(), Map::new());
        for (id, ui) in shown {
            outputs.insert(id.as_str().to_owned(), Json::Object(ui.output.clone()));
            let node = &ui.node;
            let place =
                json!({"node_id": node, "display_node": node, "parent_node": null, "real_node_id": node});
            meta.insert(id.as_str().to_owned(), place);
        }
        let status = json!({
            "status_str": if success { "success" } else { "error" }, "completed": success, "messages": messages,
        });
        Outcome {
            outputs,
            meta,
            status,
        }
    }
}

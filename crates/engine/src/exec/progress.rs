//! How far each node of the running prompt is, as `progress_state` tells it.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicBool, Ordering},
};

use darkroom_comfy::graph::NodeId;
use indexmap::IndexMap;
use serde_json::{Value as Json, json};

use super::{Raised, report::Report};
use crate::nodes::call::{Preview, Progress};

/// Nodes in one message, the newest. The original sends all, which for a graph of 5 000 nodes is 8 GB in one run.
const MAX_SHOWN: usize = 64;

/// The nodes that were started or reported in this prompt, in that order.
pub struct ProgressTable<'a> {
    report: &'a Report<'a>,
    /// With each node's part of the message ready as text: every change sends all nodes.
    nodes: RefCell<IndexMap<NodeId, (Step, String)>>,
}

/// Numbers are kept as JSON: the original says `0.0` of `1.0` at the start and whole numbers where a node counts.
struct Step {
    value: Json,
    max: Json,
    state: &'static str,
}

/// One running node's view of the table.
pub struct NodeProgress<'a> {
    /// The table.
    pub table: &'a ProgressTable<'a>,
    /// Where messages go.
    pub report: &'a Report<'a>,
    /// The node.
    pub node: &'a NodeId,
    /// Set when the prompt should stop; cleared by whoever acts on it.
    pub interrupt: &'a AtomicBool,
}

impl<'a> ProgressTable<'a> {
    /// An empty table.
    pub fn new(report: &'a Report<'a>) -> Self {
        ProgressTable {
            report,
            nodes: RefCell::default(),
        }
    }

    /// A node begins.
    pub fn start(&self, id: &NodeId) {
        self.set(
            id,
            Step {
                value: json!(0.0),
                max: json!(1.0),
                state: "running",
            },
        );
    }

    /// A node ended, or its result was there already.
    pub fn finish(&self, id: &NodeId) {
        let max = self
            .nodes
            .borrow()
            .get(id)
            .map_or(json!(1), |(step, _)| step.max.clone());
        self.set(
            id,
            Step {
                value: max.clone(),
                max,
                state: "finished",
            },
        );
    }

    fn set(&self, id: &NodeId, step: Step) {
        let Step { value, max, state } = &step;
        let entry = json!({
            "value": value, "max": max, "state": state, "node_id": id, "prompt_id": self.report.prompt_id(),
            "display_node_id": id, "parent_node_id": null, "real_node_id": id,
        });
        let text = format!("{}:{entry}", json!(id));
        let mut nodes = self.nodes.borrow_mut();
        nodes.insert(id.clone(), (step, text));
        let shown = nodes.values().skip(nodes.len().saturating_sub(MAX_SHOWN));
        self.report.progress_state(shown.map(|(_, text)| text.as_str()));
    }
}

impl NodeProgress<'_> {
    fn count(&self, value: u64, max: u64) {
        self.table.set(
            self.node,
            Step {
                value: json!(value),
                max: json!(max),
                state: "running",
            },
        );
    }
}

impl Progress for NodeProgress<'_> {
    fn update(&self, value: u64, max: u64, preview: Option<Preview<'_>>) -> Result<(), Raised> {
        self.check()?;
        self.count(value, max);
        // A client that understands metadata gets the preview before the count, any other after it.
        let metadata = self.report.wants_preview_metadata();
        if let (Some(preview), true) = (preview, metadata) {
            self.report.preview_with_metadata(self.node, preview);
        }
        self.report.progress(self.node, value, max);
        if let (Some(preview), false) = (preview, metadata) {
            self.report.preview(preview);
        }
        Ok(())
    }

    fn text(&self, text: &str) {
        self.report.text(self.node, text);
    }

    fn report(&self, value: u64, max: u64) {
        self.count(value, max);
        self.report.progress(self.node, value, max);
    }

    fn check(&self) -> Result<(), Raised> {
        if self.interrupt.swap(false, Ordering::SeqCst) {
            Err(Raised::Interrupted)
        } else {
            Ok(())
        }
    }
}

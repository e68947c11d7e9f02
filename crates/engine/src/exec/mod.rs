//! Running one prompt after another: ComfyUI's order, caching, messages and failures.
//!
//! Knows nothing of HTTP. [`Executor::execute`] is the way in; [`schedule`] decides what runs next and
//! [`cache`] what need not run.

mod cache;
mod inputs;
mod outcome;
mod progress;
mod raised;
mod report;
mod schedule;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use darkroom_comfy::graph::{Graph, NodeId};
use indexmap::IndexSet;
use serde_json::{Map, Value as Json};

pub use inputs::Lists;
pub use outcome::Outcome;
pub use raised::Raised;

use crate::{
    hub::Hub,
    nodes::call::{Call, Host, NodeObject, Output},
    registry::{self, Registry},
    value::Value,
};
use cache::{Cache, Entry, Ui};
use progress::{NodeProgress, ProgressTable};
use report::Report;
use schedule::Schedule;

/// What a client asked for.
#[derive(Debug)]
pub struct Prompt {
    /// The client's id for it, or ours.
    pub id: String,
    /// The graph, validated and converted.
    pub graph: Graph,
    /// What came with it; `client_id` names who is told.
    pub extra_data: Map<String, Json>,
    /// The output nodes to run.
    pub outputs: Vec<NodeId>,
}

impl Prompt {
    /// Who is told; any JSON is accepted as a name, only texts are ever connected.
    pub fn client_id(&self) -> Option<String> {
        match self.extra_data.get("client_id")? {
            Json::String(id) => Some(id.clone()),
            Json::Null => None,
            other => Some(other.to_string()),
        }
    }
}

/// Executes prompts one at a time and keeps what may be reused by the next.
pub struct Executor {
    host: Arc<Host>,
    registry: Arc<Registry>,
    cache: Cache,
    objects: HashMap<(NodeId, String), NodeObject>,
}

/// Why a prompt stopped.
struct Failure {
    node: NodeId,
    raised: Raised,
    inputs: Map<String, Json>,
    /// The nodes that ran before.
    executed: IndexSet<NodeId>,
}

/// One prompt while it runs.
struct Run<'a> {
    prompt: &'a Prompt,
    /// The prompt's graph with `is_changed` noted.
    graph: &'a Graph,
    report: &'a Report<'a>,
    table: &'a ProgressTable<'a>,
    interrupt: &'a AtomicBool,
}

impl Executor {
    /// An executor with an empty cache.
    pub fn new(host: Arc<Host>, registry: Arc<Registry>) -> Executor {
        Executor {
            host,
            registry,
            cache: Cache::default(),
            objects: HashMap::new(),
        }
    }

    /// Forgets all results, as `/free` asks.
    pub fn forget(&mut self) {
        self.cache = Cache::default();
        self.objects.clear();
    }

    /// Runs a prompt to its end and tells its client. `None` means that the worker must end without a word.
    pub fn execute(&mut self, prompt: &Prompt, hub: &Hub, interrupt: &AtomicBool) -> Option<Outcome> {
        interrupt.store(false, Ordering::SeqCst);
        let client = prompt.client_id();
        hub.set_current_client(client.as_deref());
        let host = Arc::clone(&self.host);
        let report = Report::new(hub, &*host.clock, &prompt.id, client);
        report.start();
        let mut graph = prompt.graph.clone();
        self.prepare(&mut graph, &prompt.outputs);
        let cached: Vec<&NodeId> = graph.nodes.keys().filter(|id| self.cache.has(id)).collect();
        report.cached(&cached);
        let table = ProgressTable::new(&report);
        let run = Run {
            prompt,
            graph: &graph,
            report: &report,
            table: &table,
            interrupt,
        };
        let failure = self.run_all(&run).err();
        match &failure {
            None => report.success(),
            Some(failure) if failure.raised == Raised::WorkerGone => {
                // What Python prints when its worker thread dies of an exception; servers look for it.
                eprintln!("Exception in thread Thread-1 (prompt_worker):");
                return None;
            }
            Some(failure) => {
                let class = graph
                    .get(failure.node.as_str())
                    .map(|n| n.class_type.as_str())
                    .unwrap_or_default();
                report.failure(failure, class, graph.nodes.keys());
            }
        }
        hub.set_current_node(None);
        Some(Outcome::new(
            failure.is_none(),
            report.into_messages(),
            &graph,
            &self.cache,
        ))
    }

    /// Computes every node's cache key, notes `is_changed` in the graph, and drops what the graph does not use.
    fn prepare(&mut self, graph: &mut Graph, outputs: &[NodeId]) {
        let mut fingerprints: HashMap<NodeId, Option<String>> = HashMap::new();
        for (id, node) in &mut graph.nodes {
            let Some(fingerprint) = self
                .registry
                .kind(&node.class_type)
                .and_then(|kind| kind.fingerprint)
            else {
                continue;
            };
            let value = fingerprint(&inputs::literals(node), &self.host.directories);
            if let Some(value) = &value {
                node.extra
                    .insert("is_changed".into(), Json::from(vec![value.clone()]));
            }
            fingerprints.insert(id.clone(), value);
        }
        self.cache.enter(graph, outputs, &fingerprints);
        self.objects.retain(|(id, class), _| {
            graph
                .get(id.as_str())
                .is_some_and(|node| node.class_type == *class)
        });
    }

    fn run_all(&mut self, run: &Run<'_>) -> Result<(), Box<Failure>> {
        let Run {
            prompt,
            graph,
            report,
            table,
            ..
        } = run;
        let info = Arc::clone(self.registry.info());
        let is_output = |class: &str| info.get(class).is_some_and(|class| class.output_node);
        let mut schedule = Schedule::new(graph, &prompt.outputs, |id| self.cache.has(id), is_output);
        let mut executed = IndexSet::new();
        while let Some(id) = schedule.next() {
            if let Some(ui) = self.cache.get(&id).map(|entry| entry.ui.clone()) {
                report.executed(&id, ui.as_deref().map(|ui| &ui.output));
                table.finish(&id);
            } else {
                match self.run_node(run, &id) {
                    Ok(entry) => self.cache.put(&id, entry),
                    Err(failure) => return Err(Box::new(Failure { executed, ..*failure })),
                }
                table.finish(&id);
                executed.insert(id.clone());
            }
            schedule.done(&id);
        }
        Ok(())
    }

    fn run_node(&mut self, run: &Run<'_>, id: &NodeId) -> Result<Entry, Box<Failure>> {
        let Run {
            prompt,
            graph,
            report,
            table,
            interrupt,
        } = *run;
        let fail = |raised, inputs| {
            Box::new(Failure {
                node: id.clone(),
                raised,
                inputs,
                executed: IndexSet::new(),
            })
        };
        table.start(id);
        report.executing(id);
        let (Some(node), Some(kind)) = (
            graph.get(id.as_str()),
            graph
                .get(id.as_str())
                .and_then(|node| self.registry.kind(&node.class_type)),
        ) else {
            return Err(fail(
                Raised::new("KeyError", "the node or its class does not exist"),
                Map::new(),
            ));
        };
        let info = self.registry.info();
        let lists = inputs::resolve(node, info.get(&node.class_type), |link| self.cache.slot(link));
        let object = self
            .objects
            .entry((id.clone(), node.class_type.clone()))
            .or_default();
        let progress = NodeProgress {
            table,
            report,
            node: id,
            interrupt,
        };
        let slots = info.get(&node.class_type).map_or(0, |class| class.output.len());
        let mut outputs: Vec<Vec<Value>> = vec![Vec::new(); slots];
        let mut shown: Option<Map<String, Json>> = None;
        for inputs in inputs::calls(&lists, kind.takes_lists) {
            let call = Call {
                node: id.as_str(),
                inputs: &inputs,
                lists: &lists,
                graph,
                extra_data: &prompt.extra_data,
                host: &self.host,
                progress: &progress,
                object,
            };
            let result = call.progress.check().and_then(|()| registry::run(kind, &call));
            let Output { values, ui } = result.map_err(|raised| {
                let mut shown = inputs::shown(&lists);
                inputs::show_hidden(info.get(&node.class_type), graph, &prompt.extra_data, &mut shown);
                fail(raised, shown)
            })?;
            for (slot, values) in outputs.iter_mut().zip(values) {
                slot.extend(values);
            }
            merge(&mut shown, ui);
        }
        let ui = shown.map(|output| {
            Arc::new(Ui {
                node: id.clone(),
                output,
            })
        });
        if let Some(ui) = &ui {
            report.executed(id, Some(&ui.output));
        }
        Ok(Entry {
            outputs: Arc::new(outputs),
            ui,
        })
    }
}

/// What the calls over a list show is joined kind by kind.
fn merge(shown: &mut Option<Map<String, Json>>, ui: Option<Map<String, Json>>) {
    let Some(ui) = ui else { return };
    let shown = shown.get_or_insert_default();
    for (kind, items) in ui {
        match (shown.get_mut(&kind), items) {
            (Some(Json::Array(all)), Json::Array(items)) => all.extend(items),
            (_, items) => {
                shown.insert(kind, items);
            }
        }
    }
}

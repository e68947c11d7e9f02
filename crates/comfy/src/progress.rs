//! How far a run is, from what its instance says: nodes that are done, and the steps of those that run
//! (`protocols/comfy-v2.md` §4).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

/// How far a run is. Complete: whoever has one needs none before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// 0 to 1; never less than it was before in the same [`Tally`].
    pub value: f64,
    /// Nodes that are done, cached ones too.
    pub nodes_done: u32,
    /// Nodes of the graph that run.
    pub nodes_total: u32,
    /// The node that runs.
    pub node: Option<String>,
    /// Its class.
    pub class: Option<String>,
    /// Its step, and of how many.
    pub steps: Option<(i64, i64)>,
}

/// Counts along one run.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Class by id; shared, so that a copy of a count is small.
    nodes: Arc<BTreeMap<String, String>>,
    done: BTreeSet<String>,
    /// Step and steps of nodes that told any.
    steps: BTreeMap<String, (f64, f64)>,
    current: Option<String>,
    most: f64,
}

impl Tally {
    /// Of a graph in API format, with the output nodes that run; none of those: all of it does.
    pub fn new(graph: &Value, outputs: &[String]) -> Self {
        Tally {
            nodes: Arc::new(running_nodes(graph, outputs)),
            ..Tally::default()
        }
    }

    /// A durable message of the instance; other kinds are let pass.
    pub fn take(&mut self, kind: &str, data: &Value) {
        match kind {
            "execution_start" => self.begin(),
            "execution_cached" => {
                let ids = data["nodes"].as_array().into_iter().flatten();
                self.done
                    .extend(ids.filter_map(|id| id.as_str().map(str::to_owned)));
            }
            "executing" => {
                let next = data["node"].as_str().map(str::to_owned);
                let before = std::mem::replace(&mut self.current, next);
                // The same node again is one that waited for what it expanded to.
                self.done
                    .extend(before.filter(|node| Some(node) != self.current.as_ref()));
            }
            "executed" => self.done.extend(data["node"].as_str().map(str::to_owned)),
            "execution_success" => self.done.extend(self.nodes.keys().cloned()),
            _ => {}
        }
    }

    /// A `progress` or `progress_state` message, as `{type, data}`.
    pub fn hear(&mut self, message: &Value) {
        let data = &message["data"];
        match data["nodes"].as_object() {
            Some(nodes) => {
                for (id, node) in nodes {
                    match node["state"].as_str() {
                        Some("finished") => drop(self.done.insert(id.clone())),
                        Some("running") => {
                            self.current = Some(id.clone());
                            self.step(id, node);
                        }
                        _ => {}
                    }
                }
            }
            None => {
                if let Some(id) = data["node"].as_str() {
                    self.current = Some(id.to_owned());
                    self.step(id, data);
                }
            }
        }
    }

    /// How far it is now.
    pub fn progress(&mut self) -> Progress {
        let total = self.nodes.len();
        let done = self.nodes.keys().filter(|id| self.done.contains(*id)).count();
        let under_way = self.steps.iter().filter(|(id, _)| self.is_open(id));
        let share: f64 = under_way.map(|(_, (step, steps))| step / steps).sum();
        let value = (done as f64 + share) / total.max(1) as f64;
        self.most = self.most.max(value).min(1.0);
        let node = self.current.clone().filter(|id| !self.done.contains(id));
        Progress {
            value: self.most,
            nodes_done: u32::try_from(done).unwrap_or(u32::MAX),
            nodes_total: u32::try_from(total).unwrap_or(u32::MAX),
            class: node.as_ref().and_then(|id| self.nodes.get(id).cloned()),
            steps: node
                .as_ref()
                .and_then(|id| self.steps.get(id))
                .map(|(step, steps)| (step.round() as i64, steps.round() as i64)),
            node,
        }
    }

    /// Another attempt begins; what was shown already is not taken back.
    fn begin(&mut self) {
        self.progress();
        self.done.clear();
        self.steps.clear();
        self.current = None;
    }

    fn is_open(&self, id: &str) -> bool {
        self.nodes.contains_key(id) && !self.done.contains(id)
    }

    fn step(&mut self, id: &str, of: &Value) {
        if let (Some(step), Some(steps)) = (of["value"].as_f64(), of["max"].as_f64())
            && steps > 0.0
        {
            self.steps.insert(id.to_owned(), (step.clamp(0.0, steps), steps));
        }
    }
}

/// The nodes that these outputs need, with their classes; without any outputs, all of the graph.
pub fn running_nodes(graph: &Value, outputs: &[String]) -> BTreeMap<String, String> {
    let empty = serde_json::Map::new();
    let graph = graph.as_object().unwrap_or(&empty);
    let mut open: Vec<&str> = match outputs.is_empty() {
        true => graph.keys().map(String::as_str).collect(),
        false => outputs.iter().map(String::as_str).collect(),
    };
    let mut found = BTreeMap::new();
    while let Some(id) = open.pop() {
        let Some(node) = graph.get(id).filter(|_| !found.contains_key(id)) else {
            continue;
        };
        let class = node["class_type"].as_str().unwrap_or_default();
        found.insert(id.to_owned(), class.to_owned());
        let inputs = node["inputs"].as_object().into_iter().flatten();
        open.extend(
            inputs.filter_map(|(_, input)| match input.as_array()?.as_slice() {
                [from, slot] if slot.is_number() => from.as_str(),
                _ => None,
            }),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn graph() -> Value {
        json!({
            "1": {"class_type": "Load", "inputs": {"name": "x"}},
            "2": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "list": ["1", "not a link"]}},
            "3": {"class_type": "Save", "inputs": {"images": ["2", 0]}},
            "8": {"class_type": "Load", "inputs": {}},
        })
    }

    #[test]
    fn only_what_the_outputs_need_counts() {
        let ids = |outputs: &[String]| running_nodes(&graph(), outputs).into_keys().collect::<Vec<_>>();
        assert_eq!(ids(&["3".to_owned()]), ["1", "2", "3"]);
        assert_eq!(ids(&[]), ["1", "2", "3", "8"]);
        assert_eq!(ids(&["no such".to_owned()]), Vec::<String>::new());
        assert_eq!(running_nodes(&json!([1]), &[]), BTreeMap::new());
    }

    #[test]
    fn nodes_that_are_done_and_steps_of_the_running_one_count() {
        let mut tally = Tally::new(&graph(), &["3".to_owned()]);
        assert_eq!(tally.progress().value, 0.0);
        tally.take("execution_cached", &json!({"nodes": ["1", "of another graph"]}));
        tally.take("executing", &json!({"node": "2"}));
        tally.hear(&json!({"type": "progress", "data": {"node": "2", "value": 21, "max": 42}}));
        assert_eq!(
            tally.progress(),
            Progress {
                value: 0.5,
                nodes_done: 1,
                nodes_total: 3,
                node: Some("2".to_owned()),
                class: Some("KSampler".to_owned()),
                steps: Some((21, 42)),
            }
        );
        tally.hear(&json!({"type": "progress_state", "data": {"nodes": {
            "2": {"state": "finished", "value": 42, "max": 42}, "3": {"state": "running", "value": 0, "max": 1}}}}));
        let now = tally.progress();
        assert_eq!(
            (now.nodes_done, now.node.as_deref(), now.steps),
            (2, Some("3"), Some((0, 1)))
        );
        tally.take("execution_success", &json!({}));
        let end = tally.progress();
        assert_eq!((end.value, end.nodes_done, end.node), (1.0, 3, None));
    }

    #[test]
    fn another_attempt_takes_nothing_back() {
        let mut tally = Tally::new(&graph(), &["3".to_owned()]);
        tally.take("execution_cached", &json!({"nodes": ["1", "2"]}));
        tally.take("execution_start", &json!({}));
        let now = tally.progress();
        assert_eq!((now.nodes_done, now.value), (0, 2.0 / 3.0));
    }

    #[test]
    fn nonsense_is_no_progress() {
        let mut tally = Tally::new(&json!({}), &[]);
        for message in [
            json!(null),
            json!({"data": {"node": "1", "value": "x", "max": 0}}),
            json!({"data": {"nodes": {"1": 3}}}),
        ] {
            tally.hear(&message);
            tally.take("executing", &message);
        }
        assert_eq!(tally.progress().value, 0.0);
        let mut tally = Tally::new(&graph(), &[]);
        tally.hear(&json!({"data": {"node": "2", "value": 9, "max": 3}}));
        assert_eq!(tally.progress().value, 0.25, "a step beyond the last is the last");
    }
}

//! A graph that is to be published, looked at: converted, declared, and checked against what the endpoint's boxes can do.

use darkroom_comfy::{
    graph::{Graph, InputValue, convert},
    object_info::ObjectInfo,
    published::{Declared, Finding, Published, declare},
};
use darkroom_core::TenantId;
use serde_json::{Value, json};

use super::{Actor, Definition, Denied, Publication, WorkflowKey, check_texts};
use crate::{
    beside::beside,
    service::{
        Error, Service,
        folders::{Folder, split_annotation},
        intake::given::{self, Given},
        missing::{self, BoxCheck, Missing},
        placement::Places,
        preflight::{self, Refusal},
    },
};

/// Findings told at once.
pub(super) const MAX_FINDINGS: usize = 50;
/// Outputs of a class that stands in for one that is missing.
const MAX_OUTPUTS: usize = 256;

/// What was found out about a publication.
#[derive(Debug)]
pub struct Checked {
    /// What would be published; `None` where it could not even be read.
    pub definition: Option<Definition>,
    /// What is to be said of it, mistakes first.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// What may be published: nothing where a finding is an error.
    pub fn good(self) -> Result<(Definition, Vec<Finding>), Vec<Finding>> {
        match self.definition {
            Some(definition) if !self.findings.iter().any(Finding::is_error) => {
                Ok((definition, self.findings))
            }
            Some(_) | None => Err(self.findings),
        }
    }
}

impl Service {
    /// What would become of a publication, and what is to be said of it; nothing is published.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown endpoint, [`Denied`], or when the store fails.
    pub async fn try_publication(
        &self,
        actor: &Actor,
        key: &WorkflowKey,
        publication: &Publication,
        size: usize,
    ) -> Result<Checked, Denied> {
        self.own_or_new(actor, key, &publication.endpoint).await?;
        Ok(self.check_publication(&key.tenant, publication, size).await?)
    }

    /// The check that whatever is published, drafted or brought in goes through.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown endpoint, [`Error::Invalid`] for one that runs no workflows, or when the store
    /// fails.
    pub(super) async fn check_publication(
        &self,
        tenant: &TenantId,
        publication: &Publication,
        size: usize,
    ) -> Result<Checked, Error> {
        check_texts(&[&publication.description])?;
        let endpoint = self.endpoint(&publication.endpoint)?;
        if endpoint.kind != darkroom_core::endpoint::Kind::Comfyui {
            return Err(Error::Invalid(format!(
                "endpoint '{}' does not take ComfyUI workflows",
                endpoint.name
            )));
        }
        let places = self.places(&publication.endpoint).await?;
        let wanted = publication.clone();
        // The editor's files may spread out to large graphs.
        let size = match convert::is_ui_format(&publication.graph) {
            true => usize::MAX,
            false => size,
        };
        let mut checked = beside(size, move || look(wanted, &places)).await;
        if let Some(definition) = &mut checked.definition {
            self.look_for_files(tenant, publication, definition, &mut checked.findings)
                .await?;
        }
        checked.findings.sort_by_key(|finding| !finding.is_error());
        checked.findings.truncate(MAX_FINDINGS);
        Ok(checked)
    }

    /// Files that the graph's loaders name: one that a caller may bring may be missing.
    async fn look_for_files(
        &self,
        tenant: &TenantId,
        publication: &Publication,
        definition: &mut Definition,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let Ok(mut graph) = Graph::parse(&definition.published.graph) else {
            return Ok(());
        };
        let info = self.object_info(&publication.endpoint).await?;
        for loader in given::find(&mut graph) {
            let Given::Name(name) = &loader.given else {
                continue;
            };
            let (bare, folder) = split_annotation(name);
            // What a job made may come and go.
            if matches!(folder, Some(Folder::Output | Folder::Temp)) {
                continue;
            }
            let spec = info
                .as_ref()
                .and_then(|i| i.get(loader.class))
                .and_then(|c| c.input(loader.input));
            let offered = spec
                .and_then(|s| s.choices())
                .is_some_and(|c| c.iter().any(|v| v.as_str() == Some(bare)));
            if offered
                || self
                    .uploaded(tenant, &publication.endpoint, bare)
                    .await?
                    .is_some()
            {
                continue;
            }
            let declared = definition.published.inputs.iter_mut();
            let mut of_it =
                declared.filter(|input| input.node == loader.node_id && input.field == loader.input);
            match of_it.next() {
                Some(input) => {
                    let wish = publication.inputs.iter().find(|wish| wish.name == input.name);
                    let said = wish.and_then(|wish| wish.required);
                    input.required = said.unwrap_or(true);
                    input.default = None;
                    let then = match input.required {
                        true => "every call must bring its own",
                        false => "calls that bring none will be refused",
                    };
                    let message = format!(
                        "the default file '{name:.100}' of input '{}' is not there: {then}",
                        input.name
                    );
                    let finding = Finding::warning("missing_default_file", message);
                    findings.push(finding.at(&loader.node_id, Some(loader.input)));
                }
                None => {
                    let message = format!(
                        "node {} ({}) loads the file '{name:.100}', which is not there: upload it to the endpoint, or publish \
                         it as an input",
                        loader.node_id, loader.class
                    );
                    findings.push(
                        Finding::error("missing_file", message).at(&loader.node_id, Some(loader.input)),
                    );
                }
            }
        }
        Ok(())
    }
}

fn refused(finding: Finding) -> Checked {
    Checked {
        definition: None,
        findings: vec![finding],
    }
}

/// All that takes the processor alone.
fn look(publication: Publication, places: &Places) -> Checked {
    let union = places.union.as_deref();
    let (graph, workflow) = match (convert::is_ui_format(&publication.graph), union) {
        (false, _) => (publication.graph, None),
        (true, Some(info)) => match convert::to_api_format(&publication.graph, info) {
            Ok(graph) => (graph, Some(publication.graph)),
            Err(error) => return refused(Finding::error("cannot_convert", error.to_string())),
        },
        (true, None) => {
            let message = "the workflow is in the editor's own format, which leaves the names of values to the node classes, \
                           and no instance of the endpoint has told yet which it has; run any workflow there first, or \
                           export this one with \"Export (API)\"";
            return refused(Finding::error("cannot_convert", message));
        }
    };
    let parsed = match Graph::parse(&graph) {
        Ok(parsed) if parsed.nodes.is_empty() => {
            return refused(Finding::error("invalid_graph", "the workflow has no nodes"));
        }
        Ok(parsed) => parsed,
        Err(error) => return refused(Finding::error("invalid_graph", error.to_string())),
    };
    let Declared {
        inputs,
        outputs,
        seeds,
        mut findings,
    } = declare(&parsed, union, &publication.inputs, &publication.outputs);
    let mut published = Published {
        graph,
        inputs,
        outputs,
        seeds,
    };
    put_defaults(&mut published);
    match Graph::parse(&published.graph) {
        Ok(graph) => findings.extend(runs(&graph, places)),
        Err(error) => findings.push(Finding::error("invalid_graph", error.to_string())),
    }
    let definition = Definition {
        description: publication.description,
        published,
        workflow,
        unchecked: places.boxes.is_empty(),
    };
    Checked {
        definition: Some(definition),
        findings,
    }
}

/// The graph as it runs for a caller who says nothing.
fn put_defaults(published: &mut Published) {
    for input in &published.inputs {
        let inputs = published
            .graph
            .get_mut(&input.node)
            .and_then(|node| node.get_mut("inputs"));
        if let (Some(default), Some(Value::Object(inputs))) = (&input.default, inputs) {
            inputs.insert(input.field.clone(), default.clone());
        }
    }
}

/// Whether some box can run it; if not, what each lacks, and what else is wrong.
fn runs(graph: &Graph, places: &Places) -> Vec<Finding> {
    let refusal = match places.place(graph, None) {
        Ok(_) if places.boxes.is_empty() => {
            let message = "no instance of the endpoint has told yet what it can do: nodes, models and types are not checked \
                           now, but by the first call after one has told";
            return vec![Finding::warning("not_checked", message)];
        }
        // Outputs that would be left out while others are made are mistakes of who publishes.
        Ok(placed) => return of_nodes(&json!(placed.valid.node_errors)),
        Err(refusal) => refusal,
    };
    let mut boxes = missing::on_each_box(graph, places);
    boxes
        .iter_mut()
        .for_each(|one| one.rename(|name| places.public_name(name)));
    let mut findings = lacks(&boxes);
    if findings.is_empty() {
        return mistakes(&refusal);
    }
    findings.extend(besides(graph, places, &boxes));
    findings
}

/// What is wrong besides what is missing. ComfyUI looks no further than the first class that it does not know; here, classes
/// that nobody has are stood in for by ones that take and give anything.
fn besides(graph: &Graph, places: &Places, boxes: &[BoxCheck]) -> Vec<Finding> {
    let union = places.union.as_deref();
    let mut classes = indexmap::IndexMap::new();
    for node in graph.nodes.values() {
        let known = union.and_then(|info| info.get(&node.class_type));
        classes.insert(node.class_type.clone(), known.cloned().unwrap_or_default());
    }
    for (id, node) in &graph.nodes {
        if union.is_some_and(|info| info.get(&node.class_type).is_some()) {
            continue;
        }
        let Some(stand_in) = classes.get_mut(&node.class_type) else {
            continue;
        };
        let slots = graph.nodes.values().flat_map(|other| other.inputs.values());
        let slots = slots.filter_map(|value| match InputValue::classify(value) {
            InputValue::Link(link) if link.node == id.as_str() => Some(link.slot.saturating_add(1)),
            _ => None,
        });
        match slots.max() {
            Some(outputs) => {
                let outputs = outputs.min(MAX_OUTPUTS).max(stand_in.output.len());
                stand_in.output.resize(outputs, json!("*"));
            }
            None => stand_in.output_node = true,
        }
    }
    let info = ObjectInfo { classes };
    let node_errors = match preflight::check(graph, Some(&info), None, false) {
        Ok(valid) => json!(valid.node_errors),
        Err(refusal) => refusal.node_errors,
    };
    let told = |finding: &Finding| {
        boxes.iter().flat_map(|one| &one.missing).any(|lack| {
            lack.input == finding.field
                && finding
                    .node
                    .as_ref()
                    .is_some_and(|node| lack.nodes.contains(node))
        })
    };
    of_nodes(&node_errors)
        .into_iter()
        .filter(|finding| !told(finding))
        .collect()
}

/// What no box has, once each.
fn lacks(boxes: &[BoxCheck]) -> Vec<Finding> {
    let Some(first) = boxes.first() else {
        return Vec::new();
    };
    let same = |a: &Missing, b: &Missing| (&a.class, &a.input, &a.value) == (&b.class, &b.input, &b.value);
    let nowhere = first.missing.iter().filter(|lack| {
        boxes
            .iter()
            .all(|other| other.missing.iter().any(|there| same(lack, there)))
    });
    let found: Vec<Finding> = nowhere.map(finding).collect();
    if !found.is_empty() {
        return found;
    }
    // Each box has a part of it.
    let each = boxes.iter().filter(|one| !one.missing.is_empty());
    each.map(|one| {
        let names: Vec<&str> = one
            .missing
            .iter()
            .map(|m| m.value.as_deref().unwrap_or(&m.class))
            .collect();
        let message = format!("box {} lacks {}", one.name, names.join(", "));
        Finding::error("no_box", message)
    })
    .collect()
}

fn finding(lack: &Missing) -> Finding {
    let nodes = lack.nodes.join(", ");
    let node = lack.nodes.first().map_or("", String::as_str);
    match (&lack.input, &lack.value) {
        (Some(input), Some(value)) => {
            let message = format!(
                "'{value}' is not there (input {input} of {}, node {nodes})",
                lack.class
            );
            Finding::error("missing_model", message)
                .at(node, Some(input))
                .near(lack.nearest.clone())
        }
        _ => {
            let message = format!("node class {} is not there (node {nodes})", lack.class);
            Finding::error("missing_node", message)
                .at(node, None)
                .near(lack.nearest.clone())
        }
    }
}

/// ComfyUI's refusal, a finding per mistake.
fn mistakes(refusal: &Refusal) -> Vec<Finding> {
    match of_nodes(&refusal.node_errors) {
        found if !found.is_empty() => found,
        _ => vec![Finding::error("invalid_graph", refusal.message())],
    }
}

fn of_nodes(node_errors: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    for (id, node) in node_errors.as_object().into_iter().flatten() {
        let class = node["class_type"].as_str().unwrap_or("?");
        for error in node["errors"].as_array().into_iter().flatten() {
            let field = error.pointer("/extra_info/input_name").and_then(Value::as_str);
            let text = |key: &str| error[key].as_str().unwrap_or_default();
            let message = format!("node {id} ({class}): {}: {}", text("message"), text("details"));
            let near = error.pointer("/extra_info/suggestions").and_then(Value::as_array);
            let near = near
                .into_iter()
                .flatten()
                .filter_map(|n| n.as_str().map(str::to_owned))
                .collect();
            found.push(Finding::error("invalid_graph", message).at(id, field).near(near));
        }
    }
    found
}

//! A graph that is to be published, looked at: converted, declared, and checked against what the endpoint's boxes can do.

use darkroom_comfy::{
    graph::{Graph, convert},
    published::{Declared, Finding, Published, declare},
};
use darkroom_core::TenantId;
use serde_json::Value;

use super::{Definition, Publication};
use crate::{
    beside::beside,
    service::{
        Error, Service,
        folders::{Folder, split_annotation},
        intake::given::{self, Given},
        missing::{self, BoxCheck, Missing},
        placement::Places,
        preflight::Refusal,
    },
};

/// Findings told at once.
const MAX_FINDINGS: usize = 50;

impl Service {
    /// What would become of a publication, and what is to be said of it. Without a definition some findings are errors.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown endpoint, or when the store fails.
    pub async fn check_publication(
        &self,
        tenant: &TenantId,
        publication: &Publication,
        size: usize,
    ) -> Result<(Option<Definition>, Vec<Finding>), Error> {
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
        let mut looked = beside(size, move || look(wanted, &places)).await;
        if let Some(definition) = &mut looked.definition {
            self.look_for_files(tenant, publication, definition, &mut looked.findings)
                .await?;
        }
        looked.findings.sort_by_key(|finding| !finding.is_error());
        looked.findings.truncate(MAX_FINDINGS);
        let refused = looked.findings.iter().any(Finding::is_error);
        Ok((looked.definition.filter(|_| !refused), looked.findings))
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

struct Looked {
    definition: Option<Definition>,
    findings: Vec<Finding>,
}

fn refused(finding: Finding) -> Looked {
    Looked {
        definition: None,
        findings: vec![finding],
    }
}

/// All that takes the processor alone.
fn look(publication: Publication, places: &Places) -> Looked {
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
    };
    Looked {
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

/// Whether some box can run it; if not, what each lacks.
fn runs(graph: &Graph, places: &Places) -> Vec<Finding> {
    if places.boxes.is_empty() {
        let message = "no instance of the endpoint has told yet what it can do: nodes, models and types are not checked";
        return vec![Finding::warning("not_checked", message)];
    }
    let refusal = match places.place(graph, None) {
        // Outputs that would be left out while others are made are mistakes of who publishes.
        Ok(placed) => return of_nodes(&serde_json::json!(placed.valid.node_errors)),
        Err(refusal) => refusal,
    };
    let boxes = missing::on_each_box(graph, places);
    let mut findings = lacks(&boxes);
    if findings.is_empty() {
        findings = mistakes(&refusal);
    }
    findings
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

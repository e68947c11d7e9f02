//! What must hold for any bytes that are given as a graph. Called by the fuzz target, and by the engine's test that
//! replays the corpus.

use std::path::PathBuf;
use std::sync::OnceLock;

use darkroom_comfy::graph::{
    Graph, NodeId,
    validate::{InputChecks, NoChecks, Preflight, validate},
};
use darkroom_comfy::wire::parse_lenient;
use darkroom_engine::{
    files::Directories,
    registry::{Checks, Registry},
};
use serde_json::Value;

/// Panics if a promise of the parser or of the validation is broken.
pub fn check(bytes: &[u8]) {
    // What Python writes is a little more than JSON; a client's request is JSON.
    let lenient = parse_lenient::<Value>(bytes);
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    assert_eq!(lenient.ok().as_ref(), Some(&value));
    let graph = match Graph::parse(&value) {
        Ok(graph) => graph,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    keeps_everything(&graph, &value);
    orders_agree(&graph);
    validation_is_stable(&graph);
    files_stay_inside(&graph);
}

/// What is stored, hashed and sent on is what the client wrote.
fn keeps_everything(graph: &Graph, value: &Value) {
    assert_eq!(
        serde_json::to_string(graph).expect("a graph is written"),
        serde_json::to_string(value).expect("JSON is written")
    );
    assert_eq!(&graph.to_value(), value);
    assert_eq!(Graph::parse(&graph.to_value()).as_ref(), Ok(graph));
}

fn orders_agree(graph: &Graph) {
    let all = || graph.nodes.keys().map(NodeId::as_str);
    let order = graph.topological_order(all());
    assert_eq!(order.is_err(), graph.find_cycle().is_some());
    let Ok(order) = order else { return };
    assert_eq!(order.len(), graph.nodes.len());
    assert_eq!(graph.ancestors(all()).len(), graph.nodes.len());
    let place = |id: &str| order.iter().position(|other| other.as_str() == id);
    // Quadratic, so only where it is cheap.
    for (id, node) in graph.nodes.iter().filter(|_| graph.nodes.len() <= 64) {
        for (_, link) in node.links().filter(|(_, link)| graph.get(link.node).is_some()) {
            assert!(place(link.node) < place(id.as_str()), "{} before {id}", link.node);
        }
    }
}

/// What was accepted is accepted again as it is, and what was refused says why.
fn validation_is_stable(graph: &Graph) {
    let info = registry().info();
    for hooks in [&NoChecks as &dyn InputChecks, &Preflight] {
        match validate(graph, info, None, hooks) {
            Ok(valid) => {
                let again = validate(&valid.graph, info, Some(&valid.outputs), hooks);
                let again = again.expect("what was accepted is accepted again");
                assert_eq!(again.outputs, valid.outputs);
                assert_eq!(again.graph, valid.graph);
                assert!(
                    again
                        .graph
                        .topological_order(again.outputs.iter().map(NodeId::as_str))
                        .is_ok()
                );
            }
            Err(rejected) => assert!(!rejected.error.message.is_empty()),
        }
    }
}

/// No name leads out of the instance's directories.
fn files_stay_inside(graph: &Graph) {
    let directory = |name: &str| PathBuf::from("/nowhere").join(name);
    let directories = Directories {
        input: directory("input"),
        output: directory("output"),
        temp: directory("temp"),
        user: directory("user"),
    };
    let checks = Checks {
        registry: registry(),
        directories: &directories,
    };
    let _ = validate(graph, registry().info(), None, &checks);
    for file in graph.file_inputs(registry().info()) {
        if let Some(path) = directories.annotated(file.name) {
            let parts = path.components().skip_while(|part| part.as_os_str() != "nowhere");
            assert!(
                parts.clone().count() >= 2 && parts.clone().all(|part| part.as_os_str() != ".."),
                "{} leads to {}",
                file.name,
                path.display()
            );
        }
    }
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| Registry::new(true))
}

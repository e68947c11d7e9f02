//! `/prompt`: how many wait, and submitting one.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use darkroom_comfy::graph::{
    Graph, NodeId,
    validate::{Rejected, Validated, validate},
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        Engine,
        body::{BadRequest, JsonBody, rejected},
        queue::Item,
    },
    Shared,
};
use crate::{exec::Prompt, hub, registry::Checks, value::python};

/// Graphs above this many nodes are validated off the async runtime; below, the hop costs more than the work.
const LARGE_GRAPH: usize = 200;

/// `GET /prompt`
pub async fn remaining(State(engine): Shared) -> Json<Value> {
    Json(hub::status(engine.queue.remaining())["status"].take())
}

/// `POST /prompt`
pub async fn submit(State(engine): Shared, JsonBody(body): JsonBody) -> Response {
    match accept(&engine, body).await {
        Ok(reply) => Json(reply).into_response(),
        Err(refusal) => refusal,
    }
}

async fn accept(engine: &Arc<Engine>, body: Value) -> Result<Value, Response> {
    // A body that is no object has no `prompt` in it.
    let mut body = match body {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let number = number(engine, &body).map_err(IntoResponse::into_response)?;
    let Some(graph) = body.get("prompt") else {
        return Err(rejected(&Rejected::no_prompt()));
    };
    let graph = Graph::parse(graph).map_err(|error| rejected(&error.into()))?;
    let id = match body.get("prompt_id") {
        None => engine.host.ids.uuid_v4().to_string(),
        Some(Value::String(id)) => id.clone(),
        Some(other) => python::repr(other),
    };
    let targets = targets(&body).map_err(IntoResponse::into_response)?;
    let extra_data = extra_data(&mut body).map_err(IntoResponse::into_response)?;
    let valid = check(engine, graph, targets)
        .await
        .map_err(|error| rejected(&error))?;
    let reply = json!({"prompt_id": id, "number": number, "node_errors": valid.node_errors});
    let prompt = Prompt {
        id,
        graph: valid.graph,
        extra_data,
        outputs: valid.outputs,
    };
    engine.queue.put(Item { number, prompt });
    Ok(reply)
}

async fn check(
    engine: &Arc<Engine>,
    graph: Graph,
    targets: Option<Vec<NodeId>>,
) -> Result<Validated, Box<Rejected>> {
    let large = graph.nodes.len() > LARGE_GRAPH;
    let shared = Arc::clone(engine);
    let validate = move || {
        let checks = Checks {
            registry: &shared.registry,
            directories: &shared.host.directories,
        };
        validate(&graph, shared.registry.info(), targets.as_deref(), &checks)
    };
    if large {
        tokio::task::spawn_blocking(validate)
            .await
            .expect("validation does not panic and is not aborted")
    } else {
        validate()
    }
}

/// The place in the queue: what the client asks for, else the counter (negative for `front`).
fn number(engine: &Engine, body: &Map<String, Value>) -> Result<Value, BadRequest> {
    let Some(asked) = body.get("number") else {
        let next = engine.counter.fetch_add(1, Ordering::SeqCst);
        let front = body.get("front").is_some_and(is_true);
        return Ok(json!(if front { -next } else { next }));
    };
    let number = match asked {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        _ => None,
    };
    match number.filter(|number| number.is_finite()) {
        Some(number) => Ok(json!(number)),
        None => Err(BadRequest(format!("number {asked} is not a finite number"))),
    }
}

fn targets(body: &Map<String, Value>) -> Result<Option<Vec<NodeId>>, BadRequest> {
    match body.get("partial_execution_targets") {
        None | Some(Value::Null) => Ok(None),
        // What is no text matches no node.
        Some(Value::Array(ids)) => Ok(Some(
            ids.iter().filter_map(Value::as_str).map(NodeId::from).collect(),
        )),
        Some(other) => Err(BadRequest(format!(
            "partial_execution_targets {other} is not a list of node ids"
        ))),
    }
}

fn extra_data(body: &mut Map<String, Value>) -> Result<Map<String, Value>, BadRequest> {
    let mut extra = match body.shift_remove("extra_data") {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(BadRequest(format!("extra_data {other} is not an object"))),
    };
    if let Some(client) = body.shift_remove("client_id") {
        extra.insert("client_id".to_owned(), client);
    }
    Ok(extra)
}

/// Python's truth of a value.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

//! ComfyUI's own conversations, recorded, and the same conversations with us. What may differ is listed in
//! `docs/native-api.md` and is all that is left out of the comparison here.

use std::collections::BTreeMap;

use darkroom_tests::{
    Api, Options, Server,
    native::{Client, Frame},
};
use serde_json::{Value, json};

/// Recorded frames without `status`, `progress` and `progress_state`; times and tracebacks left out.
const RECORDED: &str = include_str!("../../../data/native/transcripts.json");

#[tokio::test(flavor = "multi_thread")]
async fn recorded_conversations_are_had_with_us_as_well() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    assert_eq!(recorded.len(), 11);
    for case in &recorded {
        let name = case["name"].as_str().unwrap();
        let mut client = Client::connect(&api, "", name).await;
        let body = json!({"prompt": case["posted"], "client_id": name});
        let answer = api.post("/prompt", &body).await.expect(200).json();
        let id = answer["prompt_id"].as_str().unwrap();
        let broken = |errors: &Value| {
            errors
                .as_object()
                .map(|nodes| nodes.keys().cloned().collect::<Vec<_>>())
        };
        assert_eq!(
            broken(&answer["node_errors"]),
            broken(&case["node_errors"]),
            "{name}"
        );
        let frames = client.until_end(id).await;
        let theirs = case["frames"].as_array().unwrap();
        assert_eq!(
            Told::of(frames.iter().map(shown)),
            Told::of(theirs.iter().cloned()),
            "{name}: {frames:?}"
        );
        in_order(name, &frames);
        let history = api.get(&format!("/history/{id}")).await.expect(200).json();
        assert_eq!(entry(&history[id]), recorded_entry(&case["history"]), "{name}");
    }
    flags_and_names(&api).await;
}

/// What a conversation says, whatever the order of independent nodes.
#[derive(Debug, PartialEq)]
struct Told {
    /// Nodes that ran or came from the cache: which of the two is the instance's memory.
    nodes: Vec<String>,
    executed: BTreeMap<String, Value>,
    /// Event and image format of binary frames.
    binary: Vec<(u64, u64)>,
    /// The first two, and those that end it.
    begin_and_end: Vec<(String, Vec<String>)>,
    failed_at: Value,
}

impl Told {
    fn of(messages: impl Iterator<Item = Value>) -> Self {
        let mut told = Told {
            nodes: vec![],
            executed: BTreeMap::new(),
            binary: vec![],
            begin_and_end: vec![],
            failed_at: Value::Null,
        };
        for message in messages {
            let data = &message["data"];
            match message["type"].as_str().unwrap_or_default() {
                "status" | "progress" | "progress_state" => {}
                "binary" => told.binary.push((
                    message["event"].as_u64().unwrap(),
                    message["image_format"].as_u64().unwrap(),
                )),
                "executing" if data["node"].is_string() => told.nodes.push(text(&data["node"])),
                "executed" => {
                    told.executed
                        .insert(text(&data["node"]), without_names(&data["output"]));
                }
                kind => {
                    if kind == "execution_cached" {
                        told.nodes
                            .extend(data["nodes"].as_array().unwrap().iter().map(text));
                    }
                    if kind == "execution_error" {
                        told.failed_at = json!([data["node_id"], data["node_type"], data["exception_type"]]);
                    }
                    let keys = data.as_object().unwrap().keys();
                    let keys = keys.filter(|key| !["timestamp", "traceback"].contains(&key.as_str()));
                    told.begin_and_end
                        .push((kind.to_owned(), keys.cloned().collect()));
                }
            }
        }
        told.nodes.sort();
        told.nodes.dedup();
        told
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn shown(frame: &Frame) -> Value {
    match frame {
        Frame::Text(message) => message.clone(),
        Frame::Binary(bytes) => {
            let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            json!({"type": "binary", "event": word(0), "image_format": word(4)})
        }
        Frame::Closed => panic!("closed"),
    }
}

/// Counters, random suffixes and dates are each server's own.
fn without_names(output: &Value) -> Value {
    let mut output = output.clone();
    for list in output
        .as_object_mut()
        .into_iter()
        .flat_map(|lists| lists.values_mut())
    {
        for item in list.as_array_mut().into_iter().flatten() {
            if let Some(name) = item["filename"].as_str() {
                item["filename"] = json!(name.rsplit('.').next());
                let folder = text(&item["subfolder"]);
                item["subfolder"] = json!(folder.replace(|c: char| c.is_ascii_digit(), "#"));
            }
        }
    }
    output
}

/// Every picture and every output follows the `executing` of a node, and the end is told once, last.
fn in_order(name: &str, frames: &[Frame]) {
    let kinds = darkroom_tests::native::kinds(frames);
    assert_eq!(
        kinds[..2],
        ["execution_start", "execution_cached"],
        "{name}: {kinds:?}"
    );
    let end = &kinds[kinds.len() - 2..];
    assert!(
        ["execution_success", "execution_error"].contains(&end[0].as_str()) && end[1] == "executing",
        "{name}: {kinds:?}"
    );
    // Between them the queue without this prompt, as ComfyUI tells it.
    let last: Vec<Value> = frames[frames.len() - 3..].iter().map(shown).collect();
    assert_eq!(last[1]["type"], "status", "{name}: {last:?}");
    assert_eq!(
        last[1]["data"]["status"]["exec_info"]["queue_remaining"], 0,
        "{name}"
    );
    let mut node = Value::Null;
    for frame in frames {
        match frame {
            Frame::Text(message) if message["type"] == "executing" => node = message["data"]["node"].clone(),
            // Clients take a picture for that of the node which runs.
            Frame::Binary(_) => assert_eq!(node, "2", "{name}"),
            Frame::Text(_) | Frame::Closed => {}
        }
    }
}

fn entry(history: &Value) -> Value {
    let status = &history["status"];
    let messages = status["messages"].as_array().unwrap().iter();
    let mut outputs = history["prompt"][4].as_array().unwrap().clone();
    outputs.sort_by_key(text);
    json!({
        "graph": history["prompt"][2],
        "outputs_to_execute": outputs,
        "outputs": outputs_of(&history["outputs"]),
        "status": {
            "status_str": status["status_str"], "completed": status["completed"],
            "messages": messages.map(|message| message[0].clone()).collect::<Vec<_>>(),
        },
        "meta": history["meta"],
    })
}

fn recorded_entry(history: &Value) -> Value {
    let mut history = history.clone();
    history["outputs"] = outputs_of(&history["outputs"]);
    history
}

fn outputs_of(outputs: &Value) -> Value {
    let nodes = outputs.as_object().unwrap().iter();
    nodes
        .map(|(node, output)| (node.clone(), without_names(output)))
        .collect()
}

/// Sockets without prompts: the recordings `feature_flags`, `no_clientId_query` and `api_ws`.
async fn flags_and_names(api: &Api) {
    let mut client = Client::connect(api, "/api", "").await;
    let first = client.until("status").await;
    let sid = first["data"]["sid"].as_str().expect("a session id").to_owned();
    assert!(
        sid.len() == 32 && sid.chars().all(|c| c.is_ascii_hexdigit()),
        "{sid}"
    );
    client
        .say(&json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}))
        .await;
    let flags = client.until("feature_flags").await;
    assert_eq!(flags["data"]["max_upload_size"], 104_857_600);
    // Only the first message counts.
    client.say(&json!({"type": "feature_flags", "data": {}})).await;
    let graph = darkroom_tests::graphs::plain(77, 8, 8);
    let answer = api
        .post("/prompt", &json!({"prompt": graph, "client_id": sid}))
        .await
        .expect(200)
        .json();
    let frames = client.until_end(answer["prompt_id"].as_str().unwrap()).await;
    assert!(!darkroom_tests::native::kinds(&frames).contains(&"feature_flags".to_owned()));
}

//! The one thread that executes prompts.

use std::{sync::Arc, thread};

use serde_json::{Map, Value as Json, json};

use super::{
    Engine,
    queue::{Item, Next},
};
use crate::{
    exec::{Executor, Outcome},
    hub::Frame,
};

/// What history must not keep of `extra_data`.
const SECRETS: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

/// Starts the worker; it ends when the queue is closed.
pub fn start(engine: Arc<Engine>) -> std::io::Result<()> {
    thread::Builder::new()
        .name("prompt-worker".into())
        .spawn(move || run(&engine))
        .map(drop)
}

fn run(engine: &Engine) {
    let mut executor = Executor::new(Arc::clone(&engine.host), Arc::clone(&engine.registry));
    loop {
        let item = match engine.queue.next() {
            Next::Run(item) => item,
            Next::Forget => {
                executor.forget();
                continue;
            }
            Next::Close => return,
        };
        let Some(outcome) = executor.execute(&item.prompt, &engine.hub, &engine.interrupt) else {
            tracing::warn!("a test node ended the worker; nothing will be executed any more");
            return;
        };
        engine.history.insert(&item.prompt.id, entry(&item, outcome));
        engine.queue.done();
        // Only now is the prompt over for its client: history has it.
        if let Some(client) = item.prompt.client_id() {
            let data = json!({"node": null, "prompt_id": item.prompt.id});
            engine.hub.send(Frame::event("executing", &data), Some(&client));
        }
    }
}

fn entry(item: &Item, outcome: Outcome) -> Json {
    let mut prompt = item.to_json();
    if let Some(extra) = prompt.get_mut(3).and_then(Json::as_object_mut) {
        SECRETS.iter().for_each(|name| drop(extra.shift_remove(*name)));
    }
    let entry = [
        ("prompt", prompt),
        ("outputs", Json::Object(outcome.outputs)),
        ("status", outcome.status),
        ("meta", Json::Object(outcome.meta)),
    ];
    Json::Object(Map::from_iter(entry.map(|(key, value)| (key.to_owned(), value))))
}

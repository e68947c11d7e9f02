//! A scripted ComfyUI: real HTTP and WebSocket, and a test decides what it says, hides, and when it dies.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{
        Multipart, Path, Query, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};

/// How the fake answers `POST /prompt`.
#[derive(Clone, Debug)]
pub enum OnPrompt {
    /// 200, and the prompt is running.
    Run,
    /// 200, and the prompt stays pending although nothing runs: the worker thread is dead.
    NeverTake,
    /// This status and body.
    Answer(u16, Value),
    /// The connection breaks before the answer; the prompt is running.
    RunAndBreak,
    /// The connection breaks before the answer; nothing was accepted.
    Break,
    /// No answer ever.
    Hang,
}

/// A posted prompt.
#[derive(Clone, Debug)]
pub struct Posted {
    pub id: String,
    pub client_id: String,
    pub body: Value,
}

/// What the fake knows; survives a restart only as far as a test keeps it.
#[derive(Default)]
struct World {
    on_prompt: Vec<OnPrompt>,
    running: Vec<Value>,
    pending: Vec<Value>,
    history: BTreeMap<String, Value>,
    files: HashMap<(String, String, String), Vec<u8>>,
    uploads: Vec<(String, Vec<u8>)>,
    sockets: HashMap<String, mpsc::UnboundedSender<Message>>,
    posted: Vec<Posted>,
    requests: Vec<String>,
    sockets_opened: usize,
    /// `POST /interrupt` ends the running prompt as ComfyUI does.
    honours_interrupts: bool,
    /// What every request gets from now on, sockets included.
    manner: Manner,
}

/// How the fake answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Manner {
    /// As ComfyUI does.
    #[default]
    Sane,
    /// It takes the connection and says nothing.
    Silent,
    /// 200, and something else than what was asked for.
    Garbage,
}

#[derive(Clone)]
struct Shared {
    world: Arc<Mutex<World>>,
    changed: Arc<watch::Sender<u64>>,
}

/// A running fake.
pub struct Fake {
    shared: Shared,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Fake {
    /// Starts one on a free port of the loopback interface.
    pub fn start() -> Self {
        let shared = Shared {
            world: Arc::new(Mutex::new(World {
                honours_interrupts: true,
                ..World::default()
            })),
            changed: Arc::new(watch::Sender::new(0)),
        };
        let mut fake = Fake {
            shared,
            address: "127.0.0.1:0".parse().unwrap(),
            runtime: None,
        };
        fake.boot();
        fake
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Dies like a process: every connection breaks, nothing listens any more, and all state is gone.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.change(|w| {
            w.running.clear();
            w.pending.clear();
            w.history.clear();
            w.sockets.clear();
        });
    }

    /// Listens again on the same port.
    pub fn boot(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let std_listener = (0..200)
            .find_map(|_| {
                let tried = {
                    let _in_runtime = runtime.enter();
                    let socket = tokio::net::TcpSocket::new_v4().unwrap();
                    socket.set_reuseaddr(true).unwrap();
                    socket.bind(self.address).and_then(|()| socket.listen(64))
                };
                if tried.is_err() {
                    std::thread::sleep(Duration::from_millis(10));
                }
                tried.ok()
            })
            .expect("the port is free again");
        self.address = std_listener.local_addr().unwrap();
        let router = router(self.shared.clone());
        runtime.spawn(async move { axum::serve(std_listener, router).await });
        self.runtime = Some(runtime);
    }

    /// How the next prompts are answered, in order; afterwards they run.
    pub fn on_prompts(&self, answers: impl IntoIterator<Item = OnPrompt>) {
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        self.change(|w| w.on_prompt = answers);
    }

    pub fn ignore_interrupts(&self) {
        self.change(|w| w.honours_interrupts = false);
    }

    /// From now on; sockets that are open stay so, and silent.
    pub fn answers(&self, manner: Manner) {
        self.change(|w| w.manner = manner);
    }

    /// A file that `/view` serves.
    pub fn add_file(&self, kind: &str, name: &str, bytes: &[u8]) {
        let key = (kind.to_owned(), String::new(), name.to_owned());
        self.change(|w| w.files.insert(key, bytes.to_vec()));
    }

    /// Waits for the `n`-th posted prompt, from 1.
    pub async fn posted(&self, n: usize) -> Posted {
        self.until(|w| w.posted.get(n - 1).cloned()).await
    }

    /// Waits until that many sockets were opened in all.
    pub async fn sockets_opened(&self, n: usize) {
        self.until(|w| (w.sockets_opened >= n).then_some(())).await;
    }

    /// Waits for a request (`POST /interrupt`).
    pub async fn requested(&self, what: &str) {
        self.until(|w| w.requests.iter().any(|r| r == what).then_some(()))
            .await;
    }

    pub fn requests(&self, what: &str) -> usize {
        self.world().requests.iter().filter(|r| *r == what).count()
    }

    pub fn prompts_posted(&self) -> usize {
        self.world().posted.len()
    }

    pub fn uploads(&self) -> Vec<(String, Vec<u8>)> {
        self.world().uploads.clone()
    }

    /// Sends a message about the prompt to its owner's socket.
    pub fn send(&self, prompt: &Posted, kind: &str, mut data: Value) {
        data["prompt_id"] = json!(prompt.id);
        let text = json!({"type": kind, "data": data}).to_string();
        self.send_raw(prompt, Message::Text(text.into()));
    }

    pub fn send_raw(&self, prompt: &Posted, message: Message) {
        if let Some(socket) = self.world().sockets.get(&prompt.client_id) {
            let _ = socket.send(message);
        }
    }

    /// Cuts every WebSocket, HTTP stays.
    pub fn cut_sockets(&self) {
        self.change(|w| w.sockets.clear());
    }

    /// Takes the prompt out of the queue and writes its history, without a word.
    pub fn write_history(&self, prompt: &Posted, outputs: Value, messages: Value, ok: bool) {
        let entry = json!({
            "prompt": [0, prompt.id, {}, {}, []],
            "outputs": outputs,
            "status": {"status_str": if ok { "success" } else { "error" }, "completed": ok, "messages": messages},
            "meta": {},
        });
        self.change(|w| {
            w.unqueue(&prompt.id);
            w.history.insert(prompt.id.clone(), entry);
        });
    }

    /// A whole successful end, as ComfyUI does it: success, then history, then `executing` without a node.
    pub fn succeed(&self, prompt: &Posted, outputs: Value) {
        self.send(prompt, "execution_success", json!({"timestamp": 2}));
        let messages = json!([["execution_start", {"prompt_id": prompt.id, "timestamp": 1}],
                              ["execution_success", {"prompt_id": prompt.id, "timestamp": 2}]]);
        self.write_history(prompt, outputs, messages, true);
        self.send(prompt, "executing", json!({"node": null}));
    }

    /// A whole failed end of a prompt that made nothing.
    pub fn fail(&self, prompt: &Posted, kind: &str, data: Value) {
        self.fail_after(prompt, kind, data, json!({}));
    }

    /// The same of one that had made something.
    pub fn fail_after(&self, prompt: &Posted, kind: &str, mut data: Value, outputs: Value) {
        self.send(prompt, kind, data.clone());
        data["prompt_id"] = json!(prompt.id);
        self.write_history(prompt, outputs, json!([[kind, data]]), false);
        self.send(prompt, "executing", json!({"node": null}));
    }

    async fn until<T>(&self, probe: impl Fn(&World) -> Option<T>) -> T {
        let mut changes = self.shared.changed.subscribe();
        let found = tokio::time::timeout(Duration::from_secs(120), async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = probe(&self.world()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        });
        found
            .await
            .expect("what a test waits for should happen within two minutes")
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }

    fn change<T>(&self, with: impl FnOnce(&mut World) -> T) -> T {
        self.shared.change(with)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl World {
    fn unqueue(&mut self, id: &str) {
        self.running.retain(|item| item[1] != id);
        self.pending.retain(|item| item[1] != id);
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, with: impl FnOnce(&mut World) -> T) -> T {
        let result = with(&mut self.world());
        self.changed.send_modify(|n| *n += 1);
        result
    }

    fn requested(&self, what: &str) {
        self.change(|w| w.requests.push(what.to_owned()));
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/ws", get(ws))
        .route("/prompt", post(prompt))
        .route("/queue", get(queue).post(edit_queue))
        .route("/history/{id}", get(history))
        .route("/interrupt", post(interrupt))
        .route("/free", post(free))
        .route("/view", get(view))
        .route("/upload/image", post(upload))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), mannered))
        .with_state(shared)
}

async fn mannered(
    State(shared): State<Shared>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let manner = shared.world().manner;
    match manner {
        Manner::Sane => next.run(request).await,
        Manner::Silent => {
            shared.requested("silence");
            std::future::pending().await
        }
        Manner::Garbage => "<html>It works!</html>".into_response(),
    }
}

async fn ws(
    State(shared): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let client_id = query.get("clientId").cloned().unwrap_or_default();
    upgrade.on_upgrade(move |socket| serve_socket(shared, client_id, socket))
}

async fn serve_socket(shared: Shared, client_id: String, socket: WebSocket) {
    let (send, mut outgoing) = mpsc::unbounded_channel();
    let hello = json!({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client_id}});
    let _ = send.send(Message::Text(hello.to_string().into()));
    shared.change(|w| {
        w.sockets.insert(client_id, send);
        w.sockets_opened += 1;
    });
    let (mut sink, mut stream) = socket.split();
    loop {
        tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => if sink.send(message).await.is_err() { return },
                None => return,
            },
            incoming = stream.next() => if !matches!(incoming, Some(Ok(_))) { return },
        }
    }
}

async fn prompt(State(shared): State<Shared>, Json(body): Json<Value>) -> Response {
    let how = shared.change(|w| w.on_prompt.pop()).unwrap_or(OnPrompt::Run);
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let posted = Posted {
        id: text("prompt_id"),
        client_id: text("client_id"),
        body: body.clone(),
    };
    let item = json!([0, posted.id, {}, {}, []]);
    shared.change(|w| {
        match how {
            OnPrompt::Run | OnPrompt::RunAndBreak => w.running.push(item),
            OnPrompt::NeverTake => w.pending.push(item),
            OnPrompt::Answer(..) | OnPrompt::Break | OnPrompt::Hang => {}
        }
        w.posted.push(posted.clone());
    });
    match how {
        OnPrompt::Run | OnPrompt::NeverTake => {
            Json(json!({"prompt_id": posted.id, "number": 0, "node_errors": {}})).into_response()
        }
        OnPrompt::Answer(status, body) => (StatusCode::from_u16(status).unwrap(), Json(body)).into_response(),
        OnPrompt::RunAndBreak | OnPrompt::Break => broken(),
        OnPrompt::Hang => std::future::pending().await,
    }
}

/// A response whose body breaks off.
fn broken() -> Response {
    let cut = futures::stream::iter([Err::<&'static str, _>(std::io::Error::other("cut"))]);
    Body::from_stream(cut).into_response()
}

async fn queue(State(shared): State<Shared>) -> Json<Value> {
    shared.requested("GET /queue");
    let world = shared.world();
    Json(json!({"queue_running": world.running, "queue_pending": world.pending}))
}

async fn edit_queue(State(shared): State<Shared>, Json(body): Json<Value>) {
    shared.requested("POST /queue");
    let ids = body["delete"].as_array().cloned().unwrap_or_default();
    shared.change(|w| w.pending.retain(|item| !ids.contains(&item[1])));
}

async fn history(State(shared): State<Shared>, Path(id): Path<String>) -> Json<Value> {
    shared.requested("GET /history");
    match shared.world().history.get(&id) {
        Some(entry) => Json(json!({ id: entry })),
        None => Json(json!({})),
    }
}

async fn interrupt(State(shared): State<Shared>, body: String) {
    shared.requested("POST /interrupt");
    let wanted = serde_json::from_str::<Value>(&body).unwrap_or_default();
    let hit = shared.change(|w| {
        let id = w.running.first()?[1].as_str()?.to_owned();
        let meant = wanted["prompt_id"].as_str().is_none_or(|wanted| wanted == id);
        (meant && w.honours_interrupts).then_some(id)
    });
    let Some(id) = hit else { return };
    let data = json!({"prompt_id": id, "node_id": "1", "node_type": "X", "executed": []});
    shared.change(|w| {
        let entry = json!({"outputs": {}, "status": {"status_str": "error", "completed": false,
                           "messages": [["execution_interrupted", data]]}, "meta": {}});
        w.unqueue(&id);
        w.history.insert(id.clone(), entry);
        for socket in w.sockets.values() {
            for (kind, data) in [
                ("execution_interrupted", data.clone()),
                ("executing", json!({"node": null, "prompt_id": id})),
            ] {
                let _ = socket.send(Message::Text(
                    json!({"type": kind, "data": data}).to_string().into(),
                ));
            }
        }
    });
}

async fn free(State(shared): State<Shared>) {
    shared.requested("POST /free");
}

async fn view(State(shared): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Response {
    shared.requested("GET /view");
    let part = |key: &str, or: &str| query.get(key).cloned().unwrap_or_else(|| or.to_owned());
    let key = (
        part("type", "output"),
        part("subfolder", ""),
        part("filename", ""),
    );
    match shared.world().files.get(&key) {
        Some(bytes) => ([(header::CONTENT_TYPE, "image/png")], bytes.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn upload(State(shared): State<Shared>, mut form: Multipart) -> Json<Value> {
    let mut name = String::new();
    while let Some(field) = form.next_field().await.unwrap() {
        if field.name() == Some("image") {
            name = field.file_name().unwrap_or_default().to_owned();
            let bytes = field.bytes().await.unwrap().to_vec();
            shared.change(|w| w.uploads.push((name.clone(), bytes)));
        }
    }
    Json(json!({"name": format!("up_{name}"), "subfolder": "", "type": "input"}))
}

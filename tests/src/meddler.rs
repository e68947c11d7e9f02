//! Somebody between Darkroom and a ComfyUI who changes what is said: a version that ignores ids, a server that answers
//! garbage, forgets its prompts, has lost its files, or drops its sockets.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::boxes::Engine;

/// What is done to a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Nothing.
    Honest,
    /// Ids in `POST /prompt` and `POST /interrupt` are ignored, as by versions that know of none.
    Older,
    /// Whatever is looked at is no JSON, and nothing is heard over sockets.
    Garbage,
    /// Files that were reported are not there.
    NoFiles,
    /// Nothing of any prompt is known, and nothing is heard over sockets.
    Forgetful,
    /// The last prompt waits and nothing runs, and nothing is heard over sockets.
    Stuck,
}

/// A way to an engine; ends with the test.
#[derive(Clone)]
pub struct Meddler {
    /// Its address.
    pub url: String,
    state: Arc<State>,
}

struct State {
    how: watch::Sender<How>,
    /// Sockets of an earlier count are cut off.
    cut: watch::Sender<u32>,
    /// Ids of the prompts that went through.
    prompts: Mutex<Vec<String>>,
}

impl Meddler {
    /// Before that engine, honest at first unless told otherwise.
    pub async fn before(engine: &Engine, how: How) -> Meddler {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            how: watch::Sender::new(how),
            cut: watch::Sender::new(0),
            prompts: Mutex::default(),
        });
        let (target, shared) = (engine.name(), state.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, shared) = (target.clone(), shared.clone());
                tokio::spawn(async move { shared.serve(client, &target).await });
            }
        });
        Meddler { url, state }
    }

    /// From now on it does this; sockets that are open are dropped.
    pub fn becomes(&self, how: How) {
        self.state.how.send_replace(how);
        self.drop_sockets();
    }

    /// Drops the sockets that are open.
    pub fn drop_sockets(&self) {
        self.state.cut.send_modify(|cut| *cut += 1);
    }

    /// How many prompts went through.
    pub fn prompts(&self) -> usize {
        self.state.lock().len()
    }
}

/// A request that was read.
struct Asked {
    line: String,
    head: String,
    body: Vec<u8>,
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.prompts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request of one connection, which is closed after it.
    async fn serve(&self, mut client: TcpStream, target: &str) {
        let Some(mut asked) = read(&mut client).await else {
            return;
        };
        let how = *self.how.borrow();
        let is_socket = asked.line.starts_with("GET /ws");
        if let Some(answer) = self.own_answer(how, &asked.line) {
            let length = answer.len();
            let text = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}"
            );
            let _ = client.write_all(text.as_bytes()).await;
            return;
        }
        if how == How::NoFiles && asked.line.starts_with("GET /view") {
            let none = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = client.write_all(none).await;
            return;
        }
        self.meddle_with(how, &mut asked);
        let Ok(mut server) = TcpStream::connect(target).await else {
            return;
        };
        let head = asked.head(is_socket);
        if server.write_all(head.as_bytes()).await.is_err() || server.write_all(&asked.body).await.is_err() {
            return;
        }
        let mut cuts = self.cut.subscribe();
        cuts.mark_unchanged();
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            _ = cuts.changed(), if is_socket => {}
        }
    }

    /// What is answered without asking the engine.
    fn own_answer(&self, how: How, line: &str) -> Option<String> {
        let is = |path: &str| line.starts_with(&format!("GET {path}"));
        if is("/view_metadata/checkpoints?filename=base.safetensors ") {
            // The engine has no models.
            return Some(json!({"note": "random weights"}).to_string());
        }
        match how {
            How::Garbage if is("/history") || is("/queue") => Some("<p>not yet".to_owned()),
            How::Forgetful | How::Stuck if is("/history") => Some("{}".to_owned()),
            How::Forgetful if is("/queue") => {
                Some(json!({"queue_running": [], "queue_pending": []}).to_string())
            }
            How::Stuck if is("/queue") => {
                let last = self.lock().last().cloned();
                let waits: Vec<Value> = last.iter().map(|id| json!([1, id, {}, {}, []])).collect();
                Some(json!({"queue_running": [], "queue_pending": waits}).to_string())
            }
            // Whoever upgrades gets no upgrade.
            How::Garbage | How::Forgetful | How::Stuck if is("/ws") => Some("{}".to_owned()),
            _ => None,
        }
    }

    fn meddle_with(&self, how: How, asked: &mut Asked) {
        let is_prompt = asked.line.starts_with("POST /prompt");
        if !is_prompt && !asked.line.starts_with("POST /interrupt") {
            return;
        }
        let Ok(mut body) = serde_json::from_slice::<Value>(&asked.body) else {
            return;
        };
        if is_prompt {
            let id = body["prompt_id"].as_str().unwrap_or_default().to_owned();
            self.lock().push(id);
        }
        if how == How::Older
            && let Some(body) = body.as_object_mut()
        {
            body.remove("prompt_id");
        }
        asked.body = body.to_string().into_bytes();
    }
}

impl Asked {
    /// The head as it is sent on: with the length that the body has now, and for one request alone.
    fn head(&self, is_socket: bool) -> String {
        let mut head = format!("{}\r\n", self.line);
        for line in self.head.lines().skip(1).filter(|line| !line.is_empty()) {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            if !is_socket && (name == "content-length" || name == "connection") {
                continue;
            }
            head += &format!("{line}\r\n");
        }
        if !is_socket {
            head += &format!("content-length: {}\r\nconnection: close\r\n", self.body.len());
        }
        head + "\r\n"
    }
}

/// A head, and as much body as it says.
async fn read(client: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let length = length
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.trim().parse::<usize>().ok())
        .unwrap_or(0);
    while bytes.len() < end + length {
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Asked {
        line: head.lines().next()?.to_owned(),
        head,
        body: bytes[end..].to_vec(),
    })
}

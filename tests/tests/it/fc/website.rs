//! A web server of the test's own, for pictures by address and redirects.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Mutex,
    task::JoinHandle,
};

/// What a path answers.
#[derive(Debug, Clone)]
pub enum Page {
    /// A status and a body.
    Body(u16, Bytes),
    /// Elsewhere.
    Redirect(String),
    /// A body of so many bytes, without a length told, sent as fast as it is taken.
    Endless(u64),
}

/// Serves until dropped; counts what it was asked.
pub struct Website {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Website {
    pub async fn start(pages: &[(&str, Page)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let pages: HashMap<String, Page> = pages
            .iter()
            .map(|(path, page)| ((*path).to_owned(), page.clone()))
            .collect();
        let (pages, asked) = (Arc::new(pages), Arc::new(Mutex::new(Vec::new())));
        let log = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (pages, log) = (pages.clone(), log.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    let mut chunk = [0; 2048];
                    while !head.ends_with(b"\r\n\r\n") {
                        match socket.read(&mut chunk).await {
                            Ok(n) if n > 0 => head.extend_from_slice(&chunk[..n]),
                            _ => return,
                        }
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
                    log.lock().await.push(path.clone());
                    let page = pages
                        .get(&path)
                        .cloned()
                        .unwrap_or(Page::Body(404, Bytes::from_static(b"none")));
                    answer(&mut socket, page).await;
                });
            }
        });
        Website { url, asked, task }
    }

    /// The paths that were asked for so far.
    pub async fn asked(&self) -> Vec<String> {
        self.asked.lock().await.clone()
    }
}

impl Drop for Website {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(socket: &mut tokio::net::TcpStream, page: Page) {
    let end = "connection: close\r\n\r\n";
    let (head, body) = match page {
        Page::Body(status, body) => (
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{end}", body.len()),
            body,
        ),
        Page::Redirect(to) => (
            format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n{end}"),
            Bytes::new(),
        ),
        Page::Endless(size) => {
            let _ = socket
                .write_all(format!("HTTP/1.1 200 OK\r\n{end}").as_bytes())
                .await;
            let block = vec![0; 1 << 16];
            for _ in 0..size / (1 << 16) {
                if socket.write_all(&block).await.is_err() {
                    return;
                }
            }
            return;
        }
    };
    let _ = socket.write_all(head.as_bytes()).await;
    let _ = socket.write_all(&body).await;
    let _ = socket.shutdown().await;
}

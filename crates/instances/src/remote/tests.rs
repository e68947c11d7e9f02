use std::{
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use super::*;
use crate::conformance;

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server.py");

/// ComfyUI servers that somebody else, this test, runs.
#[derive(Default)]
struct Others {
    running: Mutex<Vec<Child>>,
    known: Arc<Mutex<Vec<RemoteServer>>>,
}

impl Others {
    /// Starts one on a port of its own.
    fn run(&self, options: &[&str]) -> RemoteServer {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = Command::new("python3")
            .args([SERVER, "--port", &port.to_string()])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.running.lock().unwrap().push(child);
        self.know(RemoteServer::new(format!("http://127.0.0.1:{port}")))
    }

    fn know(&self, server: RemoteServer) -> RemoteServer {
        self.known.lock().unwrap().push(server.clone());
        server
    }

    fn backend(&self) -> RemoteBackend {
        let known = self.known.clone();
        let find = move |handle: &Handle| {
            let known = known.lock().unwrap();
            known.iter().find(|server| server.url == handle.base_url).cloned()
        };
        RemoteBackend {
            look_every: Duration::from_millis(20),
            ..RemoteBackend::new(Arc::new(find)).unwrap()
        }
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for child in self.running.get_mut().unwrap() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn request(server: RemoteServer) -> StartRequest {
    StartRequest {
        instance: InstanceId::new(&darkroom_ambient::SystemIds),
        endpoint: "default".parse().unwrap(),
        gpu: None,
        spec: Spec::Remote(server),
    }
}

/// Asks until it says what is expected; a slow machine may not get there at once.
async fn not_ready(backend: &RemoteBackend, server: RemoteServer, want: &str) {
    let handle = backend.start(request(server)).await.unwrap();
    let mut timeout = Duration::from_millis(200);
    loop {
        let said = backend
            .wait_ready(&handle, timeout)
            .await
            .unwrap_err()
            .to_string();
        if said.contains(want) {
            return;
        }
        assert!(timeout < conformance::LONG, "{said}");
        timeout *= 2;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_remote_backend_conforms() {
    let others = Others::default();
    let backend = others.backend();
    conformance::of_any(&backend, &|options| request(others.run(options))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_used_with_its_key_and_let_go_alive() {
    let others = Others::default();
    let backend = others.backend();
    let server = others.run(&["--key", "sk_1"]);
    not_ready(
        &backend,
        server.clone(),
        "status 401: its key is missing or wrong",
    )
    .await;
    others.known.lock().unwrap()[0]
        .headers
        .insert("x-key".into(), "sk_1".into());
    let handle = conformance::started(&backend, request(server)).await;
    assert!(!serde_json::to_string(&handle).unwrap().contains("sk_1"));
    let log = backend.logs(&handle, 1 << 20).await.unwrap();
    assert_eq!(log, "first line\nlast line 图\n");
    assert_eq!(
        backend.logs(&handle, 3).await.unwrap(),
        "\n",
        "never half a character"
    );
    backend.stop(&handle, Duration::ZERO).await.unwrap();
    backend.wait_ready(&handle, conformance::LONG).await.unwrap();

    others.known.lock().unwrap().clear();
    assert_eq!(backend.recognise(&handle).await, Recognition::Gone);
    let exit = tokio::time::timeout(conformance::LONG, backend.exited(&handle))
        .await
        .unwrap();
    assert_eq!(
        exit.to_string(),
        "cannot be reached: it is not configured any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_server_is_not_ready_is_told() {
    let others = Others::default();
    let backend = others.backend();
    not_ready(&backend, others.run(&["--garbage"]), "not as a ComfyUI does").await;
    // It accepts connections, and that is all.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    let handle = backend
        .start(request(others.know(RemoteServer::new(url))))
        .await
        .unwrap();
    let said = backend
        .wait_ready(&handle, Duration::from_secs(30))
        .await
        .unwrap_err();
    assert!(
        said.to_string()
            .contains("accepts connections but does not answer"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stopped_listening_is_gone() {
    let others = Others::default();
    let backend = others.backend();
    let handle = conformance::started(&backend, request(others.run(&[]))).await;
    others.running.lock().unwrap()[0].kill().unwrap();
    let exit = tokio::time::timeout(conformance::LONG, backend.exited(&handle))
        .await
        .unwrap();
    assert_eq!(exit.how, Exit::Unreachable);
    assert_eq!(
        exit.to_string(),
        "cannot be reached: nothing listens at its address"
    );
}

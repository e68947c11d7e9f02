//! The slot over a real store and real sockets.

use std::sync::Arc;

use darkroom_core::{InstanceId, JobState};
use darkroom_store::jobs::{JobFilter, JobRecord, Page};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::service::{
    attempts::SlotActivity,
    queues::{OpenQueue, RequestItem, Side},
    testing::Bench,
};

const LIMIT: Duration = Duration::from_secs(120);

struct World {
    bench: Bench,
    url: String,
    drain: CancellationToken,
    evidence: watch::Sender<Option<String>>,
}

impl World {
    /// An endpoint whose one instance is at `url`.
    fn at(url: String) -> World {
        World {
            bench: Bench::configured(&format!(
                "[endpoints.w]\nkind = \"worker\"\nbackend = \"remote\"\nurls = [\"{url}\"]\n"
            )),
            url,
            drain: CancellationToken::new(),
            evidence: watch::Sender::new(None),
        }
    }

    fn queue(&self) -> OpenQueue {
        let endpoint = self.bench.service.service_named("w").unwrap();
        OpenQueue::new(&"t".parse().unwrap(), endpoint, Side::Input)
    }

    async fn put(&self, path: &str) {
        let item = RequestItem {
            tags: Default::default(),
            priority: 0,
            path: path.to_owned(),
            query: String::new(),
            headers: vec![],
            body: vec![7; 50_000].into(),
            base_url: "http://us".into(),
            request_id: "r".into(),
        };
        self.bench.service.put_request(&self.queue(), item).await.unwrap();
    }

    fn slot(&self) -> ReplaySlot {
        let service = self.bench.service.clone();
        let endpoint = service.service_named("w").unwrap();
        let link = SlotLink::new(
            service.clone(),
            endpoint.name.clone(),
            endpoint.limits.clone(),
            InstanceId::new(&*service.ids),
            self.drain.clone(),
            Arc::<SlotActivity>::default(),
        );
        ReplaySlot::new(&self.url, HeaderMap::new(), link, self.evidence.subscribe()).unwrap()
    }

    async fn job(&self) -> JobRecord {
        let page = Page {
            limit: 9,
            after: None,
        };
        let jobs = self.bench.service.jobs(JobFilter::default(), page).await.unwrap();
        jobs.into_iter().next().unwrap()
    }

    async fn once(&self, wanted: impl Fn(&JobRecord) -> bool) -> JobRecord {
        let looking = async {
            loop {
                let job = self.job().await;
                if wanted(&job) {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, looking).await.unwrap()
    }
}

/// A program that tells how long a body was (`/size`), or answers with a status (`/status/502`).
async fn instance() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (path, length) = read_request(&mut socket).await;
            let (status, body) = match path.strip_prefix("/status/") {
                Some(status) => (status.to_owned(), "so it is".to_owned()),
                None => ("200".to_owned(), length.to_string()),
            };
            let answer = format!(
                "HTTP/1.1 {status} Said\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

/// The path, and how many bytes of a body came.
async fn read_request(socket: &mut TcpStream) -> (String, usize) {
    let mut lines = BufReader::new(socket).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    let mut length = 0;
    while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.is_empty()) {
        if let Some(given) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = given.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    lines.get_mut().read_exact(&mut body).await.unwrap();
    (first.split(' ').nth(1).unwrap().to_owned(), body.len())
}

#[tokio::test]
async fn an_answer_ends_the_attempt_and_is_kept() {
    let world = World::at(instance().await);
    world.put("/size").await;
    let running = tokio::spawn(world.slot().run(CancellationToken::new()));
    let job = world.once(|job| job.state.is_final()).await;
    assert_eq!(job.state, JobState::Succeeded);
    let stored = world.bench.service.read_payload(&job.result.unwrap()).await;
    let answer = Answer::decode(&stored.unwrap().unwrap()).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, &b"50000"[..]));
    world.drain.cancel();
    let end = tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
    assert_eq!(end, SlotEnd::Closed);
}

#[tokio::test]
async fn the_last_5xx_is_a_failure_with_its_answer() {
    let world = World::at(instance().await);
    world.put("/status/502").await;
    let _running = tokio::spawn(world.slot().run(CancellationToken::new()));
    let job = world.once(|job| job.state.is_final()).await;
    assert_eq!(
        (job.state, job.attempts, job.lost_attempts),
        (JobState::Failed, 2, 1)
    );
    assert!(job.failure.unwrap().message.contains("status 502: so it is"));
    assert!(job.result.is_some());
}

#[tokio::test]
async fn what_was_never_sent_costs_no_attempt_and_the_slot_waits_for_its_instance() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::at(format!("http://{}", nobody.local_addr().unwrap()));
    drop(nobody);
    world.put("/size").await;
    let running = tokio::spawn(world.slot().run(CancellationToken::new()));
    let job = world
        .once(|job| job.attempts == 1 && job.state == JobState::Queued)
        .await;
    assert_eq!(job.lost_attempts, 0);
    world.evidence.send_replace(Some("it went away".to_owned()));
    let end = tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
    let reason = "it went away".to_owned();
    assert_eq!(end, SlotEnd::InstanceBroken { reason });
    assert_eq!(
        world.job().await.attempts,
        1,
        "it claimed nothing it could not send"
    );
}

#[tokio::test]
async fn what_runs_when_the_server_stops_is_given_back() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::at(format!("http://{}", silent.local_addr().unwrap()));
    world.put("/size").await;
    let hurry = CancellationToken::new();
    let running = tokio::spawn(world.slot().run(hurry.clone()));
    let _sent = tokio::time::timeout(LIMIT, silent.accept())
        .await
        .unwrap()
        .unwrap();
    world.drain.cancel();
    hurry.cancel();
    let end = tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
    assert_eq!(end, SlotEnd::Closed);
    let job = world.job().await;
    assert_eq!((job.state, job.lost_attempts), (JobState::Queued, 0));
}

#[tokio::test]
async fn a_refused_request_leaves_no_bytes() {
    let world = World::at("http://127.0.0.1:9".to_owned());
    let item = |path: &str, id: &str| RequestItem {
        tags: [("requestId".to_owned(), id.to_owned())].into(),
        priority: 0,
        path: path.to_owned(),
        query: String::new(),
        headers: vec![],
        body: vec![7; 50_000].into(),
        base_url: String::new(),
        request_id: "r".into(),
    };
    let service = &world.bench.service;
    let put = service
        .put_request(&world.queue(), item("/a", "mine"))
        .await
        .unwrap();
    let before = world.bench.blob_keys().await;
    assert_eq!(
        service
            .put_request(&world.queue(), item("/b", "mine"))
            .await
            .unwrap(),
        put
    );
    assert!(
        service
            .put_request(&world.queue(), item("/a/../b", "x"))
            .await
            .is_err()
    );
    service.end_queue(&world.queue().id, true).await.unwrap();
    assert!(
        service
            .put_request(&world.queue(), item("/c", "y"))
            .await
            .is_err()
    );
    assert_eq!(world.bench.blob_keys().await, before);
}

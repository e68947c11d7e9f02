//! The outside checker: remembers every job that a server acknowledged and what its picture must be, and at the end
//! asks for each of them, whatever died in between.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use image::RgbImage;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{Api, eventually, fc, graphs, http::Answer, pixels};

/// How long one job may take once nothing dies any more.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);
/// A request that a dying server never answers is given up after this.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// Above 32 KiB a job's body is stored as a blob of its own.
const LARGE_BODY_BYTES: usize = 40_000;

/// Which protocol acknowledged a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Our own API: by the job's id.
    Own,
    /// The Serverless API, asynchronously: by the caller's task id.
    Serverless,
}

/// A job that was acknowledged.
#[derive(Debug, Clone)]
struct Acknowledged {
    id: String,
    protocol: Protocol,
    expected: RgbImage,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    next: Arc<AtomicU32>,
}

impl Ledger {
    /// How many jobs were acknowledged so far.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enters a job of our own API whose picture is known.
    pub fn enter(&self, id: &str, expected: RgbImage) {
        self.lock().push(Acknowledged {
            id: id.to_owned(),
            protocol: Protocol::Own,
            expected,
        });
    }

    /// Submits one more job, unlike every other; says under which id, if it was acknowledged.
    pub async fn submit(&self, api: &Api) -> Option<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (graph, expected) = job(number);
        let (protocol, sent) = if number.is_multiple_of(2) {
            (Protocol::Own, submit_own(api, &graph).await)
        } else {
            (Protocol::Serverless, submit_serverless(api, number, &graph).await)
        };
        // No answer is no acknowledgement: such a job may exist or not.
        let id = sent.ok()??;
        let entry = Acknowledged {
            id: id.clone(),
            protocol,
            expected,
        };
        self.lock().push(entry);
        Some(id)
    }

    /// Clients that submit, wait for the end of what they submitted, and submit again, until told to stop.
    pub fn load(&self, api: &Api, clients: usize) -> Load {
        let (stop, stopped) = watch::channel(false);
        let tasks = (0..clients)
            .map(|_| tokio::spawn(client(self.clone(), api.clone(), stopped.clone())))
            .collect();
        Load { stop, tasks }
    }

    /// Every acknowledged job has succeeded, once, and every picture is downloaded and is the right one.
    pub async fn settle(&self, api: &Api) {
        let acknowledged = self.lock().clone();
        for job in acknowledged {
            job.check(api).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Acknowledged>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clients at work.
pub struct Load {
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Lets each client end what it is at.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("a client does not panic");
        }
    }
}

async fn client(ledger: Ledger, api: Api, stopped: watch::Receiver<bool>) {
    /// Jobs that one client leaves unfinished while it submits more.
    const AHEAD: usize = 3;
    let mut ahead = std::collections::VecDeque::new();
    while !*stopped.borrow() {
        match ledger.submit(&api).await {
            Some(id) => ahead.push_back(id),
            // The server is away: its socket is not, so this is a broken connection, not a busy loop of refusals.
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        while ahead.len() > AHEAD && !*stopped.borrow() {
            let id = ahead.front().expect("more than none").clone();
            if has_ended(&api, &id).await {
                ahead.pop_front();
            } else {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn has_ended(api: &Api, id: &str) -> bool {
    match id.strip_prefix(TASK_PREFIX) {
        Some(_) => task_events(api, id).await.is_some_and(|events| is_over(&events)),
        None => own_job(api, id).await.is_some_and(|job| is_final(&job)),
    }
}

/// Task ids of the checker; the ids of our own API are UUIDs and never begin like this.
const TASK_PREFIX: &str = "task-";

/// The n-th job and its picture. Every third one brings a picture of its own, every fourth has a large body.
fn job(number: u32) -> (Value, RgbImage) {
    let (mut graph, expected) = if number.is_multiple_of(3) {
        let mut picture = pixels::gradient(24, 16);
        let [_, r, g, b] = number.to_be_bytes();
        picture.put_pixel(0, 0, image::Rgb([r, g, b]));
        let graph = graphs::invert(&pixels::data_uri(&pixels::encode(&picture)));
        (graph, pixels::inverse(&picture))
    } else {
        let colour = number.wrapping_mul(0x01_01_03) & 0x00ff_ffff;
        let side = 8 + number % 5;
        let graph = graphs::scaled(colour, side, 2 * side, side);
        (graph, pixels::plain(colour, 2 * side, side))
    };
    if number.is_multiple_of(4) {
        graph["9"]["_meta"] = json!({"title": "x".repeat(LARGE_BODY_BYTES)});
    }
    (graph, expected)
}

async fn submit_own(api: &Api, graph: &Value) -> Result<Option<String>, reqwest::Error> {
    let request = api
        .request(Method::POST, "/darkroom/v1/endpoints/default/jobs")
        .json(&json!({"graph": graph}));
    let answer = send(api, request).await?;
    Ok(accepted(&answer, 201).then(|| answer.json()["id"].as_str().expect("a job has an id").to_owned()))
}

async fn submit_serverless(api: &Api, number: u32, graph: &Value) -> Result<Option<String>, reqwest::Error> {
    let task = format!("{TASK_PREFIX}{number}");
    let request = api
        .request(Method::POST, "/api/serverless/run?output_oss=true")
        .header("X-Fc-Invocation-Type", "Async")
        .header("X-Fc-Async-Task-Id", &task)
        .json(graph);
    let answer = send(api, request).await?;
    Ok(accepted(&answer, 202).then_some(task))
}

/// A refusal must be one that a client understands as "later"; anything else is a defect.
fn accepted(answer: &Answer, status: u16) -> bool {
    let got = answer.status.as_u16();
    assert!(
        got == status || got == 503 || got == 429,
        "a good submit was answered with {got}: {}",
        answer.text()
    );
    got == status
}

async fn send(api: &Api, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    api.try_send(request.timeout(REQUEST_LIMIT)).await
}

async fn own_job(api: &Api, id: &str) -> Option<Value> {
    let request = api.request(Method::GET, &format!("/darkroom/v1/jobs/{id}"));
    let answer = send(api, request).await.ok()?;
    // It was acknowledged: not to know it is to have lost it.
    assert_ne!(answer.status.as_u16(), 404, "job {id} is unknown");
    (answer.status == 200).then(|| answer.json())
}

async fn task_events(api: &Api, task: &str) -> Option<Vec<Value>> {
    let request = api.request(Method::GET, &format!("/api/serverless/status?task_id={task}"));
    let answer = send(api, request).await.ok()?;
    (answer.status == 200)
        .then(|| answer.json().as_array().cloned())
        .flatten()
}

fn is_over(events: &[Value]) -> bool {
    let last = events.last().and_then(|event| event["type"].as_str());
    matches!(last, Some("serverless_api" | "error"))
}

fn is_final(job: &Value) -> bool {
    matches!(
        job["state"].as_str(),
        Some("succeeded" | "failed" | "cancelled" | "expired")
    )
}

impl Acknowledged {
    async fn check(&self, api: &Api) {
        let job = match self.protocol {
            Protocol::Own => self.id.clone(),
            Protocol::Serverless => self.check_task(api).await,
        };
        let what = format!("job {job} ends");
        let job = eventually(&what, SETTLE_LIMIT, async || {
            own_job(api, &job).await.filter(is_final)
        })
        .await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let done = job["attempts"].as_array().into_iter().flatten();
        let done = done.filter(|attempt| attempt["state"] == "done").count();
        assert_eq!(done, 1, "completed once: {job}");
        let files = api.outputs(&job).await;
        assert_eq!(files.len(), 1, "{job}");
        self.check_picture(&files[0]);
    }

    /// As the task's own client sees it; returns the job's id.
    async fn check_task(&self, api: &Api) -> String {
        let what = format!("task {} ends", self.id);
        let events = eventually(&what, SETTLE_LIMIT, async || {
            task_events(api, &self.id).await.filter(|events| is_over(events))
        })
        .await;
        let ends = events
            .iter()
            .filter(|e| matches!(e["type"].as_str(), Some("serverless_api" | "error")));
        assert_eq!(ends.count(), 1, "one end: {events:?}");
        let last = events.last().expect("an end");
        let results = fc::results(last);
        assert_eq!(results.len(), 1, "{last}");
        let url = results[0]["output"]["oss"]["url"].as_str().expect("an address");
        self.check_picture(&api.get(url).await.expect(200).body);
        last["data"]["prompt_id"]
            .as_str()
            .expect("a prompt id")
            .to_owned()
    }

    fn check_picture(&self, png: &[u8]) {
        assert!(
            pixels::decode(png) == self.expected,
            "the picture of {} is not the one it asked for",
            self.id
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_unlike_each_other() {
        let jobs: Vec<_> = (1..200).map(job).collect();
        for (n, (graph, picture)) in jobs.iter().enumerate() {
            for (other_graph, other) in &jobs[..n] {
                assert_ne!(graph, other_graph);
                assert!(picture != other, "job {n}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "is not the one it asked for")]
    fn a_wrong_picture_is_noticed() {
        let (_, expected) = job(1);
        let (_, other) = job(2);
        let job = Acknowledged {
            id: "x".into(),
            protocol: Protocol::Own,
            expected,
        };
        job.check_picture(&pixels::encode(&other));
    }
}

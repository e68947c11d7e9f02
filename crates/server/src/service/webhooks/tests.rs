use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use darkroom_core::AttemptOutcome;
use darkroom_store::jobs::{Claim, Finish};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::service::testing::Bench;

const LOCAL: &str = "[fetch]\nallow = [\"127.0.0.1\"]\n";
const LIMIT: Duration = Duration::from_secs(60);

/// One request that came.
#[derive(Debug, Clone)]
struct Came {
    head: String,
    body: String,
}

impl Came {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        });
        line.unwrap_or_default()
    }
}

/// Answers requests in turn with these heads (status and more lines), the last one for ever; or waits for the gate first.
struct Receiver {
    address: SocketAddr,
    came: watch::Receiver<Vec<Came>>,
    open: Arc<AtomicUsize>,
    gate: Arc<Notify>,
}

impl Receiver {
    async fn answering(answers: &[&str]) -> Receiver {
        Receiver::start(answers, false).await
    }

    async fn behind_a_gate() -> Receiver {
        Receiver::start(&["200 OK"], true).await
    }

    async fn start(answers: &[&str], gated: bool) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Arc<Mutex<VecDeque<String>>> =
            Arc::new(Mutex::new(answers.iter().map(|&a| a.to_owned()).collect()));
        let (tell, came) = watch::channel(Vec::new());
        let (open, gate) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        let (counted, waited) = (open.clone(), gate.clone());
        let tell = Arc::new(tell);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (tell, answers) = (tell.clone(), answers.clone());
                let (counted, waited) = (counted.clone(), waited.clone());
                tokio::spawn(async move {
                    let came = read(&mut socket).await;
                    counted.fetch_add(1, Ordering::SeqCst);
                    tell.send_modify(|all| all.push(came));
                    if gated {
                        waited.notified().await;
                    }
                    let answer = {
                        let mut answers = answers.lock().unwrap();
                        let first = answers.pop_front().unwrap();
                        if answers.is_empty() {
                            answers.push_back(first.clone());
                        }
                        first
                    };
                    counted.fetch_sub(1, Ordering::SeqCst);
                    let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = socket.write_all(head.as_bytes()).await;
                });
            }
        });
        Receiver {
            address,
            came,
            open,
            gate,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/told?token=secret", self.address)
    }

    async fn has(&self, count: usize) -> Vec<Came> {
        let mut came = self.came.clone();
        let all = tokio::time::timeout(LIMIT, came.wait_for(|all| all.len() >= count)).await;
        all.expect("requests come").unwrap().clone()
    }
}

async fn read(socket: &mut TcpStream) -> Came {
    let mut bytes = Vec::new();
    loop {
        let mut some = [0; 4096];
        let n = socket.read(&mut some).await.unwrap_or(0);
        bytes.extend_from_slice(&some[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = Came {
                head: head.into(),
                body: String::new(),
            }
            .header("content-length")
            .parse();
            if body.len() >= length.unwrap_or(0) {
                return Came {
                    head: head.into(),
                    body: body.into(),
                };
            }
        }
        if n == 0 {
            return Came {
                head: text,
                body: String::new(),
            };
        }
    }
}

/// A service that delivers, until this is dropped.
struct Telling {
    bench: Bench,
    _stop: tokio_util::sync::DropGuard,
}

impl Telling {
    fn begin(config: &str) -> Telling {
        let bench = Bench::configured(config);
        let body: StatusBody =
            Arc::new(|_, job| Box::pin(async move { Ok(json!({"id": job.id, "state": job.state})) }));
        let shouting: StatusBody = Arc::new(|_, job| Box::pin(async move { Ok(json!({"ID": job.id})) }));
        bench
            .service
            .set_status_bodies(StatusBodies::new(body).with("shouting", shouting));
        let stop = CancellationToken::new();
        let (service, stopped) = (bench.service.clone(), stop.clone());
        tokio::spawn(async move { service.send_webhooks(stopped).await });
        Telling {
            bench,
            _stop: stop.drop_guard(),
        }
    }

    /// A job with a webhook that ended well.
    async fn ended(&self, url: &str) -> JobId {
        self.ended_as(url, "plain").await
    }

    async fn ended_as(&self, url: &str, dialect: &str) -> JobId {
        let service = &self.bench.service;
        let mut meta = JobMeta {
            dialect: dialect.to_owned(),
            ..JobMeta::default()
        };
        service.set_webhook(&mut meta, url, "http://us").unwrap();
        let job = self.bench.job_with("{}", meta).await;
        let claim = Claim {
            endpoint: self.bench.endpoint(),
            instance: self.bench.instance().await,
            owner: service.node.clone(),
            loaded_models: vec![],
            offers: None,
            except: vec![],
            max_running_per_tenant: 0,
            lease: LIMIT,
        };
        let claimed = service.store.claim(claim).await.unwrap().unwrap();
        let lease = darkroom_core::attempt::Lease {
            job: claimed.job.id,
            fence: claimed.fence,
        };
        let finish = Finish {
            outcome: AttemptOutcome::Done,
            outputs: vec![],
            result: None,
            events: vec![],
        };
        service.store.finish(lease, finish).await.unwrap().unwrap();
        assert_eq!(claimed.job.id, job);
        job
    }

    /// Waits until the log of a job's deliveries has this many entries.
    async fn log(&self, job: JobId, entries: usize) -> WebhookView {
        let look = async {
            loop {
                let view = self
                    .bench
                    .service
                    .webhook(&self.bench.record(job).await)
                    .await
                    .unwrap();
                if view.deliveries.len() >= entries {
                    return view;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, look).await.expect("it is tried")
    }
}

#[tokio::test]
async fn a_receiver_that_fails_first_is_told_again_under_the_same_id() {
    let telling = Telling::begin(LOCAL);
    let receiver = Receiver::answering(&["503 No", "204 Fine"]).await;
    let job = telling.ended(&receiver.url()).await;
    let first = telling.log(job, 1).await;
    assert_eq!(
        first.url,
        Some(format!("http://{}/told", receiver.address)),
        "without its query"
    );
    let failed = &first.deliveries[0];
    assert_eq!(
        (failed.status, failed.problem.as_deref()),
        (Some(503), Some("answered 503"))
    );
    assert_eq!(first.next_at, failed.next_at);
    // Ten seconds later something happens, and the keeper looks again.
    telling.bench.clock.advance(Duration::from_secs(11));
    let other = Receiver::answering(&["200 OK"]).await;
    telling.ended(&other.url()).await;
    let second = telling.log(job, 2).await;
    assert_eq!(
        (second.deliveries[1].status, &second.deliveries[1].problem),
        (Some(204), &None)
    );
    assert_eq!(second.next_at, None);
    let came = receiver.has(2).await;
    let ids: Vec<&str> = came.iter().map(|c| c.header("webhook-id")).collect();
    assert_eq!(ids, [failed.message.as_str(); 2]);
    assert_eq!(
        serde_json::from_str::<Value>(&came[1].body).unwrap(),
        json!({"id": job, "state": "succeeded"})
    );
    assert_eq!(came[1].header("content-type"), "application/json");
    let at: i64 = came[1].header("webhook-timestamp").parse().unwrap();
    assert!(
        at > came[0].header("webhook-timestamp").parse().unwrap(),
        "signed anew"
    );
}

#[tokio::test]
async fn each_dialect_is_told_in_its_own_words() {
    let telling = Telling::begin(LOCAL);
    let receiver = Receiver::answering(&["200 OK"]).await;
    let job = telling.ended_as(&receiver.url(), "shouting").await;
    assert_eq!(receiver.has(1).await[0].body, json!({"ID": job}).to_string());
}

#[tokio::test]
async fn a_slow_receiver_holds_nobody_up() {
    let telling = Telling::begin(LOCAL);
    let slow = Receiver::behind_a_gate().await;
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(telling.ended(&slow.url()).await);
    }
    slow.has(4).await;
    let quick = Receiver::answering(&["200 OK"]).await;
    let job = telling.ended(&quick.url()).await;
    assert_eq!(telling.log(job, 1).await.deliveries[0].problem, None);
    assert_eq!(slow.open.load(Ordering::SeqCst), 4, "a few at a time");
    // One after the other gets through.
    for (nth, job) in waiting.into_iter().enumerate() {
        slow.has(nth + 1).await;
        slow.gate.notify_one();
        telling.log(job, 0).await;
    }
    slow.has(10).await;
}

#[tokio::test]
async fn a_redirect_is_checked_like_the_address_itself() {
    let telling = Telling::begin(LOCAL);
    let last = Receiver::answering(&["200 OK"]).await;
    let there = format!("307 There\r\nlocation: {}", last.url());
    let hop = Receiver::answering(&[&there]).await;
    let job = telling.ended(&hop.url()).await;
    assert_eq!(telling.log(job, 1).await.deliveries[0].status, Some(200));
    let (first, second) = (&hop.has(1).await[0], &last.has(1).await[0]);
    assert!(
        second.head.starts_with("POST /told?token=secret "),
        "{}",
        second.head
    );
    assert_eq!(first.body, second.body);
    assert_eq!(
        first.header("webhook-signature"),
        second.header("webhook-signature")
    );
    for private in [
        "http://169.254.169.254/",
        "http://127.0.0.2:1/",
        "http://[::1]/",
        "file:///etc/passwd",
    ] {
        let away = Receiver::answering(&[&format!("307 There\r\nlocation: {private}")]).await;
        let job = telling.ended(&away.url()).await;
        let tried = telling.log(job, 1).await.deliveries[0].clone();
        assert_eq!(tried.status, None, "{private}");
        assert!(tried.problem.is_some(), "{private}");
    }
}

#[tokio::test]
async fn private_addresses_are_refused_at_the_submit_and_names_at_the_delivery() {
    let telling = Telling::begin("");
    let service = &telling.bench.service;
    let mut meta = JobMeta::default();
    for url in [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest",
        "http://2130706433/",
        "ftp://example.com/",
        "nonsense",
        "http://user:pass@example.com/",
        &format!("http://example.com/{}", "x".repeat(MAX_URL_BYTES)),
    ] {
        let refused = service.set_webhook(&mut meta, url, "");
        assert!(matches!(refused, Err(Error::Invalid(_))), "{url}: {refused:?}");
        assert_eq!(meta.webhook, None);
    }
    let receiver = Receiver::answering(&["200 OK"]).await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    let job = telling.ended(&url).await;
    let tried = telling.log(job, 1).await.deliveries[0].clone();
    assert!(tried.status.is_none() && tried.next_at.is_some(), "{tried:?}");
    assert!(receiver.came.borrow().is_empty());
}

#[tokio::test]
async fn a_receiver_that_is_gone_for_good_is_told_once_and_again_when_asked() {
    let telling = Telling::begin(LOCAL);
    let receiver = Receiver::answering(&["410 Gone", "200 OK"]).await;
    let job = telling.ended(&receiver.url()).await;
    let view = telling.log(job, 1).await;
    assert_eq!((view.next_at, view.deliveries[0].next_at), (None, None));
    telling.bench.service.redeliver(None, job).await.unwrap();
    let view = telling.log(job, 2).await;
    assert_eq!(view.deliveries[1].problem, None);
    assert_eq!(view.deliveries[0].message, view.deliveries[1].message);
}

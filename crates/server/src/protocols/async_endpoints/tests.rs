//! What time does to jobs and workers, through the routes and a clock that is moved: a job whose time is over is nobody's any
//! more, and a worker that was given up is heard without harm.

use std::time::Duration;

use darkroom_core::{InstanceState, JobId};
use serde_json::{Value, json};

use crate::{service::testing::Bench, state::AppState};

const MINUTE: Duration = Duration::from_secs(60);
const WORKERS: &str = "[endpoints.w]\nkind = \"worker\"\n";
const VENDORS: &str = "[endpoints.w]\nkind = \"worker\"\nlimits = { vendor_limits = true }\n";

/// The routes of a bench, and somebody who calls them.
struct Calls {
    bench: Bench,
    base: String,
    http: reqwest::Client,
}

impl Calls {
    async fn configured(toml: &str) -> Calls {
        let bench = Bench::configured(toml);
        bench.service.workers_are_known();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = AppState::around(bench.service.clone(), address);
        let router = super::routes().with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Calls {
            bench,
            base: format!("http://{address}"),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.base));
        let answer = request.json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn status(&self, job: JobId) -> u16 {
        self.call("GET", &format!("/v2/w/status/{job}"), json!(null))
            .await
            .0
    }

    async fn run(&self, path: &str, policy: Value) -> JobId {
        let body = json!({"input": 1, "policy": policy});
        let (status, answer) = self.call("POST", path, body).await;
        assert_eq!(status, 200, "{answer}");
        answer["id"].as_str().unwrap().parse().unwrap()
    }

    /// A worker takes the job that waits, and is done with it.
    async fn end(&self) {
        let (status, job) = self.call("GET", "/v2/w/job-take/box", json!(null)).await;
        assert_eq!(status, 200, "{job}");
        let job = job["id"].as_str().unwrap();
        let url = format!("{}/v2/w/job-done/box/{job}", self.base);
        let posted = self.http.post(url).json(&json!({"output": 1})).send().await;
        assert_eq!(posted.unwrap().status().as_u16(), 200);
    }

    fn later(&self, by: Duration) {
        self.bench.clock.advance(by);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_job_is_there_until_its_ttl_and_not_found_afterwards() {
    let calls = Calls::configured(WORKERS).await;
    let job = calls.run("/v2/w/run", json!({"ttl": 600_000})).await;
    let kept = calls.run("/v2/w/run", json!({})).await;
    calls.end().await;
    calls.end().await;
    calls.later(9 * MINUTE);
    assert_eq!(calls.status(job).await, 200);
    calls.later(MINUTE);
    for (method, route) in [
        ("GET", "status"),
        ("GET", "stream"),
        ("POST", "cancel"),
        ("POST", "retry"),
    ] {
        let (status, answer) = calls
            .call(method, &format!("/v2/w/{route}/{job}"), json!(null))
            .await;
        assert_eq!(status, 404, "{route}: {answer}");
    }
    assert_eq!(calls.status(kept).await, 200, "nobody wished its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_did_not_begin_in_time_is_told_so_for_a_minute_and_cannot_be_retried() {
    let calls = Calls::configured(WORKERS).await;
    let job = calls.run("/v1/w/run", json!({"ttl": 10_000})).await;
    calls.later(Duration::from_secs(10));
    calls.bench.service.store.expire().await.unwrap();
    let (_, told) = calls
        .call("GET", &format!("/v1/w/status/{job}"), json!(null))
        .await;
    assert_eq!(told["status"], "TIMED_OUT", "{told}");
    let (status, refused) = calls
        .call("POST", &format!("/v2/w/retry/{job}"), json!(null))
        .await;
    assert_eq!(status, 400, "{refused}");
    calls.later(MINUTE);
    assert_eq!(calls.status(job).await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shortens_what_is_left_and_refuses_what_is_no_time() {
    let calls = Calls::configured(WORKERS).await;
    let job = calls.run("/v2/w/run", json!({})).await;
    calls.end().await;
    for wrong in ["9999", "0", "-1", "soon", "604800001", ""] {
        let (status, answer) = calls
            .call("GET", &format!("/v2/w/status/{job}?ttl={wrong}"), json!(null))
            .await;
        assert_eq!(status, 400, "{wrong}: {answer}");
    }
    for ttl in ["10000", "604800000"] {
        let (status, _) = calls
            .call("GET", &format!("/v2/w/status/{job}?ttl={ttl}"), json!(null))
            .await;
        assert_eq!(status, 200);
    }
    calls.later(Duration::from_secs(10));
    assert_eq!(calls.status(job).await, 404, "the second time made it no longer");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_vendors_limits_results_are_kept_as_long_as_theirs() {
    let calls = Calls::configured(VENDORS).await;
    for (path, kept) in [
        ("/v1/w/run", 360 * MINUTE),
        ("/v2/w/run", 30 * MINUTE),
        ("/v2/w/runsync?wait=1000", MINUTE),
    ] {
        let job = calls.run(path, json!({})).await;
        calls.later(2 * MINUTE);
        calls.end().await;
        let second = Duration::from_secs(1);
        calls.later(kept - Duration::from_secs(10));
        assert_eq!(calls.status(job).await, 200, "{path}");
        calls.later(Duration::from_secs(10) + second);
        assert_eq!(calls.status(job).await, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_of_a_worker_that_was_given_up_is_taken_for_what_it_is() {
    let calls = Calls::configured(WORKERS).await;
    let job = calls.run("/v2/w/run", json!({})).await;
    let (status, taken) = calls.call("GET", "/v2/w/job-take/box", json!(null)).await;
    assert_eq!((status, taken["id"].as_str()), (200, Some(&*job.to_string())));
    let pinged = calls
        .http
        .get(format!("{}/v2/w/ping/box?job_id={job}", calls.base));
    assert_eq!(pinged.send().await.unwrap().status().as_u16(), 200);
    calls.later(MINUTE);
    let (service, stop) = (
        calls.bench.service.clone(),
        tokio_util::sync::CancellationToken::new(),
    );
    let _looks = stop.clone().drop_guard();
    tokio::spawn(async move { service.keep_workers(stop).await });
    let waits = async {
        while calls.bench.record(job).await.state.as_str() != "queued" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits)
        .await
        .expect("its silence is found out");
    let post = async |worker: &str| {
        let url = format!("{}/v2/w/job-done/{worker}/{job}", calls.base);
        let posted = calls.http.post(url).json(&json!({"output": 1})).send().await;
        posted.unwrap().status().as_u16()
    };
    assert_eq!(
        post("box").await,
        200,
        "it had the job, and is not told to try again"
    );
    assert_eq!(post("stranger").await, 409, "who never had it is");
    let (_, told) = calls
        .call("GET", &format!("/v2/w/status/{job}"), json!(null))
        .await;
    assert_eq!(told["status"], "IN_QUEUE", "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_says_it_cannot_work_is_handed_nothing_more() {
    let calls = Calls::configured(WORKERS).await;
    let first = calls.run("/v2/w/run", json!({})).await;
    calls.end().await;
    assert_eq!(calls.status(first).await, 200);
    let url = format!(
        "{}/v2/w/ping/box?status=unhealthy&check=_memory_check&reason=RuntimeError%3A+x",
        calls.base
    );
    let told = calls.http.get(url).send().await.unwrap();
    assert_eq!(told.status().as_u16(), 200);
    let rows = calls.bench.service.store.instances(false).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].state, InstanceState::Draining);
    assert_eq!(rows[0].state_reason, "memory_check failed: RuntimeError: x");
    let waiting = calls.run("/v2/w/run", json!({})).await;
    let poll = calls.call("GET", "/v2/w/job-take/box", json!(null));
    let fit = calls.call("GET", "/v2/w/job-take/fit", json!(null));
    tokio::select! {
        answered = poll => panic!("{answered:?}"),
        (status, taken) = fit => {
            assert_eq!((status, taken["id"].as_str()), (200, Some(&*waiting.to_string())));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_waits_is_answered_when_the_job_ends_or_the_wait_does() {
    let calls = std::sync::Arc::new(Calls::configured(WORKERS).await);
    let job = calls.run("/v2/w/run", json!({})).await;
    let path = |wait: u32| format!("/v2/w/status/{job}?wait={wait}");
    let (status, told) = calls.call("GET", &path(1_000), json!(null)).await;
    assert_eq!((status, &told["status"]), (200, &json!("IN_QUEUE")));
    for (wait, refused) in [(999, 400), (300_001, 400)] {
        assert_eq!(calls.call("GET", &path(wait), json!(null)).await.0, refused);
    }
    let waiting = tokio::spawn({
        let (calls, path) = (calls.clone(), path(300_000));
        async move { calls.call("GET", &path, json!(null)).await }
    });
    calls.end().await;
    let (status, told) = waiting.await.unwrap();
    assert_eq!(
        (status, &told["status"], &told["output"]),
        (200, &json!("COMPLETED"), &json!(1))
    );
    assert_eq!(told["workerId"], "box");
    let (_, again) = calls.call("GET", &path(300_000), json!(null)).await;
    assert_eq!(again["status"], "COMPLETED", "an ended one is not waited for");
}

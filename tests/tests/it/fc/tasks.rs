//! Asynchronous calls, ids, `/status` and `/task/{id}` (reference §7).

use std::collections::BTreeSet;

use darkroom_tests::{Api, Options, Server, fc, graphs, http::Answer};
use serde_json::{Value, json};

use super::{PARKED, RUN, WITH_PARKED, ended, jobs, keys, post, refused};

pub(super) async fn submit(api: &Api, prefix: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("X-Fc-Invocation-Type", "Async")];
    all.extend_from_slice(headers);
    post(
        api,
        &format!("{prefix}{RUN}"),
        &all,
        graphs::plain(1, 8, 8).to_string(),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_call_is_an_empty_202_under_the_callers_id() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let digit = "0f8fad5b-d9cb-469f-a165-70867728950e";
    for (headers, id, echoed) in [
        (vec![("X-Fc-Trace-Id", digit)], digit, None),
        (
            vec![("X-Fc-Async-Task-Id", "_task-1")],
            "_task-1",
            Some("_task-1"),
        ),
        (
            vec![("X-Fc-Async-Task-Id", "first"), ("X-Fc-Trace-Id", "second")],
            "first",
            Some("first"),
        ),
        (vec![("x-serverless-api-task-id", "alias")], "alias", None),
        (vec![("X-Fc-Trace-Id", "..%2f..%2fx")], "..%2f..%2fx", None),
    ] {
        let answer = submit(&api, "", &headers).await.expect(202);
        assert!(answer.body.is_empty(), "{}", answer.text());
        assert_eq!(answer.header("x-fc-request-id"), Some(id));
        assert_eq!(answer.header("x-fc-async-task-id"), echoed);
        let messages = ended(&api, &id.replace('%', "%25")).await;
        assert_eq!(
            messages.last().expect("a result")["type"],
            "serverless_api",
            "{id}"
        );
    }
    // Without any id one is made, and it finds the task.
    let answer = submit(&api, "", &[]).await.expect(202);
    let made = answer.header("x-fc-request-id").expect("an id").to_owned();
    assert!(!made.is_empty());
    let result = ended(&api, &made).await.pop().expect("a result");
    assert_eq!(result["type"], "serverless_api");
    // The prompt id finds it, too, also where the caller had an id of its own.
    let prompt = fc::status(&api, "first").await.pop().expect("a result")["data"]["prompt_id"].clone();
    assert_eq!(
        fc::status(&api, prompt.as_str().expect("an id")).await,
        fc::status(&api, "first").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_word_async_makes_a_call_asynchronous() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = graphs::plain(1, 8, 8).to_string();
    for (word, status) in [
        ("async", 202),
        ("ASYNC", 202),
        ("Sync", 200),
        ("", 200),
        ("Asynchronous", 200),
    ] {
        let answer = post(&api, RUN, &[("X-Fc-Invocation-Type", word)], graph.clone()).await;
        assert_eq!(answer.status, status, "{word}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn task_ids_keep_the_vendors_rule_and_trace_ids_only_ours() {
    let server = Server::start(Options::default().with_config(WITH_PARKED)).await;
    let api = server.api();
    let long = "a".repeat(129);
    for bad in [
        "1abc",
        "-abc",
        "a b",
        "../../x",
        "a/b",
        "a.b",
        "任务",
        long.as_str(),
    ] {
        let answer = submit(&api, "/e/parked", &[("X-Fc-Async-Task-Id", bad)]).await;
        let body = refused(&answer, 400, "INVALID_PARAMS");
        let message = body["error_message"].as_str().unwrap_or_default().to_lowercase();
        assert!(message.contains("x-fc-async-task-id"), "{body}");
    }
    for bad in ["a b", "任务", long.as_str()] {
        refused(
            &submit(&api, "/e/parked", &[("X-Fc-Trace-Id", bad)]).await,
            400,
            "INVALID_PARAMS",
        );
    }
    assert_eq!(jobs(&api).await, 0, "nothing was half accepted");
    let longest = "a".repeat(128);
    submit(&api, "/e/parked", &[("X-Fc-Async-Task-Id", &longest)])
        .await
        .expect(202);
    submit(&api, "/e/parked", &[("X-Fc-Trace-Id", "../../x")])
        .await
        .expect(202);
    assert_eq!(jobs(&api).await, 2);
    let escaped = [server.home().join("x"), server.data_dir().join("x")];
    assert!(
        escaped.iter().all(|path| !path.exists()),
        "an id is a name in a table, never a path"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_carries_the_callers_id_too() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let headers = [("X-Fc-Trace-Id", "9-mine")];
    for body in ["{", "{}", r#"{"1": {"class_type": "Nonsense", "inputs": {}}}"#] {
        let answer = post(&api, RUN, &headers, body).await;
        assert_eq!(
            answer.header("x-fc-request-id"),
            Some("9-mine"),
            "{body}: {}",
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_id_is_used_once_and_a_repeated_sync_call_runs_again() {
    let server = Server::start(Options::default().with_config(WITH_PARKED)).await;
    let api = server.api();
    let id = [("X-Fc-Async-Task-Id", "once")];
    submit(&api, "", &id).await.expect(202);
    ended(&api, "once").await;
    for _ in 0..2 {
        let body = refused(&submit(&api, "", &id).await, 409, "ConcurrentUpdateError");
        assert!(
            body["error_message"]
                .as_str()
                .unwrap_or_default()
                .contains("once"),
            "{body}"
        );
    }
    assert_eq!(jobs(&api).await, 1);
    // Endpoints are functions of their own: the same id may be used there.
    submit(&api, "/e/parked", &id).await.expect(202);

    let mut prompts = BTreeSet::new();
    for _ in 0..2 {
        let headers = [("X-Fc-Trace-Id", "again")];
        let answer = post(&api, RUN, &headers, graphs::plain(1, 8, 8).to_string())
            .await
            .expect(200);
        assert_eq!(answer.header("x-fc-request-id"), Some("again"));
        let prompt = answer.json()["data"]["prompt_id"].to_string();
        let polled = fc::status(&api, "again").await;
        assert_eq!(
            polled.last().expect("a result")["data"]["prompt_id"].to_string(),
            prompt,
            "the newest run"
        );
        let starts = polled.iter().filter(|m| m["type"] == "execution_start").count();
        assert_eq!(starts, 1, "one run's messages, not two runs' behind one another");
        prompts.insert(prompt);
    }
    assert_eq!(prompts.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_with_one_task_id_make_one_job() {
    let server = Server::start(Options::default().with_config(WITH_PARKED)).await;
    let api = server.api();
    let calls = (0..16).map(|_| {
        let api = api.clone();
        async move {
            submit(&api, "/e/parked", &[("X-Fc-Async-Task-Id", "race")])
                .await
                .status
                .as_u16()
        }
    });
    let mut statuses = futures::future::join_all(calls).await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 202);
    assert!(statuses[1..].iter().all(|status| *status == 409), "{statuses:?}");
    assert_eq!(jobs(&api).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_an_array_that_grows_and_never_404() {
    let server = Server::start(Options::test_nodes().with_config(PARKED)).await;
    let api = server.api();
    for unknown in [
        "nobody",
        "..%2F..%2Fx",
        "../../x",
        "%E4%BB%BB%E5%8A%A1",
        "00000000-0000-0000-0000-000000000000",
    ] {
        let answer = api
            .get(&format!("/api/serverless/status?task_id={unknown}"))
            .await
            .expect(200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.text(), "[]", "{unknown}");
    }
    for none in ["", "?task_id=", "?other=x"] {
        let answer = api.get(&format!("/api/serverless/status{none}")).await;
        let body = refused(&answer, 400, "INVALID_PARAMS");
        assert_eq!(body["error_message"], "task_id is required");
    }
    // Not begun: nothing yet.
    submit(&api, "/e/parked", &[("X-Fc-Async-Task-Id", "waits")])
        .await
        .expect(202);
    assert_eq!(
        api.get("/e/parked/api/serverless/status?task_id=waits")
            .await
            .expect(200)
            .json(),
        json!([])
    );
    assert!(
        fc::status(&api, "waits").await.is_empty(),
        "another endpoint's task is unknown here"
    );

    let graph = super::sleep(0.5, "a");
    fc::run_async(&api, "grows", "", &graph).await.expect(202);
    let mut durable: Vec<String> = Vec::new();
    loop {
        let messages = fc::status(&api, "grows").await;
        let now: Vec<String> = messages.iter().map(|m| m["type"].to_string()).collect();
        assert!(
            now.starts_with(&durable),
            "it only grows: {durable:?} then {now:?}"
        );
        durable = now;
        assert!(
            messages
                .iter()
                .all(|m| m["type"].is_string() && m["data"].is_object()),
            "{messages:?}"
        );
        if messages.last().is_some_and(|m| m["type"] == "serverless_api") {
            break;
        }
    }
    assert_eq!(
        durable
            .iter()
            .filter(|kind| *kind == "\"serverless_api\"")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_can_be_polled_with_the_options_of_its_call() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let headers = [("X-Fc-Trace-Id", "sync-1")];
    let path = format!("{RUN}?output_base64=true");
    let sync = post(&api, &path, &headers, graphs::plain(1, 8, 8).to_string())
        .await
        .expect(200)
        .json();
    let polled = fc::status(&api, "sync-1").await.pop().expect("a result");
    assert_eq!(sync, polled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_task_ends_in_the_error_object() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let raise = super::raise("boom");
    fc::run_async(&api, "fails", "", &raise).await.expect(202);
    let messages = ended(&api, "fails").await;
    super::error_body(messages.last().expect("an error"), "EXECUTION_FAILED");
    let task = api.get("/api/serverless/task/fails").await.expect(200).json();
    assert_eq!(task["status"], "Failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_workflow_is_refused_at_once_and_leaves_no_task() {
    // The embedded engine: what its nodes take is known before any instance ran.
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let nonsense = json!({"1": {"class_type": "Nonsense", "inputs": {}}});
    refused(
        &fc::run_async(&api, "refused", "", &nonsense).await,
        500,
        "PROMPT_ERROR",
    );
    assert!(fc::status(&api, "refused").await.is_empty());
    assert_eq!(jobs(&api).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_as_a_record() {
    let server = Server::start(Options::default().with_config(WITH_PARKED)).await;
    let api = server.api();
    submit(&api, "/e/parked", &[("X-Fc-Async-Task-Id", "waits")])
        .await
        .expect(202);
    let waiting = api
        .get("/e/parked/api/serverless/task/waits")
        .await
        .expect(200)
        .json();
    assert_eq!(
        waiting,
        json!({"taskId": "waits", "status": "Enqueued", "startTime": null, "endTime": null, "durationMs": null})
    );

    let graph = graphs::plain(1, 8, 8);
    fc::run_async(&api, "done", "", &graph).await.expect(202);
    let messages = ended(&api, "done").await;
    let done = api.get("/api/serverless/task/done").await.expect(200).json();
    assert_eq!(
        keys(&done),
        ["durationMs", "endTime", "startTime", "status", "taskId"]
    );
    assert_eq!(done["status"], "Succeeded");
    let (start, end) = (
        done["startTime"].as_i64().expect("ms"),
        done["endTime"].as_i64().expect("ms"),
    );
    assert!(start > 1_600_000_000_000 && end >= start, "{done}");
    // Both are cut to milliseconds, so their difference may be one off.
    assert!(
        (done["durationMs"].as_i64().expect("ms") - (end - start)).abs() <= 1,
        "{done}"
    );
    for word in ["true", "TRUE"] {
        let full = api
            .get(&format!("/api/serverless/task/done?withDetail={word}"))
            .await
            .expect(200)
            .json();
        assert_eq!(keys(&full["detail"]), ["messages", "payload"]);
        assert_eq!(full["detail"]["payload"], graph);
        assert_eq!(full["detail"]["messages"], Value::from(messages.clone()));
    }
    for unknown in ["nobody", "..%2F..%2Fetc%2Fpasswd", "waits", "%00"] {
        let answer = api.get(&format!("/api/serverless/task/{unknown}")).await;
        assert_eq!(answer.status, 404, "{unknown}: {}", answer.text());
        assert_eq!(answer.json()["type"], "error", "{unknown}");
        assert!(answer.header("x-fc-request-id").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_of_minus_one_are_replaced_in_ksampler_alone() {
    let server = Server::start(Options::default().with_config(WITH_PARKED)).await;
    let api = server.api();
    let graph = json!({
        "1": {"class_type": "KSampler", "inputs": {"seed": -1, "steps": 20}},
        "2": {"class_type": "KSampler", "inputs": {"seed": -1}},
        "3": {"class_type": "KSampler", "inputs": {"seed": 7}},
        "4": {"class_type": "KSampler", "inputs": {"seed": ["9", 0]}},
        "5": {"class_type": "KSampler", "inputs": {"seed": "-1"}},
        "6": {"class_type": "KSamplerAdvanced", "inputs": {"noise_seed": -1}},
        "7": {"class_type": "RandomNoise", "inputs": {"noise_seed": -1}},
        "8": {"class_type": "KSamplerCustom", "inputs": {"seed": -1}},
        "9": {"class_type": "PrimitiveInt", "inputs": {"value": 9_007_199_254_740_993_u64, "noise_seed": -1}},
    });
    let mut seen = BTreeSet::new();
    for n in 0..8 {
        let id = format!("seeds-{n}");
        let headers = [
            ("X-Fc-Invocation-Type", "Async"),
            ("X-Fc-Async-Task-Id", id.as_str()),
        ];
        post(&api, &format!("/e/parked{RUN}"), &headers, graph.to_string())
            .await
            .expect(202);
        let path = format!("/e/parked/api/serverless/task/{id}?withDetail=true");
        let stored = api.get(&path).await.expect(200).json()["detail"]["payload"].clone();
        for node in ["1", "2"] {
            let seed = stored[node]["inputs"]["seed"].as_u64().expect("a whole number");
            assert!(seed <= 4_294_967_296, "{seed}");
            seen.insert(seed);
        }
        let mut same = stored.clone();
        for node in ["1", "2"] {
            same[node]["inputs"]["seed"] = json!(-1);
        }
        assert_eq!(same, graph, "everything else is as it came");
    }
    assert!(seen.len() >= 15, "each node has one of its own: {seen:?}");
}

//! `/tasks`: filters, order, pages (reference §7.8).

use darkroom_tests::{Options, Server, config, eventually, graphs};
use serde_json::{Value, json};

use super::{WITH_PARKED, keys, refused, tasks::submit};

/// The ids of a page, and the token of the next.
fn page(list: &Value) -> (Vec<String>, Option<String>) {
    assert_eq!(keys(list), ["nextToken", "tasks"]);
    let tasks = list["tasks"].as_array().expect("a list");
    let ids = tasks
        .iter()
        .map(|task| task["taskId"].as_str().expect("an id").to_owned())
        .collect();
    (ids, list["nextToken"].as_str().map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_filtered_and_paged() {
    let server = Server::start(Options::default().with_config(WITH_PARKED)).await;
    let api = server.api();
    let root = "/e/parked/api/serverless/tasks";
    assert_eq!(
        api.get(root).await.expect(200).json(),
        json!({"tasks": [], "nextToken": null})
    );
    let names: Vec<String> = (0..25)
        .map(|n| format!("{}-{n:02}", if n % 5 == 0 { "five" } else { "other" }))
        .collect();
    for name in &names {
        submit(&api, "/e/parked", &[("X-Fc-Async-Task-Id", name)])
            .await
            .expect(202);
    }
    let list = async |query: &str| page(&api.get(&format!("{root}?{query}")).await.expect(200).json());

    let newest_first: Vec<String> = names.iter().rev().cloned().collect();
    for (order, wanted) in [("", &newest_first), ("desc", &newest_first), ("asc", &names)] {
        let mut seen = Vec::new();
        let mut token = String::new();
        let mut pages = 0;
        loop {
            let query = format!("limit=10&sortOrderByTime={order}&nextToken={token}");
            let (ids, next) = list(&query).await;
            seen.extend(ids);
            pages += 1;
            match next {
                Some(next) => token = next,
                None => break,
            }
        }
        assert_eq!(&seen, wanted, "order '{order}'");
        assert_eq!(pages, 3);
    }
    // A page that holds the last of them says that there is no other.
    let (ids, next) = list("limit=25").await;
    assert_eq!((ids.len(), next), (25, None));
    assert_eq!(
        list("prefix=five-").await.0,
        ["five-20", "five-15", "five-10", "five-05", "five-00"]
    );
    assert!(list("prefix=FIVE").await.0.is_empty());
    assert!(
        list("prefix=%25").await.0.is_empty(),
        "no pattern of the database's"
    );
    assert!(
        list("prefix=____-").await.0.is_empty(),
        "no pattern of the database's"
    );
    assert_eq!(list("status=Enqueued&limit=100").await.0.len(), 25);
    assert!(list("status=Succeeded").await.0.is_empty());
    assert!(list("startedTimeBegin=99999999999999").await.0.is_empty());
    assert!(
        list("startedTimeEnd=99999999999999&limit=100").await.0.is_empty(),
        "none of them has begun"
    );
    assert!(list("status=Retrying").await.0.is_empty());
    assert!(list("status=Dequeued").await.0.is_empty());
    assert!(list("startedTimeEnd=1000").await.0.is_empty());

    for bad in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=ten",
        "status=Stopping",
        "status=Stopped",
        "status=Invalid",
        "status=nonsense",
        "sortOrderByTime=up",
        "nextToken=..%2Fx",
        "startedTimeBegin=yesterday",
        "startedTimeEnd=-5",
    ] {
        refused(&api.get(&format!("{root}?{bad}")).await, 400, "INVALID_PARAMS");
    }
    // What another protocol submitted is not a task of this one.
    api.submit(&graphs::plain(1, 8, 8)).await;
    assert!(
        page(&api.get("/api/serverless/tasks").await.expect(200).json())
            .0
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_of_time_is_of_when_tasks_began() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    for name in ["first", "second"] {
        let graph = super::sleep(1.0, name).to_string();
        let headers = [("X-Fc-Invocation-Type", "Async"), ("X-Fc-Async-Task-Id", name)];
        super::post(&api, super::RUN, &headers, graph).await.expect(202);
    }
    for name in ["first", "second"] {
        super::ended(&api, name).await;
    }
    let task = async |name: &str| {
        api.get(&format!("/api/serverless/task/{name}"))
            .await
            .expect(200)
            .json()
    };
    let began = async |name: &str| task(name).await["startTime"].as_i64().expect("it began");
    let (first, second) = (began("first").await, began("second").await);
    assert!(second > first + 500, "one instance runs one after the other");
    let list = async |query: String| {
        let answer = api.get(&format!("/api/serverless/tasks?{query}")).await;
        page(&answer.expect(200).json()).0
    };
    // Both were accepted before the first of them had run for half a second.
    let between = first + 500;
    assert_eq!(list(format!("startedTimeBegin={between}")).await, ["second"]);
    assert_eq!(list(format!("startedTimeEnd={between}")).await, ["first"]);
    assert_eq!(
        list(format!("startedTimeBegin={first}")).await,
        ["second", "first"]
    );
    assert!(list(format!("startedTimeEnd={first}")).await.is_empty());
    assert!(
        list(format!("startedTimeBegin={}", second + 1)).await.is_empty(),
        "it had begun before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_for_another_try_is_retrying_and_no_other_is() {
    // The first instance serves, all later ones end at once.
    let once = "if [ -e \"$0\" ]; then exit 3; fi; : > \"$0\"; exec \"$@\"";
    let home = tempfile::TempDir::with_prefix("darkroom-test-").expect("a directory");
    let mark = home.path().join("served").display().to_string();
    let config = config::endpoint_of_script("default", once, &mark);
    let server = Server::start_in(home, Options::default().with_config(&config)).await;
    let api = server.api();
    for (name, graph) in [
        ("dies", super::through("TestExit", json!({"code": 1}), "a")),
        ("waits", super::sleep(0.1, "b")),
    ] {
        let headers = [("X-Fc-Invocation-Type", "Async"), ("X-Fc-Async-Task-Id", name)];
        super::post(&api, super::RUN, &headers, graph.to_string())
            .await
            .expect(202);
    }
    let list = async |status: &str| {
        let answer = api.get(&format!("/api/serverless/tasks?status={status}")).await;
        page(&answer.expect(200).json()).0
    };
    let retrying = eventually("one waits for another try", super::LIMIT, async || {
        let found = list("Retrying").await;
        (!found.is_empty()).then_some(found)
    })
    .await;
    assert_eq!(retrying, ["dies"]);
    assert_eq!(list("Enqueued").await, ["waits"]);
    for (name, status) in [("dies", "Retrying"), ("waits", "Enqueued")] {
        let task = api
            .get(&format!("/api/serverless/task/{name}"))
            .await
            .expect(200)
            .json();
        assert_eq!(task["status"], status, "{task}");
    }
}

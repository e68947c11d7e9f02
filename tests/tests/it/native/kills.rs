//! The server, or its instances, are killed while clients run prompts over their sockets: every prompt ends once, and
//! history is whole.

use std::{collections::BTreeMap, time::Duration};

use darkroom_tests::{
    Api, Options, Server, eventually, graphs,
    native::{Client, Frame, prompt_ids},
    processes,
    server::endpoint_with_test_nodes,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;

const CLIENTS: u32 = 3;
const PROMPTS: u32 = 6;
const KILLS: usize = 4;
/// Starts, adoption and prompts of them all, on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_server_lose_no_prompt_and_double_none() {
    let endpoint = endpoint_with_test_nodes(
        "default",
        "gpus = [\"0\", \"1\"]\nscaling = { max_instances = 2 }\nlimits = { max_attempts = 10 }",
    );
    let server = Server::start(Options::default().with_config(&endpoint)).await;
    let api = server.api();
    let (tell, over) = watch::channel(false);
    let ears: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(listen(api.clone(), format!("ear-{n}"), over.clone())))
        .collect();
    let submits = (0..CLIENTS).map(|n| submit_all(&api, n));
    let kills = async {
        for nth in 0..KILLS {
            // Each kill falls into the work: when some more prompts have ended.
            eventually("prompts end", LIMIT, async || {
                (ended(&api).await > nth).then_some(())
            })
            .await;
            server.kill_child().await;
        }
    };
    let (ids, ()) = tokio::join!(futures::future::join_all(submits), kills);
    let ids: Vec<String> = ids.into_iter().flatten().collect();
    eventually("every prompt ends", LIMIT, async || {
        (ended(&api).await == ids.len()).then_some(())
    })
    .await;

    let history = api.get("/history").await.expect(200).json();
    let history = history.as_object().unwrap();
    let mut files = Vec::new();
    for id in &ids {
        let entry = &history[id];
        assert_eq!(entry["status"]["status_str"], "success", "{id}: {entry}");
        let images = entry["outputs"]["9"]["images"].as_array().unwrap();
        assert_eq!(images.len(), 1, "{id}: {entry}");
        files.push(images[0]["filename"].as_str().unwrap().to_owned());
    }
    assert_eq!(history.len(), ids.len());
    let total = files.len();
    files.sort();
    files.dedup();
    assert_eq!(files.len(), total, "no result stands for two prompts");
    assert_eq!(
        api.get("/queue").await.json(),
        json!({"queue_running": [], "queue_pending": []})
    );

    tell.send_replace(true);
    for (n, ear) in ears.into_iter().enumerate() {
        for (id, times) in ear.await.unwrap() {
            assert_eq!(times, 1, "the end of {id} is told once");
            assert!(id.starts_with(&format!("ear-{n}/")), "{id} is another client's");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_instances_are_no_clients_business() {
    let endpoint = endpoint_with_test_nodes(
        "default",
        "gpus = [\"0\", \"1\", \"2\"]\nscaling = { max_instances = 3 }\nlimits = { max_attempts = 10 }",
    );
    let server = Server::start(Options::default().with_config(&endpoint)).await;
    let api = server.api();
    let clients = (0..5).map(async |n: u32| {
        let mut client = Client::connect(&api, "", &format!("client-{n}")).await;
        let mut own = Vec::new();
        for nth in 0..3 {
            let graph = graphs::sleep(0.4, &format!("{n}-{nth}"), n * 16 + nth);
            own.push(client.submit(&api, "", &graph).await);
        }
        let mut told: Vec<Frame> = Vec::new();
        for id in &own {
            if !told.iter().any(|frame| is_over(frame, id)) {
                told.extend(client.until_end(id).await);
            }
        }
        assert_eq!(prompt_ids(&told), own.iter().cloned().collect(), "its own alone");
        own.iter().for_each(|id| in_order(&told, id));
        own
    });
    let kills = async {
        for nth in 1..=2 {
            eventually("prompts end", LIMIT, async || {
                (ended(&api).await >= nth * 3).then_some(())
            })
            .await;
            // Whichever it meets, and whatever that is doing.
            let all = server.instance_pids();
            if let Some(&pid) = all.get(nth % all.len().max(1)) {
                processes::signal(pid, Signal::KILL);
            }
        }
    };
    let (own, ()) = tokio::join!(futures::future::join_all(clients), kills);
    let history = api.get("/history").await.expect(200).json();
    for id in own.iter().flatten() {
        assert_eq!(history[id]["status"]["status_str"], "success", "{}", history[id]);
    }
    assert_eq!(history.as_object().map(serde_json::Map::len), Some(15));
}

fn is_over(frame: &Frame, id: &str) -> bool {
    matches!(frame, Frame::Text(text) if text["type"] == "executing" && text["data"]["node"].is_null()
        && text["data"]["prompt_id"] == id)
}

/// A prompt begins, is executed, succeeds once, and is over after that; an attempt that was lost is begun again.
fn in_order(frames: &[Frame], id: &str) {
    let of_it: Vec<&Value> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Text(text) if text["data"]["prompt_id"] == id => Some(text),
            Frame::Text(_) | Frame::Binary(_) | Frame::Closed => None,
        })
        .collect();
    let last = |kind: &str| of_it.iter().rposition(|message| message["type"] == kind);
    let started = of_it
        .iter()
        .position(|message| message["type"] == "execution_start");
    let succeeded = of_it
        .iter()
        .filter(|message| message["type"] == "execution_success");
    assert_eq!((started, succeeded.count()), (Some(0), 1), "{of_it:?}");
    let steps = [
        Some(0),
        last("executed"),
        last("execution_success"),
        last("executing"),
    ];
    assert!(steps.is_sorted() && steps[1] > Some(0), "{of_it:?}");
    assert_eq!(last("executing"), Some(of_it.len() - 1), "{of_it:?}");
}

/// Prompts in history; `0` while nobody answers.
async fn ended(api: &Api) -> usize {
    let asked = api.try_send(api.request(
        reqwest::Method::GET,
        "/api/jobs?status=completed,failed,cancelled&limit=1",
    ));
    match asked.await {
        Ok(answer) if answer.status == 200 => {
            usize::try_from(answer.json()["pagination"]["total"].as_u64().unwrap_or(0)).unwrap()
        }
        Ok(_) | Err(_) => 0,
    }
}

/// Submits under ids of its own; where no answer came, looks whether the prompt is there before it asks again.
async fn submit_all(api: &Api, n: u32) -> Vec<String> {
    let mut ids = Vec::new();
    for nth in 0..PROMPTS {
        let id = format!("ear-{n}/{nth}");
        let graph = graphs::sleep(0.3, &id, n * 16 + nth);
        let body = json!({"prompt": graph, "client_id": format!("ear-{n}"), "prompt_id": id});
        eventually("the prompt is accepted", LIMIT, async || {
            let known = api.try_send(api.request(
                reqwest::Method::GET,
                &format!("/api/jobs/{}", id.replace('/', "%2F")),
            ));
            match known.await {
                Ok(answer) if answer.status == 200 => return Some(()),
                Ok(answer) if answer.status == 404 => {}
                Ok(_) | Err(_) => return None,
            }
            let posted = api.try_send(
                api.request(reqwest::Method::POST, "/prompt")
                    .body(body.to_string()),
            );
            posted
                .await
                .is_ok_and(|answer| answer.status == 200)
                .then_some(())
        })
        .await;
        ids.push(id);
    }
    ids
}

/// Keeps a socket open under this id, through every end of the server; how often the end of each prompt was told.
async fn listen(api: Api, id: String, mut over: watch::Receiver<bool>) -> BTreeMap<String, u32> {
    let mut told = BTreeMap::new();
    while !*over.borrow() {
        let Some(mut client) = Client::try_connect(&api, "", &id).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        loop {
            let frame = tokio::select! {
                frame = client.next_whenever() => frame,
                _ = over.changed() => break,
            };
            match frame {
                Frame::Text(message) => count(&mut told, &message),
                Frame::Binary(_) => {}
                Frame::Closed => break,
            }
        }
    }
    told
}

fn count(told: &mut BTreeMap<String, u32>, message: &Value) {
    if message["type"] == "execution_success" {
        let id = message["data"]["prompt_id"].as_str().unwrap_or_default();
        *told.entry(id.to_owned()).or_default() += 1;
    }
}

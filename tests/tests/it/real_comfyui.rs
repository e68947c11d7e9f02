//! The real ComfyUI under Darkroom, where one is there: `COMFYUI_DIR` names its checkout, `COMFYUI_PYTHON` its
//! interpreter (else the checkout's own), `COMFYUI_ARGS` more of its arguments (else `--cpu`). Otherwise every test
//! here says SKIPPED. Only nodes without weights are used, so any checkout does.

mod agent;

use std::{io::Write, time::Duration};

use darkroom_tests::{Api, Options, Server, eventually, fc, graphs, native, pixels, processes};
use image::RgbImage;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// A cold start of ComfyUI takes from six seconds to a minute.
const LIMIT: Duration = Duration::from_secs(180);

/// One ComfyUI at a time: two that start at once take each other's processor.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How to start a server with the real ComfyUI as `default` and the embedded engine beside it; `None` (said aloud)
/// where there is no ComfyUI.
async fn options(test: &str) -> Option<(Options, MutexGuard<'static, ()>)> {
    options_with(test, &[]).await
}

/// The same with these further arguments of its `main.py`.
async fn options_with(test: &str, more: &[&str]) -> Option<(Options, MutexGuard<'static, ()>)> {
    let directory = directory(test)?;
    let mut arguments = arguments();
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    let python = std::env::var("COMFYUI_PYTHON").ok();
    let python = python.map_or(String::new(), |path| format!("python = {path:?}\n"));
    let config = format!("[endpoints.default]\nargs = {arguments:?}\n{python}[endpoints.engine]\n");
    let options = Options {
        args: vec!["--comfyui".to_owned(), directory],
        ..Options::default()
    };
    Some((options.with_config(&config), ONE_AT_A_TIME.lock().await))
}

/// Where the real ComfyUI is; `None` (said aloud) where there is none.
fn directory(test: &str) -> Option<String> {
    let directory = std::env::var("COMFYUI_DIR").ok().filter(|dir| !dir.is_empty());
    if directory.is_none() {
        // Not through the macros, whose output the test harness keeps to itself when a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED real_comfyui::{test}: set COMFYUI_DIR to a ComfyUI checkout"
        );
    }
    directory
}

fn arguments() -> Vec<String> {
    let arguments = std::env::var("COMFYUI_ARGS").unwrap_or_else(|_| "--cpu".to_owned());
    arguments.split_whitespace().map(str::to_owned).collect()
}

/// Starts a server, and waits until it has looked at what `--comfyui` names: it starts that once for it.
async fn start(options: Options) -> Server {
    let server = Server::start(options).await;
    eventually("it says what it found", LIMIT, async || {
        let log = server.log();
        assert!(!log.contains("cannot be used yet"), "{log}");
        let found = log
            .lines()
            .find(|line| line.contains("ComfyUI found"))
            .map(str::to_owned);
        found.filter(|_| comfyui_pids(&server).is_empty())
    })
    .await;
    server
}

/// The ids of the ComfyUI processes of a server.
fn comfyui_pids(server: &Server) -> Vec<i32> {
    let is_comfyui =
        |process: &processes::Process| process.command.iter().any(|part| part.ends_with("main.py"));
    let all = processes::of(server.home()).into_iter();
    all.filter(is_comfyui).map(|process| process.pid).collect()
}

/// A picture that takes `steps` times something like a quarter of a second on a CPU: ComfyUI can only be interrupted
/// between nodes, so many small ones are better than a large one. It refuses chains of several hundred nodes (its
/// validation is recursive).
fn slow(steps: u32, colour: u32) -> Value {
    let mut graph = json!({
        "0": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": colour}},
        "save": {"class_type": "SaveImage", "inputs": {"filename_prefix": "slow"}}
    });
    for step in 0..steps {
        let (before, up, down) = (2 * step, 2 * step + 1, 2 * step + 2);
        for (id, from, side) in [(up, before, 2048), (down, up, 64)] {
            graph[id.to_string()] = json!({"class_type": "ImageScale", "inputs": {
                "image": [from.to_string(), 0], "upscale_method": "lanczos",
                "width": side, "height": side, "crop": "disabled"
            }});
        }
    }
    graph["save"]["inputs"]["images"] = json!([(2 * steps).to_string(), 0]);
    graph
}

/// Waits until the node is at work or done, by the job's events.
async fn reached(api: &Api, id: &str, node: &str) {
    eventually(&format!("node {node} is executed"), LIMIT, async || {
        let path = format!("/api/serverless/status?task_id={id}");
        let answer = api.try_send(api.request(Method::GET, &path)).await.ok()?;
        let events = answer.json();
        let events = events.as_array()?;
        let over = |event: &Value| matches!(event["type"].as_str(), Some("serverless_api" | "error"));
        assert!(!events.iter().any(over), "it ended before: {events:?}");
        let is_it = |event: &Value| event["type"] == "executing" && event["data"]["node"] == node;
        events.iter().any(is_it).then_some(())
    })
    .await;
}

async fn submit_to(api: &Api, endpoint: &str, graph: &Value) -> String {
    let path = format!("/darkroom/v1/endpoints/{endpoint}/jobs");
    let answer = api.post(&path, &json!({"graph": graph})).await.expect(201);
    answer.json()["id"].as_str().expect("a job has an id").to_owned()
}

async fn succeeded(api: &Api, id: &str) -> (Value, Vec<RgbImage>) {
    let job = api.finished_within(id, LIMIT).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let files = api.outputs(&job).await;
    (job, files.iter().map(|png| pixels::decode(png)).collect())
}

fn attempt_states(job: &Value) -> Vec<&str> {
    let attempts = job["attempts"].as_array().into_iter().flatten();
    attempts.filter_map(|attempt| attempt["state"].as_str()).collect()
}

/// What the weight-free nodes make of a picture with an edge in every direction.
fn many_nodes(picture: &str) -> Value {
    json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "lanczos", "width": 100, "height": 70, "crop": "center"}},
        "3": {"class_type": "ImageCrop", "inputs": {"image": ["2", 0], "x": 3, "y": 5, "width": 60, "height": 50}},
        "4": {"class_type": "ImageInvert", "inputs": {"image": ["3", 0]}},
        "5": {"class_type": "ImageScale", "inputs": {"image": ["4", 0], "upscale_method": "area", "width": 40, "height": 30, "crop": "disabled"}},
        "6": {"class_type": "ImageScaleBy", "inputs": {"image": ["5", 0], "upscale_method": "nearest-exact", "scale_by": 2.5}},
        "7": {"class_type": "ImageToMask", "inputs": {"image": ["6", 0], "channel": "green"}},
        "8": {"class_type": "MaskToImage", "inputs": {"mask": ["7", 0]}},
        "a": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "a"}},
        "b": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "b"}},
        "c": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "c"}}
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_through_the_serverless_api_and_our_own() {
    let Some((options, _turn)) = options("the_main_job_through_the_serverless_api_and_our_own").await else {
        return;
    };
    let config = "[endpoints.default.scaling]\nidle_timeout = \"3s\"";
    let server = start(options.with_config(config)).await;
    let api = server.api();
    assert!(
        comfyui_pids(&server).is_empty(),
        "nothing runs before the first job"
    );
    let picture = pixels::gradient(48, 32);
    let graph = graphs::invert(&pixels::data_uri(&pixels::encode(&picture)));
    let answer = fc::run(&api, "output_oss=true", &graph).await.expect(200).json();
    let results = fc::results(&answer);
    assert_eq!(results.len(), 1, "{answer}");
    let url = results[0]["output"]["oss"]["url"].as_str().expect("an address");
    pixels::assert_inverse(&api.get(url).await.expect(200).body, &picture);
    assert_eq!(comfyui_pids(&server).len(), 1, "the instance is a ComfyUI");

    let id = submit_to(&api, "default", &graphs::scaled(0x33_66_99, 16, 40, 24)).await;
    let (job, files) = succeeded(&api, &id).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    assert!(files == [pixels::plain(0x33_66_99, 40, 24)]);
    eventually("the idle ComfyUI is stopped", LIMIT, async || {
        comfyui_pids(&server).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_makes_the_same_pixels() {
    let Some((options, _turn)) = options("the_engine_makes_the_same_pixels").await else {
        return;
    };
    let server = start(options).await;
    let api = server.api();
    let graph = many_nodes(&pixels::data_uri(&pixels::encode(&pixels::gradient(130, 90))));
    let mut made = Vec::new();
    for endpoint in ["default", "engine"] {
        let id = submit_to(&api, endpoint, &graph).await;
        let (job, files) = succeeded(&api, &id).await;
        let names = job["outputs"].as_array().into_iter().flatten();
        let names = names.filter_map(|output| output["filename"].as_str());
        let mut named: Vec<_> = names.map(str::to_owned).zip(files).collect();
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        made.push(named);
    }
    assert_eq!(made[0].len(), 3);
    for ((name, real), (own_name, own)) in made[0].iter().zip(&made[1]) {
        assert_eq!(name, own_name);
        assert!(real == own, "{name}: {}", differences(real, own));
    }
}

fn differences(a: &RgbImage, b: &RgbImage) -> String {
    let samples = a.as_raw().iter().zip(b.as_raw());
    let differing = samples.clone().filter(|(a, b)| a != b).count();
    let worst = samples.map(|(a, b)| a.abs_diff(*b)).max();
    format!(
        "{:?} and {:?}, {differing} samples differ, by at most {worst:?}",
        a.dimensions(),
        b.dimensions()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_node_and_a_refused_graph_are_told_with_their_names() {
    let Some((options, _turn)) =
        options("a_failing_node_and_a_refused_graph_are_told_with_their_names").await
    else {
        return;
    };
    let server = start(options).await;
    let api = server.api();
    // Two pictures of different channels cannot be joined; ComfyUI finds out while it runs.
    let graph = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 8, "height": 8}},
        "3": {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["1", 0], "alpha": ["2", 0]}},
        "4": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["3", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}}
    });
    let job = api.finished_within(&api.submit(&graph).await, LIMIT).await;
    assert_eq!(job["state"], "failed", "{job}");
    assert_eq!(job["failure"]["node_id"], "4", "{job}");
    assert_eq!(job["failure"]["node_type"], "ImageBatch", "{job}");
    assert_eq!(attempt_states(&job).len(), 1, "not tried again: {job}");

    // Once the real object_info is known (it is asked for beside the first job), a mistake is refused before it is queued.
    native::learned(&api, "").await;
    let mut graph = graphs::scaled(1, 8, 16, 16);
    graph["2"]["inputs"]["upscale_method"] = json!("lanczoss");
    let answer = api
        .post("/darkroom/v1/endpoints/default/jobs", &json!({"graph": graph}))
        .await;
    assert!(answer.status.is_client_error(), "{}", answer.text());
    assert!(answer.text().contains("upscale_method"), "{}", answer.text());
    let next = api.submit(&graphs::plain(5, 8, 8)).await;
    succeeded(&api, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_prompt_is_cancelled() {
    let Some((options, _turn)) = options("a_running_prompt_is_cancelled").await else {
        return;
    };
    let server = start(options).await;
    let api = server.api();
    let id = api.submit(&slow(60, 1)).await;
    reached(&api, &id, "3").await;
    let path = format!("/darkroom/v1/jobs/{id}/cancel");
    api.post(&path, &json!({})).await.expect(200);
    let job = api.finished_within(&id, Duration::from_secs(30)).await;
    assert_eq!(job["state"], "cancelled", "{job}");
    // The same ComfyUI goes on with the next job.
    let before = comfyui_pids(&server);
    let (_, files) = succeeded(&api, &api.submit(&graphs::plain(0x01_02_03, 8, 8)).await).await;
    assert!(files == [pixels::plain(0x01_02_03, 8, 8)]);
    assert_eq!(comfyui_pids(&server), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_comfyui_is_replaced_and_its_job_runs_again() {
    let Some((options, _turn)) = options("a_killed_comfyui_is_replaced_and_its_job_runs_again").await else {
        return;
    };
    let server = start(options).await;
    let api = server.api();
    let id = api.submit(&slow(12, 0x40_50_60)).await;
    reached(&api, &id, "3").await;
    let killed = comfyui_pids(&server);
    assert_eq!(killed.len(), 1, "{killed:?}");
    processes::signal(killed[0], Signal::KILL);
    let (job, files) = succeeded(&api, &id).await;
    assert_eq!(attempt_states(&job), ["lost", "done"], "{job}");
    assert!(files == [pixels::plain(0x40_50_60, 64, 64)]);
    assert!(!comfyui_pids(&server).contains(&killed[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_prompt_is_adopted_when_the_server_dies() {
    let Some((options, _turn)) = options("a_running_prompt_is_adopted_when_the_server_dies").await else {
        return;
    };
    let server = start(options).await;
    let api = server.api();
    let id = api.submit(&slow(16, 0x0a_0b_0c)).await;
    reached(&api, &id, "3").await;
    let before = comfyui_pids(&server);
    server.kill_child().await;
    let (job, files) = succeeded(&api, &id).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    assert!(files == [pixels::plain(0x0a_0b_0c, 64, 64)]);
    assert_eq!(comfyui_pids(&server), before, "the same ComfyUI went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_custom_node_brings_to_the_page_is_there_while_nothing_runs() {
    let base = tempfile::tempdir().expect("a directory");
    let pack = base.path().join("custom_nodes/pack");
    std::fs::create_dir_all(pack.join("web/js")).expect("a directory");
    for (file, content) in [
        (
            "__init__.py",
            "WEB_DIRECTORY = './web/js'\nNODE_CLASS_MAPPINGS = {}\n",
        ),
        ("web/js/main.js", "export const colour = 'red';"),
        ("web/js/style.css", "p { color: red }"),
    ] {
        std::fs::write(pack.join(file), content).expect("a file");
    }
    let more = ["--base-directory", &base.path().display().to_string()];
    let name = "what_a_custom_node_brings_to_the_page_is_there_while_nothing_runs";
    let Some((options, _turn)) = options_with(name, &more).await else {
        return;
    };
    let mut server = start(options).await;
    let api = server.api();
    succeeded(&api, &api.submit(&graphs::plain(1, 8, 8)).await).await;
    let files = [
        ("main.js", "text/javascript"),
        ("style.css", "text/css; charset=utf-8"),
    ];
    for (file, content_type) in files {
        let path = format!("/e/default/extensions/pack/{file}");
        let answer = eventually(&format!("{file} was copied"), LIMIT, async || {
            let answer = api.get(&path).await;
            (answer.status == 200).then_some(answer)
        })
        .await;
        assert_eq!(answer.header("content-type"), Some(content_type));
    }
    server.kill_everything().await;
    server.restart().await;
    let api = server.api();
    for (file, _) in files {
        let path = format!("/e/default/extensions/pack/{file}");
        assert!(api.get(&path).await.expect(200).text().contains("red"));
    }
    let listed = api.get("/extensions").await.expect(200).text();
    assert!(listed.contains("/extensions/pack/main.js"), "{listed}");
}

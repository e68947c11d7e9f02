//! The real ComfyUI and an engine, unequal boxes behind one endpoint: each job goes where it can run, txt2img through
//! ComfyUI's own API among them. As in `real_comfyui.rs`, `COMFYUI_DIR` says where the real one is; a checkpoint with `tiny`
//! in its name has to be in it for txt2img.

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use darkroom_tests::{
    Api, Options, Server,
    boxes::Engine,
    eventually, graphs,
    native::{self, Frame},
    pixels,
    server::free_port,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(300);

/// A ComfyUI that somebody else, this test, runs; ended when dropped.
struct Real {
    child: Child,
    url: String,
    _home: TempDir,
}

impl Real {
    fn running(directory: &str) -> Real {
        let home = TempDir::with_prefix("darkroom-real-").expect("a directory");
        let port = free_port();
        let python = std::env::var("COMFYUI_PYTHON").unwrap_or_else(|_| python_of(directory));
        let more = std::env::var("COMFYUI_ARGS").unwrap_or_else(|_| "--cpu".to_owned());
        let mut command = Command::new(python);
        command.current_dir(directory).args([
            "main.py",
            "--listen",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ]);
        command
            .args(["--disable-auto-launch", "--preview-method", "latent2rgb"])
            .args(more.split_whitespace());
        for name in ["input", "output", "temp", "user"] {
            let own = home.path().join(name);
            std::fs::create_dir_all(&own).expect("a directory");
            command.arg(format!("--{name}-directory")).arg(own);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Real {
            child: command.spawn().expect("ComfyUI starts"),
            url: format!("http://127.0.0.1:{port}"),
            _home: home,
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python_of(directory: &str) -> String {
    let beside = ["venv/bin/python", ".venv/bin/python", "../venv/bin/python"]
        .map(|path| Path::new(directory).join(path));
    let found = beside.iter().find(|path| path.exists());
    found.map_or("python3".to_owned(), |path| path.display().to_string())
}

fn said_skipped(why: &str) {
    // Not through the macros, whose output the test harness keeps to itself when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED real_boxes: {why}");
}

/// The classic graph, as small as it gets.
fn txt2img(checkpoint: &str) -> Value {
    json!({
        "3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "real", "images": ["8", 0]}},
    })
}

async fn box_of(api: &Api, job: &Value) -> String {
    let id = job["attempts"][0]["instance"].as_str().expect("an instance");
    let shown = api
        .get(&format!("/darkroom/v1/instances/{id}"))
        .await
        .expect(200)
        .json();
    shown["box"].as_str().expect("a box").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_goes_to_the_box_that_can_run_it_and_txt2img_runs_through_the_native_api() {
    let Some(directory) = std::env::var("COMFYUI_DIR").ok().filter(|dir| !dir.is_empty()) else {
        return said_skipped("set COMFYUI_DIR to a ComfyUI checkout");
    };
    let real = Real::running(&directory);
    let engine = Engine::running(true);
    let config = format!(
        "[endpoints.default]\nbackend = \"remote\"\nurls = [{{url = {:?}, name = \"real\"}}, {{url = {:?}, name = \"engine\"}}]\n",
        real.url,
        engine.url()
    );
    let server = Server::start(Options::default().with_config(&config)).await;
    let api = server.api();
    eventually("both told what they can do", LIMIT, async || {
        let all = api.instances().await;
        let ready = all.iter().filter(|one| one["state"] == "ready").count();
        (ready == 2).then_some(())
    })
    .await;

    let only_engine = api.finished(&api.submit(&graphs::sleep(0.1, "a", 1)).await).await;
    assert_eq!(only_engine["state"], "succeeded", "{only_engine}");
    assert_eq!(box_of(&api, &only_engine).await, "engine");
    // Weight-free, but of classes that only the real one has.
    let masked = json!({
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "2": {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": "latent"}},
    });
    let only_real = api.finished_within(&api.submit(&masked).await, LIMIT).await;
    assert_eq!(only_real["state"], "succeeded", "{only_real}");
    assert_eq!(box_of(&api, &only_real).await, "real");

    let offered = api.get("/models/checkpoints").await.expect(200).json();
    let mut offered = offered.as_array().into_iter().flatten().filter_map(Value::as_str);
    let Some(checkpoint) = offered.find(|name| name.contains("tiny")) else {
        return said_skipped("txt2img: there is no checkpoint with 'tiny' in its name");
    };
    let mut client = native::Client::connect(&api, "", "real-boxes").await;
    let id = client.submit(&api, "", &txt2img(checkpoint)).await;
    let frames = client.until_end(&id).await;
    let kinds = native::kinds(&frames);
    assert_eq!(
        kinds.first().map(String::as_str),
        Some("execution_start"),
        "{kinds:?}"
    );
    assert!(
        kinds.contains(&"executed".to_owned()) && kinds.contains(&"execution_success".to_owned()),
        "{kinds:?}"
    );
    let steps = frames
        .iter()
        .filter(|frame| matches!(frame, Frame::Text(text) if text["type"] == "progress"));
    assert!(steps.count() >= 1, "the sampler's progress is told");
    assert!(
        frames.iter().any(|frame| matches!(frame, Frame::Binary(_))),
        "so are its previews"
    );
    let history = api.get(&format!("/history/{id}")).await.expect(200).json();
    let made = &history[&id]["outputs"]["9"]["images"][0];
    let name = made["filename"].as_str().expect("a name");
    let png = api
        .get(&format!("/view?filename={name}&type=output"))
        .await
        .expect(200)
        .body;
    assert_eq!(pixels::decode(&png).dimensions(), (64, 64));
    // A model that no box has is refused before it is queued.
    let missing = json!({"graph": txt2img("no-such.safetensors")});
    let refused = api.post("/darkroom/v1/endpoints/default/jobs", &missing).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(
        refused.text().contains("no-such.safetensors"),
        "{}",
        refused.text()
    );
}

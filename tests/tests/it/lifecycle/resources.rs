//! What instances use, and how to call an endpoint: as the API, the metrics and the command line show it.

use std::{os::unix::fs::PermissionsExt, process::Command};

use darkroom_tests::{Options, Server, binary, config, eventually, graphs};
use serde_json::Value;
use tempfile::TempDir;

use super::{LIMIT, endpoint};

#[tokio::test(flavor = "multi_thread")]
async fn memory_processor_and_gpu_of_an_instance_are_shown() {
    let home = TempDir::with_prefix("darkroom-test-").expect("a directory");
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).expect("a directory");
    let smi = bin.join("nvidia-smi");
    let script = "#!/bin/sh\necho '0, GPU-aaaa-1, 11, 22, 33'\necho '1, GPU-bbbb-2, 2048, 81920, 44'\n";
    std::fs::write(&smi, script).expect("a program");
    std::fs::set_permissions(&smi, std::fs::Permissions::from_mode(0o755)).expect("it may run");
    let path = std::env::var("PATH").expect("a PATH");
    let mut options = Options::default().with_config(&endpoint("default", "gpus = [\"1\"]"));
    options.env = vec![("PATH".to_owned(), format!("{}:{path}", bin.display()))];
    let server = Server::start_in(home, options).await;
    let api = server.api();
    let job = api.submit(&graphs::plain(1, 8, 8)).await;
    api.finished(&job).await;
    let instance = eventually("it was measured", LIMIT, async || {
        let instance = api.instances().await.into_iter().next()?;
        instance["resources"].is_object().then_some(instance)
    })
    .await;
    let used = &instance["resources"];
    assert!(used["rss_bytes"].as_u64().expect("a number") > 1 << 20, "{used}");
    assert_eq!(used["processes"], 1);
    assert_eq!(used["gpu"]["index"], 1);
    assert_eq!(used["gpu"]["memory_used_bytes"], 2_u64 << 30);
    assert_eq!(used["gpu"]["utilization_percent"], 44);
    eventually("the metrics have it too", LIMIT, async || {
        let metrics = api.get("/metrics").await.expect(200).text();
        let has = |line: &str| metrics.contains(line);
        (has("darkroom_instance_gpu_percent{endpoint=\"default\",instance=\"1\"} 44")
            && has("darkroom_instance_rss_bytes{endpoint=\"default\",instance=\"1\"}"))
        .then_some(())
    })
    .await;
    let shown = Command::new(binary::darkroom())
        .args(["instances", "--server", &server.url()])
        .output()
        .expect("darkroom runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("gpu1 44 %") && shown.contains("listening"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listed_gpu_has_an_instance_of_its_own_that_sees_it_alone() {
    let lines = "gpus = [\"0\", \"GPU-ab\", \"3\"]\nscaling = { min_instances = 3, max_instances = 3 }";
    let server = Server::start(Options::default().with_config(&endpoint("default", lines))).await;
    let seen = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        let value = variables.find_map(|one| one.strip_prefix(b"CUDA_VISIBLE_DEVICES="))?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    eventually("one runs on each", LIMIT, async || {
        let mut all: Vec<_> = server.instance_pids().iter().map(seen).collect();
        all.sort();
        let wanted = ["0", "3", "GPU-ab"].map(|gpu| Some(gpu.to_owned()));
        (all == wanted).then_some(())
    })
    .await;
    let told = server.api().instances().await;
    assert_eq!(told.len(), 3, "{told:?}");
}

/// Runs in a shell what a person would paste.
async fn paste(server: &Server, snippet: &str) {
    let bin = binary::darkroom()
        .parent()
        .expect("a directory")
        .display()
        .to_string();
    let path = std::env::var("PATH").expect("a PATH");
    let mut command = Command::new("sh");
    command
        .args(["-c", snippet])
        .current_dir(server.home())
        .env("PATH", format!("{bin}:{path}"))
        .env("DARKROOM_KEY", "sk_app");
    let output = tokio::task::spawn_blocking(move || command.output().expect("a shell runs"));
    let output = output.await.expect("no panic");
    assert!(output.status.success(), "{snippet}\n{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_connect_prints_works_as_printed() {
    let has_curl = Command::new("curl")
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success());
    if !has_curl {
        println!("SKIPPED: there is no curl to paste into");
        return;
    }
    let side = "[endpoints.default]\n[endpoints.side]\n[endpoints.line]\nkind = \"queue\"\n\
                [endpoints.work]\nkind = \"worker\"\nbackend = \"external\"\n";
    let config = config::key("app", &["client"], "") + side;
    let mut options = Options::default().with_config(&config);
    options.key = Some("sk_app".to_owned());
    let server = Server::start(options).await;
    let api = server.api();
    let workflow = graphs::plain(1, 8, 8).to_string();
    std::fs::write(server.home().join("workflow.json"), workflow).expect("a file");
    let comfyui = [
        "Darkroom's own API",
        "command line",
        "ComfyUI's own API",
        "Comfy API v2",
        "Function Compute Serverless API",
        "KubeAI-style proxy",
        "PAI-EAS asynchronous queue",
        "PAI dedicated edition",
        "RunPod's asynchronous endpoint",
        "PPIO's asynchronous endpoint",
    ];
    for (endpoint, protocols) in [
        ("default", &comfyui[..]),
        ("side", &comfyui),
        ("line", &["PAI-EAS queue service"]),
        ("work", &comfyui[8..]),
    ] {
        let answer = api
            .get(&format!("/darkroom/v1/endpoints/{endpoint}/connect"))
            .await
            .expect(200)
            .json();
        assert_eq!(answer["key"]["needed"], true);
        let ways = answer["protocols"].as_array().expect("a list");
        let told: Vec<&str> = ways.iter().filter_map(|way| way["protocol"].as_str()).collect();
        assert_eq!(told, protocols, "{answer}");
        for way in ways {
            paste(&server, way["snippet"].as_str().expect("a text")).await;
        }
    }
    let jobs: Value = api.get("/darkroom/v1/jobs").await.expect(200).json();
    let jobs = jobs["jobs"].as_array().expect("a list");
    // Nobody works for the worker's endpoint.
    for job in jobs.iter().filter(|job| job["endpoint"] != "work") {
        api.finished(job["id"].as_str().expect("an id")).await;
    }
    let shown = Command::new(binary::darkroom())
        .args([
            "endpoints",
            "show",
            "side",
            "--connect",
            "--key",
            "sk_app",
            "--server",
            &server.url(),
        ])
        .output()
        .expect("darkroom runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("/e/side/api/serverless/run") && shown.contains("curl"),
        "{shown}"
    );
    server
        .api_as(None)
        .get("/darkroom/v1/endpoints/side/connect")
        .await
        .expect(401);
}

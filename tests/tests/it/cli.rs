//! The command line, as a script sees it: exit codes, both streams, JSON.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use darkroom_tests::{Options, Server, binary, eventually, graphs, pixels, processes};
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(180);

fn darkroom(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary::darkroom());
    command
        .args(args)
        .current_dir(home)
        .env_remove("DARKROOM_SERVER")
        .env_remove("DARKROOM_KEY")
        .env("XDG_DATA_HOME", home.join("xdg"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn run(home: &Path, args: &[&str]) -> Output {
    let mut command = darkroom(home, args);
    tokio::task::spawn_blocking(move || command.output().expect("darkroom runs"))
        .await
        .expect("no panic")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn write(home: &Path, name: &str, value: &Value) {
    std::fs::write(home.join(name), value.to_string()).expect("the file is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_says_why_each_job_waits() {
    let config =
        "[endpoints.default]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\n";
    let server = Server::start(Options::default().with_config(config)).await;
    let api = server.api();
    let first = api.submit(&graphs::plain(1, 8, 8)).await;
    let second = api.submit(&graphs::plain(2, 8, 8)).await;
    let page = api.get("/darkroom/v1/jobs").await.expect(200).json();
    let waits = |id: &str| {
        let jobs = page["jobs"].as_array().expect("a list");
        let job = jobs.iter().find(|job| job["id"] == id).expect("it is there");
        job["waiting"]["position"].clone()
    };
    assert_eq!([waits(&first), waits(&second)], [0, 1]);
    let home = tempfile::tempdir().expect("a directory");
    let listed = run(home.path(), &["jobs", "list", "--server", &server.url()]).await;
    let text = stdout(&listed);
    assert_eq!(
        text.matches("slots are busy").count(),
        2,
        "{text}{}",
        stderr(&listed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn run_saves_the_picture_and_says_each_event() {
    let server = Server::start(Options::default()).await;
    let home = tempfile::tempdir().expect("a directory");
    let original = pixels::gradient(20, 10);
    std::fs::write(home.path().join("猫 in.png"), pixels::encode(&original)).expect("written");
    write(home.path(), "graph.json", &graphs::invert("none.png"));
    let url = server.url();
    let args = [
        "run",
        "graph.json",
        "--server",
        &url,
        "--input",
        "1.image=猫 in.png",
        "--out",
        "out",
        "--json",
    ];
    let output = run(home.path(), &args).await;
    assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
    let lines = json_lines(&output);
    let results = lines.iter().filter(|line| line["type"] == "result").count();
    assert_eq!(
        (results, &lines.last().expect("lines")["ok"]),
        (1, &Value::Bool(true))
    );
    assert!(lines.iter().any(|line| line["event"] == "executed"), "{lines:?}");
    let file = lines.last().expect("lines")["files"][0]
        .as_str()
        .expect("a file")
        .to_owned();
    pixels::assert_inverse(
        &std::fs::read(home.path().join(&file)).expect("the picture"),
        &original,
    );
    assert_eq!(stderr(&output), "", "JSON only");

    // Once more, for people: the path alone on stdout, and no file overwritten.
    let output = run(home.path(), &args[..args.len() - 1]).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).trim_end().ends_with(".png"));
    assert_eq!(
        std::fs::read_dir(home.path().join("out")).expect("out").count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_say_what_happened() {
    let server = Server::start(Options::test_nodes()).await;
    let home = tempfile::tempdir().expect("a directory");
    let here = home.path();
    write(here, "ok.json", &graphs::plain(1, 8, 8));
    write(
        here,
        "raise.json",
        &graphs::through("TestRaise", serde_json::json!({"message": "boom"}), "a", 1),
    );
    let mut unknown = graphs::plain(1, 8, 8);
    unknown["1"]["class_type"] = "EmptyImge".into();
    write(here, "unknown.json", &unknown);
    let url = server.url();
    let nobody = format!("http://127.0.0.1:{}", darkroom_tests::server::free_port());
    for (expected, args, part) in [
        (1, vec!["run", "raise.json", "--server", &url], "boom"),
        (2, vec!["run", "unknown.json", "--server", &url], "EmptyImage"),
        (2, vec!["run", "missing.json", "--server", &url], "missing.json"),
        (
            2,
            vec!["run", "ok.json", "--server", &url, "--input", "1.nope"],
            "NODE.INPUT=VALUE",
        ),
        (2, vec!["frobnicate"], "frobnicate"),
        (3, vec!["run", "ok.json", "--server", &nobody], "--local"),
        (3, vec!["jobs", "list", "--server", &nobody], "darkroom serve"),
        (
            7,
            vec![
                "jobs",
                "show",
                "01998f2e-7e2f-7c3a-8a52-3f1d7a1b2c3d",
                "--server",
                &url,
            ],
            "",
        ),
        (
            7,
            vec!["logs", "01998f2e-7e2f-7c3a-8a52-3f1d7a1b2c3d", "--server", &url],
            "neither",
        ),
    ] {
        let output = run(here, &args).await;
        assert_eq!(
            code(&output),
            expected,
            "{args:?}: {}{}",
            stdout(&output),
            stderr(&output)
        );
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
        if args[0] == "run" {
            let mut with_json = args.clone();
            with_json.push("--json");
            let output = run(here, &with_json).await;
            let last = json_lines(&output).pop().expect("an envelope");
            assert_eq!(code(&output), expected, "{with_json:?}");
            assert_eq!(
                (&last["type"], &last["exit_code"]),
                (&"result".into(), &expected.into()),
                "{last}"
            );
            assert!(last["error"]["message"].is_string(), "{last}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_cancels_the_job() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let home = tempfile::tempdir().expect("a directory");
    write(home.path(), "slow.json", &graphs::sleep(120.0, "a", 1));
    let child = darkroom(
        home.path(),
        &["run", "slow.json", "--json", "--server", &server.url()],
    )
    .spawn()
    .expect("darkroom runs");
    let job = eventually("the job runs", LIMIT, async || {
        let jobs = api.get("/darkroom/v1/jobs").await.json();
        let job = jobs["jobs"].get(0)?.clone();
        (job["state"] == "running").then_some(job)
    })
    .await;
    processes::signal(i32::try_from(child.id()).expect("a pid"), Signal::INT);
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().expect("it ends"))
        .await
        .expect("no panic");
    assert_eq!(code(&output), 5, "{}{}", stdout(&output), stderr(&output));
    assert_eq!(
        json_lines(&output).pop().expect("an envelope")["state"],
        "cancelled"
    );
    let id = job["id"].as_str().expect("an id");
    assert_eq!(api.finished(id).await["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_through_a_restart_of_the_server() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let home = tempfile::tempdir().expect("a directory");
    write(home.path(), "slow.json", &graphs::sleep(8.0, "a", 0x31_32_33));
    let args = ["run", "slow.json", "--json", "--server", &server.url()];
    let child = darkroom(home.path(), &args).spawn().expect("darkroom runs");
    eventually("the job runs", LIMIT, async || {
        let jobs = api.get("/darkroom/v1/jobs").await.json();
        (jobs["jobs"][0]["state"] == "running").then_some(())
    })
    .await;
    server.kill_child().await;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().expect("it ends"))
        .await
        .expect("no panic");
    assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
    let lines = json_lines(&output);
    let numbers: Vec<u64> = lines.iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert!(numbers.len() > 5, "{numbers:?}");
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "each event once: {numbers:?}"
    );
    let file = lines.last().expect("an envelope")["files"][0]
        .as_str()
        .expect("a file")
        .to_owned();
    pixels::assert_plain(
        &std::fs::read(home.path().join(file)).expect("the picture"),
        0x31_32_33,
        16,
        16,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_cancels_too() {
    let server = Server::start(Options::test_nodes()).await;
    let home = tempfile::tempdir().expect("a directory");
    write(home.path(), "slow.json", &graphs::sleep(120.0, "a", 1));
    let output = run(
        home.path(),
        &["run", "slow.json", "--timeout", "1", "--server", &server.url()],
    )
    .await;
    assert_eq!(code(&output), 6, "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lists_show_what_there_is() {
    let server = Server::start(Options::default()).await;
    let home = tempfile::tempdir().expect("a directory");
    write(home.path(), "ok.json", &graphs::plain(1, 8, 8));
    let url = server.url();
    let with = |args: &[&'static str]| {
        let mut all: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        all.extend(["--server".to_owned(), url.clone()]);
        all
    };
    let call = async |args: Vec<String>| {
        let refs: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run(home.path(), &refs).await;
        assert_eq!(
            code(&output),
            0,
            "{refs:?}: {}{}",
            stdout(&output),
            stderr(&output)
        );
        stdout(&output)
    };
    let id = call(with(&["run", "ok.json", "--detach"]))
        .await
        .trim()
        .to_owned();
    server.api().finished(&id).await;
    assert!(call(with(&["jobs", "list"])).await.contains(&id));
    assert!(
        call(with(&["jobs", "list", "--state", "failed"]))
            .await
            .contains("no jobs")
    );
    let mut show = with(&["jobs", "show"]);
    show.push(id.clone());
    assert!(call(show.clone()).await.contains("succeeded"));
    assert!(call(with(&["endpoints"])).await.contains("default"));
    let instances = call(with(&["instances"])).await;
    assert!(instances.contains("default"), "{instances}");
    let mut logs = with(&["logs"]);
    logs.push(id.clone());
    call(logs).await;
    let decisions = call(with(&["endpoints", "show", "default"])).await;
    assert!(decisions.contains("default"), "{decisions}");
    let doctor = call(with(&["doctor", "--data-dir", "state"])).await;
    assert!(doctor.contains("version"), "{doctor}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_without_a_server_and_then_required() {
    let mut server = Server::start(Options::default()).await;
    let home = tempfile::tempdir().expect("a directory");
    let state = server.data_dir().display().to_string();
    let keys = async |args: &[&str]| {
        let args = [&["keys"], args, &["--data-dir", &state]].concat();
        run(home.path(), &args).await
    };
    let output = keys(&["create", "--name", "app"]).await;
    assert_eq!(code(&output), 2, "its server is running: {}", stderr(&output));
    assert!(stderr(&output).contains("in use"), "{}", stderr(&output));

    server.stop().await;
    let output = keys(&["create", "--name", "app"]).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let secret = stdout(&output).trim().to_owned();
    assert!(
        secret.starts_with("dk_") && !secret.contains(char::is_whitespace),
        "{secret}"
    );
    assert_eq!(
        code(&keys(&["create", "--name", "app"]).await),
        2,
        "the name is taken"
    );
    let output = keys(&["list"]).await;
    assert!(stdout(&output).contains("app") && !stdout(&output).contains(&secret));

    server.restart().await;
    server.api_as(None).get("/darkroom/v1/jobs").await.expect(401);
    server
        .api_as(Some(&secret))
        .get("/darkroom/v1/jobs")
        .await
        .expect(200);
    for (key, expected) in [(None, 4), (Some("dk_wrong"), 4), (Some(secret.as_str()), 0)] {
        let mut command = darkroom(home.path(), &["jobs", "list", "--server", &server.url()]);
        command.envs(key.map(|key| ("DARKROOM_KEY", key)));
        let output = command.output().expect("darkroom runs");
        assert_eq!(code(&output), expected, "{key:?}: {}", stderr(&output));
    }

    server.stop().await;
    assert_eq!(code(&keys(&["revoke", "nobody"]).await), 7);
    assert_eq!(code(&keys(&["revoke", "app"]).await), 0);
    server.restart().await;
    server
        .api_as(Some(&secret))
        .get("/darkroom/v1/jobs")
        .await
        .expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_checked_as_a_whole() {
    let home = tempfile::tempdir().expect("a directory");
    let bad =
        "[server]\nlisten = \"nowhere\"\nlissten = 1\n[endpoints.default.scaling]\nidle_timeout = \"soon\"\n";
    std::fs::write(home.path().join("bad.toml"), bad).expect("written");
    let output = run(home.path(), &["config", "check", "bad.toml"]).await;
    assert_eq!(code(&output), 2);
    for part in ["server.listen", "server.lissten", "idle_timeout", "3 problems"] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    let output = run(home.path(), &["config", "example"]).await;
    std::fs::write(home.path().join("example.toml"), &output.stdout).expect("written");
    let output = run(home.path(), &["config", "check", "example.toml"]).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_makes_its_picture_and_leaves_nothing_running() {
    let home = tempfile::tempdir().expect("a directory");
    let output = run(home.path(), &["demo", "--exit", "--json"]).await;
    assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
    let report = json_lines(&output).pop().expect("a report");
    let picture = report["picture"].as_str().expect("a picture");
    let pixels = pixels::decode(&std::fs::read(picture).expect("the picture is there"));
    assert_eq!(pixels.dimensions(), (1152, 768));
    let sky = pixels.get_pixel(5, 5).0;
    assert!(
        sky[2] > sky[0] && sky.iter().all(|v| *v < 110),
        "developed, the night sky is dark: {sky:?}"
    );
    let phases = &report["phases"];
    let order: Vec<f64> = ["accepted_ms", "instance_ready_ms", "first_node_ms", "done_ms"]
        .iter()
        .map(|name| {
            phases[name]
                .as_f64()
                .unwrap_or_else(|| panic!("{name}: {report}"))
        })
        .collect();
    assert!(order.windows(2).all(|pair| pair[0] <= pair[1]), "{order:?}");
    eventually("no process is left", LIMIT, async || {
        processes::of(home.path()).is_empty().then_some(())
    })
    .await;
    let left: Vec<_> = std::fs::read_dir(home.path().join("xdg/darkroom"))
        .expect("its directory")
        .flatten()
        .collect();
    assert_eq!(left.len(), 1, "only the picture's directory stays: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_killed_takes_its_server_with_it() {
    let home = tempfile::tempdir().expect("a directory");
    let mut child = darkroom(home.path(), &["demo"]).spawn().expect("darkroom runs");
    eventually("its server runs", LIMIT, async || {
        let serving = |p: &processes::Process| p.command.iter().any(|part| part == "serve");
        processes::of(home.path()).iter().any(serving).then_some(())
    })
    .await;
    processes::signal(i32::try_from(child.id()).expect("a pid"), Signal::KILL);
    let _ = child.wait();
    eventually("no process is left", LIMIT, async || {
        processes::of(home.path()).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_can_bring_its_own_server() {
    let home = tempfile::tempdir().expect("a directory");
    write(home.path(), "ok.json", &graphs::plain(0x12_34_56, 8, 8));
    let output = run(home.path(), &["run", "ok.json", "--local", "--out", "out"]).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let file = stdout(&output).trim().to_owned();
    pixels::assert_plain(
        &std::fs::read(home.path().join(file)).expect("the picture"),
        0x12_34_56,
        8,
        8,
    );
}

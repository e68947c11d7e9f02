use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use darkroom_core::endpoint::ProcessSpec;

use super::*;
use crate::{
    Exit, ProcessIdentity, Spec,
    conformance::{self, LONG, ask, started},
};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server.py");

fn backend(data_dir: &Path) -> ProcessBackend {
    ProcessBackend::open(data_dir, ProcessConfig::default()).unwrap()
}

fn new_id() -> InstanceId {
    InstanceId::new(&darkroom_ambient::SystemIds)
}

fn request(options: &[&str]) -> StartRequest {
    let command = ["python3", SERVER, "--port", "{port}"];
    StartRequest {
        instance: new_id(),
        endpoint: "default".parse().unwrap(),
        gpu: None,
        spec: Spec::Process(ProcessSpec {
            command: command.iter().chain(options).map(|w| (*w).to_owned()).collect(),
            ..ProcessSpec::default()
        }),
    }
}

fn spec(request: &mut StartRequest) -> &mut ProcessSpec {
    match &mut request.spec {
        Spec::Process(spec) => spec,
        Spec::Remote(_) => panic!("a request of these tests is for a process"),
    }
}

fn is_running(pid: u64) -> bool {
    let pid = u32::try_from(pid).unwrap();
    proc_fs::identify(pid).is_some_and(|process| proc_fs::is_alive(&process))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_backend_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::all(&backend(dir.path()), &request).await;
    assert_eq!(
        std::fs::read_dir(dir.path().join("instances")).unwrap().count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_gets_its_own_group_directories_and_environment() {
    let dir = tempfile::tempdir().unwrap();
    let backend = backend(dir.path());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut request = request(&[
        "--dirs",
        "{input_dir}",
        "{output_dir}",
        "{temp_dir}",
        "{user_dir}",
    ]);
    request.gpu = Some("1".to_owned());
    spec(&mut request)
        .env
        .insert("COLOUR".to_owned(), "蓝".to_owned());
    let handle = started(&backend, request).await;
    let told = ask(&handle).await;
    let dirs = handle.dirs.clone().unwrap();

    assert_eq!(told["group"], told["pid"]);
    assert_eq!(told["pid"], handle.process.as_ref().unwrap().pid);
    assert_eq!(told["cwd"], dirs.work.to_str().unwrap());
    let own = [&dirs.input, &dirs.output, &dirs.temp, &dirs.user];
    for (at, path) in own.into_iter().enumerate() {
        assert_eq!(told["dirs"][at], path.to_str().unwrap());
        assert!(path.is_dir());
    }
    assert_eq!(told["env"]["CUDA_VISIBLE_DEVICES"], "1");
    assert_eq!(told["env"]["COLOUR"], "蓝");
    assert_eq!(told["env"]["PYTHONUNBUFFERED"], "1");
    // Only a file to write to: no terminal, no pipe that breaks with us, none of our sockets.
    let inherited = &told["inherited"];
    assert_eq!(inherited["0"], "/dev/null");
    assert_eq!(
        inherited["1"],
        handle.log_path.as_ref().unwrap().to_str().unwrap()
    );
    assert_eq!(inherited["2"], inherited["1"]);
    let sockets: Vec<_> = inherited
        .as_object()
        .unwrap()
        .values()
        .filter(|link| link.as_str().unwrap().starts_with("socket:"))
        .collect();
    assert!(sockets.is_empty(), "{sockets:?}");
    drop(listener);
    backend.stop(&handle, LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_started_counts_as_it_and_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let backend = backend(dir.path());
    let handle = started(&backend, request(&["--child", "--daemon"])).await;
    let told = ask(&handle).await;
    let descendants: Vec<u64> = told["descendants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pid| pid.as_u64().unwrap())
        .collect();
    assert!(descendants.iter().all(|pid| is_running(*pid)));
    // The daemon left the group, so it does not count; but it does not get away.
    assert_eq!(backend.usage(&handle).await.unwrap().processes, 2);
    backend.stop(&handle, Duration::from_millis(100)).await.unwrap();
    assert!(descendants.iter().all(|pid| !is_running(*pid)));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_with_its_number_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let backend = backend(dir.path());
    let mut other = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
    let right = proc_fs::identify(other.id()).unwrap();
    let wrong_start = ProcessIdentity {
        start_time_ticks: right.start_time_ticks - 1,
        ..right.clone()
    };
    let wrong_boot = ProcessIdentity {
        boot_id: "another".to_owned(),
        ..right
    };
    for process in [Some(wrong_start), Some(wrong_boot), None] {
        let handle = Handle {
            instance: new_id(),
            endpoint: "default".parse().unwrap(),
            base_url: "http://127.0.0.1:1".to_owned(),
            dirs: None,
            log_path: None,
            process,
            remote: false,
        };
        assert_eq!(backend.recognise(&handle).await, Recognition::Gone);
        assert_eq!(backend.usage(&handle).await, None);
        assert_eq!(backend.exited(&handle).await.how, Exit::Unknown);
        backend.stop(&handle, Duration::ZERO).await.unwrap();
        assert!(is_running(other.id().into()));
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_run_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let backend = backend(dir.path());
    let mut no_program = request(&[]);
    spec(&mut no_program).command = vec!["/no/such/program".to_owned()];
    let error = backend.start(no_program).await.unwrap_err();
    assert!(
        error.to_string().starts_with("cannot run '/no/such/program': "),
        "{error}"
    );
    let mut no_directory = request(&[]);
    spec(&mut no_directory).working_dir = Some("/no/such/directory".into());
    let error = backend.start(no_directory).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot prepare /no/such/directory: "),
        "{error}"
    );
    let mut no_command = request(&[]);
    spec(&mut no_command).command.clear();
    let error = backend.start(no_command).await.unwrap_err();
    assert!(matches!(error, StartError::Command(_)), "{error}");
    assert_eq!(
        std::fs::read_dir(dir.path().join("instances")).unwrap().count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_number_was_never_noted_is_known_by_its_marks() {
    let dir = tempfile::tempdir().unwrap();
    let backend = backend(dir.path());
    let handle = started(&backend, request(&["--child"])).await;
    // As if the server had been killed right after it started the process.
    let files = dir.path().join("instances").join(handle.instance.to_string());
    std::fs::remove_file(files.join("handle.json")).unwrap();
    assert_eq!(
        backend.find(handle.instance).await.unwrap().as_ref(),
        Some(&handle)
    );
    assert_eq!(backend.orphans(&[]).await.unwrap().first(), Some(&handle));
    // Another server's instances, in another directory, are not ours.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(
        elsewhere
            .path()
            .join("instances")
            .join(handle.instance.to_string()),
    )
    .unwrap();
    let stranger = ProcessBackend::open(elsewhere.path(), ProcessConfig::default()).unwrap();
    assert_eq!(stranger.orphans(&[]).await.unwrap(), []);
    assert_eq!(backend.recognise(&handle).await, Recognition::Alive);
    backend.stop(&handle, Duration::from_millis(100)).await.unwrap();
}

fn has_handle(data_dir: &Path) -> bool {
    std::fs::read_dir(data_dir.join("instances"))
        .into_iter()
        .flatten()
        .any(|entry| entry.unwrap().path().join("handle.json").exists())
}

/// Where a test that runs itself again as "the server" finds its directory.
const AS_SERVER: &str = "TEST_AS_SERVER_IN";

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_survives_kill_9_of_its_server_and_is_adopted() {
    const NAME: &str = "process::tests::an_instance_survives_kill_9_of_its_server_and_is_adopted";
    if let Ok(dir) = std::env::var(AS_SERVER) {
        let backend = backend(Path::new(&dir));
        started(&backend, request(&[])).await;
        // Killed while it waits.
        return std::future::pending().await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(AS_SERVER, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !has_handle(dir.path()) {
        assert!(server.try_wait().unwrap().is_none(), "the server gave up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill().unwrap();
    server.wait().unwrap();

    let next = backend(dir.path());
    let [handle] = next.orphans(&[]).await.unwrap().try_into().unwrap();
    next.wait_ready(&handle, LONG).await.unwrap();
    assert_eq!(next.recognise(&handle).await, Recognition::Alive);
    let told = ask(&handle).await;
    assert_eq!(told["pid"], handle.process.as_ref().unwrap().pid);
    // It dies on its own: noticed although it is no child of ours.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (exit, _) = tokio::join!(
        tokio::time::timeout(LONG, next.exited(&handle)),
        http.get(format!("{}/exit", handle.base_url)).send()
    );
    let exit = exit.unwrap();
    assert_eq!(
        (exit.how, exit.last_lines.as_str()),
        (Exit::Unknown, "asked to exit")
    );
    next.remove_files(&handle).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_instance_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let first = backend(dir.path());
    let handle = started(&first, request(&["--ignore-term", "--child"])).await;
    let next = backend(dir.path());
    next.stop(&handle, Duration::from_millis(100)).await.unwrap();
    assert_eq!(next.recognise(&handle).await, Recognition::Gone);
    assert_eq!(first.exited(&handle).await.how, Exit::Signal(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_start_at_once_each_with_its_port() {
    let dir = tempfile::tempdir().unwrap();
    let backend = backend(dir.path());
    let starts = (0..8).map(|_| {
        let backend = backend.clone();
        tokio::spawn(async move { backend.start(request(&["--never-listen"])).await.unwrap() })
    });
    let mut handles = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        handles.push(start.await.unwrap());
    }
    let mut urls: Vec<&str> = handles.iter().map(|handle| handle.base_url.as_str()).collect();
    urls.sort_unstable();
    urls.dedup();
    assert_eq!(urls.len(), 8);
    for handle in &handles {
        backend.stop(handle, Duration::ZERO).await.unwrap();
    }
}

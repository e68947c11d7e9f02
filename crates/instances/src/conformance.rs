//! What backends do, as functions over the trait: each implementation calls [`of_any`], those that start instances
//! themselves [`all`].

use std::time::Duration;

use crate::{Error, Exit, ExitInfo, Handle, InstanceBackend, Recognition, Spec, StartError, StartRequest};

/// Longer than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Runs every check. `request` makes a request that runs `tests/server.py` with these options.
pub(crate) async fn all(backend: &dyn InstanceBackend, request: &dyn Fn(&[&str]) -> StartRequest) {
    of_any(backend, request).await;
    an_instance_that_runs_is_measured_and_ends_when_it_is_stopped(backend, request(&[])).await;
    an_exit_at_the_start_is_told_with_its_last_lines(backend, request).await;
    one_that_exits_says_how(backend, request(&[])).await;
    one_that_ignores_the_polite_request_is_ended_by_force(backend, request(&["--ignore-term"])).await;
    all_it_started_ends_with_it(backend, request(&["--child", "--daemon"])).await;
    an_id_is_started_once(backend, request(&[])).await;
    what_is_left_is_found_again(backend, request).await;
}

/// Checks that also hold where somebody else runs the instance. `request` makes a request for an instance that runs
/// `tests/server.py` with these options.
pub(crate) async fn of_any(backend: &dyn InstanceBackend, request: &dyn Fn(&[&str]) -> StartRequest) {
    an_instance_starts_answers_and_is_let_go(backend, request(&[])).await;
    one_that_never_answers_is_not_ready(backend, request).await;
    one_that_dies_later_is_noticed(backend, request(&[])).await;
}

/// What the test server says about itself.
pub(crate) async fn ask(handle: &Handle) -> serde_json::Value {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(format!("{}/", handle.base_url)).send().await.unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

pub(crate) async fn started(backend: &dyn InstanceBackend, request: StartRequest) -> Handle {
    let handle = backend.start(request).await.unwrap();
    backend.wait_ready(&handle, LONG).await.unwrap();
    handle
}

async fn an_instance_starts_answers_and_is_let_go(backend: &dyn InstanceBackend, request: StartRequest) {
    let handle = started(backend, request.clone()).await;
    assert_eq!(
        (handle.instance, &handle.endpoint),
        (request.instance, &request.endpoint)
    );
    assert_eq!(backend.recognise(&handle).await, Recognition::Alive);
    assert!(ask(&handle).await["system"].is_object());
    // The handle is what a database row keeps.
    let row = serde_json::to_string(&handle).unwrap();
    assert_eq!(serde_json::from_str::<Handle>(&row).unwrap(), handle);
    backend.trim_logs(&handle, 1 << 20).await.unwrap();
    for _ in 0..2 {
        backend.stop(&handle, LONG).await.unwrap();
    }
    for _ in 0..2 {
        backend.remove_files(&handle).await.unwrap();
    }
    assert_eq!(backend.find(handle.instance).await.unwrap(), None);
    assert_eq!(backend.orphans(&[]).await.unwrap(), []);
}

async fn an_instance_that_runs_is_measured_and_ends_when_it_is_stopped(
    backend: &dyn InstanceBackend,
    request: StartRequest,
) {
    let handle = started(backend, request).await;
    assert!(backend.usage(&handle).await.unwrap().rss_bytes > 1 << 20);
    assert!(matches!(
        backend.remove_files(&handle).await,
        Err(Error::StillRunning(_))
    ));
    backend.stop(&handle, LONG).await.unwrap();
    assert_eq!(backend.recognise(&handle).await, Recognition::Gone);
    assert_eq!(backend.usage(&handle).await, None);
    assert_eq!(backend.exited(&handle).await.how, Exit::Signal(15));
    backend.remove_files(&handle).await.unwrap();
    assert!(backend.logs(&handle, 100).await.unwrap().is_empty());
}

async fn an_exit_at_the_start_is_told_with_its_last_lines(
    backend: &dyn InstanceBackend,
    request: &dyn Fn(&[&str]) -> StartRequest,
) {
    let mut request = request(&[
        "--say",
        "no module named torch, hf_secret1",
        "--exit-at-once",
        "3",
    ]);
    let Spec::Process(spec) = &mut request.spec else {
        panic!("a backend that starts processes")
    };
    spec.env.insert("HF_TOKEN".to_owned(), "hf_secret1".to_owned());
    let handle = backend.start(request).await.unwrap();
    let error = backend.wait_ready(&handle, LONG).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "exited with code 3 before it was ready; its last lines:\nno module named torch, [hidden]"
    );
    let exit = backend.exited(&handle).await;
    assert_eq!(exit.how, Exit::Code(3));
    // The log itself is for administrators and is as it was printed.
    let log = backend.logs(&handle, 1 << 20).await.unwrap();
    assert_eq!(log, "no module named torch, hf_secret1\n");
    assert_eq!(backend.logs(&handle, 4).await.unwrap(), "et1\n");
    backend.trim_logs(&handle, 10).await.unwrap();
    assert_eq!(backend.logs(&handle, 1 << 20).await.unwrap(), "ret1\n");
    backend.stop(&handle, LONG).await.unwrap();
    backend.remove_files(&handle).await.unwrap();
}

async fn one_that_never_answers_is_not_ready(
    backend: &dyn InstanceBackend,
    request: &dyn Fn(&[&str]) -> StartRequest,
) {
    for (option, want) in [("--never-listen", "nothing listens"), ("--busy", "status 503")] {
        let handle = backend.start(request(&[option])).await.unwrap();
        // Waits for what it says when it is up, since a slow machine may not get there in a short timeout.
        let mut timeout = Duration::from_millis(200);
        let error = loop {
            let error = backend.wait_ready(&handle, timeout).await.unwrap_err();
            assert!(matches!(error, StartError::NotReady { .. }), "{error}");
            if error.to_string().contains(want) || timeout > LONG {
                break error;
            }
            timeout *= 2;
        };
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!(backend.recognise(&handle).await, Recognition::Alive);
        backend.stop(&handle, LONG).await.unwrap();
        backend.remove_files(&handle).await.unwrap();
    }
}

async fn one_that_dies_later_is_noticed(backend: &dyn InstanceBackend, request: StartRequest) {
    let handle = started(backend, request).await;
    let exit = exit_on_request(backend, &handle).await;
    assert!(!exit.to_string().is_empty());
    backend.stop(&handle, LONG).await.unwrap();
    backend.remove_files(&handle).await.unwrap();
}

async fn one_that_exits_says_how(backend: &dyn InstanceBackend, request: StartRequest) {
    let handle = started(backend, request).await;
    let exit = exit_on_request(backend, &handle).await;
    assert_eq!(
        (exit.how, exit.last_lines.as_str()),
        (Exit::Code(7), "asked to exit")
    );
    backend.remove_files(&handle).await.unwrap();
}

async fn exit_on_request(backend: &dyn InstanceBackend, handle: &Handle) -> ExitInfo {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (exit, _) = tokio::join!(
        tokio::time::timeout(LONG, backend.exited(handle)),
        http.get(format!("{}/exit", handle.base_url)).send()
    );
    exit.unwrap()
}

async fn one_that_ignores_the_polite_request_is_ended_by_force(
    backend: &dyn InstanceBackend,
    request: StartRequest,
) {
    let handle = started(backend, request).await;
    backend.stop(&handle, Duration::from_millis(100)).await.unwrap();
    assert_eq!(backend.recognise(&handle).await, Recognition::Gone);
    assert_eq!(backend.exited(&handle).await.how, Exit::Signal(9));
    backend.remove_files(&handle).await.unwrap();
}

async fn all_it_started_ends_with_it(backend: &dyn InstanceBackend, request: StartRequest) {
    let handle = started(backend, request).await;
    // Its first process dies alone; what it started is still there, and is still its.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let _ = http.get(format!("{}/exit", handle.base_url)).send().await;
    backend.exited(&handle).await;
    assert!(matches!(
        backend.remove_files(&handle).await,
        Err(Error::StillRunning(_))
    ));
    backend.stop(&handle, Duration::from_millis(100)).await.unwrap();
    backend.remove_files(&handle).await.unwrap();
}

async fn an_id_is_started_once(backend: &dyn InstanceBackend, request: StartRequest) {
    let handle = started(backend, request.clone()).await;
    let error = backend.start(request).await.unwrap_err();
    assert!(
        matches!(error, StartError::Exists(id) if id == handle.instance),
        "{error}"
    );
    assert_eq!(backend.recognise(&handle).await, Recognition::Alive);
    backend.stop(&handle, LONG).await.unwrap();
    backend.remove_files(&handle).await.unwrap();
}

async fn what_is_left_is_found_again(
    backend: &dyn InstanceBackend,
    request: &dyn Fn(&[&str]) -> StartRequest,
) {
    let kept = started(backend, request(&[])).await;
    let left = started(backend, request(&[])).await;
    assert_eq!(backend.find(kept.instance).await.unwrap().as_ref(), Some(&kept));
    let orphans = backend.orphans(&[kept.instance]).await.unwrap();
    assert_eq!(orphans, [left]);
    for orphan in orphans {
        backend.stop(&orphan, LONG).await.unwrap();
        // Also when it is not running any more, its files are still to be removed.
        assert_eq!(backend.orphans(&[kept.instance]).await.unwrap().len(), 1);
        backend.remove_files(&orphan).await.unwrap();
    }
    assert_eq!(backend.orphans(&[kept.instance]).await.unwrap(), []);
    assert_eq!(backend.recognise(&kept).await, Recognition::Alive);
    backend.stop(&kept, LONG).await.unwrap();
    backend.remove_files(&kept).await.unwrap();
}

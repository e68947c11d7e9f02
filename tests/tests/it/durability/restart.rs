//! The server's processes die while prompts run on instances that live.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use darkroom_tests::{Ledger, Options, Server, audit, graphs, processes};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{LIMIT, attempt_states, conclude, executing, square};

/// The longest pause that clients may see. A fraction of a second on a quiet machine; the bound tells a pause on
/// a busy one from a connection that nobody ever answers.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn the_running_prompt_is_adopted_when_the_child_dies() {
    let mut server = Server::start(Options::test_nodes()).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(4.0, "a", 0x30_20_10)).await;
    ledger.enter(&id, square(0x30_20_10));
    executing(&api, &id).await;
    let instances = server.instance_pids();
    // Twice: an adopted attempt is adopted again.
    for _ in 0..2 {
        server.kill_child().await;
        executing(&api, &id).await;
    }
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    assert_eq!(server.instance_pids(), instances, "the same instance went on");
    assert_eq!(prompts_of_the_instance(&server).await, 1);
    conclude(&mut server, &ledger).await;
    assert_eq!(audit::executions(&server.data_dir(), &id), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_prompt_is_adopted_when_parent_and_child_die() {
    let mut server = Server::start(Options::test_nodes()).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(4.0, "a", 0x0f_0e_0d)).await;
    ledger.enter(&id, square(0x0f_0e_0d));
    for _ in 0..3 {
        assert!(ledger.submit(&api).await.is_some());
    }
    executing(&api, &id).await;
    let instances = server.instance_pids();
    server.kill_tree().await;
    assert_eq!(server.instance_pids(), instances, "instances outlive the server");
    server.restart().await;
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    assert_eq!(server.instance_pids(), instances, "the same instance went on");
    conclude(&mut server, &ledger).await;
    assert_eq!(audit::executions(&server.data_dir(), &id), 1);
}

/// A prompt that ends while no server is there to hear it is found in the instance's history.
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_ended_without_a_server_is_collected() {
    let mut server = Server::start(Options::test_nodes()).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(1.5, "a", 0x01_22_44)).await;
    ledger.enter(&id, square(0x01_22_44));
    executing(&api, &id).await;
    let url = instance_url(&server).await;
    server.kill_tree().await;
    let history = format!("{url}/history");
    darkroom_tests::eventually("the prompt ends by itself", LIMIT, async || {
        let answer = api
            .try_send(api.request(reqwest::Method::GET, &history))
            .await
            .ok()?;
        answer
            .json()
            .as_object()
            .filter(|entries| !entries.is_empty())
            .map(|_| ())
    })
    .await;
    server.restart().await;
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    conclude(&mut server, &ledger).await;
}

/// An instance that does not answer for longer than a lease (a node that holds the interpreter) while its server dies:
/// the attempt is still there when it answers again.
#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_instance_that_does_not_answer_keeps_its_attempt() {
    // Longer idle than it may be, too, if it were idle.
    let idle = "[endpoints.default.scaling]\nidle_timeout = \"1s\"\n";
    let mut server = Server::start(Options::test_nodes().with_config(idle)).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(2.0, "a", 0x77_01_02)).await;
    ledger.enter(&id, square(0x77_01_02));
    executing(&api, &id).await;
    let instances = server.instance_pids();
    // In this order: a process that is stopped when its parent dies is sent SIGHUP by the kernel.
    server.kill_tree().await;
    processes::signal(instances[0], Signal::STOP);
    server.restart().await;
    let resumed = Instant::now() + Duration::from_secs(38);
    while Instant::now() < resumed {
        let job = api.job(&id).await;
        assert_eq!(
            attempt_states(&job).len(),
            1,
            "given up while it was silent: {job}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    processes::signal(instances[0], Signal::CONT);
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    conclude(&mut server, &ledger).await;
    assert_eq!(audit::executions(&server.data_dir(), &id), 1);
}

/// New connections all the time, one after the other, over several deaths of the child.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_child_is_a_pause_and_never_a_refusal() {
    let mut server = Server::start(Options::test_nodes()).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let address: SocketAddr = ([127, 0, 0, 1], server.port()).into();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(hammer(address, stop.clone())))
        .collect();
    let load = ledger.load(&api, 2);
    for _ in 0..3 {
        server.kill_child().await;
        // The next one dies after it has worked, so that each is a death of its own.
        let there = ledger.len();
        darkroom_tests::eventually("work gets done", LIMIT, async || {
            (ledger.len() > there + 3).then_some(())
        })
        .await;
    }
    load.stop().await;
    stop.store(true, Ordering::Relaxed);
    let mut total = Seen::default();
    for client in clients {
        let seen = client.await.expect("no connection was refused");
        total.answered += seen.answered;
        total.broken += seen.broken;
        total.longest = total.longest.max(seen.longest);
    }
    assert!(total.answered > 100, "{total:?}");
    // Only what the dying child had in its hands breaks: at most one request of each client for each death.
    assert!(total.broken <= 3 * 4, "{total:?}");
    assert!(total.longest <= LONGEST_PAUSE, "{total:?}");
    conclude(&mut server, &ledger).await;
}

#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    broken: u64,
    longest: Duration,
}

/// Asks over a connection of its own each time; panics when one is refused.
async fn hammer(address: SocketAddr, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let mut last_answer = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address)
            .await
            .unwrap_or_else(|error| panic!("refused: {error}"));
        match ask(&mut stream).await {
            Ok(()) => {
                seen.answered += 1;
                seen.longest = seen.longest.max(last_answer.elapsed());
                last_answer = Instant::now();
            }
            Err(_) => seen.broken += 1,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    seen
}

async fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    let request = format!(
        "GET /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        stream.peer_addr()?
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(std::io::ErrorKind::ConnectionAborted.into())
    }
}

async fn instance_url(server: &Server) -> String {
    let instances = server.api().instances().await;
    let live = instances
        .iter()
        .find(|i| i["state"] == "ready")
        .unwrap_or_else(|| panic!("no instance is ready: {}", json!(instances)));
    live["url"]
        .as_str()
        .expect("an instance has an address")
        .to_owned()
}

/// How many prompts the one instance has executed.
async fn prompts_of_the_instance(server: &Server) -> usize {
    let url = instance_url(server).await;
    let history = server.api().get(&format!("{url}/history")).await.json();
    history
        .as_object()
        .map_or(0, serde_json::Map::<String, Value>::len)
}

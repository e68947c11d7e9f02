//! One server: started on a free port with a directory of its own, ended and checked when dropped.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Api, binary, config, eventually, processes, within};

/// How long a server may take to become ready: a bound of what hangs, not of what is slow.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a graceful stop may take, in the same sense.
const STOP_LIMIT: Duration = Duration::from_secs(90);
/// How long instances may be there after the server that told them to end.
const INSTANCES_LIMIT: Duration = Duration::from_secs(30);

/// How to start a server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `darkroom.toml`, without `[server]`.
    pub config: String,
    /// More lines of `[server]`.
    pub server_config: String,
    /// What running jobs and open connections are given at a stop; tests are in a hurry if unset.
    pub stop_grace: Option<String>,
    /// More arguments of `darkroom serve`.
    pub args: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
    /// The key that [`Server::api`] shows.
    pub key: Option<String>,
}

impl Options {
    /// An endpoint `default` on an engine that also has the nodes for testing (sleep, raise, exit).
    pub fn test_nodes() -> Self {
        Options::default().with_config(&endpoint_with_test_nodes("default", ""))
    }

    /// Adds to the configuration.
    pub fn with_config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }
}

/// An endpoint on an engine with the nodes for testing; `more` are lines of the endpoint (sub-tables written inline).
pub fn endpoint_with_test_nodes(name: &str, more: &str) -> String {
    let command = config::engine_command();
    format!("[endpoints.{name}]\ncommand = {command:?}\n{more}\n")
}

/// A running `darkroom serve`.
pub struct Server {
    child: Option<Child>,
    home: TempDir,
    port: u16,
    options: Options,
}

impl Server {
    /// Starts one and waits until it is ready.
    pub async fn start(options: Options) -> Self {
        let home = TempDir::with_prefix("darkroom-test-").expect("a temporary directory");
        Self::start_in(home, options).await
    }

    /// The same in a directory that the test made; the server's data will be in `data` below it.
    pub async fn start_in(home: TempDir, options: Options) -> Self {
        let mut server = Server {
            child: None,
            home,
            port: free_port(),
            options,
        };
        server.spawn();
        server.wait_ready().await;
        server
    }

    /// From now on each working process that starts dies as the next line says (`POINT:N`, or `POINT:N freeze` to stand
    /// still there until it is killed); those that start when all lines are used up live.
    pub fn die_at(&self, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(self.failpoints_path(), text).expect("the failpoints are written");
    }

    fn failpoints_path(&self) -> PathBuf {
        self.home.path().join("failpoints")
    }

    /// Starts it again on the same port and directory, after it ended or was killed.
    pub async fn restart(&mut self) {
        self.relaunch();
        self.wait_ready().await;
    }

    /// The same without waiting until it is ready, for one that may die before.
    pub fn relaunch(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.spawn();
    }

    fn spawn(&mut self) {
        let config = self.home.path().join("darkroom.toml");
        let grace = self.options.stop_grace.as_deref().unwrap_or("100ms");
        let text = format!(
            "[server]\nstop_grace = \"{grace}\"\n{}\n{}",
            self.options.server_config, self.options.config
        );
        fs::write(&config, text).expect("the configuration is written");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the log opens");
        let mut command = Command::new(binary::darkroom());
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(&self.options.args)
            .envs(self.options.env.iter().cloned())
            .env("DARKROOM_FAILPOINTS", self.failpoints_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle is copied"))
            .stderr(log);
        self.child = Some(command.spawn().expect("the server starts"));
    }

    async fn wait_ready(&mut self) {
        let api = self.api();
        let limit = START_LIMIT;
        let started = async {
            loop {
                if api.ready().await {
                    return Ok(());
                }
                if let Some(status) = self.exited() {
                    return Err(status);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let result = tokio::time::timeout(limit, started).await;
        match result {
            Ok(Ok(())) => {}
            Ok(Err(status)) => panic!("the server ended with {status}:\n{}", self.log()),
            Err(_) => panic!("the server was not ready within {limit:?}:\n{}", self.log()),
        }
    }

    /// A client of its own API and of every protocol, with the key of the options.
    pub fn api(&self) -> Api {
        Api::new(&self.url(), self.options.key.clone())
    }

    /// The same with another key, or none.
    pub fn api_as(&self, key: Option<&str>) -> Api {
        Api::new(&self.url(), key.map(str::to_owned))
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its state is.
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A directory for the test's own files; goes with the server.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("server.log")
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The id of the process that was started (the parent that owns the socket).
    pub fn pid(&self) -> i32 {
        self.child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok())
            .expect("the server runs")
    }

    /// The process that does the work: the parent's child.
    pub fn worker_pid(&self) -> Option<i32> {
        let parent = self.pid();
        processes::of(self.home.path())
            .into_iter()
            .find(|process| process.parent == parent && process.command.iter().any(|part| part == "serve"))
            .map(|process| process.pid)
    }

    /// Ids of the instances' processes.
    pub fn instance_pids(&self) -> Vec<i32> {
        processes::of(self.home.path())
            .into_iter()
            .filter(|process| process.command.get(1).is_some_and(|part| part == "engine"))
            .map(|process| process.pid)
            .collect()
    }

    /// `kill -9` of the working child; the parent starts another.
    pub async fn kill_child(&self) {
        let before = eventually("the server has a child", START_LIMIT, async || self.worker_pid()).await;
        processes::signal(before, Signal::KILL);
        eventually("another child runs", START_LIMIT, async || {
            self.worker_pid().filter(|pid| *pid != before)
        })
        .await;
    }

    /// `kill -9` of parent and child, as a power cut would (instances live on; see [`Server::kill_everything`]).
    pub async fn kill_tree(&mut self) {
        let worker = self.worker_pid();
        processes::signal(self.pid(), Signal::KILL);
        if let Some(worker) = worker {
            processes::signal(worker, Signal::KILL);
        }
        self.wait_exit().await;
        // The child was re-parented when its parent died; it must be gone before the next one starts, and before a test
        // stops an instance: those that are stopped when their parent ends are sent SIGHUP.
        eventually("the child is gone", STOP_LIMIT, async || {
            let serving = |p: &processes::Process| p.command.iter().any(|part| part == "serve");
            let ended = worker.is_none_or(processes::has_ended);
            (ended && !processes::of(self.home.path()).iter().any(serving)).then_some(())
        })
        .await;
    }

    /// `kill -9` of everything, instances too.
    pub async fn kill_everything(&mut self) {
        self.kill_tree().await;
        for process in processes::of(self.home.path()) {
            processes::signal(process.pid, Signal::KILL);
        }
    }

    /// Writes another configuration (`[server]` too, if it should differ) and sends SIGHUP.
    pub fn reload(&self, config: &str) {
        fs::write(self.home.path().join("darkroom.toml"), config).expect("the configuration is written");
        processes::signal(self.pid(), Signal::HUP);
    }

    /// SIGTERM, and wait for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        processes::signal(self.pid(), Signal::TERM);
        self.wait_exit().await
    }

    /// Waits until the process that was started has ended.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        let limit = STOP_LIMIT;
        let status = within("the server ends", limit, async {
            loop {
                if let Some(status) = self.exited() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        self.child = None;
        status
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten())
    }

    /// Ends what still runs; returns what had to be killed that way although the server had ended.
    fn clean_up(&mut self) -> Vec<processes::Process> {
        if let Some(mut child) = self.child.take() {
            processes::signal(i32::try_from(child.id()).unwrap_or(0), Signal::TERM);
            if !wait_blocking(&mut child, STOP_LIMIT) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        // Instances are told to end by the server; the last of them may be a moment behind it.
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while waited < INSTANCES_LIMIT {
            if processes::of(self.home.path()).is_empty() {
                return Vec::new();
            }
            thread::sleep(step);
            waited += step;
        }
        let left = processes::of(self.home.path());
        for process in &left {
            processes::signal(process.pid, Signal::KILL);
        }
        left
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let left = self.clean_up();
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the end of the server's log ---");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        } else {
            assert!(
                left.is_empty(),
                "processes were left behind: {left:?}\n{}",
                self.log()
            );
        }
    }
}

fn wait_blocking(child: &mut Child, limit: Duration) -> bool {
    let step = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    while waited < limit {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return true;
        }
        thread::sleep(step);
        waited += step;
    }
    false
}

/// A port nobody listens on now, and that this process gives out once. None of those that the kernel gives to whoever asks
/// for any port or connects somewhere: with many tests at once it would be taken before the server is there, or while it
/// restarts.
pub fn free_port() -> u16 {
    /// Below the range of Linux (`ip_local_port_range`), which begins at 32768.
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Processes that run at the same time begin far from each other.
    let first = std::process::id().wrapping_mul(7919);
    for _ in 0..count {
        let offset = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = u16::try_from(PORTS.start + offset).expect("the range is one of ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

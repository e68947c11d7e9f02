//! A box far away: a ComfyUI-compatible engine that nobody but its agent reaches, and the agent, as processes of their own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{Server, binary, eventually, processes, server::free_port, within};

const LIMIT: Duration = Duration::from_secs(60);

/// An engine with the nodes for testing; ends when dropped.
pub struct Engine {
    child: Child,
    port: u16,
}

impl Engine {
    /// Starts one with directories below `home`, and waits until it answers.
    pub async fn start(home: &Path) -> Self {
        Self::started(home, &["--test-nodes"]).await
    }

    /// The same without the nodes for testing.
    pub async fn plain(home: &Path) -> Self {
        Self::started(home, &[]).await
    }

    async fn started(home: &Path, more: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new(binary::darkroom());
        command
            .args(["engine", "--listen", &format!("127.0.0.1:{port}")])
            .args(more);
        for kind in ["input", "output", "temp", "user"] {
            let directory = home.join(format!("box-{port}")).join(kind);
            fs::create_dir_all(&directory).expect("a directory is made");
            command.arg(format!("--{kind}-directory")).arg(directory);
        }
        let log = home.join(format!("box-{port}.log"));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).expect("a log is made"))
            .spawn()
            .expect("the engine starts");
        let engine = Engine { child, port };
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let address = format!("{}/system_stats", engine.url());
        eventually("the engine answers", LIMIT, async || {
            client.get(&address).send().await.ok().map(drop)
        })
        .await;
        engine
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many prompts it was posted, run or not, as its history and queue say.
    pub async fn prompts(&self) -> usize {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut count = 0;
        for path in ["history", "queue"] {
            let answer = client.get(format!("{}/{path}", self.url())).send().await;
            let json: serde_json::Value = answer.expect("it answers").json().await.expect("it is JSON");
            count += match path {
                "history" => json.as_object().map_or(0, serde_json::Map::len),
                _ => ["queue_running", "queue_pending"]
                    .iter()
                    .map(|key| json[*key].as_array().map_or(0, Vec::len))
                    .sum(),
            };
        }
        count
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory like a ComfyUI's checkout below `home`, and an interpreter for it that runs an engine with the nodes for testing
/// under the arguments of ComfyUI.
pub fn installation(home: &Path) -> (PathBuf, PathBuf) {
    let directory = home.join("ComfyUI");
    fs::create_dir_all(&directory).expect("a directory is made");
    fs::write(directory.join("main.py"), "").expect("a file is written");
    let python = home.join("python");
    let script = format!(
        "#!/bin/sh\nshift\nwhile [ $# -gt 0 ]; do\n  case \"$1\" in\n    --listen) shift ;;\n    --port) shift; port=$1 ;;\n    \
         --*-directory) arguments=\"$arguments $1 $2\"; shift ;;\n    --disable-auto-launch) ;;\n    *) echo \"what is $1?\" >&2; \
         exit 2 ;;\n  esac\n  shift\ndone\nexec {} engine --listen \"127.0.0.1:$port\" --test-nodes $arguments\n",
        binary::darkroom().display()
    );
    fs::write(&python, script).expect("a script is written");
    let executable = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(&python, executable).expect("it is executable");
    (directory, python)
}

/// `darkroom agent`; killed when dropped.
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Starts one for the endpoint `default` of a server, and does not wait for anything.
    pub fn start(server: &Server, engine: &Engine, name: &str, key: Option<&str>) -> Self {
        Self::start_at(&server.url(), server, engine, name, key)
    }

    /// The same for one that reaches its server at another address.
    pub fn start_at(url: &str, server: &Server, engine: &Engine, name: &str, key: Option<&str>) -> Self {
        let mut command = Command::new(binary::darkroom());
        command
            .args(["agent", "--endpoint", "default", "--name", name, "--grace", "60"])
            .args(["--server", url, "--comfyui", &engine.url(), "--spool"])
            .arg(server.home().join(format!("spool-{name}")))
            .env_remove("DARKROOM_KEY");
        if let Some(key) = key {
            command.env("DARKROOM_KEY", key);
        }
        Self::spawned(command, server, name)
    }

    /// Starts one with a line as `darkroom keys create` prints it, for this engine and under this name.
    pub fn pasted(server: &Server, line: &str, engine: &Engine, name: &str) -> Self {
        let (line, comfyui) = line.split_once(" --comfyui ").expect("the line names a ComfyUI");
        assert_eq!(comfyui, "http://127.0.0.1:8188");
        let directory = binary::darkroom()
            .parent()
            .expect("the binary lies in a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        let spool = server.home().join(format!("spool-{name}"));
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{line} \"$@\""), "sh"])
            .args(["--comfyui", &engine.url(), "--name", name, "--spool"])
            .arg(spool)
            .env("PATH", format!("{}:{path}", directory.display()));
        Self::spawned(command, server, name)
    }

    /// Starts one that starts the ComfyUI of a directory itself, with this interpreter; `more` are arguments of ComfyUI's.
    /// What it keeps is below the server's home.
    pub fn with_installation(
        server: &Server,
        directory: &Path,
        python: Option<&Path>,
        more: &[&str],
    ) -> Self {
        Self::with_installation_and_grace(server, directory, python, more, 60)
    }

    /// The same with another grace, in seconds.
    pub fn with_installation_and_grace(
        server: &Server,
        directory: &Path,
        python: Option<&Path>,
        more: &[&str],
        grace: u32,
    ) -> Self {
        let mut command = Command::new(binary::darkroom());
        command
            .args(["agent", "--endpoint", "default", "--name", "box"])
            .args(["--grace", &grace.to_string()])
            .args(["--server", &server.url(), "--comfyui"])
            .arg(directory)
            .arg("--data-dir")
            .arg(server.home().join("agent"))
            .env_remove("DARKROOM_KEY");
        if let Some(python) = python {
            command.arg("--python").arg(python);
        }
        command.arg("--").args(more);
        Self::spawned(command, server, "box")
    }

    fn spawned(mut command: Command, server: &Server, name: &str) -> Self {
        let log = server.home().join(format!("agent-{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file.expect("a log is made"))
            .spawn()
            .expect("the agent starts");
        Agent { child, log }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process has a number")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        processes::signal(self.pid(), Signal::TERM);
    }

    /// Its exit code, once it ended by itself.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let ended = within("the agent ends", LIMIT, async {
            loop {
                if let Ok(Some(status)) = self.child.try_wait() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        ended.await.code()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- the agent's log ---\n{}", self.log());
        }
    }
}

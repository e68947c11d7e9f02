//! A server of our own for the length of one command: a child process of this binary on a free port, with its data in
//! a directory that goes with it. Used by `demo`, by `run --local`, and by `bench`.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    client::Client,
    exit::{Exit, Failure},
};

/// How long the server may take until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a graceful stop may take before the process is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the child and its readiness are looked at.
const POLL: Duration = Duration::from_millis(10);

/// The running server. Ends when dropped; [`LocalServer::stop`] does it gracefully.
#[derive(Debug)]
pub struct LocalServer {
    child: Option<Child>,
    /// The server ends itself when this pipe closes, so that it never outlives us, however we end.
    _stdin: ChildStdin,
    url: String,
    data: Arc<tempfile::TempDir>,
}

/// What a server of our own is like.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Its port; 0: any free one.
    pub port: u16,
    /// The directory below which it gets one for its data.
    pub home: PathBuf,
    /// What an earlier one left (see [`LocalServer::data`]); `None`: it begins with nothing.
    pub data: Option<Arc<tempfile::TempDir>>,
    /// Its configuration, without `[server]`.
    pub config: &'a str,
}

impl LocalServer {
    /// Starts a server on `port` (0: any free one) and waits until it is ready.
    pub async fn start(port: u16) -> Result<Self, Failure> {
        Self::start_with(Setup {
            port,
            home: data_home(),
            data: None,
            config: "",
        })
        .await
    }

    /// The same with more to say about it.
    pub async fn start_with(setup: Setup<'_>) -> Result<Self, Failure> {
        let Setup {
            port,
            home,
            data,
            config,
        } = setup;
        let failed = |error: std::io::Error| Failure::local(format!("{}: {error}", home.display()));
        fs::create_dir_all(&home).map_err(failed)?;
        let mut named = tempfile::Builder::new();
        let data = match data {
            Some(data) => data,
            None => Arc::new(named.prefix("server-").tempdir_in(&home).map_err(failed)?),
        };
        // Between our look and the server's own bind someone else may take the port: then it says so and we fail.
        let listener = TcpListener::bind(("127.0.0.1", port))
            .map_err(|error| Failure::local(format!("port {port}: {error}")))?;
        let address = listener
            .local_addr()
            .map_err(|error| Failure::local(error.to_string()))?;
        drop(listener);

        let mut command = Self::command(data.path(), &address.to_string(), config)?;
        let mut child = command
            .spawn()
            .map_err(|error| Failure::local(format!("cannot start the server: {error}")))?;
        let stdin = child
            .stdin
            .take()
            .ok_or_else(|| Failure::local("the server has no stdin"))?;
        let mut server = LocalServer {
            child: Some(child),
            _stdin: stdin,
            url: format!("http://{address}"),
            data,
        };
        server.wait_ready().await?;
        Ok(server)
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The directory that holds what it keeps (in `data`); it goes with the last that holds this.
    pub fn data(&self) -> Arc<tempfile::TempDir> {
        self.data.clone()
    }

    /// The id of the process that was started (the parent that owns the socket).
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Stops it and waits until it is gone.
    pub async fn stop(mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        terminate(&child);
        let gone = async {
            while matches!(child.try_wait(), Ok(None)) {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, gone).await.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until the server ends by itself.
    pub async fn ended(&mut self) {
        while let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn command(data: &Path, address: &str, config: &str) -> Result<Command, Failure> {
        let own = std::env::current_exe().map_err(|error| Failure::local(format!("own path: {error}")))?;
        let log = |name: &str| {
            File::create(data.join(name))
                .map_err(|error| Failure::local(format!("{}: {error}", data.display())))
        };
        // A file of our own, so that a darkroom.toml in the working directory has no say here. Nobody but us is
        // connected, so connections need no grace.
        let text = format!("[server]\nstop_grace = \"100ms\"\n{config}");
        let config = data.join("darkroom.toml");
        fs::write(&config, text).map_err(|error| Failure::local(format!("{}: {error}", config.display())))?;
        let mut command = Command::new(own);
        command
            .args(["serve", "--until-stdin-closes", "--listen", address, "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(data.join("data"))
            .stdin(Stdio::piped())
            .stdout(log("server.out")?)
            .stderr(log("server.log")?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DARKROOM_") {
                command.env_remove(name);
            }
        }
        #[cfg(unix)]
        {
            // Ctrl-C in the terminal is ours to hear; the server is then told to end in its own time.
            use std::os::unix::process::CommandExt;
            command.process_group(0);
        }
        Ok(command)
    }

    async fn wait_ready(&mut self) -> Result<(), Failure> {
        let client = Client::new(&self.url, None)?;
        let ready = async {
            loop {
                if let Some(child) = &mut self.child
                    && let Ok(Some(status)) = child.try_wait()
                {
                    return Err(Some(status));
                }
                if client.ready().await.is_ok() {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let what = match tokio::time::timeout(START_TIMEOUT, ready).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(status)) => format!(
                "the server ended at once ({})",
                status.map_or(String::new(), |status: std::process::ExitStatus| status
                    .to_string())
            ),
            Err(_) => "the server did not become ready".to_owned(),
        };
        let log = tail(&self.data.path().join("server.log"));
        Err(Failure::new(
            Exit::Local,
            "server_start",
            format!("{what}\n{log}"),
        ))
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            terminate(&child);
            // The pipe closes right after, which means the same; the temporary directory waits for neither.
            let _ = child.try_wait();
        }
    }
}

fn terminate(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id())
        && let Some(pid) = Pid::from_raw(pid)
    {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// The last 4 KB of a log.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    read().unwrap_or_default()
}

/// Ctrl-C, or a polite request to end (SIGTERM): both must reach our server before we go.
pub async fn asked_to_end() {
    let ctrl_c = async {
        // Without a handler there is nothing to wait for; the default action ends the process then.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = ctrl_c => {}
        () = terminate => {}
    }
}

/// Where a demo keeps what it makes: `$XDG_DATA_HOME/darkroom`, else `~/.local/share/darkroom`, else `./.darkroom`.
pub fn data_home() -> PathBuf {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    match (absolute("XDG_DATA_HOME"), absolute("HOME")) {
        (Some(data), _) => data.join("darkroom"),
        (None, Some(home)) => home.join(".local/share/darkroom"),
        (None, None) => PathBuf::from(".darkroom"),
    }
}

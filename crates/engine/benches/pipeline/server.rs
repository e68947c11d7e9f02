//! The two kinds of servers, each a process of its own with directories of its own.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_engine::{Options, serve};
use tempfile::TempDir;

/// A server; ends with this value.
pub struct Server {
    name: &'static str,
    child: Child,
    port: u16,
    home: TempDir,
}

impl Server {
    /// The engine, in a process of its own: this program again.
    pub fn engine() -> Server {
        let own = env::current_exe().expect("own path");
        Server::start("engine", |port, home| {
            let mut command = Command::new(own);
            command.arg("--serve").arg(port.to_string()).arg(home);
            command
        })
    }

    /// The user's ComfyUI, on the processor.
    pub fn comfyui(directory: &Path) -> Server {
        let python = env::var_os("COMFYUI_PYTHON").unwrap_or_else(|| "python3".into());
        Server::start("ComfyUI", |port, home| {
            let mut command = Command::new(python);
            command.current_dir(directory).args([
                "main.py",
                "--cpu",
                "--disable-auto-launch",
                "--listen",
                "127.0.0.1",
            ]);
            command.arg("--port").arg(port.to_string());
            for kind in ["input", "output", "temp", "user"] {
                command.arg(format!("--{kind}-directory")).arg(home.join(kind));
            }
            command
        })
    }

    fn start(name: &'static str, command: impl FnOnce(u16, &Path) -> Command) -> Server {
        let home = TempDir::with_prefix("darkroom-bench-").expect("a temporary directory");
        for kind in ["input", "output", "temp", "user"] {
            fs::create_dir(home.path().join(kind)).expect("a directory");
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a free port")
            .port();
        let log = fs::File::create(home.path().join("log")).expect("a log");
        let child = command(port, home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle is copied"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Server {
            name,
            child,
            port,
            home,
        }
    }

    /// Which of the two.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its address.
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A file of its input directory.
    pub fn input_file(&self, name: &str) -> PathBuf {
        self.home.path().join("input").join(name)
    }

    /// A file of its output directory.
    pub fn output_file(&self, name: &str) -> PathBuf {
        self.home.path().join("output").join(name)
    }

    /// What it printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// What it has in memory now; `None` where the system cannot tell.
    pub fn resident_bytes(&self) -> Option<u64> {
        status(self.child.id(), "VmRSS:")
    }

    /// Sets the peak to what is in memory now (Linux, proc(5)).
    pub fn reset_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    /// The most it had in memory since then.
    pub fn peak_bytes(&self) -> Option<u64> {
        status(self.child.id(), "VmHWM:")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn status(pid: u32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// `--serve PORT HOME`: be the engine.
pub async fn serve_engine(arguments: &[String]) {
    let (port, home) = (&arguments[0], Path::new(&arguments[1]));
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .expect("the port is free");
    let options = Options {
        listen: listener.local_addr().expect("bound"),
        input_dir: home.join("input"),
        output_dir: home.join("output"),
        temp_dir: home.join("temp"),
        user_dir: home.join("user"),
        test_nodes: false,
        disable_metadata: false,
        max_upload_bytes: 100 << 20,
    };
    serve(
        options,
        listener,
        Arc::new(SystemClock::new()),
        Arc::new(SystemIds),
    )
    .await
    .expect("it serves");
}

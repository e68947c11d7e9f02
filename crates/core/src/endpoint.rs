//! A named thing that can be called: its kind, how it is run, how it scales, and its bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{EndpointName, Environment};

/// What an endpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// ComfyUI graphs.
    Comfyui,
    /// Inputs of a Python handler (RunPod and PPIO workers), or requests of a program that answers HTTP.
    Worker,
    /// A plain EAS queue.
    Queue,
}

/// Everything about one endpoint, as configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name.
    pub name: EndpointName,
    /// What it takes.
    pub kind: Kind,
    /// How its instances are run.
    pub backend: Backend,
    /// One instance per entry, each with `CUDA_VISIBLE_DEVICES` set to it; empty: not set.
    #[serde(default)]
    pub gpus: Vec<String>,
    /// Where ComfyUI's page lies: a directory, or a wheel or zip of one.
    #[serde(default)]
    pub frontend: Option<std::path::PathBuf>,
    /// A workflow that each new instance runs before its first job, so that models are loaded by then.
    #[serde(default)]
    pub warmup: Option<std::path::PathBuf>,
    /// Host names that select this endpoint at the root path.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Callers without credentials may use it.
    #[serde(default)]
    pub anonymous: bool,
    /// They may also list.
    #[serde(default)]
    pub anonymous_history: bool,
    /// How many instances, and when.
    #[serde(default)]
    pub scaling: Scaling,
    /// Bounds on jobs.
    #[serde(default)]
    pub limits: Limits,
    /// Bounds on the items of its queues, and when they are delivered again.
    #[serde(default)]
    pub queue: QueueLimits,
}

impl Endpoint {
    /// Whether its instances are the embedded engine: a process backend that names no command.
    pub fn runs_embedded_engine(&self) -> bool {
        matches!(&self.backend, Backend::Process(spec) if spec.command.is_empty())
    }

    /// Whether its instances are programs that answer HTTP, to which requests are replayed: workers that are given a port,
    /// or that somebody else runs. Other workers take their jobs by polls.
    pub fn is_http_worker(&self) -> bool {
        self.kind == Kind::Worker
            && match &self.backend {
                Backend::Process(spec) => spec.takes_a_port(),
                Backend::Remote { .. } => true,
                Backend::External => false,
            }
    }

    /// Whether its instances are workers that take their jobs by polls.
    pub fn has_pull_workers(&self) -> bool {
        self.kind == Kind::Worker && !self.is_http_worker()
    }

    /// Whether one of its instances may run on the box of this name. A box is what an instance runs on as far as its
    /// abilities go: a ComfyUI installation, a remote server, an agent.
    pub fn has_box(&self, name: &str) -> bool {
        match &self.backend {
            Backend::Process(spec) => spec.box_name() == name,
            Backend::Remote { servers } => servers.iter().any(|server| server.name == name),
            Backend::External => true,
        }
    }

    /// What a box is called to those who do not operate the endpoint: the name that it was given, else `box-N` by its place
    /// among the endpoint's boxes. Addresses and directories of machines are not their business.
    pub fn public_box_name(&self, name: &str) -> String {
        let unnamed = match &self.backend {
            Backend::Process(spec) => spec.name.is_none() && !spec.command.is_empty(),
            Backend::Remote { servers } => {
                let at = servers.iter().position(|server| server.name == name);
                return match at {
                    Some(at) if servers[at].has_given_name() => name.to_owned(),
                    Some(at) => format!("box-{}", at + 1),
                    // It is gone, and with it what it was called.
                    None => "box".to_owned(),
                };
            }
            Backend::External => false,
        };
        match unnamed {
            true => "box-1".to_owned(),
            false => name.to_owned(),
        }
    }
}

impl ProcessSpec {
    /// Whether it is told which port to listen on.
    pub fn takes_a_port(&self) -> bool {
        self.command.iter().any(|word| word.contains("{port}"))
    }

    /// The directory of the ComfyUI that its command starts, where one can be told from it.
    pub fn installation(&self) -> Option<&str> {
        let words = self.command.iter();
        words
            .filter_map(|word| word.strip_suffix("main.py")?.strip_suffix('/'))
            .find(|directory| !directory.is_empty())
    }

    /// Where that ComfyUI's custom nodes lie: in its directory, unless `--base-directory` names another.
    pub fn custom_nodes(&self) -> Option<std::path::PathBuf> {
        let mut words = self.command.iter().skip_while(|word| *word != "--base-directory");
        let base = match words.nth(1) {
            Some(base) => base.as_str(),
            None => self.installation()?,
        };
        Some(std::path::Path::new(base).join("custom_nodes"))
    }

    /// The name of the box that all its instances run on: its operator's, else the installation's directory where one can be
    /// told from the command, else the program.
    pub fn box_name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        match (self.installation(), self.command.first()) {
            (Some(directory), _) => directory.to_owned(),
            (_, Some(program)) => program.clone(),
            (_, None) => "engine".to_owned(),
        }
    }
}

/// How instances of an endpoint are run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "backend")]
pub enum Backend {
    /// Processes on this machine.
    Process(ProcessSpec),
    /// ComfyUI servers (or, of kind `worker`, programs that answer HTTP) somebody else runs, one instance each.
    Remote {
        /// Where.
        servers: Vec<RemoteServer>,
    },
    /// Pull workers and agents that come by themselves.
    External,
}

/// A ComfyUI server that somebody else runs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteServer {
    /// Its name among the endpoint's boxes; host and port unless it was given another.
    pub name: String,
    /// Its base URL, without a slash at the end.
    pub url: String,
    /// Sent with every request to it: keys of a proxy before it. Secret, so they are neither printed nor serialised; who
    /// stores a server seals them.
    #[serde(skip)]
    pub headers: std::collections::BTreeMap<String, String>,
}

impl RemoteServer {
    /// A server without headers, named after its address.
    pub fn new(url: impl Into<String>) -> Self {
        let url: String = url.into();
        let url = url.trim_end_matches('/').to_owned();
        let name = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        RemoteServer {
            name: name.to_owned(),
            url,
            headers: std::collections::BTreeMap::new(),
        }
    }

    /// Whether its operator gave it a name; else it is its address.
    pub fn has_given_name(&self) -> bool {
        self.name != RemoteServer::new(self.url.as_str()).name
    }
}

impl std::fmt::Debug for RemoteServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteServer")
            .field("name", &self.name)
            .field("url", &self.url)
            .field("headers", &self.headers.keys())
            .finish()
    }
}

/// How a process of an endpoint is started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments with the placeholders `{port}`, `{input_dir}`, `{output_dir}`, `{temp_dir}`, `{user_dir}`.
    /// Empty: the embedded engine (the running binary with `engine …`).
    #[serde(default)]
    pub command: Vec<String>,
    /// The operator's name for what it runs, among the endpoint's boxes.
    #[serde(default)]
    pub name: Option<String>,
    /// Working directory; unset: one of the instance's own.
    #[serde(default)]
    pub working_dir: Option<std::path::PathBuf>,
    /// Extra environment; not serialised.
    #[serde(skip)]
    pub env: Environment,
}

/// How many instances, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// Kept running even when idle.
    pub min_instances: u32,
    /// Never more than this.
    pub max_instances: u32,
    /// An instance without work for this long is stopped (down to `min_instances`).
    pub idle_timeout: Duration,
    /// A start that takes longer has failed.
    pub start_timeout: Duration,
    /// Recycle an instance after this many jobs; 0: never.
    pub max_jobs_per_instance: u32,
    /// Recycle an instance whose resident memory exceeds this many bytes; 0: never.
    pub max_rss_bytes: u64,
    /// What a graceful stop of the server does to instances.
    pub on_exit: OnExit,
}

impl Default for Scaling {
    fn default() -> Self {
        Scaling {
            min_instances: 0,
            max_instances: 1,
            idle_timeout: Duration::from_secs(300),
            start_timeout: Duration::from_secs(300),
            max_jobs_per_instance: 0,
            max_rss_bytes: 0,
            on_exit: OnExit::Stop,
        }
    }
}

/// What a graceful stop of the server does to instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExit {
    /// Stop them after a grace.
    Stop,
    /// Leave them to the next server.
    Keep,
}

/// Bounds on the jobs of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// A job that runs longer fails.
    pub execution_timeout: Duration,
    /// Silence of an instance while a node runs, after which the attempt is lost.
    pub stall_timeout: Duration,
    /// A job that waits longer expires; `None`: waits for ever.
    pub queue_ttl: Option<Duration>,
    /// Submits beyond this many queued jobs are refused.
    pub max_queued: u64,
    /// Jobs of one tenant that may run at once; its further ones wait. 0: no bound.
    #[serde(default)]
    pub max_running_per_tenant: u32,
    /// Attempts that may be lost before the job fails.
    pub max_attempts: u32,
    /// After a cancel, how long the node may take before the instance is killed.
    pub cancel_grace: Duration,
    /// Finished jobs and their files are kept this long.
    pub retention: Duration,
    /// Also enforce the vendor's own limits.
    pub vendor_limits: bool,
    /// The longest file that is taken of what a job made, in bytes.
    #[serde(default = "longest_output")]
    pub max_output_bytes: u64,
}

/// Hours of film: an instance elsewhere does not fill the disk by one answer that has no end.
const fn longest_output() -> u64 {
    32_000_000_000
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            execution_timeout: Duration::from_secs(2 * 3600),
            stall_timeout: Duration::from_secs(15 * 60),
            queue_ttl: None,
            max_queued: 10_000,
            max_running_per_tenant: 0,
            max_attempts: 2,
            cancel_grace: Duration::from_secs(10),
            retention: Duration::from_secs(30 * 24 * 3600),
            vendor_limits: false,
            max_output_bytes: longest_output(),
        }
    }
}

/// Bounds on the items of an endpoint's queues, and when they are delivered again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueLimits {
    /// The largest item, in bytes.
    pub max_payload_bytes: u64,
    /// Puts beyond this many items are refused; results of jobs are always taken.
    pub max_length: u64,
    /// An item that was delivered this often is not delivered again.
    pub max_delivery: u32,
    /// An item that a consumer holds for longer is given to another one; `None`: never.
    pub max_idle: Option<Duration>,
    /// What a consumer held that went away is kept for its return this long.
    pub leave_grace: Duration,
    /// A group without a consumer for this long is forgotten, and holds no item back any more.
    pub group_idle: Duration,
    /// What becomes of an item that was delivered too often.
    pub dead_letter: DeadLetter,
}

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits {
            max_payload_bytes: 16_000_000,
            max_length: 100_000,
            max_delivery: 5,
            max_idle: Some(Duration::from_secs(3600)),
            leave_grace: Duration::from_secs(5),
            group_idle: Duration::from_secs(3600),
            dead_letter: DeadLetter::Rear,
        }
    }
}

/// What becomes of an item that was delivered too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetter {
    /// It goes to the queue's rear, from where it can be read.
    Rear,
    /// It goes.
    Drop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_is_told_is_neither_printed_nor_serialised() {
        let secret = ("BUCKET_SECRET_ACCESS_KEY".to_owned(), "s3cret".to_owned());
        let spec = ProcessSpec {
            env: std::collections::BTreeMap::from([secret]).into(),
            ..ProcessSpec::default()
        };
        let printed = format!("{spec:?}");
        assert!(
            printed.contains("BUCKET_SECRET_ACCESS_KEY") && !printed.contains("s3cret"),
            "{printed}"
        );
        let written = serde_json::to_string(&Backend::Process(spec)).unwrap();
        assert!(!written.contains("s3cret"), "{written}");
    }

    #[test]
    fn a_box_is_an_installation_or_a_server() {
        let named = |command: &[&str]| {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            ProcessSpec {
                command,
                ..ProcessSpec::default()
            }
            .box_name()
        };
        assert_eq!(
            named(&["/opt/venv/bin/python", "/opt/ComfyUI/main.py", "--port"]),
            "/opt/ComfyUI"
        );
        assert_eq!(named(&["run-comfy", "{port}"]), "run-comfy");
        assert_eq!(named(&["python", "main.py"]), "python");
        assert_eq!(named(&[]), "engine");
        assert_eq!(RemoteServer::new("http://gpu-box:8188/").name, "gpu-box:8188");
        assert_eq!(RemoteServer::new("https://h/comfy/").url, "https://h/comfy");
    }

    #[test]
    fn only_given_names_of_boxes_are_public() {
        let mut endpoint = some_endpoint(Kind::Comfyui, Backend::External);
        assert_eq!(endpoint.public_box_name("the-agents-own"), "the-agents-own");
        let named = RemoteServer {
            name: "b".to_owned(),
            ..RemoteServer::new("http://10.0.0.2:1")
        };
        let servers = vec![RemoteServer::new("http://10.0.0.1:1"), named];
        endpoint.backend = Backend::Remote { servers };
        for (name, public) in [("10.0.0.1:1", "box-1"), ("b", "b"), ("10.0.0.9:1", "box")] {
            assert_eq!(endpoint.public_box_name(name), public);
        }
        let installation = |name: Option<&str>, command: &[&str]| {
            Backend::Process(ProcessSpec {
                name: name.map(str::to_owned),
                command: command.iter().map(|word| (*word).to_owned()).collect(),
                ..ProcessSpec::default()
            })
        };
        for (name, command, public) in [
            (None, &["python", "/opt/ComfyUI/main.py"][..], "box-1"),
            (Some("fast"), &["python", "/opt/ComfyUI/main.py"], "fast"),
            (None, &[], "engine"),
        ] {
            endpoint.backend = installation(name, command);
            let Backend::Process(spec) = &endpoint.backend else {
                panic!("a process")
            };
            assert_eq!(endpoint.public_box_name(&spec.box_name()), public);
        }
    }

    fn some_endpoint(kind: Kind, backend: Backend) -> Endpoint {
        Endpoint {
            name: "w".parse().unwrap(),
            kind,
            backend,
            gpus: vec![],
            frontend: None,
            warmup: None,
            hosts: vec![],
            anonymous: false,
            anonymous_history: false,
            scaling: Scaling::default(),
            limits: Limits::default(),
            queue: QueueLimits::default(),
        }
    }

    #[test]
    fn a_worker_with_a_port_or_far_away_answers_http() {
        let worker = |backend| some_endpoint(Kind::Worker, backend);
        let process = |word: &str| {
            let command = vec!["serve".to_owned(), word.to_owned()];
            Backend::Process(ProcessSpec {
                command,
                ..ProcessSpec::default()
            })
        };
        let servers = vec![RemoteServer::new("http://gpu:1")];
        for (backend, http) in [
            (process("--port={port}"), true),
            (process("handler.py"), false),
            (Backend::Remote { servers }, true),
            (Backend::External, false),
        ] {
            let worker = worker(backend);
            assert_eq!(
                (worker.is_http_worker(), worker.has_pull_workers()),
                (http, !http)
            );
            let comfyui = Endpoint {
                kind: Kind::Comfyui,
                ..worker
            };
            assert!(!comfyui.is_http_worker() && !comfyui.has_pull_workers());
        }
    }

    #[test]
    fn keys_of_a_server_are_neither_printed_nor_serialised() {
        let mut server = RemoteServer::new("http://gpu:1");
        server.headers.insert("x-key".into(), "sk_secret".into());
        assert!(!format!("{server:?}").contains("sk_secret"));
        assert!(!serde_json::to_string(&server).unwrap().contains("sk_secret"));
    }
}

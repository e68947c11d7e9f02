//! `darkroom doctor`: looks at what a server needs, and says what to do about what is missing; given a workflow, what that
//! would miss on each box.

mod workflow;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;
use darkroom_core::endpoint::{Backend, Kind};
use darkroom_server::config::{Config, Overrides};
use serde_json::{Value, json};

use crate::{
    args::Global,
    client::Client,
    exit::{Exit, Failure},
    ui,
};

mod agents;
mod bucket;

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// A workflow, in API format or as the editor saves it: say what each box lacks for it, and nothing else
    workflow: Option<PathBuf>,
    /// Only the boxes of this endpoint
    #[arg(long, value_name = "NAME", requires = "workflow")]
    endpoint: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of a server's state
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// Worth knowing; nothing is broken.
    Note,
    Fail,
}

/// One thing looked at.
#[derive(Debug)]
struct Check {
    name: String,
    verdict: Verdict,
    found: String,
}

impl Check {
    fn new(name: impl Into<String>, verdict: Verdict, found: impl Into<String>) -> Self {
        Check {
            name: name.into(),
            verdict,
            found: found.into(),
        }
    }
}

/// Runs every check; the exit code says whether one failed.
pub async fn doctor(args: DoctorArgs, global: &Global) -> Result<Exit, Failure> {
    if let Some(path) = &args.workflow {
        return workflow::check(path, args.endpoint.as_deref(), global).await;
    }
    let overrides = Overrides {
        config: args.config,
        data_dir: args.data_dir,
        ..Overrides::default()
    };
    let client = global.client()?;
    let running = client.ready().await.is_ok();
    let mut checks = Vec::new();
    match Config::load(&overrides) {
        Ok(config) => {
            let file = config
                .file
                .as_ref()
                .map_or("defaults".to_owned(), |f| f.display().to_string());
            checks.push(Check::new("configuration", Verdict::Ok, file));
            checks.push(data_dir(&config.server.data_dir));
            checks.push(disk(&config.server.data_dir, config.store.disk_reserve_bytes));
            checks.push(bucket::check(&config.blobs.location).await);
            checks.push(port(&config, running));
            for endpoint in config.endpoints.values() {
                let takes_agents = endpoint.backend == Backend::External && endpoint.kind == Kind::Comfyui;
                checks.push(match takes_agents {
                    true => agents::check(&client, running, endpoint.name.as_str()).await,
                    false => backend(endpoint.name.as_str(), &endpoint.backend),
                });
            }
        }
        Err(error) => checks.push(Check::new("configuration", Verdict::Fail, error.to_string())),
    }
    checks.push(gpu());
    checks.push(server(&client, running, global).await);

    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    global.ui().show(&report(&checks), |_| {
        let rows: Vec<Vec<String>> = checks
            .iter()
            .map(|check| {
                vec![
                    word(check.verdict).to_owned(),
                    check.name.clone(),
                    check.found.clone(),
                ]
            })
            .collect();
        ui::table(&["", "CHECK", "FOUND"], &rows)
    });
    Ok(if failed { Exit::Local } else { Exit::Ok })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Note => "note",
        Verdict::Fail => "FAIL",
    }
}

fn report(checks: &[Check]) -> Value {
    let list: Vec<Value> = checks
        .iter()
        .map(|check| {
            json!({"name": check.name, "verdict": word(check.verdict).to_lowercase(), "found": check.found})
        })
        .collect();
    json!({"checks": list})
}

fn data_dir(dir: &Path) -> Check {
    let name = "data directory";
    // Not made here: looking must not leave anything behind.
    let existing = dir
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"));
    let probe = tempfile::Builder::new()
        .prefix(".darkroom-doctor-")
        .tempfile_in(existing);
    match probe {
        Ok(_) if existing == dir => Check::new(name, Verdict::Ok, format!("{} is writable", dir.display())),
        Ok(_) => Check::new(name, Verdict::Ok, format!("{} will be made", dir.display())),
        Err(error) => Check::new(
            name,
            Verdict::Fail,
            format!(
                "{} is not writable: {error}; name another with --data-dir",
                existing.display()
            ),
        ),
    }
}

fn disk(dir: &Path, reserve: u64) -> Check {
    let existing = dir
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let (verdict, remark) = if free < reserve {
                (Verdict::Fail, "; new jobs are refused until space is freed")
            } else if free < reserve.saturating_mul(4) {
                (Verdict::Note, "; that is little")
            } else {
                (Verdict::Ok, "")
            };
            let found = format!("{} free, {} reserved{remark}", ui::size(free), ui::size(reserve));
            Check::new("disk", verdict, found)
        }
        Err(error) => Check::new("disk", Verdict::Note, format!("cannot look: {error}")),
    }
}

fn port(config: &Config, running: bool) -> Check {
    let address = config.server.listen;
    match TcpListener::bind(address) {
        Ok(_) => Check::new("port", Verdict::Ok, format!("{address} is free")),
        Err(_) if running => Check::new(
            "port",
            Verdict::Ok,
            format!("{address} is taken by the running server"),
        ),
        Err(error) => Check::new(
            "port",
            Verdict::Fail,
            format!("{address}: {error}; choose another with --listen"),
        ),
    }
}

fn backend(endpoint: &str, backend: &Backend) -> Check {
    let name = format!("endpoint {endpoint}");
    match backend {
        Backend::External => Check::new(name, Verdict::Ok, "runs nothing here"),
        Backend::Remote { servers } => {
            let names: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
            Check::new(
                name,
                Verdict::Ok,
                format!("remote ComfyUIs: {}", names.join(", ")),
            )
        }
        Backend::Process(spec) => match spec.command.as_slice() {
            [] => Check::new(
                name,
                Verdict::Ok,
                "the embedded engine (no ComfyUI: only nodes without model weights)",
            ),
            [program, arguments @ ..] => command(name, program, arguments),
        },
    }
}

fn command(name: String, program: &str, arguments: &[String]) -> Check {
    let Some(found) = find_program(program) else {
        return Check::new(
            name,
            Verdict::Fail,
            format!("'{program}' is not an executable file on this machine"),
        );
    };
    // ComfyUI's preset is `python …/main.py`; a script that is not there fails only when an instance starts.
    if let Some(script) = arguments.iter().find(|argument| argument.ends_with(".py"))
        && Path::new(script).is_absolute()
        && !Path::new(script).is_file()
    {
        return Check::new(name, Verdict::Fail, format!("{script} is not there"));
    }
    Check::new(name, Verdict::Ok, found.display().to_string())
}

fn find_program(program: &str) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file())
            && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| is_program(path));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| is_program(path))
}

fn gpu() -> Check {
    let list = Command::new("nvidia-smi")
        .args(["--query-gpu=index,name,memory.total", "--format=csv,noheader"])
        .output();
    match list {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            let gpus: Vec<&str> = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect();
            Check::new("GPUs", Verdict::Ok, gpus.join("; "))
        }
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr);
            let line = error.lines().next().unwrap_or("no reason given");
            Check::new("GPUs", Verdict::Note, format!("nvidia-smi failed: {line}"))
        }
        Err(_) => Check::new(
            "GPUs",
            Verdict::Note,
            "no nvidia-smi; the embedded engine needs no GPU",
        ),
    }
}

async fn server(client: &Client, running: bool, global: &Global) -> Check {
    let name = "server";
    if !running {
        let found = format!("none answers at {}", global.server());
        // Asked for by name, it should be there; else there simply is none yet.
        let verdict = if global.server.is_some() {
            Verdict::Fail
        } else {
            Verdict::Note
        };
        return Check::new(name, verdict, found);
    }
    match client.get("version").await {
        Ok(answer) => {
            let version = answer["version"].as_str().unwrap_or("?");
            let found = format!("version {version} at {}", global.server());
            if version == env!("CARGO_PKG_VERSION") {
                Check::new(name, Verdict::Ok, found)
            } else {
                let own = env!("CARGO_PKG_VERSION");
                Check::new(name, Verdict::Note, format!("{found}; this command is {own}"))
            }
        }
        Err(failure) => Check::new(name, Verdict::Fail, failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path_or_at_their_place() {
        assert!(find_program("sh").is_some());
        assert!(find_program("/bin/sh").is_some());
        assert!(find_program("no-such-program-of-ours").is_none());
        let plain = tempfile::NamedTempFile::new().unwrap();
        assert!(find_program(&plain.path().display().to_string()).is_none());
    }

    #[test]
    fn a_missing_comfyui_is_a_failure_that_names_the_file() {
        let check = command("e".into(), "sh", &["/nonexistent/ComfyUI/main.py".into()]);
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.found.contains("/nonexistent/ComfyUI/main.py"));
        assert_eq!(command("e".into(), "sh", &[]).verdict, Verdict::Ok);
    }

    #[test]
    fn looking_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        assert_eq!(data_dir(&state).verdict, Verdict::Ok);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

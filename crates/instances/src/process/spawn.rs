//! Starting a process so that no moment of a crash can hide it.

use std::{path::Path, process::Stdio};

use tokio::process::{Child, Command};

use super::{Inner, command, environment, files::Files, log, port, proc_fs};
use crate::{Handle, ProcessIdentity, Spec, StartError, StartRequest};

/// Starts an instance. Blocking, and run to its end even when the caller is gone.
pub(super) fn spawn(inner: &Inner, request: StartRequest) -> Result<Handle, StartError> {
    let files = Files::of(&inner.dir, request.instance);
    files.make().map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => StartError::Exists(request.instance),
        _ => StartError::Files {
            path: files.root().to_owned(),
            source,
        },
    })?;
    spawn_in(inner, &request, &files).inspect_err(|_| {
        inner.forget(request.instance);
        if let Err(error) = files.remove() {
            tracing::warn!(instance.id = %request.instance, %error, "files of an instance that did not start remain");
        }
    })
}

fn spawn_in(inner: &Inner, request: &StartRequest, files: &Files) -> Result<Handle, StartError> {
    let Spec::Process(spec) = &request.spec else {
        return Err(StartError::Command("is of a remote server".to_owned()));
    };
    let failed = |source| StartError::Files {
        path: files.root().to_owned(),
        source,
    };
    let (_, seed) = request.instance.as_uuid().as_u64_pair();
    let port = inner
        .take_port(request.instance, |taken| port::free(seed, taken))
        .ok_or(StartError::NoPort)?;
    let dirs = files.dirs();
    let words = command::words(&spec.command, &inner.config.engine_command, port, &dirs)?;
    let environment = environment::environment(
        std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?))),
        &inner.config.hidden_env,
        request.gpu.as_deref(),
        &spec.env,
        request.instance,
        &inner.dir,
    );
    let mut handle = Handle {
        instance: request.instance,
        endpoint: request.endpoint.clone(),
        base_url: format!("http://127.0.0.1:{port}"),
        dirs: Some(dirs.clone()),
        log_path: Some(files.log()),
        process: None,
        remote: false,
    };
    // From here on a new server knows that there may be a process with our marks, whatever happens to this one.
    files.write_intent(&handle).map_err(failed)?;

    let working_dir = spec.working_dir.as_deref().unwrap_or(&dirs.work);
    check_working_dir(working_dir)?;
    let log = log::open(&files.log()).map_err(failed)?;
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .current_dir(working_dir)
        .env_clear()
        .envs(&environment)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        // A group of its own: ended as a whole, and not reached by a Ctrl-C at the server's terminal.
        .process_group(0)
        .spawn()
        .map_err(|source| StartError::Program {
            program: words[0].clone(),
            source,
        })?;
    let noted = identify(&child).and_then(|process| {
        handle.process = Some(process);
        files.write_handle(&handle)
    });
    if let Err(source) = noted {
        // Never leave a process that nobody can find by its handle. Its parent, the runtime, waits for it.
        let _ = child.start_kill();
        return Err(failed(source));
    }
    let secrets = environment::secrets(environment.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    inner.watch_child(request.instance, child, secrets);
    Ok(handle)
}

/// The process just spawned. Nobody waited for it yet, so its number is still its own, dead or alive.
fn identify(child: &Child) -> std::io::Result<ProcessIdentity> {
    child
        .id()
        .and_then(proc_fs::identify)
        .ok_or_else(|| std::io::Error::other("the new process is not under /proc"))
}

/// The system reports a missing working directory as if the program were missing.
fn check_working_dir(path: &Path) -> Result<(), StartError> {
    let source = match path.metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => std::io::ErrorKind::NotADirectory.into(),
        Err(error) => error,
    };
    Err(StartError::Files {
        path: path.to_owned(),
        source,
    })
}

//! `darkroom run`: a workflow from the command line, from the file to the saved outputs.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::{
    args::Global,
    client::{Client, segment},
    exit::{Exit, Failure},
    follow::{self, JobEvent, Progress},
    local::{LocalServer, asked_to_end},
    save::save_outputs,
    submit,
    ui::Ui,
    workflow::Workflow,
};

/// How long a cancelled job may take to end before we leave it to the server.
const CANCEL_WAIT: Duration = Duration::from_secs(15);

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A workflow in API format (`-`: stdin)
    workflow: PathBuf,
    /// Set an input: NODE.INPUT=VALUE; NODE is an id, a title, or a class; a file is sent along
    #[arg(long = "input", short, value_name = "NODE.INPUT=VALUE")]
    inputs: Vec<String>,
    /// Which endpoint
    #[arg(long, default_value = "default", value_name = "NAME")]
    endpoint: String,
    /// Where to save the outputs
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
    /// Larger runs earlier
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    priority: Option<i32>,
    /// Your own id for this job; the same id again gives the same job
    #[arg(long, value_name = "ID")]
    reference: Option<String>,
    /// Give up, and cancel, after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Print the job's id and do not wait
    #[arg(long)]
    detach: bool,
    /// Start a server for this one run
    #[arg(long, conflicts_with_all = ["detach", "server"])]
    local: bool,
}

/// Runs it. With `--json` the last line is always the one `{"type":"result",…}`, also when nothing ran.
pub async fn run(args: RunArgs, global: &Global) -> Result<Exit, Failure> {
    let ui = global.ui();
    let ended = match prepare(&args) {
        Ok(workflow) if args.local => local(&args, &workflow, ui).await,
        Ok(workflow) => match global.client() {
            Ok(client) => with_server(&args, &workflow, &client, ui).await,
            Err(failure) => Err(failure),
        },
        Err(failure) => Err(failure),
    };
    match ended {
        Ok(exit) => Ok(exit),
        Err(failure) if ui.json => {
            let exit = failure.exit;
            ui.line(&envelope(exit, None, &[], Some(failure.to_json())).to_string());
            Ok(exit)
        }
        Err(mut failure) => {
            if failure.code == "unreachable" && !args.local {
                failure.hint = Some(
                    "Start one with `darkroom serve`, name another with --server, or add --local to run without one."
                        .to_owned(),
                );
            }
            Err(failure)
        }
    }
}

fn prepare(args: &RunArgs) -> Result<Workflow, Failure> {
    let mut workflow = Workflow::read(&args.workflow)?;
    for input in &args.inputs {
        workflow.bind(input)?;
    }
    Ok(workflow)
}

async fn local(args: &RunArgs, workflow: &Workflow, ui: Ui) -> Result<Exit, Failure> {
    let server = LocalServer::start(0).await?;
    let client = Client::new(server.url(), None)?;
    let ended = with_server(args, workflow, &client, ui).await;
    server.stop().await;
    ended
}

async fn with_server(args: &RunArgs, workflow: &Workflow, client: &Client, ui: Ui) -> Result<Exit, Failure> {
    let options = submit::Options {
        priority: args.priority,
        reference: args.reference.clone(),
    };
    let job = submit::submit(client, &args.endpoint, workflow, &options).await?;
    let id = submit::id(&job)?.to_owned();
    if args.detach {
        let result = envelope(Exit::Ok, Some(&job), &[], None);
        ui.show_line(&result, &id);
        return Ok(Exit::Ok);
    }
    let bar = ui.progress();
    let (job, wish) = watch(args, workflow, client, ui, &id, &bar).await?;
    bar.finish_and_clear();

    let exit = wish.unwrap_or_else(|| submit::exit_of(&job));
    let files = save_outputs(client, &job, &args.out).await?;
    let error = (exit != Exit::Ok).then(|| {
        let failure = &job["failure"];
        let code = failure["code"]
            .as_str()
            .or(job["state"].as_str())
            .unwrap_or("failed");
        json!({"code": code, "message": submit::why(&job)})
    });
    if ui.json {
        let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        ui.line(&envelope(exit, Some(&job), &files, error).to_string());
        return Ok(exit);
    }
    for path in &files {
        ui.line(&path.display().to_string());
    }
    for output in job["outputs"].as_array().into_iter().flatten() {
        if let Some(text) = output["text"].as_str() {
            ui.line(text);
        }
    }
    match exit {
        Exit::Ok => {}
        Exit::Timeout => ui.note(&format!("error: --timeout passed; job {id} was cancelled")),
        _ => ui.note(&format!("error: job {id} {}", submit::why(&job))),
    }
    Ok(exit)
}

/// Follows the job; a Ctrl-C or the time limit cancels it. Returns the job and the exit code that our own wish gives.
async fn watch(
    args: &RunArgs,
    workflow: &Workflow,
    client: &Client,
    ui: Ui,
    id: &str,
    bar: &ProgressBar,
) -> Result<(Value, Option<Exit>), Failure> {
    let mut progress = Progress::new(workflow);
    let following = follow::follow(client, id, |event| {
        if ui.json {
            ui.line(&event_line(event).to_string());
        }
        progress.on(event);
        show_progress(bar, &progress, workflow, event);
    });
    tokio::pin!(following);
    let limit = async {
        match args.timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let wish = tokio::select! {
        job = &mut following => return Ok((job?, None)),
        () = asked_to_end() => Exit::Cancelled,
        () = limit => Exit::Timeout,
    };
    bar.set_message("cancelling");
    client.post(&format!("jobs/{}/cancel", segment(id)), None).await?;
    tokio::select! {
        job = &mut following => {
            let job = job?;
            // It may have succeeded before the wish arrived; then that is what happened.
            let wish = (job["state"] == "cancelled").then_some(wish);
            Ok((job, wish))
        }
        () = asked_to_end() => Err(unfinished(wish, id)),
        () = tokio::time::sleep(CANCEL_WAIT) => Err(unfinished(wish, id)),
    }
}

fn unfinished(wish: Exit, id: &str) -> Failure {
    Failure::new(
        wish,
        "cancel_requested",
        format!("job {id} was asked to end and has not ended yet"),
    )
    .with_hint(format!("`darkroom jobs show {id}` tells when it has."))
}

fn show_progress(bar: &ProgressBar, progress: &Progress, workflow: &Workflow, event: &JobEvent) {
    bar.set_position((progress.fraction() * 1000.0) as u64);
    if let Some(node) = progress.current() {
        bar.set_message(workflow.title(node));
    } else if event.kind == "state" {
        bar.set_message(event.data["state"].as_str().unwrap_or_default().to_owned());
    }
}

fn event_line(event: &JobEvent) -> Value {
    let seq = event.seq.as_deref().and_then(|seq| seq.parse::<u64>().ok());
    json!({"type": "event", "seq": seq, "event": event.kind, "data": event.data})
}

/// The one last line of `--json`.
fn envelope(exit: Exit, job: Option<&Value>, files: &[String], error: Option<Value>) -> Value {
    json!({
        "type": "result",
        "ok": exit == Exit::Ok,
        "exit_code": exit as u8,
        "state": job.map_or(Value::Null, |job| job["state"].clone()),
        "job": job,
        "files": files,
        "error": error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_says_the_exit_code_and_never_lacks_a_field() {
        let job = json!({"id": "j", "state": "failed"});
        let failed = envelope(
            Exit::JobFailed,
            Some(&job),
            &["a.png".into()],
            Some(json!({"code": "x"})),
        );
        assert_eq!(
            (&failed["ok"], &failed["exit_code"], &failed["state"]),
            (&json!(false), &json!(1), &json!("failed"))
        );
        let nothing = envelope(Exit::Unreachable, None, &[], None);
        for field in ["type", "ok", "exit_code", "state", "job", "files", "error"] {
            assert!(nothing.get(field).is_some(), "{field}");
        }
    }
}

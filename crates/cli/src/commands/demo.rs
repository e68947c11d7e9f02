//! `darkroom demo`: a server, a sample workflow, the picture, and how long each step took.

use std::{fs, io::IsTerminal, path::Path, time::Duration};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    args::Global,
    client::Client,
    exit::{Exit, Failure},
    follow::{self, Progress},
    local::{LocalServer, asked_to_end, data_home},
    save::save_outputs,
    stopwatch::Stopwatch,
    submit,
    ui::{self, Ui},
    workflow::Workflow,
};

/// Needs no model weights: the embedded engine has all of its nodes.
const WORKFLOW: &str = include_str!("../../demo/workflow.json");

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End after the workflow instead of serving on
    #[arg(long)]
    exit: bool,
    /// Port of the server [default: any free one]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "PORT")]
    port: u16,
}

/// When what happened, counted from the moment the workflow was sent.
#[derive(Debug, Default)]
struct Phases {
    server_ready: Duration,
    accepted: Option<Duration>,
    instance_ready: Option<Duration>,
    first_node: Option<Duration>,
    done: Option<Duration>,
}

/// Runs the demo. Keeps serving on a terminal until Ctrl-C.
pub async fn demo(args: DemoArgs, global: &Global) -> Result<Exit, Failure> {
    let ui = global.ui();
    let stay = !args.exit && !ui.json && std::io::stdout().is_terminal();
    let start = Stopwatch::start();
    ui.note("starting a server …");
    let mut server = LocalServer::start(args.port).await?;
    let ready = start.elapsed();
    ui.note(&format!(
        "ready at {} after {}",
        server.url(),
        ui::duration(ready)
    ));

    let ended = tokio::select! {
        ended = develop(&server, ui, ready) => ended,
        () = asked_to_end() => Ok(Exit::Cancelled),
    };
    if stay && matches!(ended, Ok(Exit::Ok)) {
        ui.note("\nStill serving. Ctrl-C ends it and removes its data.");
        tokio::select! {
            () = asked_to_end() => ui.note("\nstopping …"),
            () = server.ended() => ui.note("the server ended"),
        }
    }
    server.stop().await;
    ended
}

async fn develop(server: &LocalServer, ui: Ui, server_ready: Duration) -> Result<Exit, Failure> {
    let client = Client::new(server.url(), None)?;
    let workflow = Workflow::parse(WORKFLOW)?;
    let clock = Stopwatch::start();
    let mut phases = Phases {
        server_ready,
        ..Phases::default()
    };
    let job = submit::submit(&client, "default", &workflow, &submit::Options::default()).await?;
    phases.accepted = Some(clock.elapsed());
    let id = submit::id(&job)?.to_owned();

    let bar = ui.progress();
    let mut progress = Progress::new(&workflow);
    let job = follow::follow(&client, &id, |event| {
        let now = clock.elapsed();
        match event.kind.as_str() {
            "state" if event.data["state"] == "running" => set(&mut phases.instance_ready, now),
            // An engine that has nothing cached reports no node in `execution_cached`.
            "executing" | "progress_state" | "executed" => set(&mut phases.first_node, now),
            _ => {}
        }
        progress.on(event);
        bar.set_position((progress.fraction() * 1000.0) as u64);
        bar.set_message(
            progress
                .current()
                .map(|node| workflow.title(node))
                .unwrap_or_default(),
        );
    })
    .await?;
    phases.done = Some(clock.elapsed());
    bar.finish_and_clear();

    if submit::exit_of(&job) != Exit::Ok {
        return Err(Failure::new(
            submit::exit_of(&job),
            "demo_failed",
            format!("the sample job {id} {}", submit::why(&job)),
        ));
    }
    let home = data_home().join("demo");
    let files = save_outputs(&client, &job, &home).await?;
    let picture = files
        .first()
        .ok_or_else(|| Failure::new(Exit::JobFailed, "no_output", "the sample job made no picture"))?;
    let graph = home.join("workflow.json");
    fs::write(&graph, WORKFLOW).map_err(|error| Failure::local(format!("{}: {error}", graph.display())))?;
    let report = json!({
        "type": "result", "ok": true, "server": server.url(), "job": id, "picture": picture, "workflow": graph,
        "phases": phases.to_json(),
    });
    if ui.json {
        ui.line(&report.to_string());
    } else {
        ui.line(&phases.human());
        ui.line(&format!("picture: {}", picture.display()));
        ui.line(&next_steps(server.url(), &graph));
    }
    Ok(Exit::Ok)
}

fn set(slot: &mut Option<Duration>, now: Duration) {
    slot.get_or_insert(now);
}

impl Phases {
    fn steps(&self) -> [(&'static str, Option<Duration>); 4] {
        [
            ("accepted, on disk", self.accepted),
            ("instance started, job handed over", self.instance_ready),
            ("first node executing", self.first_node),
            ("picture stored, job done", self.done),
        ]
    }

    fn human(&self) -> String {
        let mut text = format!("{:>8}  server ready\n", ui::duration(self.server_ready));
        for (name, at) in self.steps() {
            if let Some(at) = at {
                text.push_str(&format!("{:>8}  {name}\n", ui::duration(at)));
            }
        }
        text + "(the last four count from the moment the workflow was sent; no instance was running then)"
    }

    fn to_json(&self) -> Value {
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        json!({
            "server_ready_ms": ms(self.server_ready),
            "accepted_ms": self.accepted.map(ms),
            "instance_ready_ms": self.instance_ready.map(ms),
            "first_node_ms": self.first_node.map(ms),
            "done_ms": self.done.map(ms),
        })
    }
}

/// The binary as one would type it here.
fn own_name() -> String {
    let own = std::env::current_exe().unwrap_or_else(|_| "darkroom".into());
    let here = std::env::current_dir().unwrap_or_default();
    let on_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("darkroom") == own));
    if on_path {
        return "darkroom".to_owned();
    }
    own.strip_prefix(&here).unwrap_or(&own).display().to_string()
}

fn next_steps(url: &str, graph: &Path) -> String {
    let (own, graph) = (own_name(), graph.display());
    format!(
        "\nTry next:\n  \
         see what runs and why        {url}/\n  \
         run it again                 {own} run {graph} --server {url}\n  \
         the same over HTTP           curl -s '{url}/api/serverless/run' -d @{graph}\n  \
         events as they happen        curl -sN '{url}/api/serverless/run?stream=true' -d @{graph}\n  \
         what was asked for           {own} jobs list --server {url}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_workflow_is_a_graph_of_four_nodes_with_its_picture_inside() {
        let workflow = Workflow::parse(WORKFLOW).unwrap();
        let graph = workflow.to_json();
        assert_eq!(workflow.len(), 4);
        let image = graph["1"]["inputs"]["image"].as_str().unwrap();
        assert!(image.starts_with("data:image/png;base64,iVBORw0KGgo"));
        assert_eq!(workflow.title("2"), "Develop");
    }
}

//! `darkroom bench`: measures this machine. One file per scenario; each starts the processes it needs, measures its own
//! ceiling or baseline in the same run, and ends what it started. What the figures mean is in docs/performance.md.

mod backlog;
mod cold;
mod commits;
mod disk;
mod echo;
mod engine;
mod idle;
mod large;
mod machine;
mod native;
mod progress;
mod queues;
mod report;
mod requests;
mod scene;
mod spread;
mod submits;
mod sync;
mod wire;
mod workflows;

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde_json::{Map, json};

use self::{report::Report, scene::Scene};
use crate::{
    args::Global,
    exit::{Exit, Failure},
    local::asked_to_end,
};

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Only see that every scenario runs; the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Only this scenario; may be given more than once
    #[arg(long, value_name = "NAME")]
    only: Vec<Scenario>,
    /// A directory on the disk to measure [default: where `demo` keeps its data]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Be the server that only sends back what it gets
    #[arg(long, hide = true)]
    echo: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// What a synchronous call costs beyond the engine and the disk
    Sync,
    /// Durable submits per second
    Submits,
    /// Memory of an idle server
    Idle,
    /// Memory and speed with many jobs queued
    Backlog,
    /// From nothing running to the first node
    Cold,
    /// What large bodies do to everybody else
    Large,
    /// Queues: durable puts, a long queue, a watcher
    Queues,
    /// Published workflows: a call, a publish, a signature
    Workflows,
    /// ComfyUI's own API: what a prompt costs beyond the engine and the disk
    Prompts,
    /// ComfyUI's own API: history, jobs and object_info with many ended jobs
    History,
    /// ComfyUI's own API: progress on its way from an instance to its client
    Progress,
}

/// A scenario that takes longer than this hangs.
const LONGEST: Duration = Duration::from_secs(180);

/// Runs the scenarios one after the other. Missed targets are told, and are no failure of the command.
pub async fn bench(args: BenchArgs, global: &Global) -> Result<Exit, Failure> {
    let ui = global.ui();
    if args.echo {
        return echo::serve(ui).await;
    }
    let scene = Scene::new(args.quick, args.dir)?;
    let before = machine::describe();
    if before["optimised"] == false && !args.quick {
        ui.note("this build is not optimised: build with --release for figures that mean something");
    }
    let mut reports = Map::new();
    for scenario in Scenario::value_variants() {
        if !args.only.is_empty() && !args.only.contains(scenario) {
            continue;
        }
        let report = tokio::select! {
            measured = tokio::time::timeout(LONGEST, scenario.measure(&scene)) => match measured {
                Ok(report) => report?,
                Err(_) => return Err(Failure::local(format!(
                    "the scenario '{}' was not done after {} s", scenario.name(), LONGEST.as_secs()
                ))),
            },
            () = asked_to_end() => return Ok(Exit::Cancelled),
        };
        if !ui.json {
            ui.line(&report.human());
        }
        reports.insert(scenario.name().to_owned(), report.to_json());
    }
    if ui.json {
        let result = json!({
            "machine": before, "load_average_1m_after": machine::load(), "quick": args.quick, "scenarios": reports,
        });
        ui.line(&result.to_string());
    } else {
        ui.line(&format!(
            "machine: {before}; load average afterwards {:?}",
            machine::load()
        ));
    }
    Ok(Exit::Ok)
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Scenario::Sync => "sync",
            Scenario::Submits => "submits",
            Scenario::Idle => "idle",
            Scenario::Backlog => "backlog",
            Scenario::Cold => "cold",
            Scenario::Large => "large",
            Scenario::Queues => "queues",
            Scenario::Workflows => "workflows",
            Scenario::Prompts => "prompts",
            Scenario::History => "history",
            Scenario::Progress => "progress",
        }
    }

    async fn measure(self, scene: &Scene) -> anyhow::Result<Report> {
        match self {
            Scenario::Sync => sync::measure(scene).await,
            Scenario::Submits => submits::measure(scene).await,
            Scenario::Idle => idle::measure(scene).await,
            Scenario::Backlog => backlog::measure(scene).await,
            Scenario::Cold => cold::measure(scene).await,
            Scenario::Large => large::measure(scene).await,
            Scenario::Queues => queues::measure(scene).await,
            Scenario::Workflows => workflows::measure(scene).await,
            Scenario::Prompts => native::prompts(scene).await,
            Scenario::History => native::history(scene).await,
            Scenario::Progress => progress::measure(scene).await,
        }
    }
}

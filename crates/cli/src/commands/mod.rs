//! One file per command; a command parses its own options, asks the server, and prints.

use std::process::ExitCode;

use crate::{
    args::{Command, Global},
    exit::{Exit, Failure},
};

pub mod agent;
pub mod attach;
pub mod bench;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod endpoints;
pub mod engine;
pub mod instances;
pub mod jobs;
pub mod keys;
pub mod logs;
pub mod open;
pub mod publish;
pub mod queues;
pub mod run;
pub mod serve;
pub mod storage;
pub mod workflows;

/// Runs a command. `serve` brings its own runtimes: its parent process is single-threaded.
pub fn dispatch(command: Command, global: &Global) -> Result<ExitCode, Failure> {
    let exit = match command {
        Command::Serve(args) => return serve::serve(args, global),
        Command::Demo(args) => block_on(demo::demo(args, global)),
        Command::Run(args) => block_on(run::run(args, global)),
        Command::Jobs(command) => block_on(jobs::jobs(command, global)),
        Command::Instances(args) => block_on(instances::instances(args, global)),
        Command::Endpoints(args) => block_on(endpoints::endpoints(args, global)),
        Command::Queues(args) => block_on(queues::queues(args, global)),
        Command::Storage(args) => block_on(storage::storage(args, global)),
        Command::Open(args) => block_on(open::open(args, global)),
        Command::Attach(args) => block_on(attach::attach(args, global)),
        Command::Detach(args) => block_on(attach::detach(args, global)),
        Command::Logs(args) => block_on(logs::logs(args, global)),
        Command::Doctor(args) => block_on(doctor::doctor(args, global)),
        Command::Keys(command) => block_on(keys::keys(command, global)),
        Command::Publish(args) => block_on(publish::publish(args, global)),
        Command::Workflows(command) => block_on(workflows::workflows(command, global)),
        Command::Config(command) => config::config(command, global),
        Command::Bench(args) => block_on(bench::bench(args, global)),
        Command::Agent(args) => block_on(agent::agent(args, global)),
        Command::Engine(args) => block_on(engine::engine(args, global)),
    };
    exit.map(ExitCode::from)
}

fn block_on(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local(format!("cannot start threads: {error}")))?;
    runtime.block_on(command)
}

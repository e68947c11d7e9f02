//! One file per command; a command parses its own options, asks the server, and prints.

use crate::{
    args::{Command, Global},
    exit::{Exit, Failure},
};

pub mod config;
pub mod demo;
pub mod doctor;
pub mod endpoints;
pub mod engine;
pub mod instances;
pub mod jobs;
pub mod logs;
pub mod run;

/// Runs a command of the client side. `serve` and `engine` set up their own runtime and never come here.
pub async fn dispatch(command: Command, global: &Global) -> Result<Exit, Failure> {
    match command {
        Command::Demo(args) => demo::demo(args, global).await,
        Command::Run(args) => run::run(args, global).await,
        Command::Jobs(command) => jobs::jobs(command, global).await,
        Command::Instances(args) => instances::instances(args, global).await,
        Command::Endpoints(args) => endpoints::endpoints(args, global).await,
        Command::Logs(args) => logs::logs(args, global).await,
        Command::Doctor(args) => doctor::doctor(args, global).await,
        Command::Config(command) => config::config(command, global),
        Command::Engine(args) => engine::engine(args).await,
    }
}

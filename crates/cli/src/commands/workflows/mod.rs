//! `darkroom workflows …`: what is published, what versions differ in, and which one callers get.

mod alias;
mod diff;
mod list;
mod run;
mod show;
mod transfer;

use clap::Subcommand;

use crate::{
    args::Global,
    exit::{Exit, Failure},
};

/// What to do with published workflows.
#[derive(Debug, Subcommand)]
pub enum WorkflowsCommand {
    /// All published workflows
    List,
    /// One workflow: versions, aliases, inputs, outputs
    #[command(disable_version_flag = true)]
    Show(show::ShowArgs),
    /// What two versions differ in
    Diff(diff::DiffArgs),
    /// Point an alias at a version, or show where aliases pointed
    Alias(alias::AliasArgs),
    /// Point an alias back at the version before
    Rollback(alias::RollbackArgs),
    /// Call a workflow and save what it makes
    #[command(disable_version_flag = true)]
    Run(run::RunArgs),
    /// Write a workflow with all its versions and aliases as one JSON file
    Export(transfer::ExportArgs),
    /// Bring in what `export` wrote
    Import(transfer::ImportArgs),
}

/// Runs one of them.
pub async fn workflows(command: WorkflowsCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        WorkflowsCommand::List => list::list(global).await,
        WorkflowsCommand::Show(args) => show::show(args, global).await,
        WorkflowsCommand::Diff(args) => diff::diff(args, global).await,
        WorkflowsCommand::Alias(args) => alias::alias(args, global).await,
        WorkflowsCommand::Rollback(args) => alias::rollback(args, global).await,
        WorkflowsCommand::Run(args) => run::run(args, global).await,
        WorkflowsCommand::Export(args) => transfer::export(args, global).await,
        WorkflowsCommand::Import(args) => transfer::import(args, global).await,
    }
}

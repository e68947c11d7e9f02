//! `darkroom jobs …`: what was asked for, and what became of it.

mod cancel;
mod delete;
mod list;
mod reorder;
mod retry;
pub mod show;
mod webhooks;

use clap::Subcommand;

use crate::{
    args::Global,
    exit::{Exit, Failure},
};

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// The latest jobs
    List(list::ListArgs),
    /// Everything about one job: attempts, outputs, what it waits for, how long each phase took
    Show(show::ShowArgs),
    /// Ask for a job's end
    Cancel(cancel::CancelArgs),
    /// Delete a finished job with its files
    Delete(delete::DeleteArgs),
    /// Run a finished job again
    Retry(retry::RetryArgs),
    /// What became of a job's webhook, try by try
    Webhooks(webhooks::WebhookArgs),
    /// Send a job's webhook once more
    Redeliver(webhooks::WebhookArgs),
    /// Move a waiting job: first, last, or before another one
    Move(reorder::MoveArgs),
}

/// Runs one of them.
pub async fn jobs(command: JobsCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        JobsCommand::List(args) => list::list(args, global).await,
        JobsCommand::Show(args) => show::show(args, global).await,
        JobsCommand::Cancel(args) => cancel::cancel(args, global).await,
        JobsCommand::Delete(args) => delete::delete(args, global).await,
        JobsCommand::Retry(args) => retry::retry(args, global).await,
        JobsCommand::Webhooks(args) => webhooks::webhooks(args, global).await,
        JobsCommand::Redeliver(args) => webhooks::redeliver(args, global).await,
        JobsCommand::Move(args) => reorder::reorder(args, global).await,
    }
}

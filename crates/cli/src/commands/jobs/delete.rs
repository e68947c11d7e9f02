//! `darkroom jobs delete`

use clap::Args;

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
};

/// Options of `jobs delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The job's id
    job: String,
}

/// Deletes a finished job with its files.
pub async fn delete(args: DeleteArgs, global: &Global) -> Result<Exit, Failure> {
    let path = format!("jobs/{}", segment(&args.job));
    let answer = global.client()?.delete(&path).await?;
    global
        .ui()
        .show(&answer, |_| format!("{} and its files are deleted", args.job));
    Ok(Exit::Ok)
}

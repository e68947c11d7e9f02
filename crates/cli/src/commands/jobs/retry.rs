//! `darkroom jobs retry`

use clap::Args;

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
};

/// Options of `jobs retry`.
#[derive(Debug, Args)]
pub struct RetryArgs {
    /// The job's id
    job: String,
}

/// Puts a finished job back into the queue, as a new attempt.
pub async fn retry(args: RetryArgs, global: &Global) -> Result<Exit, Failure> {
    let path = format!("jobs/{}/retry", segment(&args.job));
    let answer = global.client()?.post(&path, None).await?;
    global.ui().show(&answer, |answer| {
        let state = answer["state"].as_str().unwrap_or("queued");
        format!(
            "{}: {state} (follow it with `darkroom jobs show {}`)",
            args.job, args.job
        )
    });
    Ok(Exit::Ok)
}

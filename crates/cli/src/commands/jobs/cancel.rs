//! `darkroom jobs cancel`

use clap::Args;

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
};

/// Options of `jobs cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The job's id
    job: String,
}

/// Asks for a job's end. A job that had ended already is no error: the wish is fulfilled.
pub async fn cancel(args: CancelArgs, global: &Global) -> Result<Exit, Failure> {
    let path = format!("jobs/{}/cancel", segment(&args.job));
    let answer = global.client()?.post(&path, None).await?;
    global.ui().show(&answer, |answer| {
        let state = answer["state"].as_str().unwrap_or("?");
        match answer["result"].as_str() {
            Some("requested") => format!("{} is running; its end was requested", args.job),
            Some("already_final") => format!("{} had already ended: {state}", args.job),
            _ => format!("{}: {state}", args.job),
        }
    });
    Ok(Exit::Ok)
}

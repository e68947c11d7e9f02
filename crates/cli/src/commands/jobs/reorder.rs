//! `darkroom jobs move`

use clap::{ArgGroup, Args};
use serde_json::json;

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
};

/// Options of `jobs move`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("place").required(true))]
pub struct MoveArgs {
    /// The waiting job's id
    job: String,
    /// It is taken next
    #[arg(long, group = "place")]
    first: bool,
    /// Behind all that wait now
    #[arg(long, group = "place")]
    last: bool,
    /// Right before this waiting job
    #[arg(long, group = "place", value_name = "JOB")]
    before: Option<String>,
}

/// Moves one job.
pub async fn reorder(args: MoveArgs, global: &Global) -> Result<Exit, Failure> {
    let place = match (&args.before, args.first) {
        (Some(other), _) => json!({ "before": other }),
        (None, true) => json!({ "to": "first" }),
        (None, false) => json!({ "to": "last" }),
    };
    let path = format!("jobs/{}/move", segment(&args.job));
    let answer = global.client()?.post(&path, Some(&place)).await?;
    global
        .ui()
        .show(&answer, |answer| match answer["waiting"]["position"].as_u64() {
            Some(before) => format!("{}: {before} jobs before it", args.job),
            None => format!("{}: {}", args.job, answer["state"].as_str().unwrap_or("?")),
        });
    Ok(Exit::Ok)
}

//! `darkroom logs INSTANCE|JOB`

use clap::Args;
use serde_json::{Value, json};

use crate::{
    args::Global,
    client::{Client, segment},
    exit::{Exit, Failure},
};

/// Options of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// An instance's id, or a job's
    id: String,
    /// How much of the end, in bytes
    #[arg(long, default_value_t = 65_536, value_name = "BYTES")]
    tail: u64,
}

/// Prints the end of an instance's output; of a job, that of the instance of its last attempt.
pub async fn logs(args: LogsArgs, global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    let (instance, text) = match tail(&client, &args.id, args.tail).await {
        Ok(text) => (args.id.clone(), text),
        Err(failure) if failure.exit == Exit::NotFound => {
            let instance = instance_of_job(&client, &args.id).await?;
            let text = tail(&client, &instance, args.tail).await?;
            (instance, text)
        }
        Err(failure) => return Err(failure),
    };
    let ui = global.ui();
    if ui.json {
        ui.line(&json!({"instance": instance, "log": text}).to_string());
    } else if !text.is_empty() {
        ui.line(text.trim_end_matches('\n'));
    }
    Ok(Exit::Ok)
}

async fn tail(client: &Client, instance: &str, bytes: u64) -> Result<String, Failure> {
    client
        .text(&format!("instances/{}/logs?tail={bytes}", segment(instance)))
        .await
}

async fn instance_of_job(client: &Client, id: &str) -> Result<String, Failure> {
    let job = match client.get(&format!("jobs/{}", segment(id))).await {
        Ok(job) => job,
        Err(failure) if failure.exit == Exit::NotFound => {
            return Err(Failure::new(
                Exit::NotFound,
                "not_found",
                format!("'{id}' is neither an instance nor a job of this server"),
            ));
        }
        Err(failure) => return Err(failure),
    };
    let attempts = job["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    attempts
        .iter()
        .rev()
        .find_map(|attempt| attempt["instance"].as_str().map(str::to_owned))
        .ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                "not_started",
                format!("job {id} has not run on an instance yet ({})", state(&job)),
            )
        })
}

fn state(job: &Value) -> &str {
    job["state"].as_str().unwrap_or("unknown")
}

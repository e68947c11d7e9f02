//! `darkroom instances`

use clap::Args;
use serde_json::Value;

use crate::{
    args::Global,
    exit::{Exit, Failure},
    ui,
};

/// Options of `instances`.
#[derive(Debug, Args)]
pub struct InstancesArgs {
    /// Only of this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
}

/// Prints the instances and why each runs.
pub async fn instances(args: InstancesArgs, global: &Global) -> Result<Exit, Failure> {
    let mut answer = global.client()?.get("instances").await?;
    if let (Some(endpoint), Some(list)) = (&args.endpoint, answer["instances"].as_array_mut()) {
        list.retain(|instance| instance["endpoint"].as_str() == Some(endpoint));
    }
    let now = crate::now();
    global.ui().show(&answer, |answer| human(answer, now));
    Ok(Exit::Ok)
}

fn human(answer: &Value, now: jiff::Timestamp) -> String {
    let list = answer["instances"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if list.is_empty() {
        return "no instances: nothing runs, nothing costs".to_owned();
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = list
        .iter()
        .map(|instance| {
            let reason = match instance["state_reason"].as_str() {
                Some(reason) if !reason.is_empty() => reason.to_owned(),
                _ => text(&instance["start_reason"]),
            };
            vec![
                text(&instance["id"]),
                text(&instance["endpoint"]),
                text(&instance["state"]),
                ui::ago(&text(&instance["state_since"]), now),
                instance["jobs_done"].as_u64().unwrap_or(0).to_string(),
                instance["pid"]
                    .as_u64()
                    .map_or(String::new(), |pid| pid.to_string()),
                reason,
            ]
        })
        .collect();
    ui::table(
        &["INSTANCE", "ENDPOINT", "STATE", "SINCE", "JOBS", "PID", "WHY"],
        &rows,
    )
}

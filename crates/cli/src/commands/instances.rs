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

/// How long each phase of its start took: `spawned 0.01 s, listening 0.04 s, …`, from when it was decided on.
pub(super) fn start_up(instance: &Value) -> String {
    let at = |value: &Value| value.as_str()?.parse::<jiff::Timestamp>().ok();
    let Some(created) = at(&instance["created_at"]) else {
        return String::new();
    };
    let phases = instance["phases"].as_array().into_iter().flatten();
    let told: Vec<String> = phases
        .filter_map(|phase| {
            let took = at(&phase["at"])?.duration_since(created).as_secs_f64().max(0.0);
            Some(format!("{} {took:.2} s", phase["phase"].as_str()?))
        })
        .collect();
    told.join(", ")
}

/// What it uses: `310.0 MB, cpu 12 %, gpu0 37 % 1.0/79.6 GB`.
pub(super) fn resources(instance: &Value) -> String {
    let used = &instance["resources"];
    let mut told = Vec::new();
    if let Some(rss) = used["rss_bytes"].as_u64() {
        told.push(ui::size(rss));
    }
    if let Some(cpu) = used["cpu_percent"].as_f64() {
        told.push(format!("cpu {cpu:.0} %"));
    }
    if let (Some(taken), Some(all)) = (
        used["gpu"]["memory_used_bytes"].as_u64(),
        used["gpu"]["memory_total_bytes"].as_u64(),
    ) {
        let busy = used["gpu"]["utilization_percent"]
            .as_u64()
            .map_or(String::new(), |percent| format!(" {percent} %"));
        told.push(format!(
            "gpu{}{busy} {}/{}",
            used["gpu"]["index"],
            ui::size(taken),
            ui::size(all)
        ));
    }
    told.join(", ")
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
                _ if instance["agent"]["connected"] == false => {
                    format!("the agent '{}' is away", text(&instance["agent"]["name"]))
                }
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
                start_up(instance),
                resources(instance),
                reason,
            ]
        })
        .collect();
    ui::table(
        &[
            "INSTANCE", "ENDPOINT", "STATE", "SINCE", "JOBS", "PID", "START-UP", "USES", "WHY",
        ],
        &rows,
    )
}

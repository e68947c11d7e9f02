//! `darkroom jobs show`

use std::fmt::Write;

use clap::Args;
use serde_json::Value;

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
    ui,
};

/// Options of `jobs show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The job's id
    job: String,
}

/// Prints one job.
pub async fn show(args: ShowArgs, global: &Global) -> Result<Exit, Failure> {
    let job = global
        .client()?
        .get(&format!("jobs/{}", segment(&args.job)))
        .await?;
    global.ui().show(&job, human);
    Ok(Exit::Ok)
}

fn human(job: &Value) -> String {
    let mut out = String::new();
    for (label, field) in [
        ("job", "id"),
        ("endpoint", "endpoint"),
        ("tenant", "tenant"),
        ("state", "state"),
        ("created", "created_at"),
        ("started", "started_at"),
        ("finished", "finished_at"),
    ] {
        if let Some(value) = job[field].as_str() {
            let _ = writeln!(out, "{label:<9} {value}");
        }
    }
    if let Some(message) = job["waiting"]["message"].as_str() {
        let _ = writeln!(out, "waits     {message}");
        if let Some(before) = job["waiting"]["position"].as_u64() {
            let _ = write!(out, "place     {before} before it");
            if let Some(seconds) = job["waiting"]["starts_in_s"].as_f64() {
                let _ = write!(
                    out,
                    ", begins in about {}",
                    ui::duration(std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9)))
                );
            }
            out.push('\n');
        }
    }
    if let Some(failure) = job["failure"].as_object() {
        let message = failure.get("message").and_then(Value::as_str).unwrap_or("?");
        let code = failure.get("code").and_then(Value::as_str).unwrap_or("?");
        let _ = writeln!(out, "failure   {message} ({code})");
        if let Some(node) = failure.get("node_id").and_then(Value::as_str) {
            let class = failure.get("node_type").and_then(Value::as_str).unwrap_or("?");
            let _ = writeln!(out, "at node   {node} ({class})");
        }
    }
    for attempt in job["attempts"].as_array().into_iter().flatten() {
        let _ = write!(
            out,
            "attempt {} {} on {}",
            attempt["number"],
            attempt["state"].as_str().unwrap_or("?"),
            attempt["instance"].as_str().unwrap_or("?")
        );
        if let Some(reason) = attempt["reason"].as_str().filter(|reason| !reason.is_empty()) {
            let _ = write!(out, ": {reason}");
        }
        out.push('\n');
    }
    for output in job["outputs"].as_array().into_iter().flatten() {
        let node = output["node_id"].as_str().unwrap_or("?");
        match (output["filename"].as_str(), output["text"].as_str()) {
            (Some(name), _) => {
                let size = ui::size(output["size"].as_u64().unwrap_or(0));
                let url = output["url"].as_str().unwrap_or("");
                let _ = writeln!(out, "output    node {node}: {name} ({size}) {url}");
            }
            (None, Some(text)) => {
                let _ = writeln!(out, "output    node {node}: {text}");
            }
            (None, None) => {}
        }
    }
    if let Some(phases) = job["phases"].as_object() {
        for (name, value) in phases {
            if !value.is_null() {
                let _ = writeln!(
                    out,
                    "phase     {name}: {}",
                    value.as_str().map_or(value.to_string(), str::to_owned)
                );
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_job_names_node_attempt_and_outputs() {
        let job = serde_json::json!({"id": "j", "state": "failed", "failure": {"code": "execution", "message": "boom",
            "node_id": "3", "node_type": "Raise"}, "attempts": [{"number": 1, "state": "failed", "instance": "i1",
            "reason": "longest idle"}], "outputs": [{"node_id": "9", "filename": "a.png", "size": 2048, "url": "/f"},
            {"node_id": "8", "text": "hello"}]});
        let text = human(&job);
        for part in [
            "failure   boom (execution)",
            "at node   3 (Raise)",
            "attempt 1 failed on i1: longest idle",
            "node 9: a.png (2.0 KB) /f",
            "node 8: hello",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

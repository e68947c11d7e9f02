//! `darkroom jobs webhooks` and `darkroom jobs redeliver`

use std::fmt::Write;

use clap::Args;
use serde_json::Value;

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
};

/// Options of both.
#[derive(Debug, Args)]
pub struct WebhookArgs {
    /// The job's id
    job: String,
}

/// Prints every delivery of a job's webhook.
pub async fn webhooks(args: WebhookArgs, global: &Global) -> Result<Exit, Failure> {
    let path = format!("jobs/{}/webhooks", segment(&args.job));
    let answer = global.client()?.get(&path).await?;
    global.ui().show(&answer, human);
    Ok(Exit::Ok)
}

/// Sends it once more.
pub async fn redeliver(args: WebhookArgs, global: &Global) -> Result<Exit, Failure> {
    let path = format!("jobs/{}/webhooks/redeliver", segment(&args.job));
    let answer = global.client()?.post(&path, None).await?;
    global.ui().show(&answer, |_| {
        format!(
            "{}: its webhook is sent again (see `darkroom jobs webhooks {}`)",
            args.job, args.job
        )
    });
    Ok(Exit::Ok)
}

fn human(view: &Value) -> String {
    let Some(url) = view["url"].as_str() else {
        return "the job was submitted without a webhook".to_owned();
    };
    let mut out = format!("to {url}\n");
    for delivery in view["deliveries"].as_array().into_iter().flatten() {
        let at = delivery["at"].as_str().unwrap_or("?");
        let took = delivery["duration_ms"].as_u64().unwrap_or(0);
        let how = delivery["problem"].as_str().unwrap_or("acknowledged");
        let _ = writeln!(out, "{at}  {how} ({took} ms)");
    }
    if let Some(next) = view["next_at"].as_str() {
        let _ = writeln!(out, "next try {next}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_listed_with_what_they_came_to() {
        let view = serde_json::json!({"url": "https://app.example/told", "next_at": "2026-01-01T00:00:20Z", "deliveries": [
            {"at": "2026-01-01T00:00:00Z", "duration_ms": 12, "problem": "answered 503"},
            {"at": "2026-01-01T00:00:10Z", "duration_ms": 3, "problem": null}]});
        assert_eq!(
            human(&view),
            "to https://app.example/told\n2026-01-01T00:00:00Z  answered 503 (12 ms)\n\
             2026-01-01T00:00:10Z  acknowledged (3 ms)\nnext try 2026-01-01T00:00:20Z\n"
        );
        let none = serde_json::json!({"url": null, "deliveries": []});
        assert_eq!(human(&none), "the job was submitted without a webhook");
    }
}

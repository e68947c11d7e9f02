//! `darkroom jobs list`

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{
    args::Global,
    exit::{Exit, Failure},
    ui,
};

/// Options of `jobs list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only of this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only in this state
    #[arg(long)]
    state: Option<State>,
    /// How many
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on after this page (the `next` of the page before)
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
}

/// Prints a page of jobs, newest first.
pub async fn list(args: ListArgs, global: &Global) -> Result<Exit, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &args.limit.to_string());
    if let Some(endpoint) = &args.endpoint {
        query.append_pair("endpoint", endpoint);
    }
    if let Some(state) = args.state.and_then(|state| state.to_possible_value()) {
        query.append_pair("state", state.get_name());
    }
    if let Some(after) = &args.after {
        query.append_pair("after", after);
    }
    let page = global.client()?.get(&format!("jobs?{}", query.finish())).await?;
    let now = now();
    global.ui().show(&page, |page| human(page, now));
    Ok(Exit::Ok)
}

fn human(page: &Value, now: jiff::Timestamp) -> String {
    let jobs = page["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    if jobs.is_empty() {
        return "no jobs".to_owned();
    }
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            vec![
                text(&job["id"]),
                text(&job["endpoint"]),
                text(&job["state"]),
                ui::ago(&text(&job["created_at"]), now),
                remark(job),
            ]
        })
        .collect();
    let mut out = ui::table(&["JOB", "ENDPOINT", "STATE", "CREATED", ""], &rows);
    if let Some(next) = page["next"].as_str() {
        out.push_str(&format!("more: --after {next}\n"));
    }
    out
}

/// The one thing worth saying about it: why it waits, or why it failed.
fn remark(job: &Value) -> String {
    let failure = &job["failure"]["message"];
    let waiting = &job["waiting"]["message"];
    let line = text(if failure.is_string() { failure } else { waiting });
    let mut short: String = line.chars().take(80).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short.replace('\n', " ")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn now() -> jiff::Timestamp {
    crate::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_states_ages_and_the_next_cursor() {
        let page = serde_json::json!({"jobs": [
            {"id": "j1", "endpoint": "default", "state": "failed", "created_at": "2026-01-01T00:00:00Z",
             "failure": {"message": "node 3 raised"}},
            {"id": "j2", "endpoint": "default", "state": "queued", "created_at": "2026-01-01T00:00:59Z",
             "failure": null, "waiting": {"message": "an instance is starting"}}], "next": "c1"});
        let text = human(&page, "2026-01-01T00:01:00Z".parse().unwrap());
        assert!(
            text.contains("j1   default   failed  1 min 00 s ago  node 3 raised"),
            "{text}"
        );
        assert!(
            text.contains("an instance is starting") && text.ends_with("more: --after c1\n"),
            "{text}"
        );
        assert_eq!(human(&serde_json::json!({"jobs": []}), now()), "no jobs");
    }
}

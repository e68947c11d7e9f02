//! `darkroom queues [show|reopen ENDPOINT [SIDE]]`

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
    ui,
};

/// Options of `queues`.
#[derive(Debug, Args)]
pub struct QueuesArgs {
    #[command(subcommand)]
    command: Option<QueuesCommand>,
}

#[derive(Debug, Subcommand)]
enum QueuesCommand {
    /// All queues
    List,
    /// One queue with its groups and consumers
    Show {
        /// Its endpoint
        endpoint: String,
        /// Which of the endpoint's queues: input, sink, input_rear or sink_rear
        #[arg(default_value = "input")]
        side: String,
    },
    /// Let a queue that a client ended take items again
    Reopen {
        /// Its endpoint
        endpoint: String,
        /// Which of the endpoint's queues: input, sink, input_rear or sink_rear
        #[arg(default_value = "input")]
        side: String,
    },
}

/// Prints all queues, or one.
pub async fn queues(args: QueuesArgs, global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    match args.command {
        None | Some(QueuesCommand::List) => {
            let answer = client.get("queues").await?;
            global.ui().show(&answer, list);
        }
        Some(QueuesCommand::Show { endpoint, side }) => {
            let path = format!("queues/{}/{}", segment(&endpoint), segment(&side));
            let queue = client.get(&path).await?;
            global.ui().show(&queue, one);
        }
        Some(QueuesCommand::Reopen { endpoint, side }) => {
            let path = format!("queues/{}/{}/reopen", segment(&endpoint), segment(&side));
            let queue = client.post(&path, None).await?;
            global.ui().show(&queue, one);
        }
    }
    Ok(Exit::Ok)
}

fn list(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["queues"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|queue| {
            let text = |field: &str| queue[field].as_str().unwrap_or_default().to_owned();
            let number = |field: &str| queue[field].as_u64().map_or_else(String::new, |n| n.to_string());
            vec![
                text("endpoint"),
                text("side"),
                text("tenant"),
                number("length"),
                number("pending"),
                number("connected_consumers"),
                number("lag_s"),
                number("last_index"),
                if queue["ended"].as_bool() == Some(true) {
                    "ended".to_owned()
                } else {
                    String::new()
                },
            ]
        })
        .collect();
    ui::table(
        &[
            "ENDPOINT",
            "SIDE",
            "TENANT",
            "ITEMS",
            "PENDING",
            "CONSUMERS",
            "LAG S",
            "LAST",
            "",
        ],
        &rows,
    )
}

fn one(queue: &Value) -> String {
    let mut out = list(&json!({ "queues": [queue] }));
    for group in queue["groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or_default();
        let _ = writeln!(out, "group {name}: {} items to commit", group["remaining"]);
    }
    let rows: Vec<Vec<String>> = queue["consumers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|consumer| {
            let text = |field: &str| consumer[field].as_str().unwrap_or_default().to_owned();
            let number = |field: &str| consumer[field].as_u64().unwrap_or(0).to_string();
            vec![
                text("group"),
                text("name"),
                match consumer["connected"].as_bool() {
                    Some(true) => "connected".to_owned(),
                    _ => format!("left {}", text("left_at")),
                },
                format!("{}/{}", number("pending"), number("window")),
                number("last_index"),
            ]
        })
        .collect();
    if !rows.is_empty() {
        out.push_str(&ui::table(
            &["GROUP", "CONSUMER", "STATE", "HOLDS", "LAST"],
            &rows,
        ));
    }
    out
}

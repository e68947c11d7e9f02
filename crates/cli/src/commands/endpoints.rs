//! `darkroom endpoints [show|pause|resume|clear NAME]`

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::instances::{resources, start_up};
use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
    ui,
};

mod connect;

/// Options of `endpoints`.
#[derive(Debug, Args)]
pub struct EndpointsArgs {
    #[command(subcommand)]
    command: Option<EndpointsCommand>,
}

#[derive(Debug, Subcommand)]
enum EndpointsCommand {
    /// All endpoints
    List,
    /// One endpoint and why its instances were started and stopped
    Show {
        /// Its name
        name: String,
        /// How many decisions
        #[arg(long, default_value_t = 10, value_name = "N")]
        decisions: u32,
        /// Only how to call it: for every protocol its address, the key, and lines to paste
        #[arg(long)]
        connect: bool,
    },
    /// Start none of its waiting jobs until it is resumed; what runs goes on
    Pause {
        /// Its name
        name: String,
    },
    /// Start its waiting jobs again
    Resume {
        /// Its name
        name: String,
    },
    /// Cancel all jobs that wait there; what runs goes on
    Clear {
        /// Its name
        name: String,
        /// Everybody's jobs, not only those of the key's tenant
        #[arg(long)]
        all_tenants: bool,
    },
}

/// Prints all endpoints, or one.
pub async fn endpoints(args: EndpointsArgs, global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    match args.command {
        None | Some(EndpointsCommand::List) => {
            let answer = client.get("endpoints").await?;
            global.ui().show(&answer, list);
        }
        Some(EndpointsCommand::Show {
            name, connect: true, ..
        }) => {
            let answer = client
                .get(&format!("endpoints/{}/connect", segment(&name)))
                .await?;
            global.ui().show(&answer, connect::human);
        }
        Some(EndpointsCommand::Pause { name }) => {
            let path = format!("endpoints/{}/pause", segment(&name));
            let answer = client.post(&path, None).await?;
            global
                .ui()
                .show(&answer, |answer| match answer["changed"].as_bool() {
                    Some(false) => format!("{name} was paused before"),
                    _ => format!("{name} is paused: what waits there waits on, what runs goes on"),
                });
        }
        Some(EndpointsCommand::Resume { name }) => {
            let path = format!("endpoints/{}/resume", segment(&name));
            let answer = client.post(&path, None).await?;
            global
                .ui()
                .show(&answer, |answer| match answer["changed"].as_bool() {
                    Some(false) => format!("{name} was not paused"),
                    _ => format!("{name} serves its jobs again"),
                });
        }
        Some(EndpointsCommand::Clear { name, all_tenants }) => {
            let path = format!("endpoints/{}/clear?all_tenants={all_tenants}", segment(&name));
            let answer = client.post(&path, None).await?;
            global.ui().show(&answer, |answer| {
                format!("{} waiting jobs cancelled", answer["cancelled"])
            });
        }
        Some(EndpointsCommand::Show { name, decisions, .. }) => {
            let path = format!("endpoints/{}", segment(&name));
            let endpoint = client.get(&path).await?;
            let decisions = client.get(&format!("{path}/decisions?limit={decisions}")).await?;
            let both = json!({"endpoint": endpoint, "decisions": decisions["decisions"]});
            global.ui().show(&both, one);
        }
    }
    Ok(Exit::Ok)
}

fn list(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|endpoint| {
            let text = |field: &str| endpoint[field].as_str().unwrap_or_default().to_owned();
            let number = |field: &str| endpoint[field].as_u64().unwrap_or(0).to_string();
            vec![
                text("name"),
                text("kind"),
                text("backend"),
                number("queued"),
                number("running"),
                endpoint["instances"].as_array().map_or(0, Vec::len).to_string(),
                if endpoint["paused"].as_bool() == Some(true) {
                    "paused".to_owned()
                } else {
                    String::new()
                },
            ]
        })
        .collect();
    ui::table(
        &[
            "ENDPOINT",
            "KIND",
            "BACKEND",
            "QUEUED",
            "RUNNING",
            "INSTANCES",
            "",
        ],
        &rows,
    )
}

fn one(both: &Value) -> String {
    let mut out = list(&json!({"endpoints": [both["endpoint"]]}));
    if let Some(scaling) = both["endpoint"]["scaling"].as_object() {
        for (name, value) in scaling {
            let _ = writeln!(out, "{name}: {value}");
        }
    }
    let trouble = &both["endpoint"]["start_failures"];
    if let Some(in_a_row) = trouble["in_a_row"].as_u64() {
        let text = |field: &str| trouble[field].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "starts failed: {in_a_row} in a row, tried again {}{}",
            text("next_try_at"),
            prefixed("; the last: ", text("last_error"))
        );
    }
    for instance in both["endpoint"]["instances"].as_array().into_iter().flatten() {
        let text = |field: &str| instance[field].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "instance {}: {}{}{}",
            text("id"),
            text("state"),
            prefixed(", ", &start_up(instance)),
            prefixed(", ", &resources(instance))
        );
    }
    for decision in both["decisions"].as_array().into_iter().flatten() {
        let at = decision["at"].as_str().unwrap_or("");
        let message = decision["message"].as_str().unwrap_or("");
        let _ = writeln!(out, "{at}  {message}");
    }
    out
}

fn prefixed(prefix: &str, text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("{prefix}{text}"),
    }
}

//! `darkroom endpoints [show NAME]`

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
    ui,
};

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
        Some(EndpointsCommand::Show { name, decisions }) => {
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
    for decision in both["decisions"].as_array().into_iter().flatten() {
        let at = decision["at"].as_str().unwrap_or("");
        let message = decision["message"].as_str().unwrap_or("");
        let _ = writeln!(out, "{at}  {message}");
    }
    out
}

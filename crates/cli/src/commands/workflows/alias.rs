//! `darkroom workflows alias ID [ALIAS VERSION]` and `darkroom workflows rollback ID [ALIAS]`

use clap::Args;
use serde_json::{Value, json};

use super::list::{aliases, pages};
use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
    ui,
};

/// Options of `workflows alias`.
#[derive(Debug, Args)]
pub struct AliasArgs {
    /// The workflow's id
    workflow: String,
    /// The alias; without one: where all of them point and pointed
    #[arg(requires = "to")]
    alias: Option<String>,
    /// The version that it is to point at (`v2`)
    #[arg(value_name = "VERSION")]
    to: Option<String>,
}

/// Moves an alias, or prints the history.
pub async fn alias(args: AliasArgs, global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    let path = format!("workflows/{}/aliases", segment(&args.workflow));
    match (&args.alias, &args.to) {
        (Some(alias), Some(version)) => {
            let body = json!({"version": version});
            let answer = client.put(&format!("{path}/{}", segment(alias)), &body).await?;
            global.ui().show_line(&answer, &moved(&answer));
        }
        _ => {
            let answer = pages(&client, &path, "moves").await?;
            global.ui().show(&answer, history);
        }
    }
    Ok(Exit::Ok)
}

/// Options of `workflows rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The workflow's id
    workflow: String,
    /// The alias
    #[arg(default_value = "main")]
    alias: String,
}

/// Moves an alias back.
pub async fn rollback(args: RollbackArgs, global: &Global) -> Result<Exit, Failure> {
    let path = format!(
        "workflows/{}/aliases/{}/rollback",
        segment(&args.workflow),
        segment(&args.alias)
    );
    let answer = global.client()?.post(&path, None).await?;
    global.ui().show_line(&answer, &moved(&answer));
    Ok(Exit::Ok)
}

fn moved(answer: &Value) -> String {
    let text = |field: &str| answer[field].as_str().unwrap_or("nothing").to_owned();
    format!(
        "{} points at {} (before: {})",
        text("alias"),
        text("version"),
        text("from")
    )
}

fn history(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["moves"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap_or("-").to_owned();
            let how = if one["rollback"] == true { "rollback" } else { "" };
            vec![
                text("at"),
                text("alias"),
                text("from"),
                text("to"),
                text("by"),
                how.to_owned(),
            ]
        })
        .collect();
    format!(
        "{}\n{}",
        aliases(answer),
        ui::table(&["AT", "ALIAS", "FROM", "TO", "BY", ""], &rows)
    )
}

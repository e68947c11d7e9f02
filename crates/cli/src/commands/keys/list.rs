//! `darkroom keys list`

use clap::Args;
use serde_json::Value;

use super::{Place, Where};
use crate::{
    args::Global,
    exit::{Exit, Failure},
    ui,
};

/// Options of `keys list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    place: Place,
}

/// Prints all keys, never a secret.
pub async fn list(args: ListArgs, global: &Global) -> Result<Exit, Failure> {
    let answer = match args.place.find(global).await? {
        Where::Server(client) => client.get("keys").await?,
        Where::Store(keys) => keys.list().await?,
    };
    global.ui().show(&answer, human);
    Ok(Exit::Ok)
}

fn human(answer: &Value) -> String {
    let words = |value: &Value| {
        let list = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        list.collect::<Vec<_>>().join(",")
    };
    let rows: Vec<Vec<String>> = answer["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| {
            let text = |field: &str| key[field].as_str().unwrap_or_default().to_owned();
            let state = if key["revoked_at"].is_null() {
                ""
            } else {
                "revoked"
            };
            vec![
                text("name"),
                format!("{}…", text("prefix")),
                words(&key["scopes"]),
                words(&key["endpoints"]),
                text("tenant"),
                text("created_at"),
                state.to_owned(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no keys".to_owned();
    }
    ui::table(
        &["NAME", "SECRET", "SCOPES", "ENDPOINTS", "TENANT", "CREATED", ""],
        &rows,
    )
}

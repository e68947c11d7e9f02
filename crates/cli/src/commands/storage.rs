//! `darkroom storage`

use clap::Args;
use serde_json::Value;

use crate::{
    args::Global,
    exit::{Exit, Failure},
    ui,
};

/// Options of `storage`.
#[derive(Debug, Args)]
pub struct StorageArgs {}

/// Prints what files take, by tenant, endpoint and age.
pub async fn storage(_: StorageArgs, global: &Global) -> Result<Exit, Failure> {
    let answer = global.client()?.get("storage").await?;
    global.ui().show(&answer, shown);
    Ok(Exit::Ok)
}

fn shown(answer: &Value) -> String {
    let bytes = |of: &Value| ui::size(of["bytes"].as_u64().unwrap_or(0));
    let text = |of: &Value| of.as_str().unwrap_or("-").to_owned();
    let mut rows: Vec<Vec<String>> = answer["usage"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            vec![
                text(&one["tenant"]),
                text(&one["endpoint"]),
                text(&one["age"]),
                one["files"].to_string(),
                bytes(one),
            ]
        })
        .collect();
    let all = answer["files"].to_string();
    rows.push(vec![
        "all".to_owned(),
        String::new(),
        String::new(),
        all,
        bytes(answer),
    ]);
    ui::table(&["TENANT", "ENDPOINT", "AGE", "FILES", "SIZE"], &rows)
}

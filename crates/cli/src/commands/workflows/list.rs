//! `darkroom workflows list`

use serde_json::Value;

use crate::{
    args::Global,
    client::{Client, segment},
    exit::{Exit, Failure},
    ui,
};

/// Prints all of them, page by page.
pub async fn list(global: &Global) -> Result<Exit, Failure> {
    let answer = pages(&global.client()?, "workflows", "workflows").await?;
    global.ui().show(&answer, human);
    Ok(Exit::Ok)
}

/// An answer whose list `of` comes in pages, as its first page with the whole list.
pub(super) async fn pages(client: &Client, path: &str, of: &str) -> Result<Value, Failure> {
    let mut whole = client.get(path).await?;
    let mut all = whole[of].as_array().cloned().unwrap_or_default();
    while let Some(next) = whole["next"].as_str() {
        let page = client.get(&format!("{path}?after={}", segment(next))).await?;
        all.extend(page[of].as_array().cloned().unwrap_or_default());
        whole["next"] = page["next"].clone();
    }
    whole[of] = all.into();
    Ok(whole)
}

fn human(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["workflows"]
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    if rows.is_empty() {
        return "nothing is published yet; `darkroom publish` does it".to_owned();
    }
    ui::table(&["WORKFLOW", "ENDPOINT", "LATEST", "ALIASES", ""], &rows)
}

fn row(workflow: &Value) -> Vec<String> {
    let text = |field: &str| workflow[field].as_str().unwrap_or("-").to_owned();
    vec![
        text("workflow_id"),
        text("endpoint"),
        text("latest"),
        aliases(workflow),
        match workflow["has_draft"].as_bool() {
            Some(true) => "draft".to_owned(),
            _ => String::new(),
        },
    ]
}

/// `main=v2 beta=v3`.
pub(super) fn aliases(workflow: &Value) -> String {
    let all = workflow["aliases"].as_object().into_iter().flatten();
    let all: Vec<String> = all
        .map(|(name, version)| format!("{name}={}", version.as_str().unwrap_or("?")))
        .collect();
    all.join(" ")
}

//! `darkroom workflows list`

use serde_json::{Value, json};

use crate::{
    args::Global,
    client::segment,
    exit::{Exit, Failure},
    ui,
};

/// Prints all of them, page by page.
pub async fn list(global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    let mut all = Vec::new();
    let mut after = None::<String>;
    loop {
        let query = after
            .as_deref()
            .map(|id| format!("?after={}", segment(id)))
            .unwrap_or_default();
        let page = client.get(&format!("workflows{query}")).await?;
        all.extend(page["workflows"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    global.ui().show(&json!({"workflows": all}), human);
    Ok(Exit::Ok)
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
